DROP INDEX CONCURRENTLY IF EXISTS sop_enrollments_funnel_idx;
