DROP INDEX CONCURRENTLY IF EXISTS sop_enrollments_order_idx;
