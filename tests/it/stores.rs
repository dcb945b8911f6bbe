//! Faults of the two stores, under load: whatever Redis or Postgres does, nothing is lost, repeated, out of order or over
//! a limit, and no outcome is unknown, because every process lives.
//!
//! [`disturbed`] is the frame: work is enqueued over HTTP, the fault comes once some have arrived, and the checker looks
//! at everything at the end.

mod postgres;
mod redis;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use crate::harness::client::{Account, Reply, send};
use crate::harness::load::{self, Load, Shape};
use crate::harness::{Client, Platform, chaos, secs};

/// Small, since these tests run side by side; enqueued slowly, so that the fault meets requests, too.
const SHAPE: Shape =
    Shape { accounts: 4, messages: 60, pause: Duration::from_millis(250), min_gap_ms: 50, ..Shape::FULL };

/// The fault comes when so many have arrived; most are not asked for by then.
const BEGUN: u64 = 20;

/// Long enough for a lease to run out and for what hung on it.
const RECOVERY: Duration = secs(90);

/// No answer takes longer, whatever is wrong: three seconds for a connection, two for a lock, and once more for what
/// shared its statement with others. Twice that, for a machine that does much else.
const BOUND: Duration = secs(20);

/// How long a fault lasts: `short` seconds, or as long as the long form says, up to what a caller of the load waits for.
fn held(short: u64) -> Duration {
    secs(chaos::seconds(short).clamp(short, 30))
}

/// Runs the load, lets `disturb` do its worst once some have arrived, and checks everything at the end.
async fn disturbed(mut platform: Platform, disturb: impl AsyncFnOnce(&Platform)) -> Platform {
    let mut load = Load::prepare(&platform, SHAPE).await;
    let disturbing = async {
        load::received(&platform, BEGUN, secs(60)).await;
        let began = Instant::now();
        disturb(&platform).await;
        (began.elapsed(), Instant::now())
    };
    let ((), (lasted, over)) = futures::join!(load.enqueue(), disturbing);
    platform.ready().await;
    platform.idle(RECOVERY).await;
    let recovered = over.elapsed();
    let unknown = load.assert_kept(&platform).await;
    assert_eq!(unknown, 0, "every process lived: every outcome is known");
    // Not one more comes late.
    let received = platform.sandbox.received().await;
    assert_eq!(received, load.total());
    let statuses = statuses(&platform).await;
    assert_eq!(statuses.get("500"), None, "a store that is away is no fault of the program: {statuses:?}");
    assert_discreet(&platform);
    let mut figures = format!(
        "fault {lasted:.1?}, all done {recovered:.1?} after it, {received} of {received} kept; {statuses:?}"
    );
    for (words, count) in warnings(&platform).into_iter().take(4) {
        figures.push_str(&format!("\n{count:>7} × {words:.120}"));
    }
    chaos::report(&figures);
    platform
}

/// Returns how often the API has answered with which status.
async fn statuses(platform: &Platform) -> HashMap<String, u64> {
    let anyone = platform.anonymous();
    let page = anyone.send(anyone.bare(Method::GET, "/metrics")).await;
    let mut counts = HashMap::new();
    for line in page.text.lines().filter(|line| line.starts_with("entropy_http_requests_total{")) {
        // `/readyz` is asked by those who wait for the API.
        if line.contains("/readyz") {
            continue;
        }
        let (_, status) = line.split_once("status=\"").expect("a status");
        let (status, count) = status.split_once("\"} ").expect("a count");
        *counts.entry(status.to_owned()).or_default() += count.parse::<f64>().expect("a number") as u64;
    }
    counts
}

/// Returns what the processes said to worry somebody, the most frequent first.
fn warnings(platform: &Platform) -> Vec<(String, usize)> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (_, log) in platform.logs() {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        for line in lines.filter(|line| line["level"] == "WARN" || line["level"] == "ERROR") {
            *counts.entry(line["message"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// Panics if a password of a store stands in a log.
fn assert_discreet(platform: &Platform) {
    for url in [platform.database.url(), &platform.redis.url()] {
        let password = url.split(['@', ':']).nth(2).expect("a password").trim_start_matches('/');
        assert!(password.len() >= 20, "not a password: {password}");
        for (name, log) in platform.logs() {
            assert!(!log.contains(password), "{name} names a password");
        }
    }
}

/// Asks the API to send a text, and panics if the answer takes too long or is neither "taken" nor "try again".
async fn asked(client: &Client, account: &Account, text: &str) -> Reply {
    let began = Instant::now();
    let reply = client.post("/jobs/send-message", send(account.id, "wxid_wang", text, "reply")).await;
    assert!(began.elapsed() < BOUND, "an answer after {:?}: {}", began.elapsed(), reply.text);
    match reply.status {
        202 => {}
        503 => assert_retriable(&reply),
        _ => panic!("{} {}", reply.status, reply.text),
    }
    reply
}

/// Panics unless the answer says when to come back, and nothing of the inside.
fn assert_retriable(reply: &Reply) {
    assert_eq!(
        (reply.status, reply.body["code"].as_str()),
        (503, Some("database_unavailable")),
        "{}",
        reply.text
    );
    let wait_s: u64 = reply.header("retry-after").and_then(|s| s.parse().ok()).expect("Retry-After");
    assert!((1..=60).contains(&wait_s), "{wait_s}");
    for inside in ["127.0.0.1", "connection", "timeout", "statement", "lanes"] {
        assert!(!reply.text.contains(inside), "nothing of the inside: {}", reply.text);
    }
}

/// Returns what `/readyz` says.
async fn readiness(platform: &Platform) -> Reply {
    let anyone = platform.anonymous();
    anyone.send(anyone.bare(Method::GET, "/readyz")).await
}
