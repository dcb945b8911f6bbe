-- sop_enrollments_order_idx begins with the same column, under the same condition.
DROP INDEX CONCURRENTLY IF EXISTS sop_enrollments_due_idx;
