DROP INDEX CONCURRENTLY IF EXISTS wechat_accounts_device_idx;
