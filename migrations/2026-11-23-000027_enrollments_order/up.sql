-- Who is handed out first of those who are due at one moment, as when a window opens: whoever came to the step first. It serves
-- what sop_enrollments_due_idx serves, too.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sop_enrollments_order_idx ON sop_enrollments (due_at, reached_at, id) WHERE due_at IS NOT NULL;
