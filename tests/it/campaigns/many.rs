//! Many at once: who sleeps costs nothing, and who comes due at one instant holds up nobody.

use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection;
use entropy_jobs::campaign::dispatch;
use entropy_schema::{Db, Profile};
use serde_json::json;
use uuid::Uuid;

use super::scene::{end, send};
use crate::harness::client::{self, Account};
use crate::harness::gauge::redis_usage;
use crate::harness::{Client, Platform, chaos, eventually, secs};

/// What may wait, and how long that may take.
struct Size {
    asleep: u32,
    due: u32,
    accounts: usize,
    /// New people that an account may write to in a day.
    new_per_day: u32,
    workers: usize,
    /// Messages of people while the others are handed out, and what lies between two.
    messages: usize,
    gap: Duration,
    /// How long a look of a dispatcher takes that finds nothing, in the middle.
    tick: Duration,
    /// Until the first of those who are due hears something.
    first: Duration,
    /// Until a person's message has arrived.
    person: Duration,
}

/// On a machine that builds and tests, in a debug build.
const SHORT: Size = Size {
    asleep: 20_000,
    due: 1_000,
    accounts: 4,
    new_per_day: 25,
    workers: 1,
    messages: 20,
    gap: Duration::from_millis(100),
    tick: Duration::from_millis(10),
    first: secs(5),
    person: secs(5),
};

/// As it was promised.
const LONG: Size = Size {
    asleep: 1_000_000,
    due: 100_000,
    accounts: 50,
    new_per_day: 100,
    workers: 2,
    messages: 200,
    gap: Duration::from_millis(100),
    tick: Duration::from_millis(1),
    first: secs(1),
    person: secs(1),
};

/// Looks that are timed.
const LOOKS: usize = 200;

/// What Redis may need more for something else: buffers of connections that come and go.
const REDIS_NOISE: u64 = 512 * 1024;

