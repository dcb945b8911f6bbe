//! The plans of what runs for every message that comes in, for every answer, and of what people look at beside them:
//! fifty accounts of one organisation with 100,000 chats between them, a year of costs, and 5,000 accounts of others.

mod lists;

use chrono::Utc;
use diesel_async::AsyncConnection;
use entropy_schema::{
    Profile, abandoned, ai_runs, breakers, budgets, callbacks, conversations, costs, drafts, lanes, media,
    messages, opt_outs, replies, retention, search, sends, turns,
};
use serde_json::json;
use uuid::Uuid;

use super::{ORGANIZATION, Observer, id, observe};
use crate::harness::Book;

/// The chats, and with them the contacts and the lanes of their answers.
const CHATS: u32 = 100_000;

/// The account of chat 7.
const ACCOUNT: Uuid = Uuid::from_u128(0x0181_0000_0000_7000_8000_0000_0000_0007);

/// Chat 7 itself, a chat with a friend.
const CHAT: Uuid = Uuid::from_u128(0x0183_0000_0000_7000_8000_0000_0000_0007);

/// Its contact.
const CONTACT: Uuid = Uuid::from_u128(0x0182_0000_0000_7000_8000_0000_0000_0007);

/// The other side of chat 7.
const PEER: &str = "wxid_7";

/// A UUIDv7 of the moment `at`, told apart by `n`.
fn id_at(at: &str, n: &str) -> String {
    format!(
        "(lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0') || '70008000' || lpad(to_hex({n}), 12, '0'))::uuid"
    )
}

