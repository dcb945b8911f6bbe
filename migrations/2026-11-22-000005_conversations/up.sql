-- Conversations: what customers write, who answers, what it costs.
--
-- Tables that see traffic (callbacks, messages, turns, runs) carry no foreign keys, as the hot tables of the spine do not:
-- their writers are few, and a key check locks the referenced row.

SET LOCAL lock_timeout = '3s';

CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- ------------------------------------------------------------------------------------------------------------------
-- What comes in
-- ------------------------------------------------------------------------------------------------------------------

-- Every event of the provider that was ever taken in, for ever: the same event again changes nothing.
CREATE TABLE callback_keys (
    account_id uuid NOT NULL,
    -- `m:` and the NewMsgId of a message; `h:` and a hash of the body for what has no usable id.
    event_key text NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (account_id, event_key)
) WITH (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);

-- The events as they came, until they are pruned.
CREATE TABLE callback_events (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    account_id uuid NOT NULL,
    -- The provider's word: `AddMsg` and its like, or the flat format's msgType.
    event_type text NOT NULL,
    body jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    -- What was made of it: null while its job has not run; then `applied`, `ignored` or `unknown`.
    outcome text CHECK (outcome IN ('applied', 'ignored', 'unknown')),
    processed_at timestamptz
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
CREATE INDEX callback_events_organization_idx ON callback_events (organization_id, id);
CREATE INDEX callback_events_unknown_idx ON callback_events (organization_id, id) WHERE outcome = 'unknown';

-- A person or a group, as one account of ours knows it.
CREATE TABLE contacts (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    account_id uuid NOT NULL,
    wxid text NOT NULL CHECK (char_length(wxid) BETWEEN 1 AND 200),
    kind text NOT NULL CHECK (kind IN ('friend', 'group', 'stranger', 'official')),
    nickname text NOT NULL DEFAULT '',
    remark text NOT NULL DEFAULT '',
    alias text,
    avatar text,
    -- Ours; a manager's words.
    tags text[] NOT NULL DEFAULT '{}',
    -- WeChat's labels of the friend, by name.
    labels text[] NOT NULL DEFAULT '{}',
    variables jsonb NOT NULL DEFAULT '{}',
    -- A person of ours said: nothing that a machine writes goes to this contact.
    suppressed_at timestamptz,
    -- Since when it is a friend, as far as we saw it; and since when no longer (deleted, or the group left).
    added_at timestamptz,
    removed_at timestamptz,
    synced_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX contacts_account_wxid_key ON contacts (account_id, wxid);
CREATE INDEX contacts_organization_idx ON contacts (organization_id, id);
CREATE INDEX contacts_tags_idx ON contacts USING gin (tags);
CREATE INDEX contacts_name_idx ON contacts USING gin (nickname gin_trgm_ops, remark gin_trgm_ops);

-- Members of groups, as far as they were seen or synced.
CREATE TABLE group_members (
    account_id uuid NOT NULL,
    group_wxid text NOT NULL,
    wxid text NOT NULL,
    organization_id uuid NOT NULL,
    nickname text NOT NULL DEFAULT '',
    display_name text NOT NULL DEFAULT '',
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, group_wxid, wxid)
);

-- Who wants no more messages, over all accounts of the organisation.
CREATE TABLE opt_outs (
    organization_id uuid NOT NULL,
    wxid text NOT NULL,
    -- The word that was written, or `person`.
    reason text NOT NULL,
    account_id uuid,
    message_id uuid,
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, wxid)
);

-- One chat of one account. Its id is also that of the lane in which its replies are written.
CREATE TABLE conversations (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    account_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    peer_wxid text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('friend', 'group')),
    -- Who answers. `human` goes back to `ai` by itself at `mode_until`; null: until somebody hands back.
    mode text NOT NULL DEFAULT 'ai' CHECK (mode IN ('ai', 'human', 'paused')),
    mode_until timestamptz,
    mode_reason text,
    mode_by uuid,
    -- Grows with every change of the mode. A reply that was made under another epoch is not sent.
    mode_epoch bigint NOT NULL DEFAULT 0,
    unread integer NOT NULL DEFAULT 0,
    last_message_at timestamptz,
    last_inbound_at timestamptz,
    -- Part of FastGPT's chatId; a new era begins after seven quiet days.
    era integer NOT NULL DEFAULT 1,
    era_used_at timestamptz,
    -- When the customer was told that a machine answers.
    disclosed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE UNIQUE INDEX conversations_account_peer_key ON conversations (account_id, peer_wxid);
