//! How soon a message leaves, and whose leaves first.

use std::time::Duration;

use serde_json::json;

use crate::harness::client::send;
use crate::harness::{Platform, eventually, secs};

const SENDS: usize = 120;

#[tokio::test]
async fn an_idle_system_sends_at_once() {
    let platform = Platform::with().alone().start().await;
    let client = platform.register().await;
    let account = client.account(600, 0).await;
    let mut took_us = Vec::new();
    for n in 0..SENDS {
        let body = send(account.id, "wxid_customer", &format!("第 {n} 条"), "interactive");
        let reply = client.post("/jobs/send-message", body).await;
        let accepted_us = reply.at_us;
        reply.expect(202);
        let arrival =
            eventually("the phone has it", secs(5), async || platform.sandbox.after(n as u64).await.pop())
                .await;
        took_us.push(arrival.at_us - accepted_us);
        platform.idle(secs(5)).await;
        // Not in step with any timer of the platform.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..60))).await;
    }
    took_us.sort_unstable();
    // Without the first few, which open connections: an idle system is not a cold one. They count for nothing else.
    let at = |share: f64| took_us[((took_us.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    let (median, p95, p99, max) = (at(0.5), at(0.95), at(0.99), at(1.0));
    println!(
        "pickup, 202 to arrival: median {median:.2} ms, p99 {p99:.2} ms, max {max:.2} ms (n = {SENDS}, debug build)"
    );
    // Of so few, the slowest two tell more of the machine: Postgres cleans up behind the tests before this one.
    assert!(median < 20.0 && p95 < 60.0, "median {median} ms, p95 {p95} ms; all in µs: {took_us:?}");
}

#[tokio::test]
async fn a_person_overtakes_five_thousand_campaign_messages() {
    let platform = Platform::with().alone().start().await;
    let client = platform.register().await;
    let account = client.account(600, 200).await;
    for batch in 0..5 {
        let item = |n: usize| {
            let args = send(account.id, &format!("wxid_lead{n}"), &format!("活动第 {n} 条"), "campaign");
            json!({ "kind": "send_message", "args": args })
        };
        let jobs: Vec<_> = (batch * 1000..(batch + 1) * 1000).map(item).collect();
        let answer = client.post("/jobs/batch", json!({ "jobs": jobs })).await.expect(202);
        assert!(answer["items"].as_array().expect("items").iter().all(|item| item["created"] == true));
    }
    eventually("the campaign is under way", secs(20), async || platform.sandbox.received().await >= 3).await;

    let sent_before = platform.sandbox.received().await;
    let reply = client
        .post("/jobs/send-message", send(account.id, "wxid_customer", "马上回复您", "interactive"))
        .await;
    let accepted_us = reply.at_us;
    reply.expect(202);
    let arrived = eventually("the person's message has arrived", secs(10), async || {
        let arrived = platform.ledger().await;
        arrived.iter().position(|arrival| arrival.message.to_wxid == "wxid_customer").map(|at| (arrived, at))
    });
    let (arrived, at) = arrived.await;
    // One message may have been on its way when it was accepted.
    let between = arrived[..at].iter().filter(|arrival| arrival.at_us > accepted_us).count();
    assert!(between <= 1, "{between} campaign messages went before it, {sent_before} had gone");
    let waited_ms = (arrived[at].at_us - accepted_us) / 1000;
    println!("a person's message behind 5,000: sent {waited_ms} ms after the 202, with a gap of 200 ms");
}
