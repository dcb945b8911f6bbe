SET LOCAL lock_timeout = '3s';

-- What the ledger adds up to, by the hour in which something was run. Follows from cost_ledgers.
CREATE TABLE cost_rollups (
    organization_id uuid NOT NULL,
    hour timestamptz NOT NULL,
    model_name text NOT NULL,
    -- All zeros: none.
    wechat_account_id uuid NOT NULL,
    user_id uuid NOT NULL,
    cost numeric NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    requests bigint NOT NULL,
    unpriced bigint NOT NULL,
    PRIMARY KEY (organization_id, hour, model_name, wechat_account_id, user_id)
);

-- Lines that were written before this moment are in the sums, no others.
CREATE TABLE cost_rollup_progress (
    organization_id uuid PRIMARY KEY,
    rolled_up_to timestamptz NOT NULL
);