/// Runs statements that take as long as they do.
async fn run(db: &Db, statements: &str) {
    let mut conn = db.conn().await.expect("a connection");
    let statements = format!("SET statement_timeout = 0; {statements}; SET statement_timeout = '10s'");
    conn.batch_execute(&statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// An id that is told apart by `n`.
fn id(prefix: &str) -> String {
    format!("('{prefix}-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid")
}

/// A plan of one message that runs, and nobody in it.
async fn plan(db: &Db, organization: Uuid, new_per_day: u32) -> Uuid {
    let plan = Uuid::now_v7();
    let config = json!({
        "schema_version": 1,
        "trigger": { "type": "manual" },
        "audience": { "kind": "friend", "consent": { "required": false } },
        "send_window": { "days": "any", "ranges": [{ "from": "09:00", "to": "21:00" }] },
        "caps": { "per_contact_per_day": 2, "per_account_per_day": 500, "max_unanswered": 3 },
        "stop": [{ "on": "reply", "do": "exit" }],
        "entry": "first",
        "steps": [send("first", "公开课还有名额。", json!("over")), end("over", "已完成")],
    });
    run(
        db,
        &format!(
            "INSERT INTO sop_tasks (id, organization_id, user_id, name, target_type, workflow_config, status, version)
             VALUES ('{plan}', '{organization}', '{plan}', '公开课', 'friend', '{config}', 'RUNNING', 1);
             INSERT INTO sop_versions (sop_id, version, organization_id, config, sha256, state, created_by)
             VALUES ('{plan}', 1, '{organization}', '{config}', sha256('x'), 'approved', '{plan}');
             INSERT INTO organization_settings (organization_id, account_per_day, new_contacts_per_day)
             VALUES ('{organization}', 500, {new_per_day})
             ON CONFLICT (organization_id) DO UPDATE SET account_per_day = 500, new_contacts_per_day = {new_per_day};
             UPDATE wechat_accounts SET warm_since = now() - interval '1 year';
             DO $$ BEGIN EXECUTE format('CREATE OR REPLACE FUNCTION campaign_now() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS $now$SELECT clock_timestamp() + %L::interval$now$',
                 '2026-12-01T10:00:00+08:00'::timestamptz - clock_timestamp()); END $$"
        ),
    )
    .await;
    plan
}

/// People whose first step is a month away; only those who shall be written to need a name.
async fn asleep(db: &Db, organization: Uuid, plan: Uuid, accounts: &[Account], size: &Size) {
    let (contact, enrollment) = (id("01950000"), id("01960000"));
    let accounts: Vec<String> = accounts.iter().map(|account| format!("'{}'", account.id)).collect();
    let account = format!("(ARRAY[{}]::uuid[])[1 + n % {}]", accounts.join(","), accounts.len());
    let (due, all) = (size.due, size.due + size.asleep);
    run(
        db,
        &format!(
            "INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname)
             SELECT {contact}, '{organization}', {account}, 'wxid_lead_' || n, 'friend', '小雨'
             FROM generate_series(1, {due}) n;
             INSERT INTO sop_enrollments (id, organization_id, sop_id, version, account_id, contact_id, state, step_id,
                reached_at, due_at, planned_at, wait_code, start_day, source)
             SELECT {enrollment}, '{organization}', '{plan}', 1, {account}, {contact}, 'pending', 'first', now(),
                campaign_now() + interval '30 days', campaign_now() + interval '30 days', 'begins', current_date, 'manual'
             FROM generate_series(1, {all}) n"
        ),
    )
    .await;
}

/// People of ours write while the campaign does. Returns how long each message took from its request until it arrived, in order
/// of length.
async fn people_write(
    platform: &Platform,
    admin: &Client,
    accounts: &[Account],
    size: &Size,
) -> Vec<Duration> {
    let mut accepted = Vec::new();
    for n in 0..size.messages {
        let account = &accounts[n % accounts.len()];
        let body = client::send(account.id, &format!("wxid_person_{n}"), "马上回复您", "interactive");
        let key = format!("person-{n}");
        accepted.push(chrono::Utc::now().timestamp_micros());
        eventually("the API takes a person's message", secs(30), async || {
            let reply = admin.post_once("/jobs/send-message", &key, body.clone()).await;
            if matches!(reply.status, 200 | 202) { Ok(()) } else { Err(reply.text) }
        })
        .await;
        tokio::time::sleep(size.gap).await;
    }
    let arrived = eventually("all of them have arrived", secs(60), async || {
        let arrived = platform.ledger().await;
        let at = |n: usize| {
            let wxid = format!("wxid_person_{n}");
            arrived.iter().find(|arrival| arrival.message.to_wxid == wxid).map(|arrival| arrival.at_us)
        };
        (0..size.messages).map(at).collect::<Option<Vec<i64>>>()
    })
    .await;
    let took = |(arrived, accepted): (i64, i64)| {
        Duration::from_micros(u64::try_from(arrived - accepted).unwrap_or_default())
    };
    let mut took: Vec<Duration> = arrived.into_iter().zip(accepted).map(took).collect();
    took.sort_unstable();
    took
}

#[tokio::test]
async fn a_million_may_sleep_and_a_hundred_thousand_come_due_at_once() {
    let size = if chaos::long() { &LONG } else { &SHORT };
    let platform = Platform::with().workers(size.workers).alone().own_redis().start().await;
    let admin = platform.register().await;
    let mut accounts = Vec::new();
    for _ in 0..size.accounts {
        accounts.push(admin.account(600, 0).await);
    }
    let plan = plan(&platform.db, admin.organization, size.new_per_day).await;
    platform.idle(secs(10)).await;

    let before = redis_usage(&platform.redis).await;
    let began = Instant::now();
    asleep(&platform.db, admin.organization, plan, &accounts, size).await;
    let filled = began.elapsed();
    let db = Db::new(platform.database.url(), 2, Profile::Worker).expect("a pool");
    let mut looks = Vec::with_capacity(LOOKS);
    for _ in 0..LOOKS {
        let began = Instant::now();
        let passed = dispatch::pass(&db).await.expect("a look");
        looks.push(began.elapsed());
        assert_eq!(passed.handed_out, 0, "they sleep");
    }
    looks.sort_unstable();
    let after = redis_usage(&platform.redis).await;
    let of_redis = after.memory.saturating_sub(before.memory);
    assert!(after.keys <= before.keys, "who sleeps has no key: {before:?}, {after:?}");
    assert!(of_redis < REDIS_NOISE, "who sleeps takes no memory of Redis: {before:?}, {after:?}");

    let due = format!(
        "UPDATE sop_enrollments SET due_at = campaign_now(), planned_at = campaign_now() WHERE id IN (SELECT {} \
         FROM generate_series(1, {}) n)",
        id("01960000"),
        size.due
    );
    run(&platform.db, &due).await;
    let (began, due_at_us) = (Instant::now(), chrono::Utc::now().timestamp_micros());
    let first = async {
        let heard = eventually("the first of them has heard something", secs(30), async || {
            platform
                .ledger()
                .await
                .into_iter()
                .find(|arrival| arrival.message.to_wxid.starts_with("wxid_lead_"))
        });
        heard.await.at_us - due_at_us
    };
    let (first, took) = futures::join!(first, people_write(&platform, &admin, &accounts, size));
    let first = Duration::from_micros(u64::try_from(first).unwrap_or_default());
    // Asked is who has heard it, waits in a lane, or waits for a day on which the account may write to more. In the long form there
    // may be no time for all.
    let asked = "SELECT count(*) AS n FROM sop_steps WHERE step_id = 'first'";
    let (everybody, most) = (i64::from(size.due), secs(chaos::seconds(120)));
    let asked =
        eventually("everybody was asked", most + secs(60), async || match platform.number(asked).await {
            asked if asked == everybody || (chaos::long() && began.elapsed() > most) => Ok(asked),
            asked => Err(format!("{asked} were")),
        })
        .await;
    let all = began.elapsed();
    let at = |times: &[Duration], share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    chaos::report(&format!(
        "campaigns: {} asleep (written in {:.1} s), {of_redis} bytes of Redis more; a look takes {:.2} ms (median), {:.2} ms (99 %)\n\
         {} due at once: the first heard after {:.0} ms, {asked} asked after {:.1} s ({:.0} a second)\n\
         a person's message meanwhile: {:.0} ms (median), {:.0} ms (99 %), {:.0} ms (longest), of {}",
        size.asleep,
        filled.as_secs_f64(),
        ms(at(&looks, 0.5)),
        ms(at(&looks, 0.99)),
        size.due,
        ms(first),
        all.as_secs_f64(),
        asked as f64 / all.as_secs_f64(),
        ms(at(&took, 0.5)),
        ms(at(&took, 0.99)),
        ms(at(&took, 1.0)),
        took.len(),
    ));
    assert!(at(&looks, 0.5) < size.tick, "a look took {:?} in the middle", at(&looks, 0.5));
    assert!(first < size.first, "the first heard after {first:?}");
    assert!(at(&took, 0.99) < size.person, "a person's message took {:?}", at(&took, 0.99));

    if asked == everybody {
        platform.idle(secs(120)).await;
        platform.assert_sound().await;
    }
    let heard = platform.ledger().await;
    let mut leads: Vec<&str> = heard.iter().map(|arrival| arrival.message.to_wxid.as_str()).collect();
    let sent = leads.len();
    leads.sort_unstable();
    leads.dedup();
    assert_eq!(leads.len(), sent, "nobody hears it twice");
    for account in &accounts {
        let of = |arrival: &&crate::harness::history::Arrival| {
            arrival.message.app_id == account.app_id && arrival.message.to_wxid.starts_with("wxid_lead_")
        };
        let heard = heard.iter().filter(of).count();
        assert!(
            (1..=size.new_per_day as usize).contains(&heard),
            "{heard} heard of one account, more than it may write to"
        );
    }
    let asleep = "SELECT count(*) AS n FROM sop_enrollments WHERE due_at > campaign_now() + interval '20 days' \
        AND state = 'pending'";
    assert_eq!(platform.number(asleep).await, i64::from(size.asleep));
}
