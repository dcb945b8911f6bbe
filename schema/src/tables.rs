//! The tables as diesel sees them: generated from a migrated database, never edited by hand.
//!
//! A test compares this file with the database that the migrations make.

#![allow(missing_docs, reason = "the meaning of each column stands in the migrations")]

diesel::table! {
    attempts (job_id, attempt) {
        job_id -> Uuid,
        attempt -> SmallInt,
        worker_id -> Uuid,
        started_at -> Timestamptz,
        finished_at -> Timestamptz,
        outcome -> Text,
        error -> Nullable<Jsonb>,
    }
}

diesel::table! {
    audit_log (id) {
        id -> Uuid,
        organization_id -> Uuid,
        user_id -> Nullable<Uuid>,
        action -> Text,
        target_kind -> Text,
        target_id -> Nullable<Text>,
        before -> Nullable<Jsonb>,
        after -> Nullable<Jsonb>,
        address -> Nullable<Text>,
        trace_id -> Text,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    cost_ledgers (id) {
        id -> Uuid,
        organization_id -> Uuid,
        request_id -> Text,
        user_id -> Nullable<Uuid>,
        wechat_account_id -> Nullable<Uuid>,
        job_id -> Uuid,
        model_name -> Text,
        input_tokens -> BigInt,
        output_tokens -> BigInt,
        priced -> Bool,
        price_id -> Nullable<Uuid>,
        input_price_per_1k -> Nullable<Numeric>,
        output_price_per_1k -> Nullable<Numeric>,
        calculated_cost -> Nullable<Numeric>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    idempotency_keys (organization_id, key) {
        organization_id -> Uuid,
        key -> Text,
        request_hash -> Bytea,
        job_id -> Uuid,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    job_endings (job_id) {
        job_id -> Uuid,
        organization_id -> Uuid,
        state -> Text,
    }
}

diesel::table! {
    jobs (id) {
        id -> Uuid,
        organization_id -> Uuid,
        kind -> Text,
        queue -> Text,
        class -> SmallInt,
        lane_id -> Nullable<Uuid>,
        order_key -> Nullable<Text>,
        account_id -> Nullable<Uuid>,
        args -> Jsonb,
        args_version -> SmallInt,
        max_attempts -> SmallInt,
        scheduled_at -> Nullable<Timestamptz>,
        expires_at -> Nullable<Timestamptz>,
        unique_key -> Nullable<Text>,
        trace_id -> Text,
        created_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
        final_state -> Nullable<Text>,
        attempt -> SmallInt,
        result -> Nullable<Jsonb>,
        error -> Nullable<Jsonb>,
        started_at -> Nullable<Timestamptz>,
        finalized_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    lanes (id) {
        id -> Uuid,
        organization_id -> Uuid,
        kind -> Text,
        runnable_at -> Nullable<Timestamptz>,
        wait_code -> Nullable<Text>,
        busy_job_id -> Nullable<Uuid>,
        paused_at -> Nullable<Timestamptz>,
        paused_reason -> Nullable<Text>,
    }
}

diesel::table! {
    leases (job_id) {
        job_id -> Uuid,
        organization_id -> Uuid,
        queue -> Text,
        lane_id -> Nullable<Uuid>,
        order_key -> Nullable<Text>,
        class -> SmallInt,
        seq -> BigInt,
        attempt -> SmallInt,
        crashes -> SmallInt,
        expires_at -> Nullable<Timestamptz>,
        dispatched_at -> Timestamptz,
        deliveries -> SmallInt,
        worker_id -> Nullable<Uuid>,
        claimed_at -> Nullable<Timestamptz>,
        lease_until -> Timestamptz,
        cancel_requested_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    login_failures (id) {
        id -> BigInt,
        subject -> Text,
        failed_at -> Timestamptz,
    }
}

diesel::table! {
    model_prices (id) {
        id -> Uuid,
        organization_id -> Uuid,
        model_name -> Text,
        input_price_per_1k -> Numeric,
        output_price_per_1k -> Numeric,
        currency -> Text,
        valid_from -> Timestamptz,
        valid_to -> Nullable<Timestamptz>,
        created_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    organizations (id) {
        id -> Uuid,
        name -> Text,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    pending (job_id) {
        job_id -> Uuid,
        organization_id -> Uuid,
        queue -> Text,
        lane_id -> Nullable<Uuid>,
        order_key -> Nullable<Text>,
        class -> SmallInt,
        seq -> BigInt,
        attempt -> SmallInt,
        crashes -> SmallInt,
        due_at -> Nullable<Timestamptz>,
        wait_code -> Nullable<Text>,
        wait_note -> Nullable<Text>,
        expires_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    queue_pauses (organization_id, queue) {
        organization_id -> Uuid,
        queue -> Text,
        paused_at -> Timestamptz,
    }
}

diesel::table! {
    schedule_ticks (name) {
        name -> Text,
        last_tick_at -> Timestamptz,
    }
}

diesel::table! {
    sends (id) {
        id -> Uuid,
        organization_id -> Uuid,
        account_id -> Uuid,
        token_key -> Text,
        job_id -> Uuid,
        attempt -> SmallInt,
        to_wxid -> Text,
        message_kind -> Text,
        state -> Text,
        counts -> Bool,
        started_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
        window_at -> Timestamptz,
        msg_id -> Nullable<Text>,
        new_msg_id -> Nullable<Text>,
        create_time -> Nullable<BigInt>,
        error_class -> Nullable<Text>,
        error_code -> Nullable<Text>,
        error_message -> Nullable<Text>,
        resolved_as -> Nullable<Text>,
        resolved_by -> Nullable<Uuid>,
        resolved_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    unique_keys (organization_id, key) {
        organization_id -> Uuid,
        key -> Text,
        job_id -> Uuid,
    }
}

diesel::table! {
    users (id) {
        id -> Uuid,
        organization_id -> Uuid,
        username -> Text,
        hashed_password -> Text,
        role -> Text,
        is_active -> Bool,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    wechat_accounts (id) {
        id -> Uuid,
        organization_id -> Uuid,
        user_id -> Uuid,
        wxid -> Nullable<Text>,
        nickname -> Text,
        avatar -> Nullable<Text>,
        gewe_token_id -> Nullable<Text>,
        token_key -> Nullable<Text>,
        gewe_app_id -> Nullable<Text>,
        status -> Text,
        messages_per_minute -> Integer,
        min_gap_ms -> Integer,
        messages_per_day -> Integer,
        recipients_per_minute -> Integer,
        api_calls_per_hour -> Integer,
        last_seen_at -> Nullable<Timestamptz>,
        deleted_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    workers (id) {
        id -> Uuid,
        host -> Text,
        pid -> Integer,
        version -> Text,
        slots -> Integer,
        running -> Integer,
        state -> Text,
        metrics -> Text,
        started_at -> Timestamptz,
        heartbeat_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    attempts,
    cost_ledgers,
    job_endings,
    jobs,
    lanes,
    leases,
    model_prices,
    organizations,
    pending,
    sends,
    users,
    wechat_accounts,
    workers,
);
