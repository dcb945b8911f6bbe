//! Many jobs at once, queues and lanes.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, items, pause, resume};
use crate::harness::client::Client;
use crate::harness::{Here, eventually, secs};

async fn queue(client: &Client, name: &str) -> Value {
    let queues = client.get("/queues").await.expect(200);
    items(&queues)
        .iter()
        .find(|queue| queue["name"] == name)
        .cloned()
        .unwrap_or_else(|| panic!("no {name} in {queues}"))
}

#[tokio::test]
async fn waiting_jobs_are_counted_and_then_cancelled_by_filter() {
    let here = Here::open().await;
    let (admin, stranger) = (here.register().await, here.register().await);
    let (one, other, theirs) =
        (admin.account(600, 0).await, admin.account(600, 0).await, stranger.account(600, 0).await);
    for (client, account, n) in [(&admin, &one, 5), (&admin, &other, 3), (&stranger, &theirs, 2)] {
        pause(client, account).await;
        for n in 0..n {
            client.text(account, "wxid_customer", &format!("第 {n} 条"), "campaign").await;
        }
    }
    let cancel = async |filter: Value, preview: bool| {
        admin.post("/jobs/bulk/cancel", json!({"filter": filter, "preview": preview})).await.expect(200)
    };
    let shown = cancel(json!({"account_id": one.id}), true).await;
    assert_eq!(shown, json!({"matched": 5, "changed": 0, "remaining": false, "preview": true}));
    assert_eq!(cancel(json!({}), true).await["matched"], 8);
    assert_eq!(cancel(json!({"kind": "cost_tally"}), true).await["matched"], 0);
    assert_eq!(cancel(json!({"state": "scheduled"}), true).await["matched"], 0);
    assert_eq!(cancel(json!({"account_id": theirs.id}), true).await["matched"], 0);
    assert_eq!(cancel(json!({"created_to": "2020-01-01T00:00:00Z"}), true).await["matched"], 0);
    assert_eq!(admin.all("/jobs?state=available").await.len(), 8, "a preview changes nothing");
    let done = cancel(json!({"lane": format!("account:{}", one.id)}), false).await;
    assert_eq!(done, json!({"matched": 5, "changed": 5, "remaining": false, "preview": false}));
    assert_eq!(cancel(json!({"account_id": one.id}), false).await["changed"], 0, "once");
    assert_eq!(
        (admin.all("/jobs?state=available").await.len(), admin.all("/jobs?state=cancelled").await.len()),
        (3, 5)
    );
    cancel(json!({}), false).await;
    assert_eq!(stranger.all("/jobs?state=available").await.len(), 2, "another organisation's jobs stay");
    resume(&stranger, &theirs).await;
}

#[tokio::test]
async fn dead_jobs_are_counted_and_then_revived_by_filter() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    here.sandbox.fail(json!({"mode": "unknown_error", "app_id": account.app_id, "times": 3})).await;
    let mut dead = Vec::new();
    for n in 0..3 {
        dead.push(admin.text(&account, "wxid_customer", &format!("第 {n} 条"), "campaign").await);
    }
    for job in &dead {
        assert_eq!(here.ended(&admin, *job).await["state"], "dead");
    }
    let revive = async |filter: Value, preview: bool| {
        admin.post("/jobs/bulk/revive", json!({"filter": filter, "preview": preview})).await.expect(200)
    };
    assert_eq!(revive(json!({"kind": "send_message"}), true).await["matched"], 3);
    assert_eq!(revive(json!({"account_id": Uuid::now_v7()}), true).await["matched"], 0);
    assert_eq!(here.received_from(&account).await.len(), 0);
    assert_eq!(revive(json!({"state": "dead", "account_id": account.id}), false).await["changed"], 3);
    for job in dead {
        assert_eq!(here.ended(&admin, job).await["state"], "completed");
    }
    assert_eq!(revive(json!({}), false).await["changed"], 0);
    assert_eq!(here.received_from(&account).await.len(), 3);
}

