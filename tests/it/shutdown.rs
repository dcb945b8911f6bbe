//! A process that is asked to stop finishes what runs and spends no attempt.

use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Platform, eventually, secs};

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_finishes_its_send_and_spends_nothing_else() {
    let mut platform = Platform::start().await;
    let client = platform.register().await;
    let account = client.account(600, 0).await;
    platform.sandbox.fail(json!({ "mode": "delay_before_accept", "delay_ms": 2000, "times": 1 })).await;
    let slow = client.text(&account, "wxid_customer", "慢慢来", "interactive").await;
    let next = client.text(&account, "wxid_customer", "下一条", "interactive").await;
    eventually("the slow send is under way", secs(20), async || {
        platform.number("SELECT count(*) AS n FROM sends WHERE state = 'sending'").await == 1
    })
    .await;

    let asked = Instant::now();
    platform.workers[0].signal(Signal::SIGTERM);
    let status = platform.workers[0].ended(secs(30)).await;
    assert!(status.success(), "{status}: {}", platform.workers[0].tail(20));
    assert!(asked.elapsed() < secs(30));

    let job = client.job(slow).await;
    assert_eq!((job["state"].as_str(), job["attempt"].as_i64()), (Some("completed"), Some(1)), "{job:#}");
    let job = client.job(next).await;
    assert_eq!((job["state"].as_str(), job["attempt"].as_i64()), (Some("available"), Some(0)), "{job:#}");
    assert_eq!(platform.number("SELECT count(*) AS n FROM attempts").await, 1);
    assert_eq!(platform.number("SELECT count(*) AS n FROM workers WHERE state = 'stopped'").await, 1);

    platform.start_worker();
    let job = platform.ended(&client, next, secs(20)).await;
    assert_eq!((job["state"].as_str(), job["attempt"].as_i64()), (Some("completed"), Some(1)), "{job:#}");
    let texts: Vec<_> = platform.ledger().await.into_iter().map(|arrival| arrival.message.text).collect();
    assert_eq!(texts, ["慢慢来", "下一条"]);
    platform.assert_sound().await;
}

#[tokio::test]
async fn an_idle_worker_an_api_and_a_scheduler_stop_at_once() {
    let mut platform = Platform::with().schedulers(1).start().await;
    eventually("the scheduler runs", secs(20), async || !platform.schedulers[0].log().is_empty()).await;
    let asked = Instant::now();
    for process in platform.workers.iter().chain(&platform.apis).chain(&platform.schedulers) {
        process.signal(Signal::SIGTERM);
    }
    for process in platform.workers.iter_mut().chain(&mut platform.apis).chain(&mut platform.schedulers) {
        let status = process.ended(secs(20)).await;
        assert!(status.success(), "{} ended with {status}: {}", process.name(), process.tail(20));
    }
    assert!(asked.elapsed() < secs(10), "it took {:?}", asked.elapsed());
}
