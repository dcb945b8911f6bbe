//! Does anything grow that should not? The whole platform under ten times its usual load, measured from outside.
//!
//! Usual is a sales team of 50 accounts, each of which sends three messages a minute: 2.5 a second, all day. Ten times
//! that is 25 a second. Beside it goes what an API meets every day: requests that it refuses, repeated requests, new
//! connections, lists, scheduled messages that are called off again.
//!
//! History is pruned all the time by the jobs that do it in production, with nothing kept, so that the tables can reach
//! a steady state within the run. Send records are kept for two days whatever is asked for, because the limits count
//! them; so the run makes them old itself, and then the pruner takes them. The vacuum is squeezed by the same measure:
//! in production it comes after some ten thousand dead rows, here after some hundred.
//!
//! The sandbox is not judged: it keeps what it received, so that tests can read it, and is no part of an install.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use entropy_jobs::enqueue::new_job;
use entropy_jobs::kinds::expire_keys::ExpireKeys;
use entropy_jobs::kinds::prune_history::PruneHistory;
use entropy_schema::{SYSTEM_ORGANIZATION, record};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::book::unhurried;
use crate::harness::client::{Account, send};
use crate::harness::gauge::{self, Bound, Gauge, Unit};
use crate::harness::{Client, Platform, chaos, secs};

/// Accounts of the team.
const ACCOUNTS: usize = 50;

/// Ten times three messages a minute for each of them.
const PER_SECOND: u64 = 25;

/// Callers that share the load. Each makes its requests one after the other.
const CALLERS: u64 = 5;

/// Out of step with the samples, so that they do not all see the tables just pruned.
const PRUNE_EVERY: Duration = secs(7);

const MIB: f64 = 1024.0 * 1024.0;

/// Descriptors, threads and clients are counted, not estimated. Pools breathe by a few of them; one that leaks with each
/// request or message leaks hundreds.
const COUNTED: Bound = Bound { share: 0.0, beside: 6.0 };

/// In the short form a pool of eight connections may still be filling.
const COUNTED_WHILE_WARMING_UP: Bound = Bound { share: 0.0, beside: 12.0 };

/// The sessions of all pools together.
const SESSIONS: Bound = Bound { share: 0.0, beside: 25.0 };

/// The allocator takes memory from the system in steps of up to some MiB, and each thread has an arena of its own. Two
/// quarters of 20 minutes lie 7,500 messages apart, 1,900 for each worker: a leak of less than some 1 KiB per message
/// is not seen.
const MEMORY: Bound = Bound { share: 0.03, beside: MIB };

/// In the short form the processes are still warming up.
const MEMORY_WHILE_WARMING_UP: Bound = Bound { share: 0.30, beside: 16.0 * MIB };

/// What all sessions of Postgres together have to themselves: plans and caches, filled by the first use of each.
const SESSION_MEMORY: Bound = Bound { share: 0.05, beside: 8.0 * MIB };

/// What is in Redis at any moment are the deliveries of a second and the heartbeats of the workers.
const REDIS_MEMORY: Bound = Bound { share: 0.05, beside: 0.5 * MIB };
const REDIS_KEYS: Bound = Bound { share: 0.0, beside: 100.0 };

/// Rows go up and down with every pruning by what seven seconds bring.
const ROWS: Bound = Bound { share: 0.15, beside: (PER_SECOND * 10) as f64 };

/// Dead rows wait for the vacuum, which comes with every few thousand of them.
const TABLE: Bound = Bound { share: 0.15, beside: 2.0 * MIB };

/// Kept for good, by design: append only, or what a person owns.
const KEPT: [&str; 2] = ["audit_log", "cost_ledgers"];

