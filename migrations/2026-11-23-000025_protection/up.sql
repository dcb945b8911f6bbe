-- What keeps accounts from harm: since when they are logged in, why they are held, whether their echoes come.

SET LOCAL lock_timeout = '3s';

ALTER TABLE wechat_accounts
    -- Since when it is logged out; null: it is logged in. After more than a day it is new again.
    ADD COLUMN offline_since timestamptz,
    -- When its latest risk hold began, by the true clock. What happened before does not count once that is lifted.
    ADD COLUMN risk_held_at timestamptz,
    -- When the provider last reported a message that we had sent ourselves, and in how many minutes it did since the last hold.
    ADD COLUMN echoed_at timestamptz,
    ADD COLUMN echoes integer NOT NULL DEFAULT 0,
    -- Tags of its contacts become labels in WeChat.
    ADD COLUMN label_sync boolean NOT NULL DEFAULT true;

ALTER TABLE organization_settings
    -- Words with which customers complain, beside the built-in ones.
    ADD COLUMN complaint_words text[] NOT NULL DEFAULT '{}';

-- allowed: data_change: a row per account, locked by the statement above anyhow; without it every account would count as new
UPDATE wechat_accounts SET warm_since = created_at WHERE warm_since IS NULL AND status <> 'NEW';
