-- The ledger of one conversation.
CREATE INDEX CONCURRENTLY IF NOT EXISTS cost_ledgers_conversation_idx ON cost_ledgers (conversation_id, id) WHERE conversation_id IS NOT NULL;