#[tokio::test]
async fn nothing_grows_under_ten_times_the_usual_load() {
    let seconds = chaos::seconds(40);
    let every = if chaos::long() { secs(10) } else { secs(1) };
    let platform =
        Platform::with().api(2).workers(4).schedulers(1).own_redis().own_postgres().alone().start().await;
    squeeze_the_vacuum(&platform).await;
    let client = platform.register().await;
    let mut accounts = Vec::new();
    for _ in 0..ACCOUNTS {
        accounts.push(client.account(40, 1000).await);
    }
    let team =
        Team { clients: [client.clone(), client.at(platform.base(1))], accounts, sent: AtomicU64::new(0) };
    let stop = CancellationToken::new();
    let sampling = async {
        let mut gauge = Gauge::default();
        let end = Instant::now() + secs(seconds);
        while Instant::now() < end {
            sample(&mut gauge, &platform, &client).await;
            tokio::time::sleep_until((Instant::now() + every).min(end).into()).await;
        }
        stop.cancel();
        gauge
    };
    let calling = futures::future::join_all((0..CALLERS).map(|caller| team.call(caller, &stop)));
    let (gauge, _, ()) = futures::join!(sampling, calling, prune(&platform, &stop));

    let (table, growing) = gauge.verdict();
    let asked = team.sent.load(Ordering::Relaxed);
    chaos::report(&format!(
        "soak: {seconds} s, {asked} messages ({:.1}/s), api 2, worker 4, scheduler 1\n{table}",
        asked as f64 / seconds as f64
    ));
    assert!(growing.is_empty(), "these grow: {growing:?}\n{table}");
    // It was a load, and it was carried.
    let least = if chaos::long() { 0.9 } else { 0.25 };
    let wanted = (seconds * PER_SECOND) as f64;
    assert!(asked as f64 >= wanted * least, "{asked} messages of {wanted} were asked for in {seconds} s");
    platform.idle(secs(60)).await;
    assert_eq!(platform.sandbox.received().await, asked, "every message arrived");
    platform.assert_sound().await;
}

/// Makes Postgres clean up every few seconds after what a few seconds leave behind, instead of once in an hour.
async fn squeeze_the_vacuum(platform: &Platform) {
    let mut conn = platform.db.conn().await.expect("a connection");
    for table in
        ["jobs", "pending", "leases", "lanes", "sends", "attempts", "idempotency_keys", "job_endings"]
    {
        let settings = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 250";
        conn.batch_execute(&format!("ALTER TABLE {table} SET ({settings})")).await.expect("a threshold");
    }
    conn.batch_execute("ALTER SYSTEM SET autovacuum_naptime = '5s'").await.expect("a pause");
    conn.batch_execute("SELECT pg_reload_conf()").await.expect("settings are read again");
}

/// Those who use the platform.
struct Team {
    /// The same person at both processes of the API.
    clients: [Client; 2],
    accounts: Vec<Account>,
    /// Messages that were accepted and not called off.
    sent: AtomicU64,
}

impl Team {
    /// Makes requests at a steady pace until `stop`.
    async fn call(&self, caller: u64, stop: &CancellationToken) {
        let mut pace = tokio::time::interval(Duration::from_millis(1000 * CALLERS / PER_SECOND));
        for n in 0.. {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = pace.tick() => {}
            }
            let client = &self.clients[n % 2];
            let account = &self.accounts[(caller as usize * 10 + n) % ACCOUNTS];
            let key = format!("soak-{caller}-{n}");
            let body = send(
                account.id,
                &format!("wxid_customer{}", n % 100),
                &format!("您好！第 {n} 条。"),
                "reply",
            );
            client.post_once("/jobs/send-message", &key, body.clone()).await.expect(202);
            self.sent.fetch_add(1, Ordering::Relaxed);
            // One of these beside every second message.
            match n % 14 {
                1 => {
                    let status = client.post_once("/jobs/send-message", &key, body).await.status;
                    // Its job may have ended and be gone by now: none is kept here.
                    assert!(matches!(status, 200 | 202 | 404), "{status}");
                    if status == 202 {
                        // Keys are forgotten all the time here, so that it may have become a second message.
                        self.sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
                3 => drop(
                    client.post("/jobs/send-message", json!({ "account_id": account.id })).await.problem(400),
                ),
                5 => drop(client.with_token("not-a-token").get("/jobs").await.problem(401)),
                7 => call_off(client, account, n).await,
                9 => new_connection(client).await,
                11 => list(client, n).await,
                13 => drop(client.get(&format!("/jobs/{}", Uuid::now_v7())).await.problem(404)),
                _ => {}
            }
        }
    }
}

/// Schedules a message for tomorrow and calls it off.
async fn call_off(client: &Client, account: &Account, n: usize) {
    let mut body = send(account.id, "wxid_customer", &format!("明天见，第 {n} 条。"), "campaign");
    body["scheduled_at"] = json!((chrono::Utc::now() + chrono::TimeDelta::days(1)).to_rfc3339());
    let job = client.post("/jobs/send-message", body).await.expect(202);
    let id = job["id"].as_str().expect("an id");
    let reply = client.post(&format!("/jobs/{id}/cancel"), Value::Null).await;
    // Ended jobs are kept for no time at all here: it may be gone before the answer shows it.
    assert!(matches!(reply.status, 200 | 404), "{}", reply.text);
}

/// Comes, asks and goes.
async fn new_connection(client: &Client) {
    let stranger = client.on_a_new_connection();
    let reply = stranger.send(stranger.bare(Method::GET, "/readyz")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

async fn list(client: &Client, n: usize) {
    let lists = ["/jobs?limit=100", "/sends?limit=100", "/queues", "/lanes", "/workers", "/wechat-accounts"];
    client.get(lists[n / 14 % lists.len()]).await.expect(200);
}

/// Prunes all the time, as the scheduled jobs do once a day.
async fn prune(platform: &Platform, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let mut conn = platform.db.conn().await.expect("a connection");
        conn.batch_execute(
            // Ids hold the time, and the pruner reads no further than it must.
            "UPDATE sends SET started_at = started_at - interval '3 days', \
                 id = (lpad(to_hex((EXTRACT(EPOCH FROM started_at - interval '3 days') * 1000)::bigint), 12, '0') \
                     || substr(replace(id::text, '-', ''), 13))::uuid \
             WHERE state IN ('sent', 'failed') \
             AND started_at BETWEEN now() - interval '1 day' AND now() - interval '5 seconds'",
        )
        .await
        .expect("send records are made old");
        let prune = PruneHistory {
            keep_jobs_days: 0,
            keep_dead_days: 0,
            keep_sends_days: 2,
            keep_callbacks_days: 30,
        };
        let jobs = [
            new_job(&prune, unhurried(SYSTEM_ORGANIZATION)),
            new_job(&FORGET_KEYS, unhurried(SYSTEM_ORGANIZATION)),
        ];
        conn.transaction(async |conn| record::enqueue::enqueue(conn, &jobs).await).await.expect("enqueued");
        drop(conn);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PRUNE_EVERY) => {}
        }
    }
}

