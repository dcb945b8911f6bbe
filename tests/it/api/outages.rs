//! Postgres or Redis away, as a client sees it. Servers of their own.

use reqwest::Method;
use serde_json::json;

use super::{assert_problem, id};
use crate::harness::client::send;
use crate::harness::{Platform, eventually, secs};

#[tokio::test]
async fn without_postgres_nothing_is_accepted_and_work_goes_on_by_itself_afterwards() {
    let platform = Platform::with().own_postgres().start().await;
    let client = platform.register().await;
    let account = client.account(600, 0).await;
    let first = client.text(&account, "wxid_customer", "之前", "interactive").await;
    platform.ended(&client, first, secs(10)).await;
    let postgres = platform.database.server();
    let gone = postgres.clone();
    tokio::task::spawn_blocking(move || gone.kill()).await.expect("no panic").expect("Postgres is killed");

    let body = send(account.id, "wxid_customer", "期间", "interactive");
    let batch = json!({"jobs": [{"kind": "send_message", "args": body}]});
    for (path, body) in [("/jobs/send-message", &body), ("/jobs/batch", &batch)] {
        let reply = client.post_once(path, "during", body.clone()).await;
        let wait_s: u64 = reply.header("retry-after").and_then(|s| s.parse().ok()).expect("Retry-After");
        assert!((1..=60).contains(&wait_s));
        assert!(
            !reply.text.contains("127.0.0.1") && !reply.text.contains("connection"),
            "nothing of the inside: {}",
            reply.text
        );
        assert_problem(reply, 503, "database_unavailable", "");
    }
    let read = client.get("/jobs").await;
    assert!(read.header("retry-after").is_some());
    assert_problem(read, 503, "database_unavailable", "");
    let ready = client.send(client.bare(Method::GET, "/readyz")).await;
    assert_eq!(
        (ready.status, &ready.body["postgres"], &ready.body["redis"]),
        (503, &json!("away"), &json!("ok"))
    );
    assert_eq!(
        client.send(client.bare(Method::GET, "/healthz")).await.status,
        200,
        "the process is not restarted for it"
    );
    let metrics = client.send(client.bare(Method::GET, "/metrics")).await;
    assert_eq!(metrics.status, 200);

    tokio::task::spawn_blocking(move || postgres.restart())
        .await
        .expect("no panic")
        .expect("Postgres is back");
    let accepted = eventually("the API takes work again", secs(20), async || {
        let reply = client
            .post_once(
                "/jobs/send-message",
                "after",
                send(account.id, "wxid_customer", "之后", "interactive"),
            )
            .await;
        if matches!(reply.status, 200 | 202) { Ok(id(&reply.body["id"])) } else { Err(reply.text) }
    })
    .await;
    assert_eq!(platform.ended(&client, accepted, secs(30)).await["state"], "completed");
    let texts: Vec<String> =
        platform.ledger().await.into_iter().map(|arrival| arrival.message.text).collect();
    assert_eq!(texts, ["之前", "之后"]);
    platform.assert_sound().await;
}

#[tokio::test]
async fn without_redis_work_is_accepted_and_runs_when_redis_is_back() {
    let platform = Platform::with().own_redis().start().await;
    let client = platform.register().await;
    let account = client.account(600, 0).await;
    let redis = platform.redis.server();
    let gone = redis.clone();
    tokio::task::spawn_blocking(move || gone.kill()).await.expect("no panic").expect("Redis is killed");

    let started = std::time::Instant::now();
    let job = client.text(&account, "wxid_customer", "你好", "interactive").await;
    assert!(started.elapsed() < secs(2), "the answer does not wait for Redis: {:?}", started.elapsed());
    let items: Vec<_> = (0..5)
        .map(|n| json!({"kind": "send_message", "args": send(account.id, "wxid_other", &format!("{n}"), "campaign")}))
        .collect();
    let batch = client.post("/jobs/batch", json!({"jobs": items})).await.expect(202);
    let ready = client.send(client.bare(Method::GET, "/readyz")).await;
    assert_eq!((ready.status, &ready.body["redis"]), (200, &json!("away")), "it still takes work");
    let waiting = client.job(job).await;
    assert!(waiting["why"]["code"].is_string(), "{waiting}");

    tokio::task::spawn_blocking(move || redis.restart()).await.expect("no panic").expect("Redis is back");
    let batch = batch["items"].as_array().expect("items").iter().map(|item| id(&item["id"]));
    for job in std::iter::once(job).chain(batch) {
        assert_eq!(platform.ended(&client, job, secs(30)).await["state"], "completed");
    }
    assert_eq!(platform.ledger().await.len(), 6);
    platform.assert_sound().await;
}
