DROP INDEX CONCURRENTLY IF EXISTS wechat_accounts_app_idx;
