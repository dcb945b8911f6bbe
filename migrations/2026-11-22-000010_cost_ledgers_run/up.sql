-- The lines of one run: corrections and reconciliation.
CREATE INDEX CONCURRENTLY IF NOT EXISTS cost_ledgers_run_idx ON cost_ledgers (run_id) WHERE run_id IS NOT NULL;