/// What is there before; analysed.
fn history() -> String {
    let o = ORGANIZATION;
    let (account, contact, chat) = (
        id("01810000-0000-7000-8000", "n % 50"),
        id("01820000-0000-7000-8000", "n"),
        id("01830000-0000-7000-8000", "n"),
    );
    let chat_of = id("01830000-0000-7000-8000", &format!("1 + n % {CHATS}"));
    let account_of = id("01810000-0000-7000-8000", &format!("(1 + n % {CHATS}) % 50"));
    let (turn, run) = (id("01840000-0000-7000-8000", "n"), id("01850000-0000-7000-8000", "n"));
    let (other_account, one_account) =
        (id("01890000-0000-7000-8000", "n"), id("01810000-0000-7000-8000", "n"));
    let (user, others) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let (limits, limit_values) = (
        "messages_per_minute, min_gap_ms, messages_per_day, recipients_per_minute, api_calls_per_hour",
        "10, 1000, 500, 15, 1000",
    );
    format!(
        "INSERT INTO organizations (id, name) VALUES ('{o}', '大客户'), ('{others}', '其他');
         INSERT INTO users (id, organization_id, username, hashed_password, role)
         VALUES ('{user}', '{o}', 'plans', 'x', 'admin');
         INSERT INTO wechat_accounts (id, organization_id, user_id, wxid, gewe_app_id, status, {limits})
         SELECT {one_account}, '{o}', '{user}', 'wxid_own_' || n, 'wx_own_' || n, 'ONLINE', {limit_values}
         FROM generate_series(0, 49) n;
         INSERT INTO wechat_accounts (id, organization_id, user_id, wxid, gewe_app_id, status, {limits})
         SELECT {other_account}, '{others}', '{user}', 'wxid_other_' || n, 'wx_other_' || n, 'ONLINE', {limit_values}
         FROM generate_series(1, 5000) n;
         INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname, tags)
         SELECT {contact}, '{o}', {account}, 'wxid_' || n, 'friend', '客户' || n,
            CASE WHEN n % 1000 = 0 THEN '{{\"重点\"}}' ELSE '{{}}' END::text[]
         FROM generate_series(1, {CHATS}) n;
         INSERT INTO conversations (id, organization_id, account_id, contact_id, peer_wxid, kind, unread,
            last_message_at, last_inbound_at)
         SELECT {chat}, '{o}', {account}, {contact}, 'wxid_' || n, 'friend', CASE WHEN n % 499 = 0 THEN 2 ELSE 0 END,
            at, at
         FROM (SELECT n, now() - ({CHATS} - n) * interval '1 minute' AS at FROM generate_series(1, {CHATS}) n) s;
         INSERT INTO lanes (id, organization_id, kind)
         SELECT {chat}, '{o}', 'conversation' FROM generate_series(1, {CHATS}) n;
         INSERT INTO messages (id, organization_id, account_id, conversation_id, direction, origin, kind, text,
            sender_wxid, new_msg_id, turn_id, media_state, sent_at, created_at)
         SELECT {message}, '{o}', {account_of}, {chat_of}, 'in', 'customer', 'text',
            CASE WHEN n % 1000 = 0 THEN '我要退货退款' ELSE '你好，请问第' || n || '号套餐多少钱一套？' END,
            'wxid_' || (1 + n % {CHATS}), 'm' || n, {turn}, CASE WHEN n % 100 = 0 THEN 'waiting' END, at, at
         FROM (SELECT n, now() - ({CHATS} - n) * interval '1 minute' AS at FROM generate_series(1, {CHATS}) n) s;
         INSERT INTO turns (id, organization_id, account_id, conversation_id, sender_wxid, state, epoch, job_id,
            opened_at, last_message_at, flush_at, answered_at, closed_at)
         SELECT {turn}, '{o}', {account}, {chat}, 'wxid_' || n, CASE WHEN n % 1000 = 1 THEN 'open' ELSE 'answered' END,
            0, {run}, at, at, at, at, at
         FROM (SELECT n, now() - ({CHATS} - n) * interval '1 minute' AS at FROM generate_series(1, {CHATS}) n) s;
         INSERT INTO mode_changes (id, organization_id, conversation_id, mode, reason, epoch, changed_at)
         SELECT {turn}, '{o}', {chat}, 'ai', 'hand_back', 0, now() FROM generate_series(1, 50000) n;
         INSERT INTO callback_keys (account_id, event_key, event_id)
         SELECT {account}, 'm:' || n, {run} FROM generate_series(1, {CHATS}) n;
         INSERT INTO callback_events (id, organization_id, account_id, event_type, body, received_at, outcome,
            processed_at)
         SELECT {event}, '{o}', {account}, 'AddMsg', '{{}}', at, CASE WHEN n % 5000 = 0 THEN 'unknown' ELSE 'applied' END,
            at
         FROM (SELECT n, now() - ({CHATS} - n) * interval '20 seconds' AS at FROM generate_series(1, {CHATS}) n) s;
         INSERT INTO ai_runs (id, organization_id, account_id, conversation_id, turn_id, run, workflow_id, key_hash,
            job_id, chat_id, state, outcome, started_at, finished_at)
         SELECT {run}, '{o}', {account}, {chat}, {turn}, 1, '{others}', 'key', {run}, 'chat', 'answered', 'sent', at, at
         FROM (SELECT n, now() - ({CHATS} - n) * interval '1 minute' AS at FROM generate_series(1, {CHATS}) n) s;
         INSERT INTO drafts (id, organization_id, account_id, conversation_id, turn_id, run, epoch, parts, reason, state,
            expires_at)
         SELECT {turn}, '{o}', {account}, {chat}, {turn}, 1, 0, '[]', 'asked',
            CASE WHEN n % 5000 = 0 THEN 'waiting' ELSE 'approved' END, now() - interval '1 minute'
         FROM generate_series(1, 20000) n;
         INSERT INTO alerts (id, organization_id, kind, severity, dedupe_key, text, account_id, acknowledged_at)
         SELECT {run}, '{o}', 'handed_off', 'info', 'k' || n, '请接手', {account},
            CASE WHEN n % 2000 > 0 THEN now() END
         FROM generate_series(1, 20000) n;
         INSERT INTO opt_outs (organization_id, wxid, reason)
         SELECT '{o}', 'wxid_' || n * 5, '退订' FROM generate_series(1, 20000) n;
         INSERT INTO cost_ledgers (id, organization_id, request_id, wechat_account_id, job_id, model_name, input_tokens,
            output_tokens, priced, calculated_cost, run_id, conversation_id, occurred_at, created_at)
         SELECT {line}, '{o}', 'r' || n, {account_of}, {run}, 'model-' || n % 4, 800, 50, true, 0.0019, {run}, {chat_of},
            at, at
         FROM (SELECT n, now() - (200000 - n) * interval '157 seconds' AS at FROM generate_series(1, 200000) n) s;
         INSERT INTO budgets (id, organization_id, scope, scope_id, period, limit_yuan)
         SELECT {one_account}, '{o}', 'account', {one_account}, 'day', 100000 FROM generate_series(0, 49) n;
         INSERT INTO budgets (id, organization_id, scope, scope_id, period, limit_yuan)
         SELECT {other_account}, '{others}', 'account', {other_account}, 'month', 100 FROM generate_series(1, 5000) n;
         INSERT INTO budget_periods (budget_id, starts_on)
         SELECT {one_account}, current_date - d FROM generate_series(0, 49) n, generate_series(0, 99) d;
         INSERT INTO budget_reservations (id, budget_id, starts_on, organization_id, amount_yuan, expires_at)
         SELECT {run}, {one_account_of}, current_date, '{o}', 0.5, now() + interval '1 hour'
         FROM generate_series(1, 5000) n;
         ANALYZE;",
        message = id_at("at", "n"),
        event = id_at("at", "n"),
        line = id_at("at", "n"),
        one_account_of = id("01810000-0000-7000-8000", "n % 50"),
    )
}

