-- Whose event is it: callbacks name a device, or a wxid, which has an index of its own.
CREATE INDEX CONCURRENTLY IF NOT EXISTS wechat_accounts_device_idx ON wechat_accounts (gewe_app_id)
    WHERE gewe_app_id IS NOT NULL AND deleted_at IS NULL;