const FORGET_KEYS: ExpireKeys = ExpireKeys { keep_days: 0 };

/// Measures everything once.
async fn sample(gauge: &mut Gauge, platform: &Platform, client: &Client) {
    let long = chaos::long();
    let memory = if long { MEMORY } else { MEMORY_WHILE_WARMING_UP };
    let counted = if long { COUNTED } else { COUNTED_WHILE_WARMING_UP };
    let groups =
        [("api", &platform.apis), ("worker", &platform.workers), ("scheduler", &platform.schedulers)];
    for (name, processes) in groups {
        for (n, process) in processes.iter().enumerate() {
            let usage = gauge::usage(process.pid()).unwrap_or_else(|| panic!("{name} {n} has ended"));
            gauge.note(&format!("{name} {n} memory"), Unit::Bytes, Some(memory), usage.resident as f64);
            gauge.note(
                &format!("{name} {n} descriptors"),
                Unit::Count,
                Some(counted),
                usage.descriptors as f64,
            );
            gauge.note(&format!("{name} {n} threads"), Unit::Count, Some(counted), usage.threads as f64);
        }
    }
    let redis = gauge::redis_usage(&platform.redis).await;
    gauge.note("redis memory", Unit::Bytes, Some(REDIS_MEMORY), redis.memory as f64);
    gauge.note("redis keys", Unit::Count, Some(REDIS_KEYS), redis.keys as f64);
    gauge.note("redis clients", Unit::Count, Some(counted), redis.clients as f64);
    let (sessions, memory) = gauge::sessions(&platform.db).await;
    gauge.note("postgres sessions", Unit::Count, Some(SESSIONS), sessions as f64);
    gauge.note("postgres sessions memory", Unit::Bytes, long.then_some(SESSION_MEMORY), memory as f64);
    for table in gauge::tables(&platform.db).await {
        // In the short form no table has come to its steady state yet.
        let judged = long && !KEPT.contains(&table.name.as_str());
        let name = &table.name;
        gauge.note(&format!("{name} rows"), Unit::Count, judged.then_some(ROWS), table.rows as f64);
        gauge.note(&format!("{name} dead rows"), Unit::Count, None, table.dead as f64);
        gauge.note(&format!("{name} bytes"), Unit::Bytes, judged.then_some(TABLE), table.bytes as f64);
    }
    let metrics = client.send(client.bare(Method::GET, "/metrics")).await;
    let lines = metrics.text.lines().count();
    // A label whose values never end would show here.
    gauge.note("lines of metrics", Unit::Count, Some(Bound { share: 0.0, beside: 20.0 }), lines as f64);
}