CREATE INDEX conversations_organization_idx ON conversations (organization_id, id);
CREATE INDEX conversations_recent_idx ON conversations (organization_id, account_id, last_message_at DESC NULLS LAST, id DESC);

-- Both edges of every change of the mode, for people and for the AI's history.
CREATE TABLE mode_changes (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    mode text NOT NULL CHECK (mode IN ('ai', 'human', 'paused')),
    until timestamptz,
    -- takeover, hand_back, phone, handoff, paused, opt_out
    reason text NOT NULL,
    -- A sentence for people.
    note text,
    changed_by uuid,
    epoch bigint NOT NULL,
    changed_at timestamptz NOT NULL
);
CREATE INDEX mode_changes_conversation_idx ON mode_changes (conversation_id, id);

CREATE TABLE messages (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    account_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    direction text NOT NULL CHECK (direction IN ('in', 'out')),
    origin text NOT NULL CHECK (origin IN ('customer', 'phone', 'person', 'ai', 'sop')),
    kind text NOT NULL,
    -- What a person reads: the text, a link's title, a file's name; searched.
    text text NOT NULL DEFAULT '',
    -- What the kind has beside its text.
    content jsonb,
    -- Who wrote it in a group; else the peer, or our own wxid.
    sender_wxid text NOT NULL,
    mentions_me boolean NOT NULL DEFAULT false,
    -- The provider's ids of what came in or was typed on the phone. What we sent ourselves has its ids in `sends`.
    new_msg_id text,
    msg_id text,
    -- The provider's time.
    sent_at timestamptz,
    -- Our own send: its state is the message's status.
    send_id uuid,
    job_id uuid,
    turn_id uuid,
    -- The person of ours who wrote it.
    user_id uuid,
    recalled_at timestamptz,
    -- null: no media; waiting, stored, refused, gone
    media_state text CHECK (media_state IN ('waiting', 'stored', 'refused', 'gone')),
    media_path text,
    media_type text,
    media_bytes bigint,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
CREATE UNIQUE INDEX messages_account_new_msg_key ON messages (account_id, new_msg_id) WHERE new_msg_id IS NOT NULL;
CREATE INDEX messages_conversation_idx ON messages (conversation_id, id);
CREATE INDEX messages_organization_idx ON messages (organization_id, id);
CREATE UNIQUE INDEX messages_send_key ON messages (send_id) WHERE send_id IS NOT NULL;
CREATE INDEX messages_turn_idx ON messages (turn_id, id) WHERE turn_id IS NOT NULL;
CREATE INDEX messages_text_idx ON messages USING gin (text gin_trgm_ops) WITH (fastupdate = on);

-- What a customer writes in a row is one turn, and gets one answer.
CREATE TABLE turns (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    account_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    sender_wxid text NOT NULL,
    -- open: collects messages. replying: the model writes. answering: the answer waits to be sent. review: a person looks
    -- at it first. answered: its first part has passed the gate. dropped, handed_off: no answer, see `reason`.
    state text NOT NULL CHECK (state IN ('open', 'replying', 'review', 'answering', 'answered', 'dropped', 'handed_off')),
    reason text,
    -- The conversation's epoch when the turn was opened.
    epoch bigint NOT NULL,
    -- Which run of the model it is at, from 1. A newer message makes it one more; an answer of an older run is not sent.
    run smallint NOT NULL DEFAULT 1,
    messages integer NOT NULL DEFAULT 1,
    -- The job of the present run.
    job_id uuid NOT NULL,
    opened_at timestamptz NOT NULL,
    last_message_at timestamptz NOT NULL,
    flush_at timestamptz NOT NULL,
    -- What a person asked for in words: `POST /jobs/ai-reply` with an instruction.
    instruction text,
    answered_at timestamptz,
    closed_at timestamptz
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
-- One turn that still takes messages, per chat and sender.
CREATE UNIQUE INDEX turns_open_key ON turns (conversation_id, sender_wxid) WHERE state = 'open';
CREATE INDEX turns_conversation_idx ON turns (conversation_id, id);
CREATE INDEX turns_organization_idx ON turns (organization_id, id);

-- ------------------------------------------------------------------------------------------------------------------
-- Who answers, and how
-- ------------------------------------------------------------------------------------------------------------------

CREATE TABLE organization_settings (
    organization_id uuid PRIMARY KEY REFERENCES organizations (id),
    timezone text NOT NULL DEFAULT 'Asia/Shanghai',
    -- Beside the built-in ones.
    opt_out_words text[] NOT NULL DEFAULT '{}',
    handoff_words text[] NOT NULL DEFAULT '{}',
    opt_out_confirmation text NOT NULL DEFAULT '好的，以后不再给您发送消息。如需帮助，随时回复我们。',
    updated_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- A FastGPT app, by the name that people use for it.
CREATE TABLE ai_workflows (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    alias text NOT NULL CHECK (char_length(alias) BETWEEN 1 AND 64),
    -- Sealed.
    api_key text NOT NULL,
    -- Keyed hash of the key: its limit and its breaker are those of the key.
    key_hash text NOT NULL,
    -- Null: that of this install.
    endpoint text,
    app_id text,
    stream boolean NOT NULL DEFAULT true,
    requests_per_minute integer NOT NULL DEFAULT 60 CHECK (requests_per_minute BETWEEN 1 AND 6000),
    timeout_ms integer NOT NULL DEFAULT 90000 CHECK (timeout_ms BETWEEN 1000 AND 600000),
    -- Reserved in every budget before a run: the most that one may cost.
    reserve_yuan numeric(20, 10) NOT NULL DEFAULT 0.5 CHECK (reserve_yuan >= 0),
    -- Passed to FastGPT with every run.
    variables jsonb NOT NULL DEFAULT '{}',
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX ai_workflows_alias_key ON ai_workflows (organization_id, alias) WHERE deleted_at IS NULL;

CREATE TABLE account_ai (
    account_id uuid PRIMARY KEY REFERENCES wechat_accounts (id),
    organization_id uuid NOT NULL REFERENCES organizations (id),
    enabled boolean NOT NULL,
    workflow_id uuid REFERENCES ai_workflows (id),
    quiet_ms integer NOT NULL DEFAULT 4000 CHECK (quiet_ms BETWEEN 0 AND 60000),
    max_ms integer NOT NULL DEFAULT 15000 CHECK (max_ms BETWEEN 0 AND 300000),
    max_messages integer NOT NULL DEFAULT 10 CHECK (max_messages BETWEEN 1 AND 100),
    groups text NOT NULL DEFAULT 'off' CHECK (groups IN ('off', 'at_only')),
    -- How long a person who types on the phone keeps the chat, and how long a handoff lasts.
    takeover_minutes integer NOT NULL DEFAULT 30 CHECK (takeover_minutes BETWEEN 1 AND 10080),
    -- A message that is older when it comes in is not answered.
    max_age_seconds integer NOT NULL DEFAULT 600 CHECK (max_age_seconds BETWEEN 10 AND 86400),
    -- human: every answer waits for a person.
    review text NOT NULL DEFAULT 'none' CHECK (review IN ('none', 'human')),
    draft_minutes integer NOT NULL DEFAULT 60 CHECK (draft_minutes BETWEEN 1 AND 1440),
    -- Said once per conversation, before the first answer; empty: nothing.
    disclosure text NOT NULL DEFAULT '您好，我是 AI 智能助手，以下内容由 AI 生成，如需人工服务请回复“转人工”。',
    -- Empty: everybody. wxids of people and groups, and tags.
    allow_wxids text[] NOT NULL DEFAULT '{}',
    allow_tags text[] NOT NULL DEFAULT '{}',
    block_wxids text[] NOT NULL DEFAULT '{}',
    block_tags text[] NOT NULL DEFAULT '{}',
    -- An online account from which nothing came for so long raises an alert; 0: never.
    silence_minutes integer NOT NULL DEFAULT 0 CHECK (silence_minutes BETWEEN 0 AND 10080),
    updated_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sensitive_words (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    word text NOT NULL CHECK (char_length(word) BETWEEN 1 AND 64),
    -- As it is compared: width, case and spaces taken out.
    normalized text NOT NULL CHECK (char_length(normalized) BETWEEN 1 AND 64),
    action text NOT NULL CHECK (action IN ('block', 'review', 'mask')),
    created_by uuid,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX sensitive_words_key ON sensitive_words (organization_id, normalized);

-- One call of the model.
CREATE TABLE ai_runs (
    -- Also FastGPT's responseChatItemId.
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    account_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    turn_id uuid NOT NULL,
    run smallint NOT NULL,
    workflow_id uuid NOT NULL,
    key_hash text NOT NULL,
    job_id uuid NOT NULL,
    chat_id text NOT NULL,
    user_id uuid,
    -- calling: may have left. answered, failed: known. unknown: asked again later, never simply repeated.
    state text NOT NULL CHECK (state IN ('calling', 'answered', 'failed', 'unknown')),
    error_class text,
    error_code text,
    error_message text,
    answer text,
    -- What became of the answer: sent, superseded, dropped, drafted, handed_off
    outcome text,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    -- FastGPT's points, summed over the top-level nodes.
    points numeric(20, 10)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
CREATE INDEX ai_runs_conversation_idx ON ai_runs (conversation_id, id);
CREATE INDEX ai_runs_organization_idx ON ai_runs (organization_id, id);
CREATE INDEX ai_runs_turn_idx ON ai_runs (turn_id, run);
-- The limit of the key: runs in the last minute.
CREATE INDEX ai_runs_key_idx ON ai_runs (key_hash, started_at);
CREATE INDEX ai_runs_open_idx ON ai_runs (started_at) WHERE state IN ('calling', 'unknown');

-- When a key or an account has failed too often, it is left alone for a while.
CREATE TABLE breakers (
    -- `key:` and a key's hash, or `account:` and its id.
    subject text PRIMARY KEY,
    organization_id uuid NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    open_until timestamptz,
    last_error text,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Answers that wait for a person.
CREATE TABLE drafts (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    account_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    turn_id uuid NOT NULL,
    run smallint NOT NULL,
    epoch bigint NOT NULL,
    -- The parts, in order, as they would be sent.
    parts jsonb NOT NULL,
    -- `asked` (the account wants it) or the sensitive words that were found.
    reason text NOT NULL,
    word_ids uuid[] NOT NULL DEFAULT '{}',
    state text NOT NULL CHECK (state IN ('waiting', 'approved', 'rejected', 'expired', 'superseded')),
    expires_at timestamptz NOT NULL,
    edited boolean NOT NULL DEFAULT false,
    decided_by uuid,
    decided_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX drafts_organization_idx ON drafts (organization_id, id);
CREATE INDEX drafts_waiting_idx ON drafts (organization_id, id) WHERE state = 'waiting';
CREATE INDEX drafts_conversation_idx ON drafts (conversation_id) WHERE state = 'waiting';

-- What a person should look at.
CREATE TABLE alerts (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    kind text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    -- The same key raises no second alert.
    dedupe_key text NOT NULL,
    text text NOT NULL,
    account_id uuid,
    conversation_id uuid,
    details jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    acknowledged_by uuid,
    acknowledged_at timestamptz
);
CREATE UNIQUE INDEX alerts_dedupe_key ON alerts (organization_id, dedupe_key);
CREATE INDEX alerts_organization_idx ON alerts (organization_id, id);
CREATE INDEX alerts_open_idx ON alerts (organization_id, id) WHERE acknowledged_at IS NULL;

-- Progress of fetching an account's contacts from the provider.
CREATE TABLE contact_syncs (
    account_id uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    job_id uuid,
    -- listing, fetching, done, failed
    state text NOT NULL CHECK (state IN ('listing', 'fetching', 'done', 'failed')),
    total integer NOT NULL DEFAULT 0,
    fetched integer NOT NULL DEFAULT 0,
    -- wxids that are still to be asked for.
    remaining jsonb NOT NULL DEFAULT '[]',
    error text,
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

-- ------------------------------------------------------------------------------------------------------------------
-- What it costs
-- ------------------------------------------------------------------------------------------------------------------

ALTER TABLE model_prices
    ADD COLUMN cached_input_price_per_1k numeric(20, 10),
    -- The price holds for runs with so many input tokens: from min_input, below max_input.
    ADD COLUMN min_input bigint NOT NULL DEFAULT 0,
    ADD COLUMN max_input bigint,
    -- `HH:MM-HH:MM` in the organisation's time zone; empty: at any time of day that no band covers.
    ADD COLUMN band text NOT NULL DEFAULT '';
-- allowed: unique_constraint: a small table that only people write to; the old constraint is stricter than the new one
ALTER TABLE model_prices
    DROP CONSTRAINT model_prices_organization_id_model_name_tstzrange_excl,
    ADD CONSTRAINT model_prices_one_at_a_time EXCLUDE USING gist (organization_id WITH =, model_name WITH =, band WITH =,
        tstzrange(valid_from, valid_to) WITH &&, int8range(min_input, max_input) WITH &&);

ALTER TABLE cost_ledgers
    ADD COLUMN run_id uuid,
    -- The node's place in the run's responseData, nested ones counted on.
    ADD COLUMN node_index integer,
    ADD COLUMN node_name text,
    ADD COLUMN conversation_id uuid,
    ADD COLUMN cached_input_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN cached_input_price_per_1k numeric(20, 10),
    ADD COLUMN points numeric(20, 10),
    -- After a timeout: the call may have been charged, nobody knows how much.
    ADD COLUMN estimated boolean NOT NULL DEFAULT false,
    -- A correction takes back the line that it names.
    ADD COLUMN corrects uuid,
    ADD COLUMN occurred_at timestamptz;

-- What may be spent. A scope's tightest budget wins: organisation, user, account.
CREATE TABLE budgets (
    id uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations (id),
    scope text NOT NULL CHECK (scope IN ('organization', 'user', 'account', 'sop')),
    -- The organisation's own id for the scope `organization`.
    scope_id uuid NOT NULL,
    period text NOT NULL CHECK (period IN ('day', 'month')),
    limit_yuan numeric(20, 10) NOT NULL CHECK (limit_yuan >= 0),
    updated_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX budgets_key ON budgets (organization_id, scope, scope_id, period);

CREATE TABLE budget_periods (
    budget_id uuid NOT NULL REFERENCES budgets (id) ON DELETE CASCADE,
    -- The first day of the period in the organisation's time zone.
    starts_on date NOT NULL,
    spent_yuan numeric(20, 10) NOT NULL DEFAULT 0,
    reserved_yuan numeric(20, 10) NOT NULL DEFAULT 0 CHECK (reserved_yuan >= 0),
    PRIMARY KEY (budget_id, starts_on)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What a run under way may cost; gone when it is settled or its time has passed.
CREATE TABLE budget_reservations (
    -- The run.
    id uuid NOT NULL,
    budget_id uuid NOT NULL,
    starts_on date NOT NULL,
    organization_id uuid NOT NULL,
    amount_yuan numeric(20, 10) NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (id, budget_id)
);
CREATE INDEX budget_reservations_expiry_idx ON budget_reservations (expires_at);

-- ------------------------------------------------------------------------------------------------------------------
-- Lanes of new kinds
-- ------------------------------------------------------------------------------------------------------------------

ALTER TABLE lanes
    DROP CONSTRAINT lanes_kind_check,
    ADD CONSTRAINT lanes_kind_known CHECK (kind IN ('account', 'conversation', 'enrollment', 'background')) NOT VALID;

-- ------------------------------------------------------------------------------------------------------------------
-- Workers
-- ------------------------------------------------------------------------------------------------------------------

-- Since when a worker holds a session that names it. Null: it has none, and nothing but its leases tells whether it lives.
ALTER TABLE workers ADD COLUMN session_since timestamptz;
