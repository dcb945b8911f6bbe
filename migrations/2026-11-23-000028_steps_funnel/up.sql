-- What became of a plan's steps is counted from this index alone. It takes the place of `sop_steps_sop_idx`; a change of the
-- state wrote into that one as well, so steps cost what they did.
CREATE INDEX CONCURRENTLY IF NOT EXISTS sop_steps_funnel_idx ON sop_steps (sop_id, version, step_id, state, reason, organization_id);
