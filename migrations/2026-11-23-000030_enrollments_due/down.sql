CREATE INDEX CONCURRENTLY IF NOT EXISTS sop_enrollments_due_idx ON sop_enrollments (due_at) WHERE due_at IS NOT NULL;
