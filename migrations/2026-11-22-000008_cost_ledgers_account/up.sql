-- The ledger of one account.
CREATE INDEX CONCURRENTLY IF NOT EXISTS cost_ledgers_account_idx ON cost_ledgers (wechat_account_id, id) WHERE wechat_account_id IS NOT NULL;
