DROP TABLE wechat_labels;

ALTER TABLE contacts DROP COLUMN synced_tags;
