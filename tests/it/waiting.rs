//! Every job that is not running says why, and when it goes on.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::client::{Account, Client, send};
use crate::harness::{Platform, eventually, secs};

/// Waits until a job gives `code` as its reason, and returns the whole answer.
async fn says(client: &Client, job: Uuid, code: &str) -> Value {
    eventually(&format!("the job says {code}"), secs(20), async || {
        let job = client.job(job).await;
        if job["why"]["code"] == code { Ok(job) } else { Err(job.to_string()) }
    })
    .await
}

/// Returns how far ahead the next try lies.
fn next_try_in(job: &Value) -> Duration {
    let at: DateTime<Utc> =
        job["why"]["next_try_at"].as_str().and_then(|at| at.parse().ok()).unwrap_or_else(|| {
            panic!("no next try: {job:#}");
        });
    (at - Utc::now()).to_std().unwrap_or_default()
}

fn assert_sentence(job: &Value) {
    let message = job["why"]["message"].as_str().unwrap_or_default();
    assert!(message.len() > 20 && message.ends_with('.'), "{job:#}");
}

async fn text(client: &Client, account: &Account, to_wxid: &str) -> Uuid {
    client.text(account, to_wxid, "在吗？", "interactive").await
}

#[tokio::test]
async fn a_scheduled_job_names_its_time() {
    let platform = Platform::start().await;
    let client = platform.register().await;
    let account = client.account(600, 0).await;
    let mut body = send(account.id, "wxid_1", "明天见", "interactive");
    let at = Utc::now() + chrono::TimeDelta::hours(3);
    body["scheduled_at"] = json!(at.to_rfc3339());
    let answer = client.post("/jobs/send-message", body).await.expect(202);
    let id = answer["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    let job = says(&client, id, "scheduled").await;
    assert_eq!(job["state"], "scheduled");
    assert_sentence(&job);
    let ahead = next_try_in(&job);
    assert!(ahead > secs(3 * 3600 - 60) && ahead <= secs(3 * 3600), "{ahead:?}");
}

#[tokio::test]
async fn a_job_behind_a_limit_names_the_limit_and_those_behind_it_count_who_is_ahead() {
    let platform = Platform::start().await;
    let client = platform.register().await;
    let account = client.account(2, 0).await;
    let mut jobs = Vec::new();
    for n in 0..5 {
        jobs.push(text(&client, &account, &format!("wxid_{n}")).await);
    }
    let head = says(&client, jobs[2], "messages_per_minute").await;
    assert_sentence(&head);
    assert!(next_try_in(&head) > secs(30) && next_try_in(&head) <= secs(61), "{head:#}");
    assert_eq!(head["why"]["jobs_ahead"], 0);
    let last = says(&client, jobs[4], "jobs_ahead").await;
    assert_sentence(&last);
    assert_eq!(last["why"]["jobs_ahead"], 2, "{last:#}");
    assert!(
        last["why"]["message"].as_str().is_some_and(|text| text.contains("messages per minute")),
        "{last:#}"
    );
    assert!(next_try_in(&last) > secs(30));
    assert_eq!(platform.sandbox.received().await, 2);
}

#[tokio::test]
async fn a_paused_account_an_offline_one_and_a_failing_one_say_so() {
    let platform = Platform::start().await;
    let client = platform.register().await;

    let paused = client.account(600, 0).await;
    client
        .post(&format!("/wechat-accounts/{}/pause", paused.id), json!({ "reason": "春节放假" }))
        .await
        .expect(200);
    let job = says(&client, text(&client, &paused, "wxid_1").await, "lane_paused").await;
    assert_sentence(&job);
    assert!(
        job["why"]["next_try_at"].is_null() && job["why"]["message"].to_string().contains("春节放假"),
        "{job:#}"
    );
    client.post(&format!("/wechat-accounts/{}/resume", paused.id), json!({})).await.expect(200);
    let id = job["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    assert_eq!(platform.ended(&client, id, secs(20)).await["state"], "completed");

    let offline = client.account(600, 0).await;
    platform.sandbox.set_state(&offline.app_id, "offline").await;
    let job = says(&client, text(&client, &offline, "wxid_1").await, "account_offline").await;
    assert_sentence(&job);
    assert!(next_try_in(&job) > secs(20) && next_try_in(&job) <= secs(61), "{job:#}");
    assert_eq!(job["attempt"], 0, "being offline spends no attempt");
}

#[tokio::test]
async fn a_job_waits_for_its_retry_and_its_conversation_behind_it() {
    // Nobody listens at the provider's address: surely not sent, and worth a retry.
    let platform = Platform::with().env("GEWE_API_ENDPOINT", "http://127.0.0.1:9/gewe/v2/api").start().await;
    let client = platform.register().await;
    let account = client.account(600, 0).await;
    let first = text(&client, &account, "wxid_1").await;
    let job = says(&client, first, "retry").await;
    assert_eq!(job["state"], "retryable");
    assert_sentence(&job);
    let second = text(&client, &account, "wxid_1").await;
    let blocked = eventually("the second message says that it waits for the first", secs(20), async || {
        let job = client.job(second).await;
        let code = job["why"]["code"].as_str().unwrap_or_default().to_owned();
        if ["conversation_blocked", "provider_unreachable", "jobs_ahead"].contains(&code.as_str()) {
            Ok(job)
        } else {
            Err(job.to_string())
        }
    })
    .await;
    assert_sentence(&blocked);
    assert_eq!(platform.sandbox.received().await, 0);
}

#[tokio::test]
async fn without_a_worker_a_job_says_that_there_is_none() {
    let platform = Platform::with().workers(0).start().await;
    let client = platform.register().await;
    let account = client.account(600, 0).await;
    let job = says(&client, text(&client, &account, "wxid_1").await, "no_worker").await;
    assert_sentence(&job);
    assert_eq!(job["state"], "available");
}
