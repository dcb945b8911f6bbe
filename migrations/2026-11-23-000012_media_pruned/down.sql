ALTER TABLE ai_runs DROP COLUMN looked_up_at;

UPDATE messages SET media_state = 'gone' WHERE media_state = 'pruned';
ALTER TABLE messages DROP CONSTRAINT messages_media_state_check;
ALTER TABLE messages ADD CONSTRAINT messages_media_state_check
    CHECK (media_state IN ('waiting', 'stored', 'refused', 'gone'));
