-- How many messages of a plan nobody knows the fate of: few, among millions of steps.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sop_steps_unknown_idx ON sop_steps (sop_id, version) WHERE state = 'unknown';
