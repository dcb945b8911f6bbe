DROP INDEX CONCURRENTLY IF EXISTS sop_enrollments_ended_idx;
