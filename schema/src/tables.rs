//! The tables as diesel sees them: generated from a migrated database, never edited by hand.
//!
//! A test compares this file with the database that the migrations make.

#![allow(missing_docs, reason = "the meaning of each column stands in the migrations")]

diesel::table! {
    account_ai (account_id) {
        account_id -> Uuid,
        organization_id -> Uuid,
        enabled -> Bool,
        workflow_id -> Nullable<Uuid>,
        quiet_ms -> Integer,
        max_ms -> Integer,
        max_messages -> Integer,
        groups -> Text,
        takeover_minutes -> Integer,
        max_age_seconds -> Integer,
        review -> Text,
        draft_minutes -> Integer,
        disclosure -> Text,
        allow_wxids -> Array<Text>,
        allow_tags -> Array<Text>,
        block_wxids -> Array<Text>,
        block_tags -> Array<Text>,
        silence_minutes -> Integer,
        updated_by -> Nullable<Uuid>,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    ai_runs (id) {
        id -> Uuid,
        organization_id -> Uuid,
        account_id -> Uuid,
        conversation_id -> Uuid,
        turn_id -> Uuid,
        run -> SmallInt,
        workflow_id -> Uuid,
        key_hash -> Text,
        job_id -> Uuid,
        chat_id -> Text,
        user_id -> Nullable<Uuid>,
        state -> Text,
        error_class -> Nullable<Text>,
        error_code -> Nullable<Text>,
        error_message -> Nullable<Text>,
        answer -> Nullable<Text>,
        outcome -> Nullable<Text>,
        started_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
        points -> Nullable<Numeric>,
        looked_up_at -> Nullable<Timestamptz>,
        sop_id -> Nullable<Uuid>,
        step_id -> Nullable<Text>,
    }
}

diesel::table! {
    ai_workflows (id) {
        id -> Uuid,
        organization_id -> Uuid,
        alias -> Text,
        api_key -> Text,
        key_hash -> Text,
        endpoint -> Nullable<Text>,
        app_id -> Nullable<Text>,
        stream -> Bool,
        requests_per_minute -> Integer,
        timeout_ms -> Integer,
        reserve_yuan -> Numeric,
        variables -> Jsonb,
        created_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    alerts (id) {
        id -> Uuid,
        organization_id -> Uuid,
        kind -> Text,
        severity -> Text,
        dedupe_key -> Text,
        text -> Text,
        account_id -> Nullable<Uuid>,
        conversation_id -> Nullable<Uuid>,
        details -> Nullable<Jsonb>,
        created_at -> Timestamptz,
        acknowledged_by -> Nullable<Uuid>,
        acknowledged_at -> Nullable<Timestamptz>,
    }
}

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
    breakers (subject) {
        subject -> Text,
        organization_id -> Uuid,
        failures -> Integer,
        open_until -> Nullable<Timestamptz>,
        last_error -> Nullable<Text>,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    budget_periods (budget_id, starts_on) {
        budget_id -> Uuid,
        starts_on -> Date,
        spent_yuan -> Numeric,
        reserved_yuan -> Numeric,
    }
}

diesel::table! {
    budget_reservations (id, budget_id) {
        id -> Uuid,
        budget_id -> Uuid,
        starts_on -> Date,
        organization_id -> Uuid,
        amount_yuan -> Numeric,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    budgets (id) {
        id -> Uuid,
        organization_id -> Uuid,
        scope -> Text,
        scope_id -> Uuid,
        period -> Text,
        limit_yuan -> Numeric,
        updated_by -> Nullable<Uuid>,
        updated_at -> Timestamptz,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    calendars (organization_id, country, year) {
        organization_id -> Uuid,
        country -> Text,
        year -> Integer,
        holidays -> Array<Date>,
        workdays -> Array<Date>,
        updated_by -> Nullable<Uuid>,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    callback_events (id) {
        id -> Uuid,
        organization_id -> Uuid,
        account_id -> Uuid,
        event_type -> Text,
        body -> Jsonb,
        received_at -> Timestamptz,
        outcome -> Nullable<Text>,
        processed_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    callback_keys (account_id, event_key) {
        account_id -> Uuid,
        event_key -> Text,
        event_id -> Uuid,
    }
}

diesel::table! {
    consents (contact_id, purpose) {
        contact_id -> Uuid,
        purpose -> Text,
        organization_id -> Uuid,
        basis -> Text,
        given_at -> Timestamptz,
        withdrawn_at -> Nullable<Timestamptz>,
        recorded_by -> Nullable<Uuid>,
        recorded_at -> Timestamptz,
    }
}

diesel::table! {
    contact_syncs (account_id) {
        account_id -> Uuid,
        organization_id -> Uuid,
        job_id -> Nullable<Uuid>,
        state -> Text,
        total -> Integer,
        fetched -> Integer,
        remaining -> Jsonb,
        error -> Nullable<Text>,
        started_at -> Timestamptz,
        updated_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    contacts (id) {
        id -> Uuid,
        organization_id -> Uuid,
        account_id -> Uuid,
        wxid -> Text,
        kind -> Text,
        nickname -> Text,
        remark -> Text,
        alias -> Nullable<Text>,
        avatar -> Nullable<Text>,
        tags -> Array<Text>,
        labels -> Array<Text>,
        variables -> Jsonb,
        suppressed_at -> Nullable<Timestamptz>,
        added_at -> Nullable<Timestamptz>,
        removed_at -> Nullable<Timestamptz>,
        synced_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        timezone -> Nullable<Text>,
        source -> Nullable<Text>,
        synced_tags -> Array<Text>,
    }
}

diesel::table! {
    conversations (id) {
        id -> Uuid,
        organization_id -> Uuid,
        account_id -> Uuid,
        contact_id -> Uuid,
        peer_wxid -> Text,
        kind -> Text,
        mode -> Text,
        mode_until -> Nullable<Timestamptz>,
        mode_reason -> Nullable<Text>,
        mode_by -> Nullable<Uuid>,
        mode_epoch -> BigInt,
        unread -> Integer,
        last_message_at -> Nullable<Timestamptz>,
        last_inbound_at -> Nullable<Timestamptz>,
        era -> Integer,
        era_used_at -> Nullable<Timestamptz>,
        disclosed_at -> Nullable<Timestamptz>,
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
        run_id -> Nullable<Uuid>,
        node_index -> Nullable<Integer>,
        node_name -> Nullable<Text>,
        conversation_id -> Nullable<Uuid>,
        cached_input_tokens -> BigInt,
        cached_input_price_per_1k -> Nullable<Numeric>,
        points -> Nullable<Numeric>,
        estimated -> Bool,
        corrects -> Nullable<Uuid>,
        occurred_at -> Nullable<Timestamptz>,
        sop_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    cost_rollup_progress (organization_id) {
        organization_id -> Uuid,
        rolled_up_to -> Timestamptz,
    }
}

diesel::table! {
    cost_rollups (organization_id, hour, model_name, wechat_account_id, user_id) {
        organization_id -> Uuid,
        hour -> Timestamptz,
        model_name -> Text,
        wechat_account_id -> Uuid,
        user_id -> Uuid,
        cost -> Numeric,
        input_tokens -> Numeric,
        output_tokens -> Numeric,
        requests -> BigInt,
        unpriced -> BigInt,
    }
}

diesel::table! {
    drafts (id) {
        id -> Uuid,
        organization_id -> Uuid,
        account_id -> Uuid,
        conversation_id -> Uuid,
        turn_id -> Uuid,
        run -> SmallInt,
        epoch -> BigInt,
        parts -> Jsonb,
        reason -> Text,
        word_ids -> Array<Uuid>,
        state -> Text,
        expires_at -> Timestamptz,
        edited -> Bool,
        decided_by -> Nullable<Uuid>,
        decided_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    group_members (account_id, group_wxid, wxid) {
        account_id -> Uuid,
        group_wxid -> Text,
        wxid -> Text,
        organization_id -> Uuid,
        nickname -> Text,
        display_name -> Text,
        seen_at -> Timestamptz,
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
    material_revisions (material_id, revision) {
        material_id -> Uuid,
        revision -> Integer,
        organization_id -> Uuid,
        content -> Jsonb,
        path -> Nullable<Text>,
        media_type -> Nullable<Text>,
        bytes -> Nullable<BigInt>,
        created_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
        approved_by -> Nullable<Uuid>,
        approved_at -> Nullable<Timestamptz>,
        checked_at -> Nullable<Timestamptz>,
        check_error -> Nullable<Text>,
    }
}

diesel::table! {
    materials (id) {
        id -> Uuid,
        organization_id -> Uuid,
        key -> Text,
        kind -> Text,
        name -> Text,
        revision -> Integer,
        approved_revision -> Nullable<Integer>,
        created_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    messages (id) {
        id -> Uuid,
        organization_id -> Uuid,
        account_id -> Uuid,
        conversation_id -> Uuid,
        direction -> Text,
        origin -> Text,
        kind -> Text,
        text -> Text,
        content -> Nullable<Jsonb>,
        sender_wxid -> Text,
        mentions_me -> Bool,
        new_msg_id -> Nullable<Text>,
        msg_id -> Nullable<Text>,
        sent_at -> Nullable<Timestamptz>,
        send_id -> Nullable<Uuid>,
        job_id -> Nullable<Uuid>,
        turn_id -> Nullable<Uuid>,
        user_id -> Nullable<Uuid>,
        recalled_at -> Nullable<Timestamptz>,
        media_state -> Nullable<Text>,
        media_path -> Nullable<Text>,
        media_type -> Nullable<Text>,
        media_bytes -> Nullable<BigInt>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    mode_changes (id) {
        id -> Uuid,
        organization_id -> Uuid,
        conversation_id -> Uuid,
        mode -> Text,
        until -> Nullable<Timestamptz>,
        reason -> Text,
        note -> Nullable<Text>,
        changed_by -> Nullable<Uuid>,
        epoch -> BigInt,
        changed_at -> Timestamptz,
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
        cached_input_price_per_1k -> Nullable<Numeric>,
        min_input -> BigInt,
        max_input -> Nullable<BigInt>,
        band -> Text,
    }
}

diesel::table! {
    opt_outs (organization_id, wxid) {
        organization_id -> Uuid,
        wxid -> Text,
        reason -> Text,
        account_id -> Nullable<Uuid>,
        message_id -> Nullable<Uuid>,
        created_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    organization_settings (organization_id) {
        organization_id -> Uuid,
        timezone -> Text,
        opt_out_words -> Array<Text>,
        handoff_words -> Array<Text>,
        opt_out_confirmation -> Text,
        updated_by -> Nullable<Uuid>,
        updated_at -> Timestamptz,
        campaign_from -> Text,
        campaign_until -> Text,
        contact_per_day -> Integer,
        contact_per_week -> Integer,
        account_per_day -> Integer,
        new_contacts_per_day -> Integer,
        max_unanswered -> Integer,
        approval_required -> Bool,
        campaign_name -> Text,
        complaint_words -> Array<Text>,
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
    schedules (id) {
        id -> Uuid,
        name -> Text,
        task -> Text,
        cron -> Text,
        timezone -> Text,
        catch_up -> Text,
        paused -> Bool,
        last_run_at -> Nullable<Timestamptz>,
        last_job_id -> Nullable<Uuid>,
        updated_by -> Nullable<Uuid>,
        updated_at -> Timestamptz,
        created_at -> Timestamptz,
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
    sensitive_words (id) {
        id -> Uuid,
        organization_id -> Uuid,
        word -> Text,
        normalized -> Text,
        action -> Text,
        created_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    sop_enrollments (id) {
        id -> Uuid,
        organization_id -> Uuid,
        sop_id -> Uuid,
        version -> Integer,
        account_id -> Uuid,
        contact_id -> Uuid,
        state -> Text,
        reason -> Nullable<Text>,
        outcome -> Nullable<Text>,
        step_id -> Nullable<Text>,
        reached_at -> Timestamptz,
        due_at -> Nullable<Timestamptz>,
        planned_at -> Nullable<Timestamptz>,
        wait_code -> Nullable<Text>,
        start_day -> Nullable<Date>,
        deadline_at -> Nullable<Timestamptz>,
        sent -> Integer,
        failures -> Integer,
        replied_at -> Nullable<Timestamptz>,
        goal_at -> Nullable<Timestamptz>,
        arms -> Jsonb,
        own_tags -> Array<Text>,
        source -> Text,
        paused_from -> Nullable<Text>,
        created_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    sop_run_contacts (run_id, contact_id) {
        run_id -> Uuid,
        contact_id -> Uuid,
    }
}

diesel::table! {
    sop_runs (id) {
        id -> Uuid,
        organization_id -> Uuid,
        sop_id -> Uuid,
        version -> Integer,
        source -> Text,
        fire_at -> Timestamptz,
        state -> Text,
        audience -> Nullable<Integer>,
        frozen_at -> Nullable<Timestamptz>,
        enrolled -> Integer,
        refused -> Jsonb,
        created_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    sop_steps (enrollment_id, step_id) {
        enrollment_id -> Uuid,
        step_id -> Text,
        organization_id -> Uuid,
        sop_id -> Uuid,
        version -> Integer,
        account_id -> Uuid,
        contact_id -> Uuid,
        kind -> Text,
        state -> Text,
        reason -> Nullable<Text>,
        planned_at -> Timestamptz,
        next_try_at -> Nullable<Timestamptz>,
        job_id -> Nullable<Uuid>,
        text -> Nullable<Text>,
        run_id -> Nullable<Uuid>,
        review_until -> Nullable<Timestamptz>,
        decided_by -> Nullable<Uuid>,
        sent_at -> Nullable<Timestamptz>,
        finished_at -> Nullable<Timestamptz>,
        written_at -> Nullable<Timestamptz>,
        fallback_code -> Nullable<Text>,
    }
}

diesel::table! {
    sop_tasks (id) {
        id -> Uuid,
        organization_id -> Uuid,
        user_id -> Uuid,
        name -> Text,
        description -> Text,
        target_type -> Text,
        target_ids -> Array<Text>,
        account_ids -> Array<Uuid>,
        everyone -> Bool,
        workflow_config -> Jsonb,
        status -> Text,
        status_reason -> Nullable<Text>,
        version -> Nullable<Integer>,
        triggered_at -> Nullable<Timestamptz>,
        next_trigger_at -> Nullable<Timestamptz>,
        started_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    sop_versions (sop_id, version) {
        sop_id -> Uuid,
        version -> Integer,
        organization_id -> Uuid,
        config -> Jsonb,
        sha256 -> Bytea,
        materials -> Jsonb,
        state -> Text,
        created_by -> Uuid,
        created_at -> Timestamptz,
        approved_by -> Nullable<Uuid>,
        approved_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    stops (organization_id, scope, scope_id) {
        organization_id -> Uuid,
        scope -> Text,
        scope_id -> Uuid,
        reason -> Text,
        stopped_by -> Nullable<Uuid>,
        stopped_at -> Timestamptz,
    }
}

diesel::table! {
    turns (id) {
        id -> Uuid,
        organization_id -> Uuid,
        account_id -> Uuid,
        conversation_id -> Uuid,
        sender_wxid -> Text,
        state -> Text,
        reason -> Nullable<Text>,
        epoch -> BigInt,
        run -> SmallInt,
        messages -> Integer,
        job_id -> Uuid,
        opened_at -> Timestamptz,
        last_message_at -> Timestamptz,
        flush_at -> Timestamptz,
        instruction -> Nullable<Text>,
        answered_at -> Nullable<Timestamptz>,
        closed_at -> Nullable<Timestamptz>,
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
        warm_since -> Nullable<Timestamptz>,
        risk_lifted_at -> Nullable<Timestamptz>,
        risk_signal -> Nullable<Text>,
        adviser_name -> Nullable<Text>,
        offline_since -> Nullable<Timestamptz>,
        risk_held_at -> Nullable<Timestamptz>,
        echoed_at -> Nullable<Timestamptz>,
        echoes -> Integer,
        label_sync -> Bool,
    }
}

diesel::table! {
    wechat_labels (account_id, name) {
        account_id -> Uuid,
        name -> Text,
        organization_id -> Uuid,
        label_id -> Text,
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
        session_since -> Nullable<Timestamptz>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    account_ai,
    ai_runs,
    ai_workflows,
    alerts,
    attempts,
    audit_log,
    breakers,
    budget_periods,
    budget_reservations,
    budgets,
    calendars,
    callback_events,
    callback_keys,
    consents,
    contact_syncs,
    contacts,
    conversations,
    cost_ledgers,
    cost_rollup_progress,
    cost_rollups,
    drafts,
    group_members,
    idempotency_keys,
    job_endings,
    jobs,
    lanes,
    leases,
    login_failures,
    material_revisions,
    materials,
    messages,
    mode_changes,
    model_prices,
    opt_outs,
    organization_settings,
    organizations,
    pending,
    queue_pauses,
    schedule_ticks,
    schedules,
    sends,
    sensitive_words,
    sop_enrollments,
    sop_run_contacts,
    sop_runs,
    sop_steps,
    sop_tasks,
    sop_versions,
    stops,
    turns,
    unique_keys,
    users,
    wechat_accounts,
    wechat_labels,
    workers,
);
