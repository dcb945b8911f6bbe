DROP INDEX CONCURRENTLY IF EXISTS cost_ledgers_occurred_idx;
