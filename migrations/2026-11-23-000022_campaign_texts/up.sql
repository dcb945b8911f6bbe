SET LOCAL lock_timeout = '3s';

-- Of a step that a model writes: what the other side said after that moment, by the clock of campaigns, it has not read; and why
-- the plan's own text takes its place, if it does.
ALTER TABLE sop_steps
    ADD COLUMN written_at timestamptz,
    ADD COLUMN fallback_code text;

-- A run for a step of a campaign. `turn_id` is the enrollment then, and `conversation_id` is all zeros where nobody has
-- written yet.
ALTER TABLE ai_runs
    ADD COLUMN sop_id uuid,
    ADD COLUMN step_id text;

-- The campaign for which it was run.
ALTER TABLE cost_ledgers ADD COLUMN sop_id uuid;