#[tokio::test]
async fn statements_of_conversations_walk_their_indexes_over_a_hundred_thousand_chats() {
    let book = Book::open_alone().await;
    let began = std::time::Instant::now();
    book.run(&format!("SET statement_timeout = 0; {} SET statement_timeout = '10s'", history())).await;
    println!("filled in {:?}", began.elapsed());
    observe(&book).await;
    let mut seen = comes_in(&book).await;
    seen = seen.with(is_answered(&book).await);
    seen = seen.with(is_cared_for(&book).await);
    seen.with(lists::are_read(&book).await).assert_good();
}

/// What a message does from the callback to its turn.
async fn comes_in(book: &Book) -> Observer<'_> {
    // Callbacks are taken in by the API, and applied by workers.
    let mut seen = Observer::over(&LARGE, book, Profile::Api);
    let found = seen
        .watch("addressees", async |conn| callbacks::addressees(conn, &["wx_own_7"], &["wxid_own_7"]).await)
        .await;
    assert_eq!(found.len(), 1);
    let event = |n: u32| callbacks::NewEvent {
        id: Uuid::now_v7(),
        organization_id: ORGANIZATION,
        account_id: ACCOUNT,
        key: format!("m:{n}"),
        event_type: "AddMsg".into(),
        body: json!({}),
    };
    // Half of them were taken in before.
    let events: Vec<_> = (0..64).map(|n| event(n * 50 + 7 + (n % 2) * 1_000_000)).collect();
    let stored = seen.watch("take events in", async |conn| callbacks::store(conn, &events).await).await;
    assert_eq!(stored.len(), 32);
    let api = seen;

    let mut seen = Observer::over(&LARGE, book, Profile::Worker);
    let event = stored[0];
    seen.watch("read an event", async |conn| callbacks::waiting(conn, ORGANIZATION, event).await).await;
    seen.watch("note an event", async |conn| {
        callbacks::processed(conn, ORGANIZATION, event, "applied").await
    })
    .await;
    let facts = seen
        .watch("facts", async |conn| messages::facts(conn, ORGANIZATION, ACCOUNT, PEER, PEER, "m_new").await)
        .await
        .expect("an account");
    assert_eq!(facts.conversation_id, Some(CHAT));
    let chat = |peer| conversations::NewChat {
        organization_id: ORGANIZATION,
        account_id: ACCOUNT,
        peer_wxid: peer,
        contact_kind: "friend",
        kind: "friend",
    };
    let known = seen.watch("a known chat", async |conn| conversations::open(conn, chat(PEER)).await).await;
    assert_eq!(known, CHAT);
    seen.watch("a new chat", async |conn| conversations::open(conn, chat("wxid_new")).await).await;
    seen.watch("lock a chat", async |conn| conversations::lock(conn, ORGANIZATION, CHAT).await).await;
    seen.watch("lock a chat to send", async |conn| {
        conversations::lock_to_send(conn, ORGANIZATION, ACCOUNT, CHAT).await
    })
    .await;
    seen.watch("is it known", async |conn| messages::exists(conn, ACCOUNT, "m_new").await).await;
    let standing = seen.watch("standing turn", async |conn| turns::standing(conn, CHAT, PEER).await).await;
    assert!(standing.is_none(), "{standing:?}");
    let now = Utc::now();
    let turn = turns::Turn {
        id: Uuid::now_v7(),
        organization_id: ORGANIZATION,
        account_id: ACCOUNT,
        conversation_id: CHAT,
        sender_wxid: PEER.into(),
        state: "open".into(),
        reason: None,
        epoch: 0,
        run: 1,
        messages: 1,
        job_id: Uuid::now_v7(),
        opened_at: now,
        last_message_at: now,
        flush_at: now,
        instruction: None,
        answered_at: None,
        closed_at: None,
    };
    seen.watch("open a turn", async |conn| turns::insert(conn, &turn).await).await;
    seen.watch("extend a turn", async |conn| turns::extend(conn, turn.id, now, now).await).await;
    let received = messages::Received {
        id: Uuid::now_v7(),
        organization_id: ORGANIZATION,
        account_id: ACCOUNT,
        conversation_id: CHAT,
        origin: "customer",
        kind: "text",
        text: "这款还有货吗？",
        content: None,
        sender_wxid: PEER,
        sender_name: Some("李女士"),
        mentions_me: false,
        new_msg_id: "m_new",
        msg_id: None,
        sent_at: now,
        turn_id: Some(turn.id),
        has_media: true,
        in_group: false,
        counts_as_unread: true,
    };
    assert!(seen.watch("receive", async |conn| messages::receive(conn, &received).await).await);
    seen.watch("whose echo", async |conn| {
        messages::echo(conn, ORGANIZATION, ACCOUNT, PEER, "m_echo", now, "好的").await
    })
    .await;
    let found =
        seen.watch("find", async |conn| messages::find(conn, ORGANIZATION, ACCOUNT, "m_new").await).await;
    assert_eq!(found.map(|found| found.id), Some(received.id));
    seen.watch("media", async |conn| media::get(conn, ORGANIZATION, received.id).await).await;
    seen.watch("media stored", async |conn| {
        media::stored(conn, ORGANIZATION, received.id, "a/b", "image/png", 9).await
    })
    .await;
    seen.watch("media gone", async |conn| media::ended(conn, ORGANIZATION, received.id, "gone").await).await;
    seen.watch("handed back", async |conn| conversations::handed_back_after(conn, CHAT, now, 1.0).await)
        .await;
    let chats = seen
        .watch("all chats with a person", async |conn| {
            conn.transaction(async |conn| conversations::lock_all_with(conn, ORGANIZATION, PEER).await).await
        })
        .await;
    assert_eq!(chats.len(), 1);
    seen.watch("opted out", async |conn| opt_outs::of(conn, ORGANIZATION, &[PEER, "wxid_9"]).await).await;
    api.with(seen)
}

