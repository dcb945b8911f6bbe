-- The times at which plans took people in: who was meant was written down at that moment, and is brought in page by page.
--
-- `sop_run_contacts` holds who is still to be looked at, and nobody else: a row goes in the transaction that brings its contact
-- in, so it is the position of the run as well, and an ended run has none. It sees traffic and carries no foreign keys.

SET LOCAL lock_timeout = '3s';

CREATE TABLE sop_runs (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    sop_id uuid NOT NULL REFERENCES sop_tasks (id),
    -- That was in force when it began.
    version integer NOT NULL,
    source text NOT NULL CHECK (source IN ('manual', 'once', 'cron')),
    -- The moment for which it is, by the clock of campaigns.
    fire_at timestamptz NOT NULL,
    -- waiting: whom it concerns is not written down yet. enrolling: they are brought in. missed: nobody was there at its time,
    -- and the plan lets such times go. refused: it concerned more people than the plan allows.
    state text NOT NULL CHECK (state IN ('waiting', 'enrolling', 'finished', 'stopped', 'missed', 'refused')),
    -- Whom it concerned, when that was written down.
    audience integer,
    frozen_at timestamptz,
    enrolled integer NOT NULL DEFAULT 0,
    -- Those who were not brought in, by the reason.
    refused jsonb NOT NULL DEFAULT '{}',
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
-- Every time fires once.
CREATE UNIQUE INDEX sop_runs_fire_key ON sop_runs (sop_id, fire_at);
CREATE INDEX sop_runs_sop_idx ON sop_runs (sop_id, id);

CREATE TABLE sop_run_contacts (
    run_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    PRIMARY KEY (run_id, contact_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0,
        autovacuum_analyze_threshold = 50000);
