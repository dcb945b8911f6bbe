-- Campaigns: plans that write to many people, step by step, and stop when somebody answers.
--
-- A person's way through a plan is one row, `sop_enrollments`; while nothing is due it is only that row, with no job and
-- nothing in Redis. What was said or done at a step, or why not, is one row of `sop_steps`.
--
-- Tables that see traffic (enrollments, steps) carry no foreign keys, as the hot tables of the spine do not.

SET LOCAL lock_timeout = '3s';

-- ------------------------------------------------------------------------------------------------------------------
-- Plans
-- ------------------------------------------------------------------------------------------------------------------

-- A plan, as people edit it. What runs is a version.
CREATE TABLE sop_tasks (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    user_id uuid NOT NULL,
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    description text NOT NULL DEFAULT '' CHECK (char_length(description) <= 2000),
    target_type text NOT NULL CHECK (target_type IN ('friend', 'group', 'tag')),
    -- Ids of contacts, or words of tags.
    target_ids text[] NOT NULL DEFAULT '{}',
    -- Empty: every account of the organisation.
    account_ids uuid[] NOT NULL DEFAULT '{}',
    -- Said in so many words, by a manager: the plan has no targets and no filter, and is meant for everybody.
    everyone boolean NOT NULL DEFAULT false,
    -- The draft.
    workflow_config jsonb NOT NULL,
    status text NOT NULL DEFAULT 'DRAFT'
        CHECK (status IN ('DRAFT', 'IN_REVIEW', 'APPROVED', 'RUNNING', 'PAUSED', 'STOPPED', 'ARCHIVED')),
    -- Why it is paused, when a person did not do it.
    status_reason text,
    -- The version that new people are enrolled in; null: none was approved.
    version integer,
    -- Of the trigger: the last time at which it fired.
    triggered_at timestamptz,
    -- Of the triggers `once` and `cron`: when it fires next. Null: it does not.
    next_trigger_at timestamptz,
    started_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sop_tasks_organization_idx ON sop_tasks (organization_id, id);
CREATE INDEX sop_tasks_trigger_idx ON sop_tasks (next_trigger_at) WHERE next_trigger_at IS NOT NULL AND status = 'RUNNING';
-- Events look for the plans that they may begin.
CREATE INDEX sop_tasks_running_idx ON sop_tasks (organization_id) WHERE status = 'RUNNING';

-- What was submitted, and approved by a person, and cannot change after that.
CREATE TABLE sop_versions (
    sop_id uuid NOT NULL REFERENCES sop_tasks (id),
    version integer NOT NULL CHECK (version > 0),
    organization_id uuid NOT NULL REFERENCES organizations (id),
    config jsonb NOT NULL,
    -- Of the config's canonical text: what was approved is what runs.
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    -- The revision of every material that the steps name, by key.
    materials jsonb NOT NULL DEFAULT '{}',
    state text NOT NULL CHECK (state IN ('in_review', 'approved', 'retired')),
    created_by uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    approved_by uuid,
    approved_at timestamptz,
    PRIMARY KEY (sop_id, version)
);

-- One person or group on its way through one version of a plan.
CREATE TABLE sop_enrollments (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    sop_id uuid NOT NULL,
    version integer NOT NULL,
    account_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    -- pending: the first step is not due yet. active: a step is due or under way. waiting: for a time, an answer, a person's
    -- look at a text, or the end of a send.
    state text NOT NULL CHECK (state IN ('pending', 'active', 'waiting', 'paused', 'completed', 'exited', 'failed')),
    -- Of a state that a rule or a person brought about.
    reason text,
    -- The words of the `end` step or of the stop rule.
    outcome text,
    -- The step at which it stands; null: at its end.
    step_id text,
    -- When that step was reached.
    reached_at timestamptz NOT NULL,
    -- When somebody must look at it next; null: nobody, an event moves it on.
    due_at timestamptz,
    -- When the step was first due by the plan: lateness counts from here. A window or a cap that moves it sets it anew.
    planned_at timestamptz,
    -- Why `due_at` lies ahead.
    wait_code text,
    -- The local day on which the first step was due.
    start_day date,
    -- The time at which the plan ends for this person, whatever happens.
    deadline_at timestamptz,
    sent integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    replied_at timestamptz,
    goal_at timestamptz,
    -- The arm of each split.
    arms jsonb NOT NULL DEFAULT '{}',
    -- Tags that the plan itself has set: they stop nothing.
    own_tags text[] NOT NULL DEFAULT '{}',
    -- What brought the person in: manual, once, cron, friend_added, tag_added, group_joined, keyword_received.
    source text NOT NULL,
    -- The state to come back to from `paused`.
    paused_from text,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
-- Nobody is in one plan twice at a time.
CREATE UNIQUE INDEX sop_enrollments_live_key ON sop_enrollments (sop_id, contact_id) WHERE finished_at IS NULL;
-- Events look for whom they concern.
CREATE INDEX sop_enrollments_contact_idx ON sop_enrollments (contact_id) WHERE finished_at IS NULL;
CREATE INDEX sop_enrollments_due_idx ON sop_enrollments (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX sop_enrollments_sop_idx ON sop_enrollments (sop_id, id);
-- Re-entry: how often, and when last.
CREATE INDEX sop_enrollments_again_idx ON sop_enrollments (sop_id, contact_id, created_at);

-- What was done at a step of an enrollment, or why it was not.
CREATE TABLE sop_steps (
    enrollment_id uuid NOT NULL,
    step_id text NOT NULL,
    organization_id uuid NOT NULL,
    sop_id uuid NOT NULL,
    version integer NOT NULL,
    account_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    kind text NOT NULL,
    state text NOT NULL CHECK (state IN ('planned', 'due', 'deferred', 'held_for_review', 'sending', 'sent', 'unknown',
        'skipped', 'failed', 'done', 'canceled')),
    reason text,
    planned_at timestamptz NOT NULL,
    next_try_at timestamptz,
    -- The job that sends, and the text that it sends, as it was rendered.
    job_id uuid,
    text text,
    -- The run of the model that wrote it.
    run_id uuid,
    -- When the text waits for a person: until when.
    review_until timestamptz,
    decided_by uuid,
    -- The gate let it pass; caps count this.
    sent_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (enrollment_id, step_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
-- Caps: what campaigns have sent to a contact, and from an account.
CREATE INDEX sop_steps_contact_sent_idx ON sop_steps (contact_id, sent_at) WHERE sent_at IS NOT NULL;
CREATE INDEX sop_steps_account_sent_idx ON sop_steps (account_id, sent_at) WHERE sent_at IS NOT NULL;
CREATE INDEX sop_steps_sop_idx ON sop_steps (sop_id, version, step_id);
CREATE INDEX sop_steps_review_idx ON sop_steps (organization_id, enrollment_id) WHERE state = 'held_for_review';
-- What waits in an account's lane counts against its caps before it is sent.
CREATE INDEX sop_steps_due_idx ON sop_steps (account_id) WHERE state = 'due';

-- The clock of campaigns. Limits and leases keep the true one; so that a test can let a month of campaign pass, it puts
-- another function in the place of this one, in its own database.
CREATE FUNCTION campaign_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()';

-- ------------------------------------------------------------------------------------------------------------------
-- Whom one may write to
-- ------------------------------------------------------------------------------------------------------------------

-- What a contact has agreed to, and on what ground we believe it.
CREATE TABLE consents (
    contact_id uuid NOT NULL,
    purpose text NOT NULL CHECK (char_length(purpose) BETWEEN 1 AND 40),
    organization_id uuid NOT NULL,
    basis text NOT NULL CHECK (char_length(basis) BETWEEN 1 AND 500),
    given_at timestamptz NOT NULL,
    withdrawn_at timestamptz,
    recorded_by uuid,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (contact_id, purpose)
);
CREATE INDEX consents_organization_idx ON consents (organization_id, contact_id);

-- Emergency stops. Whoever is about to send looks here under the gate's locks.
CREATE TABLE stops (
    organization_id uuid NOT NULL REFERENCES organizations (id),
    scope text NOT NULL CHECK (scope IN ('organization', 'account', 'sop', 'ai')),
    -- The organisation's own id for the scopes `organization` and `ai`.
    scope_id uuid NOT NULL,
    reason text NOT NULL CHECK (char_length(reason) BETWEEN 1 AND 500),
    stopped_by uuid,
    stopped_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, scope, scope_id)
);

-- ------------------------------------------------------------------------------------------------------------------
-- What is sent
-- ------------------------------------------------------------------------------------------------------------------

CREATE TABLE materials (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    -- The name that plans use: `material_id` of a step.
    key text NOT NULL CHECK (key ~ '^[a-z][a-z0-9_]{0,63}$'),
    kind text NOT NULL CHECK (kind IN ('image', 'file', 'link', 'mini_program')),
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    -- The newest revision, and the newest approved one.
    revision integer NOT NULL DEFAULT 0,
    approved_revision integer,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX materials_key ON materials (organization_id, key) WHERE deleted_at IS NULL;

CREATE TABLE material_revisions (
    material_id uuid NOT NULL REFERENCES materials (id),
    revision integer NOT NULL CHECK (revision > 0),
    organization_id uuid NOT NULL REFERENCES organizations (id),
    -- The fields of its kind, in the form of a message.
    content jsonb NOT NULL,
    -- Of an uploaded image or file: where it is kept, what it is.
    path text,
    media_type text,
    bytes bigint,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    approved_by uuid,
    approved_at timestamptz,
    -- The last look whether its link still answers.
    checked_at timestamptz,
    check_error text,
    PRIMARY KEY (material_id, revision)
);

-- ------------------------------------------------------------------------------------------------------------------
-- When one may write
-- ------------------------------------------------------------------------------------------------------------------

-- Holidays and make-up workdays, as an organisation has corrected them; without a row those that the program brings along.
CREATE TABLE calendars (
    organization_id uuid NOT NULL REFERENCES organizations (id),
    country text NOT NULL CHECK (country = 'cn'),
    year integer NOT NULL CHECK (year BETWEEN 2000 AND 2200),
    holidays date[] NOT NULL,
    workdays date[] NOT NULL,
    updated_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, country, year)
);

ALTER TABLE organization_settings
    -- No campaign writes outside of these hours of the contact's day; a plan may only be stricter. `HH:MM`.
    ADD COLUMN campaign_from text NOT NULL DEFAULT '09:00',
    ADD COLUMN campaign_until text NOT NULL DEFAULT '21:00',
    -- Over all campaigns.
    ADD COLUMN contact_per_day integer NOT NULL DEFAULT 2,
    ADD COLUMN contact_per_week integer NOT NULL DEFAULT 5,
    ADD COLUMN account_per_day integer NOT NULL DEFAULT 150,
    ADD COLUMN new_contacts_per_day integer NOT NULL DEFAULT 30,
    ADD COLUMN max_unanswered integer NOT NULL DEFAULT 3,
    -- Every plan needs a manager's approval, whatever it says itself.
    ADD COLUMN approval_required boolean NOT NULL DEFAULT true,
    -- Its name in texts.
    ADD COLUMN campaign_name text NOT NULL DEFAULT '';

ALTER TABLE organization_settings
    ADD CONSTRAINT organization_settings_campaign_from_known CHECK (campaign_from ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$') NOT VALID,
    ADD CONSTRAINT organization_settings_campaign_until_known CHECK (campaign_until ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$') NOT VALID,
    ADD CONSTRAINT organization_settings_contact_per_day_known CHECK (contact_per_day BETWEEN 1 AND 5) NOT VALID,
    ADD CONSTRAINT organization_settings_contact_per_week_known CHECK (contact_per_week BETWEEN 1 AND 10) NOT VALID,
    ADD CONSTRAINT organization_settings_account_per_day_known CHECK (account_per_day BETWEEN 1 AND 500) NOT VALID,
    ADD CONSTRAINT organization_settings_new_contacts_per_day_known CHECK (new_contacts_per_day BETWEEN 1 AND 100) NOT VALID,
    ADD CONSTRAINT organization_settings_max_unanswered_known CHECK (max_unanswered BETWEEN 1 AND 5) NOT VALID,
    ADD CONSTRAINT organization_settings_campaign_name_known CHECK (char_length(campaign_name) <= 100) NOT VALID;

ALTER TABLE wechat_accounts
    -- Since when it has been logged in without a break of a day: new accounts write less.
    ADD COLUMN warm_since timestamptz,
    -- When a person lifted its last risk hold: for seven days it writes half.
    ADD COLUMN risk_lifted_at timestamptz,
    ADD COLUMN risk_signal text,
    -- The name of the adviser in texts.
    ADD COLUMN adviser_name text;

ALTER TABLE contacts
    -- IANA name, if known; else the plan's.
    ADD COLUMN timezone text,
    ADD COLUMN source text;

-- ------------------------------------------------------------------------------------------------------------------
-- The platform's timetable
-- ------------------------------------------------------------------------------------------------------------------

-- What people have changed of the timetable that the program brings along, and what became of its last tick.
CREATE TABLE schedules (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (char_length(name) BETWEEN 1 AND 64),
    -- What it does: the name of an entry of the program.
    task text NOT NULL,
    cron text NOT NULL,
    timezone text NOT NULL,
    catch_up text NOT NULL CHECK (catch_up IN ('skip', 'run_once')),
    paused boolean NOT NULL DEFAULT false,
    last_run_at timestamptz,
    last_job_id uuid,
    updated_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now()
);
