-- Tags of friends as labels in WeChat.

SET LOCAL lock_timeout = '3s';

ALTER TABLE contacts
    -- The tags that we have made labels of in WeChat. A label that is not among them was made on the phone, and stays.
    ADD COLUMN synced_tags text[] NOT NULL DEFAULT '{}';

-- The ids of labels in WeChat that we have made or met, by name.
CREATE TABLE wechat_labels (
    account_id uuid NOT NULL,
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    organization_id uuid NOT NULL,
    label_id text NOT NULL CHECK (char_length(label_id) BETWEEN 1 AND 200),
    PRIMARY KEY (account_id, name)
);
