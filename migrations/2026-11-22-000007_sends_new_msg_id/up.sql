-- Is a message that comes back from the phone one of our own?
CREATE INDEX CONCURRENTLY IF NOT EXISTS sends_new_msg_id_idx ON sends (account_id, new_msg_id) WHERE new_msg_id IS NOT NULL;