/// What an answer does from its turn to its gate.
async fn is_answered(book: &Book) -> Observer<'_> {
    let mut seen = Observer::over(&LARGE, book, Profile::Worker);
    let turn = Uuid::from_u128(0x0184_0000_0000_7000_8000_0000_0000_0009);
    let chat = Uuid::from_u128(CHAT.as_u128() + 2);
    let (job, run) = (Uuid::now_v7(), Uuid::now_v7());
    seen.watch("lock the chat", async |conn| replies::lock_chat(conn, ORGANIZATION, chat).await)
        .await
        .expect("a chat");
    seen.watch("lock the turn", async |conn| replies::lock_turn(conn, ORGANIZATION, chat, turn).await)
        .await
        .expect("a turn");
    seen.watch("turn of a job", async |conn| replies::turn_of_job(conn, ORGANIZATION, chat, job).await).await;
    seen.watch("runs of a job", async |conn| ai_runs::of_job(conn, turn, job).await).await;
    seen.watch("facts of a reply", async |conn| replies::facts(conn, ORGANIZATION, chat, "wxid_9").await)
        .await
        .expect("facts");
    seen.watch("breakers", async |conn| breakers::admit(conn, &["account:x", "key:y"], 15_000).await).await;
    seen.watch("the key's minute", async |conn| {
        conn.transaction(async |conn| ai_runs::admit(conn, "key", 60).await).await
    })
    .await;
    seen.watch("the question", async |conn| replies::turn_messages(conn, ORGANIZATION, turn).await).await;
    seen.watch("unanswered", async |conn| replies::unanswered(conn, ORGANIZATION, chat, "wxid_9").await)
        .await;
    seen.watch("meanwhile", async |conn| replies::meanwhile(conn, ORGANIZATION, chat, turn).await).await;
    seen.watch("use an era", async |conn| replies::use_era(conn, chat, 1).await).await;
    let new = ai_runs::NewRun {
        id: run,
        organization_id: ORGANIZATION,
        account_id: ACCOUNT,
        conversation_id: chat,
        turn_id: turn,
        run: 1,
        workflow_id: Uuid::nil(),
        key_hash: "key",
        job_id: job,
        chat_id: "chat",
        user_id: None,
        campaign: None,
    };
    seen.watch("begin a run", async |conn| ai_runs::begin(conn, &new).await).await;
    let today = Utc::now().date_naive();
    let whose = budgets::Whose {
        organization_id: ORGANIZATION,
        account_id: Some(ACCOUNT),
        user_id: None,
        sop_id: None,
    };
    let periods = budgets::Periods { day: today, month: today };
    let amount = "0.5".parse().expect("a number");
    seen.watch("share the budgets", async |conn| budgets::share(conn, ORGANIZATION).await).await;
    let asked = seen
        .watch("reserve", async |conn| {
            budgets::reserve(conn, &whose, run, periods, &amount, std::time::Duration::from_secs(60)).await
        })
        .await;
    assert!(asked.len() == 1 && asked[0].taken, "{asked:?}");
    seen.watch("is it reserved", async |conn| budgets::is_reserved(conn, ORGANIZATION, run).await).await;
    let taken = seen.watch("take out", async |conn| budgets::take(conn, ORGANIZATION, run).await).await;
    seen.watch("settle", async |conn| budgets::apply(conn, &budgets::given_back(&taken)).await).await;
    seen.watch("expired reservations", async |conn| budgets::expire(conn, 500).await).await;
    let end = ai_runs::RunEnd { state: "answered", outcome: Some("sent"), ..ai_runs::RunEnd::default() };
    seen.watch("end a run", async |conn| ai_runs::end(conn, run, &end).await).await;
    seen.watch("lines of a run", async |conn| costs::entries_of_run(conn, ORGANIZATION, run).await).await;
    seen.watch("a request's line", async |conn| costs::entry(conn, ORGANIZATION, "r7").await).await;
    let moved = seen
        .watch("move a turn", async |conn| {
            turns::set_state(conn, turn, 1, &["answered"], "answering", None).await
        })
        .await;
    assert!(moved);
    let guard = seen
        .watch("the gate's guard", async |conn| {
            conversations::machine_facts(conn, ORGANIZATION, ACCOUNT, PEER, Some(turn)).await
        })
        .await;
    assert!(!guard.opted_out);
    seen.watch("the guard's lock", async |conn| conversations::lock_row(conn, ORGANIZATION, chat).await)
        .await;
    begins(book, &mut seen).await;
    seen
}

