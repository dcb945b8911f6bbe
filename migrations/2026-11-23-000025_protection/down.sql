ALTER TABLE organization_settings DROP COLUMN complaint_words;

ALTER TABLE wechat_accounts
    DROP COLUMN label_sync,
    DROP COLUMN echoes,
    DROP COLUMN echoed_at,
    DROP COLUMN risk_held_at,
    DROP COLUMN offline_since;
