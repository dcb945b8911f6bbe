-- Steps whose job is to send their message, or to have it written: never more than lanes hold. Those of them are found whose job
-- has ended without a word.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sop_steps_job_idx ON sop_steps (job_id) WHERE state = 'due' AND job_id IS NOT NULL;