/// A message of ours passes its gate: into a chat that is known, and to somebody who was never written to.
async fn begins(book: &Book, seen: &mut Observer<'_>) {
    for (to_wxid, n) in [(PEER, 1_u128), ("wxid_never", 2)] {
        let job = Uuid::from_u128(n);
        book.run(&format!(
            "INSERT INTO leases (job_id, organization_id, queue, class, seq, attempt, crashes, dispatched_at, lease_until)
             VALUES ('{job}', '{ORGANIZATION}', 'send', 1, {n}, 1, 0, now(), now() + interval '1 hour')"
        ))
        .await;
        let message = messages::Outgoing {
            origin: "ai",
            text: "有货的，今天就能发。",
            content: None,
            sender_wxid: "wxid_own_7",
            turn_id: None,
            user_id: None,
            heeds_opt_outs: true,
            chat_kind: "friend",
            contact_kind: "friend",
        };
        let send = sends::NewSend {
            id: Uuid::now_v7(),
            organization_id: ORGANIZATION,
            account_id: ACCOUNT,
            token_key: "install",
            job_id: job,
            attempt: 1,
            to_wxid,
            message_kind: "text",
            message: Some(message),
        };
        assert!(
            seen.watch("begin a message", async |conn| sends::begin(conn, &send).await).await,
            "{to_wxid}"
        );
    }
}

