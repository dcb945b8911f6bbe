-- The spine: tenants, accounts, jobs and what moves them, sends, costs, audit.
--
-- Two rules explain the shapes below (measurements: docs/ARCHITECTURE.md, "The record").
--
-- 1. What changes often lives in narrow rows. A job's own row is inserted once and updated once, at its end, and no
--    index covers a column that this update changes, so the update stays on its page (HOT). Where a live job stands
--    is told by the narrow table that holds it: `pending` (not running) or `leases` (handed out).
-- 2. Hot tables carry no foreign keys. A key check locks the referenced row, and every insert of a tenant would queue
--    on that tenant's one row. The writers are few and in one place each; a test checks the invariants instead.

CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE TABLE organizations (
    id uuid PRIMARY KEY,
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Owner of the platform's own jobs (maintenance). Nobody can log in to it.
INSERT INTO organizations (id, name) VALUES ('00000000-0000-0000-0000-000000000000', 'system');

CREATE TABLE users (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    username text NOT NULL CHECK (char_length(username) BETWEEN 3 AND 64),
    hashed_password text NOT NULL,
    role text NOT NULL CHECK (role IN ('admin', 'manager', 'agent', 'viewer')),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);
-- Global on purpose: people log in with a name and a password only.
CREATE UNIQUE INDEX users_username_key ON users (lower(username));
CREATE INDEX users_organization_idx ON users (organization_id, id);

-- One row per name or address that failed to log in lately; the window decides whether the next try is refused.
CREATE TABLE login_failures (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject text NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX login_failures_subject_idx ON login_failures (subject, failed_at);

CREATE TABLE wechat_accounts (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    user_id uuid NOT NULL REFERENCES users (id),
    wxid text,
    nickname text NOT NULL DEFAULT '',
    avatar text,
    -- The provider token, sealed; null: the token of this install.
    gewe_token_id text,
    -- Keyed hash of the token: accounts of one token share its hourly window.
    token_key text,
    gewe_app_id text,
    status text NOT NULL DEFAULT 'NEW'
        CHECK (status IN ('NEW', 'QR_PENDING', 'ONLINE', 'OFFLINE', 'EXPECT_RELOGIN', 'RISK_HOLD', 'DISABLED')),
    messages_per_minute integer NOT NULL CHECK (messages_per_minute > 0),
    min_gap_ms integer NOT NULL CHECK (min_gap_ms BETWEEN 0 AND 3600000),
    messages_per_day integer NOT NULL CHECK (messages_per_day > 0),
    recipients_per_minute integer NOT NULL CHECK (recipients_per_minute > 0),
    api_calls_per_hour integer NOT NULL CHECK (api_calls_per_hour > 0),
    last_seen_at timestamptz,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX wechat_accounts_wxid_key ON wechat_accounts (wxid) WHERE wxid IS NOT NULL AND deleted_at IS NULL;
CREATE UNIQUE INDEX wechat_accounts_app_key ON wechat_accounts (organization_id, gewe_app_id)
    WHERE gewe_app_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX wechat_accounts_organization_idx ON wechat_accounts (organization_id, id);
CREATE INDEX wechat_accounts_token_idx ON wechat_accounts (token_key);

-- A lane runs one job at a time. Its id is the id of what it serialises (an account, later a conversation or an
-- enrollment).
CREATE TABLE lanes (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    kind text NOT NULL CHECK (kind IN ('account', 'conversation', 'enrollment')),
    -- When the relay should look at this lane next; null while nothing waits in it or while it is busy.
    runnable_at timestamptz,
    -- Why `runnable_at` lies ahead (a limit's code); null when it does not.
    wait_code text,
    -- The job that holds the lane.
    busy_job_id uuid,
    paused_at timestamptz,
    paused_reason text,
    CHECK (busy_job_id IS NULL OR runnable_at IS NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000);
CREATE INDEX lanes_runnable_idx ON lanes (runnable_at) WHERE runnable_at IS NOT NULL AND paused_at IS NULL;
CREATE INDEX lanes_organization_idx ON lanes (organization_id, id);

-- A queue that one organisation has paused for itself.
CREATE TABLE queue_pauses (
    organization_id uuid NOT NULL REFERENCES organizations (id),
    queue text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, queue)
);

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    kind text NOT NULL,
    queue text NOT NULL,
    -- 0 interactive (a person waits), 1 reply, 2 campaign.
    class smallint NOT NULL CHECK (class BETWEEN 0 AND 2),
    lane_id uuid,
    -- Jobs of one lane, class and order key run in the order in which they became available.
    order_key text,
    account_id uuid,
    args jsonb NOT NULL,
    args_version smallint NOT NULL,
    max_attempts smallint NOT NULL CHECK (max_attempts > 0),
    scheduled_at timestamptz,
    expires_at timestamptz,
    unique_key text,
    trace_id text NOT NULL,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Written once, at the end.
    final_state text CHECK (final_state IN ('completed', 'cancelled', 'dead')),
    attempt smallint NOT NULL DEFAULT 0,
    result jsonb,
    error jsonb,
    started_at timestamptz,
    finalized_at timestamptz,
    CHECK ((final_state IS NULL) = (finalized_at IS NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
CREATE INDEX jobs_organization_idx ON jobs (organization_id, id);
CREATE INDEX jobs_kind_idx ON jobs (organization_id, kind, id);
CREATE INDEX jobs_lane_idx ON jobs (lane_id, id) WHERE lane_id IS NOT NULL;
CREATE INDEX jobs_account_idx ON jobs (account_id, id) WHERE account_id IS NOT NULL;

-- Jobs that are not running: scheduled, available or waiting for a retry.
CREATE TABLE pending (
    job_id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    queue text NOT NULL,
    lane_id uuid,
    order_key text,
    class smallint NOT NULL,
    -- Order within a class: given when the job became available, kept over retries.
    seq bigint GENERATED BY DEFAULT AS IDENTITY,
    -- Attempts spent so far.
    attempt smallint NOT NULL DEFAULT 0,
    -- Process deaths under this job.
    crashes smallint NOT NULL DEFAULT 0,
    -- Null: may run now, as far as the job itself is concerned.
    due_at timestamptz,
    -- Why `due_at` is set: 'scheduled', 'retry', or the code of a snooze.
    wait_code text,
    wait_note text,
    expires_at timestamptz,
    CHECK ((due_at IS NULL) = (wait_code IS NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX pending_queue_idx ON pending (queue, organization_id, class, seq) WHERE lane_id IS NULL AND due_at IS NULL;
CREATE INDEX pending_lane_idx ON pending (lane_id, class, seq) WHERE lane_id IS NOT NULL AND due_at IS NULL;
CREATE INDEX pending_due_idx ON pending (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX pending_block_idx ON pending (lane_id, order_key, class, seq)
    WHERE lane_id IS NOT NULL AND due_at IS NOT NULL AND wait_code <> 'scheduled';
CREATE INDEX pending_expiry_idx ON pending (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX pending_organization_idx ON pending (organization_id, job_id);

-- Jobs that were handed out: on their way through Redis (no worker yet) or running.
CREATE TABLE leases (
    job_id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    queue text NOT NULL,
    lane_id uuid,
    order_key text,
    class smallint NOT NULL,
    seq bigint NOT NULL,
    -- The attempt that this lease is for; with the worker it fences every write of the attempt.
    attempt smallint NOT NULL,
    crashes smallint NOT NULL,
    expires_at timestamptz,
    dispatched_at timestamptz NOT NULL,
    deliveries smallint NOT NULL DEFAULT 1,
    worker_id uuid,
    claimed_at timestamptz,
    -- Unclaimed: when to look whether the delivery was lost. Claimed: when the worker counts as dead.
    lease_until timestamptz NOT NULL,
    cancel_requested_at timestamptz
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX leases_until_idx ON leases (lease_until);
CREATE INDEX leases_organization_idx ON leases (organization_id, job_id);

-- Endings that people look for. Completed jobs are the mass and are not here.
CREATE TABLE job_endings (
    job_id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('cancelled', 'dead'))
);
CREATE INDEX job_endings_state_idx ON job_endings (organization_id, state, job_id);

CREATE TABLE attempts (
    job_id uuid NOT NULL,
    attempt smallint NOT NULL,
    worker_id uuid NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('completed', 'retry', 'dead', 'cancelled', 'lost')),
    error jsonb,
    PRIMARY KEY (job_id, attempt)
) WITH (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);

-- The caller's token: the same key is the same job.
CREATE TABLE idempotency_keys (
    organization_id uuid NOT NULL,
    key text NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    request_hash bytea NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, key)
);
CREATE INDEX idempotency_keys_created_idx ON idempotency_keys (created_at);

-- One live job at a time per key; the row goes when the job ends.
CREATE TABLE unique_keys (
    organization_id uuid NOT NULL,
    key text NOT NULL,
    job_id uuid NOT NULL,
    PRIMARY KEY (organization_id, key)
);

-- Outbound sends: one row per call that may have left this machine. It is also the limiter.
CREATE TABLE sends (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    account_id uuid NOT NULL,
    token_key text NOT NULL,
    job_id uuid NOT NULL,
    attempt smallint NOT NULL,
    to_wxid text NOT NULL,
    message_kind text NOT NULL,
    state text NOT NULL CHECK (state IN ('sending', 'sent', 'failed', 'unknown')),
    -- False when it is certain that nothing left the machine: such a call uses up no limit.
    counts boolean NOT NULL DEFAULT true,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    -- The latest moment at which the provider can have received it. Limits count this, not the start, so that they
    -- also hold as the provider sees them. While the call is under way it lies ahead.
    window_at timestamptz NOT NULL,
    msg_id text,
    new_msg_id text,
    create_time bigint,
    error_class text,
    error_code text,
    error_message text,
    resolved_as text CHECK (resolved_as IN ('sent', 'failed', 'resend', 'drop')),
    resolved_by uuid,
    resolved_at timestamptz
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000);
CREATE INDEX sends_job_idx ON sends (job_id, id);
-- One call at a time per job.
CREATE UNIQUE INDEX sends_sending_key ON sends (job_id) WHERE state = 'sending';
CREATE INDEX sends_account_window_idx ON sends (account_id, window_at) WHERE counts;
CREATE INDEX sends_token_window_idx ON sends (token_key, window_at) WHERE counts;
CREATE INDEX sends_organization_idx ON sends (organization_id, id);
CREATE INDEX sends_account_idx ON sends (account_id, id);
CREATE INDEX sends_unknown_idx ON sends (organization_id, id) WHERE state = 'unknown' AND resolved_at IS NULL;

CREATE TABLE workers (
    id uuid PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    slots integer NOT NULL,
    running integer NOT NULL DEFAULT 0,
    state text NOT NULL CHECK (state IN ('running', 'draining', 'stopped')),
    -- The process's own counters in Prometheus' text form; the API sums them over all workers.
    metrics text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE model_prices (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    model_name text NOT NULL CHECK (char_length(model_name) BETWEEN 1 AND 200),
    input_price_per_1k numeric(20, 10) NOT NULL CHECK (input_price_per_1k >= 0),
    output_price_per_1k numeric(20, 10) NOT NULL CHECK (output_price_per_1k >= 0),
    currency text NOT NULL DEFAULT 'CNY' CHECK (currency = 'CNY'),
    valid_from timestamptz NOT NULL,
    valid_to timestamptz CHECK (valid_to > valid_from),
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- One price at any moment.
    EXCLUDE USING gist (organization_id WITH =, model_name WITH =, tstzrange(valid_from, valid_to) WITH &&)
);

CREATE TABLE cost_ledgers (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    request_id text NOT NULL CHECK (char_length(request_id) BETWEEN 1 AND 255),
    user_id uuid,
    wechat_account_id uuid,
    job_id uuid NOT NULL,
    model_name text NOT NULL,
    input_tokens bigint NOT NULL CHECK (input_tokens >= 0),
    output_tokens bigint NOT NULL CHECK (output_tokens >= 0),
    priced boolean NOT NULL,
    price_id uuid REFERENCES model_prices (id),
    -- The unit prices that were valid then, in yuan per 1000 tokens.
    input_price_per_1k numeric(20, 10),
    output_price_per_1k numeric(20, 10),
    calculated_cost numeric(20, 10),
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK (priced = (calculated_cost IS NOT NULL))
);
CREATE UNIQUE INDEX cost_ledgers_request_key ON cost_ledgers (organization_id, request_id);
CREATE INDEX cost_ledgers_organization_idx ON cost_ledgers (organization_id, id);

-- Append only: who did what, to which thing, from where.
CREATE TABLE audit_log (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    user_id uuid,
    action text NOT NULL,
    target_kind text NOT NULL,
    target_id text,
    before jsonb,
    after jsonb,
    address text,
    trace_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_log_organization_idx ON audit_log (organization_id, id);
CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append only';
END $$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_log_is_append_only();

-- The last tick that each schedule has enqueued.
CREATE TABLE schedule_ticks (
    name text PRIMARY KEY,
    last_tick_at timestamptz NOT NULL
);
