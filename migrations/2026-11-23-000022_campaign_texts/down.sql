ALTER TABLE cost_ledgers DROP COLUMN sop_id;
ALTER TABLE ai_runs DROP COLUMN step_id, DROP COLUMN sop_id;
ALTER TABLE sop_steps DROP COLUMN fallback_code, DROP COLUMN written_at;
