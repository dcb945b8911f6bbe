DROP INDEX CONCURRENTLY IF EXISTS cost_ledgers_conversation_idx;
