-- The contacts of one account, newest first, however many the other accounts of its organisation have.
CREATE INDEX CONCURRENTLY IF NOT EXISTS contacts_account_idx ON contacts (account_id, id);