#[tokio::test]
async fn a_paused_queue_holds_the_own_organisation_back_and_nobody_else() {
    let here = Here::open().await;
    let (admin, stranger) = (here.register().await, here.register().await);
    let account = admin.account(600, 0).await;
    let paused = admin.post("/queues/send/pause", Value::Null).await.expect(200);
    assert_eq!((&paused["name"], &paused["paused"]), (&json!("send"), &json!(true)));
    let job = admin.text(&account, "wxid_customer", "你好", "interactive").await;
    let waiting = here.waits(&admin, job, "queue_paused").await;
    assert_eq!((&waiting["state"], &waiting["why"]["next_try_at"]), (&json!("available"), &Value::Null));
    let other = stranger.account(600, 0).await;
    let theirs = stranger.text(&other, "wxid_customer", "你好", "interactive").await;
    assert_eq!(here.ended(&stranger, theirs).await["state"], "completed");
    assert_eq!(queue(&stranger, "send").await["paused"], false);
    let tally = json!({"request_id": "r", "account_id": account.id, "model": "m", "input_tokens": 1, "output_tokens": 1});
    let tally = id(&admin.post("/jobs/cost-tally", tally).await.expect(202)["id"]);
    assert_eq!(here.ended(&admin, tally).await["state"], "completed", "another queue goes on");

    let counted = eventually("it is counted", secs(5), async || {
        let send = queue(&admin, "send").await;
        if send["available"] == 1 { Ok(send) } else { Err(send.to_string()) }
    })
    .await;
    assert!(counted["oldest_available_age_s"].as_f64().is_some_and(|age| age > 0.0), "{counted}");
    for state in ["scheduled", "running", "retryable", "dead"] {
        assert_eq!(counted[state], 0, "{state}: {counted}");
    }
    assert_eq!(here.received_from(&account).await.len(), 0);
    admin.post("/queues/send/resume", Value::Null).await.expect(200);
    assert_eq!(here.ended(&admin, job).await["state"], "completed");
    eventually("the queue is empty", secs(5), async || queue(&admin, "send").await["available"] == 0).await;
    assert!(queue(&admin, "send").await["oldest_available_age_s"].is_null());
    for action in ["pause", "resume"] {
        let reply = admin.post(&format!("/queues/nothing/{action}"), Value::Null).await;
        assert!(reply.text.contains("send"), "it names those that there are: {}", reply.text);
        assert_problem(reply, 404, "queue_not_found", "");
    }
}

#[tokio::test]
async fn lanes_show_what_waits_and_are_paused_and_resumed() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (one, other) = (admin.account(1, 0).await, admin.account(600, 0).await);
    let first = admin.text(&one, "wxid_customer", "第一条", "interactive").await;
    here.ended(&admin, first).await;
    let waiting = admin.text(&one, "wxid_customer", "第二条", "interactive").await;
    here.waits(&admin, waiting, "messages_per_minute").await;
    admin.post(&format!("/lanes/{}/pause", other.id), json!({"reason": "换手机"})).await.expect(200);
    let held = admin.text(&other, "wxid_customer", "你好", "interactive").await;
    here.waits(&admin, held, "lane_paused").await;
    let lanes = admin.get("/lanes?kind=account").await.expect(200);
    let [latest, earlier] = items(&lanes) else { panic!("two lanes: {lanes}") };
    assert_eq!((id(&latest["id"]), id(&earlier["id"])), (other.id, one.id), "newest first");
    assert_eq!(
        (&latest["lane"], &latest["kind"], &latest["label"]),
        (&json!(format!("account:{}", other.id)), &json!("account"), &json!("小李"))
    );
    assert_eq!(
        (&latest["paused"], &latest["paused_reason"], &latest["available"]),
        (&json!(true), &json!("换手机"), &json!(1))
    );
    assert_eq!(
        (&earlier["paused"], &earlier["wait_code"], &earlier["available"]),
        (&json!(false), &json!("messages_per_minute"), &json!(1))
    );
    assert!(earlier["runnable_at"].is_string() && earlier["oldest_age_s"].is_number(), "{earlier}");
    let resumed = admin.post(&format!("/lanes/{}/resume", other.id), Value::Null).await.expect(200);
    assert_eq!(resumed["paused"], false);
    assert_eq!(here.ended(&admin, held).await["state"], "completed");
    let unheard = admin.post(&format!("/lanes/{}/pause", Uuid::now_v7()), json!({})).await;
    assert_problem(unheard, 404, "lane_not_found", "");
}
