DROP TABLE schedule_ticks, audit_log, cost_ledgers, model_prices, workers, sends, unique_keys, idempotency_keys,
    attempts, job_endings, leases, pending, jobs, queue_pauses, lanes, wechat_accounts, login_failures, users,
    organizations;
DROP FUNCTION audit_log_is_append_only;
-- The extension stays: it may have been here before us.
