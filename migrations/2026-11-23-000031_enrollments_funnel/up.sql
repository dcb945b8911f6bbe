-- The funnel is counted from this index alone, and people are found in it by how they stand. Most entries are alike and share
-- their key, so it is a fraction of the table.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sop_enrollments_funnel_idx ON sop_enrollments
    (sop_id, state, wait_code, reason, step_id, version, sent, replied_at, goal_at, organization_id);
