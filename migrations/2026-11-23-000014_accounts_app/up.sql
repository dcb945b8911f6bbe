-- Whose event is this? Asked for every one that comes in, of all organisations at once.
CREATE INDEX CONCURRENTLY IF NOT EXISTS wechat_accounts_app_idx ON wechat_accounts (gewe_app_id)
    WHERE gewe_app_id IS NOT NULL AND deleted_at IS NULL;
