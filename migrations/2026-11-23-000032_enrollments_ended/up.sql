-- Lists of those whose way is over, by how it ended: they are the oldest, behind everybody who is on their way. Written once for
-- each of them, at their end.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sop_enrollments_ended_idx ON sop_enrollments (sop_id, state, id) WHERE finished_at IS NOT NULL;