/// What runs now and then, however little happens.
async fn is_cared_for(book: &Book) -> Observer<'_> {
    let mut seen = Observer::over(&LARGE, book, Profile::Worker);
    let swept = seen.watch("sweep of idle lanes", async |conn| lanes::sweep(conn).await).await;
    assert_eq!(swept, 0);
    let overdue = seen.watch("overdue drafts", async |conn| drafts::overdue(conn, 100).await).await;
    assert_eq!(overdue.len(), 4);
    seen.watch("abandoned turns", async |conn| abandoned::turns(conn, 100).await).await;
    seen.watch("take over", async |conn| {
        let change = conversations::ModeChange {
            mode: "human",
            until: None,
            reason: "takeover",
            note: None,
            by: None,
            turns_become: "handed_off",
            turns_reason: "takeover",
        };
        conversations::set_mode(conn, ORGANIZATION, CHAT, &change).await
    })
    .await;
    seen.watch("drop turns", async |conn| turns::drop_all(conn, CHAT, None, "opt_out").await).await;
    let first = Uuid::nil();
    seen.watch("what a search engine is told", async |conn| search::documents(conn, first, 500).await).await;
    // A night in which nothing is old enough to be pruned.
    assert_eq!(
        seen.watch("prune events", async |conn| retention::prune_callbacks(conn, 3650, 500).await).await,
        0
    );
    assert_eq!(
        seen.watch("prune alerts", async |conn| retention::prune_alerts(conn, 3650, 500).await).await,
        0
    );
    seen
}
/// Tables that no statement of a message or an answer may read from end to end.
static LARGE: [&str; 17] = [
    "lanes",
    "wechat_accounts",
    "contacts",
    "conversations",
    "messages",
    "turns",
    "mode_changes",
    "callback_keys",
    "callback_events",
    "ai_runs",
    "drafts",
    "alerts",
    "opt_outs",
    "cost_ledgers",
    "budgets",
    "budget_periods",
    "budget_reservations",
];
