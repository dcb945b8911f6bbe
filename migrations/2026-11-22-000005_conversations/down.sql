ALTER TABLE workers DROP COLUMN session_since;

ALTER TABLE lanes
    DROP CONSTRAINT lanes_kind_known,
    ADD CONSTRAINT lanes_kind_check CHECK (kind IN ('account', 'conversation', 'enrollment'));

DROP TABLE budget_reservations;
DROP TABLE budget_periods;
DROP TABLE budgets;

ALTER TABLE cost_ledgers
    DROP COLUMN run_id,
    DROP COLUMN node_index,
    DROP COLUMN node_name,
    DROP COLUMN conversation_id,
    DROP COLUMN cached_input_tokens,
    DROP COLUMN cached_input_price_per_1k,
    DROP COLUMN points,
    DROP COLUMN estimated,
    DROP COLUMN corrects,
    DROP COLUMN occurred_at;

ALTER TABLE model_prices DROP CONSTRAINT model_prices_one_at_a_time;
ALTER TABLE model_prices
    DROP COLUMN cached_input_price_per_1k,
    DROP COLUMN min_input,
    DROP COLUMN max_input,
    DROP COLUMN band;
ALTER TABLE model_prices
    ADD CONSTRAINT model_prices_organization_id_model_name_tstzrange_excl
        EXCLUDE USING gist (organization_id WITH =, model_name WITH =, tstzrange(valid_from, valid_to) WITH &&);

DROP TABLE contact_syncs;
DROP TABLE alerts;
DROP TABLE drafts;
DROP TABLE breakers;
DROP TABLE ai_runs;
DROP TABLE sensitive_words;
DROP TABLE account_ai;
DROP TABLE ai_workflows;
DROP TABLE organization_settings;
DROP TABLE turns;
DROP TABLE messages;
DROP TABLE mode_changes;
DROP TABLE conversations;
DROP TABLE opt_outs;
DROP TABLE group_members;
DROP TABLE contacts;
DROP TABLE callback_events;
DROP TABLE callback_keys;
