-- What was spent in a time, long ago too: reports and the beginning of a budget.
CREATE INDEX CONCURRENTLY IF NOT EXISTS cost_ledgers_occurred_idx ON cost_ledgers (organization_id, coalesce(occurred_at, created_at));
