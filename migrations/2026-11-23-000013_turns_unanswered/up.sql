-- The turns that are not answered yet: of one chat, and all of them where nobody may have come to answer.
CREATE INDEX CONCURRENTLY IF NOT EXISTS turns_unanswered_idx ON turns (conversation_id)
    WHERE state IN ('open', 'replying', 'review', 'answering');
