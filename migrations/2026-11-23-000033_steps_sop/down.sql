CREATE INDEX CONCURRENTLY IF NOT EXISTS sop_steps_sop_idx ON sop_steps (sop_id, version, step_id);
