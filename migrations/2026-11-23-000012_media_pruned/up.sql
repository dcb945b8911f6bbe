SET LOCAL lock_timeout = '3s';

-- pruned: it was kept for its time, and then deleted. Not validated: the check that this one takes the place of held for
-- every row, and was narrower.
ALTER TABLE messages DROP CONSTRAINT messages_media_state_check;
ALTER TABLE messages ADD CONSTRAINT messages_media_state_check
    CHECK (media_state IN ('waiting', 'stored', 'refused', 'gone', 'pruned')) NOT VALID;

-- When the provider's records were last asked for a run that had been given up.
ALTER TABLE ai_runs ADD COLUMN looked_up_at timestamptz;
