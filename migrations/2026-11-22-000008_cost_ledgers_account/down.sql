DROP INDEX CONCURRENTLY IF EXISTS cost_ledgers_account_idx;
