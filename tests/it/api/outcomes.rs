//! What becomes of a message that does not simply arrive, and what a person can do about it.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, items, pause, person, unique};
use crate::harness::client::{Account, Client, send};
use crate::harness::{Here, eventually, secs};

/// Sends a message that the phone gets but whose answer is lost, under a policy. Returns the job's id.
async fn lose_answer(here: &Here, client: &Client, account: &Account, mode: &str, policy: &str) -> Uuid {
    here.sandbox.fail(json!({"mode": mode, "app_id": account.app_id})).await;
    let mut body = send(account.id, "wxid_customer", "你好", "interactive");
    body["on_unknown"] = json!(policy);
    id(&client.post("/jobs/send-message", body).await.expect(202)["id"])
}

/// Sends a message whose outcome stays unknown.
async fn unknown(here: &Here, client: &Client, account: &Account) -> Uuid {
    let job = lose_answer(here, client, account, "reset_after_accept", "hold").await;
    here.ended(client, job).await;
    job
}

async fn resolve(client: &Client, job: Uuid, verdict: &str) -> crate::harness::client::Reply {
    client.post(&format!("/jobs/{job}/resolve"), json!({"as": verdict})).await
}

#[tokio::test]
async fn an_unknown_outcome_is_held_shown_first_and_not_repeated() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    for (n, mode) in ["reset_after_accept", "not_json", "truncated_body", "bad_gateway_html_after_accept"]
        .iter()
        .enumerate()
    {
        let job = lose_answer(&here, &admin, &account, mode, "hold").await;
        let job = here.ended(&admin, job).await;
        assert_eq!(
            (&job["state"], &job["error"]["code"]),
            (&json!("dead"), &json!("outcome_unknown")),
            "{mode}: {job}"
        );
        assert_eq!(
            (&job["result"]["send_status"], &job["attempt"]),
            (&json!("unknown"), &json!(1)),
            "{mode}: {job}"
        );
        let ok = admin.text(&account, "wxid_other", "你好", "interactive").await;
        here.ended(&admin, ok).await;
        let sends = admin.get("/sends").await.expect(200);
        let first = &items(&sends)[0];
        assert_eq!((id(&first["job_id"]), &first["state"]), (id(&job["id"]), &json!("unknown")), "{mode}");
        assert_eq!(
            (&first["needs_decision"], &items(&sends)[n + 1]["needs_decision"]),
            (&json!(true), &json!(false))
        );
        // Neither one by one nor in bulk.
        let revived = admin.post(&format!("/jobs/{}/revive", id(&job["id"])), Value::Null).await;
        assert_problem(revived, 409, "outcome_unknown", "");
        let bulk =
            admin.post("/jobs/bulk/revive", json!({"filter": {"account_id": account.id}})).await.expect(200);
        assert_eq!(bulk["changed"], 0, "{bulk}");
    }
    assert_eq!(here.received_from(&account).await.len(), 8, "each went once");
}

#[tokio::test]
async fn a_person_decides_once_that_a_message_was_sent() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let job = unknown(&here, &admin, &account).await;
    let decided = resolve(&admin, job, "sent").await.expect(200);
    assert_eq!((&decided["state"], &decided["error"]), (&json!("completed"), &Value::Null), "{decided}");
    assert_eq!(
        (&decided["result"]["send_status"], &decided["result"]["resolved_as"]),
        (&json!("sent"), &json!("sent"))
    );
    for verdict in ["sent", "failed", "resend"] {
        assert_problem(resolve(&admin, job, verdict).await, 409, "nothing_to_resolve", "");
    }
    let sends = admin.get(&format!("/sends?job_id={job}")).await.expect(200);
    let decision = &items(&sends)[0];
    assert_eq!((&decision["needs_decision"], &decision["resolved_by"]), (&json!(false), &json!(admin.user)));
    assert_eq!(admin.get("/jobs?state=dead").await.expect(200)["items"], json!([]));
    assert_eq!(
        admin.get("/jobs?state=completed").await.expect(200)["items"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(here.received_from(&account).await.len(), 1);
}

#[tokio::test]
async fn a_person_decides_once_that_a_message_was_not_sent_and_may_then_revive_it() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let job = unknown(&here, &admin, &account).await;
    let decided = resolve(&admin, job, "failed").await.expect(200);
    assert_eq!(
        (&decided["state"], &decided["result"]["send_status"]),
        (&json!("dead"), &json!("failed")),
        "{decided}"
    );
    assert_problem(resolve(&admin, job, "failed").await, 409, "nothing_to_resolve", "");
    admin.post(&format!("/jobs/{job}/revive"), Value::Null).await.expect(200);
    let job = here.ended(&admin, job).await;
    assert_eq!(
        (&job["state"], &job["result"]["send_status"]),
        (&json!("completed"), &json!("sent")),
        "{job}"
    );
    assert_eq!(
        here.received_from(&account).await.len(),
        2,
        "the person was wrong, but it was their decision"
    );
}

#[tokio::test]
async fn of_many_decisions_at_once_one_counts() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let job = unknown(&here, &admin, &account).await;
    let replies = futures::future::join_all((0..8).map(|_| resolve(&admin, job, "resend"))).await;
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(replies.iter().all(|reply| matches!(reply.status, 200 | 409)), "{statuses:?}");
    let job = here.ended(&admin, job).await;
    assert_eq!(
        (&job["state"], &job["result"]["send_status"]),
        (&json!("completed"), &json!("sent")),
        "{job}"
    );
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(2), "both attempts are on record: {job}");
    let sends = admin.get(&format!("/sends?job_id={}", id(&job["id"]))).await.expect(200);
    let states: Vec<_> =
        items(&sends).iter().map(|send| (send["state"].clone(), send["resolved_as"].clone())).collect();
    assert_eq!(states, [(json!("sent"), Value::Null), (json!("unknown"), json!("resend"))]);
    assert_eq!(here.received_from(&account).await.len(), 2);
}

#[tokio::test]
async fn the_caller_may_choose_to_resend_or_to_drop_what_is_unknown() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let dropped = lose_answer(&here, &admin, &account, "not_json", "drop").await;
    let dropped = here.ended(&admin, dropped).await;
    assert_eq!(
        (&dropped["state"], &dropped["result"]["send_status"]),
        (&json!("completed"), &json!("unknown")),
        "{dropped}"
    );
    let resent = lose_answer(&here, &admin, &account, "not_json", "resend").await;
    let waiting = here.waits(&admin, resent, "retry").await;
    assert_eq!(
        (&waiting["state"], &waiting["attempts"][0]["outcome"]),
        (&json!("retryable"), &json!("retry")),
        "{waiting}"
    );
    let resent = here.ended(&admin, resent).await;
    assert_eq!((&resent["state"], &resent["attempt"]), (&json!("completed"), &json!(2)), "{resent}");
    assert_eq!(resent["result"]["send_status"], "sent");
    assert_eq!(here.received_from(&account).await.len(), 3);
    let sends = admin.get("/sends").await.expect(200);
    assert!(items(&sends).iter().all(|send| send["needs_decision"] == false), "nobody is asked: {sends}");
    let how: Vec<_> = items(&sends).iter().map(|send| send["resolved_as"].clone()).collect();
    assert_eq!(how, [Value::Null, json!("resend"), json!("drop")], "{sends}");
}

#[tokio::test]
async fn a_message_to_an_offline_account_waits_until_it_is_back() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    here.sandbox.set_state(&account.app_id, "offline").await;
    let job = admin.text(&account, "wxid_customer", "你好", "interactive").await;
    let waiting = here.waits(&admin, job, "account_offline").await;
    assert_eq!(waiting["attempt"], 0, "waiting spends no attempt: {waiting}");
    let next: chrono::DateTime<chrono::Utc> =
        waiting["why"]["next_try_at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    let in_s = (next - chrono::Utc::now()).num_seconds();
    assert!((30..=60).contains(&in_s), "it is asked again in {in_s} s");
    let path = format!("/wechat-accounts/{}", account.id);
    assert_eq!(admin.get(&path).await.expect(200)["status"], "OFFLINE");
    here.sandbox.set_state(&account.app_id, "online").await;
    let resumed = admin.post(&format!("{path}/resume"), Value::Null).await.expect(200);
    assert_eq!(resumed["status"], "ONLINE");
    let job = here.ended(&admin, job).await;
    assert_eq!((&job["state"], &job["attempt"]), (&json!("completed"), &json!(1)), "{job}");
    assert_eq!(here.received_from(&account).await.len(), 1);
}

#[tokio::test]
async fn risk_control_stops_the_account_until_a_manager_resumes_it() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (agent, manager) = (person(&admin, "agent").await, person(&admin, "manager").await);
    let account = admin.account(600, 0).await;
    here.sandbox.set_state(&account.app_id, "risk").await;
    let first = agent.text(&account, "wxid_customer", "第一条", "interactive").await;
    let second = agent.text(&account, "wxid_other", "第二条", "interactive").await;
    let path = format!("/wechat-accounts/{}", account.id);
    eventually("the account is held", secs(10), async || {
        let shown = agent.get(&path).await.expect(200);
        if shown["status"] == "RISK_HOLD" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    for job in [first, second] {
        let job = eventually("the job waits for a person", secs(10), async || {
            let job = agent.job(job).await;
            if job["why"]["next_try_at"].is_null() && job["state"] != "running" {
                Ok(job)
            } else {
                Err(job.to_string())
            }
        })
        .await;
        assert_eq!(
            (&job["state"], &job["why"]["code"]),
            (&json!("available"), &json!("lane_paused")),
            "{job}"
        );
    }
    let calls = async || {
        let mut calls = here.sandbox.calls().await;
        calls.retain(|call| call["app_id"] == account.app_id.as_str());
        calls.len()
    };
    assert_eq!(calls().await, 1, "GeWe is not asked again");
    here.sandbox.set_state(&account.app_id, "online").await;
    let refused = agent.post(&format!("{path}/resume"), Value::Null).await;
    assert_problem(refused, 403, "risk_hold_needs_manager", "");
    assert_eq!(calls().await, 1);
    let held = agent.get(&path).await.expect(200);
    assert_eq!(
        (&held["risk"]["signal"], &held["risk"]["lifted_at"]),
        (&json!("provider_limit"), &Value::Null)
    );
    assert_eq!((&held["warm_up"]["day"], &held["warm_up"]["cap_today"]), (&json!(1), &json!(20)));
    let alarms = agent.all(&format!("/alerts?kind=account_risk_hold&account_id={}", account.id)).await;
    assert_eq!((alarms.len(), &alarms[0]["severity"]), (1, &json!("critical")), "{alarms:?}");
    let refused = agent.patch(&path, json!({"status": "ONLINE"})).await;
    assert_problem(refused, 403, "risk_hold_needs_manager", "");
    let resumed = manager.patch(&path, json!({"status": "ONLINE"})).await.expect(200);
    assert_eq!((&resumed["status"], &resumed["paused"]), (&json!("ONLINE"), &json!(false)));
    assert!(resumed["risk"]["lifted_at"].is_string(), "{resumed}");
    assert_eq!(resumed["warm_up"]["cap_today"], 10, "half of the little that a new one has");
    for job in [first, second] {
        assert_eq!(here.ended(&agent, job).await["state"], "completed");
    }
    assert_eq!(here.received_from(&account).await.len(), 2);
}

#[tokio::test]
async fn a_refused_token_makes_its_accounts_wait_and_no_others() {
    let here = Here::open().await;
    let admin = here.register().await;
    let app_id = unique("wx_");
    let body = json!({"wxid": unique("wxid_"), "gewe_app_id": app_id, "gewe_token_id": unique("expired-")});
    let account = Account { id: id(&admin.post("/wechat-accounts", body).await.expect(201)["id"]), app_id };
    let job = admin.text(&account, "wxid_customer", "你好", "interactive").await;
    let waiting = here.waits(&admin, job, "gewe_token_rejected").await;
    assert!(waiting["why"]["next_try_at"].is_string() && waiting["attempt"] == 0, "{waiting}");
    let other = admin.account(600, 0).await;
    let unaffected = admin.text(&other, "wxid_customer", "你好", "interactive").await;
    assert_eq!(here.ended(&admin, unaffected).await["state"], "completed");
    let path = format!("/wechat-accounts/{}", account.id);
    admin.patch(&path, json!({"gewe_token_id": unique("good-")})).await.expect(200);
    assert_eq!(here.ended(&admin, job).await["state"], "completed");
    assert_eq!(here.received_from(&account).await.len(), 1);
}

#[tokio::test]
async fn a_refused_message_is_dead_until_it_is_revived() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    here.sandbox.fail(json!({"mode": "unknown_error", "app_id": account.app_id})).await;
    let job = admin.text(&account, "wxid_customer", "你好", "interactive").await;
    let dead = here.ended(&admin, job).await;
    assert_eq!((&dead["state"], &dead["error"]["code"]), (&json!("dead"), &json!("refused")), "{dead}");
    assert_eq!((&dead["result"]["send_status"], &dead["attempt"]), (&json!("failed"), &json!(1)));
    assert!(dead["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
    assert_problem(resolve(&admin, job, "sent").await, 409, "nothing_to_resolve", "");
    let revived = admin.post(&format!("/jobs/{job}/revive"), Value::Null).await.expect(200);
    assert!(revived["error"].is_null(), "{revived}");
    let again = admin.post(&format!("/jobs/{job}/revive"), Value::Null).await;
    assert_problem(again, 409, "not_dead", "");
    let done = here.ended(&admin, job).await;
    assert_eq!((&done["state"], &done["attempt"]), (&json!("completed"), &json!(2)));
    let outcomes: Vec<_> =
        done["attempts"].as_array().expect("attempts").iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, ["dead", "completed"]);
}

#[tokio::test]
async fn a_call_that_was_cut_off_is_unknown_and_sent_again_when_a_person_says_so() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    here.sandbox.fail(json!({"mode": "reset_before_accept", "app_id": account.app_id})).await;
    // A reset may hide a delivery: whether it did is nobody's knowledge, so it is not tried again.
    let job = admin.text(&account, "wxid_customer", "你好", "interactive").await;
    let job = here.ended(&admin, job).await;
    assert_eq!((&job["state"], &job["result"]["send_status"]), (&json!("dead"), &json!("unknown")), "{job}");
    let resent = resolve(&admin, id(&job["id"]), "resend").await.expect(200);
    assert_ne!(resent["state"], "dead", "{resent}");
    here.ended(&admin, id(&job["id"])).await;
    assert_eq!(here.received_from(&account).await.len(), 1);
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_once_and_never_sent() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    pause(&admin, &account).await;
    let job = admin.text(&account, "wxid_customer", "别发", "interactive").await;
    let cancelled = admin.post(&format!("/jobs/{job}/cancel"), Value::Null).await.expect(200);
    assert_eq!(
        (&cancelled["state"], &cancelled["error"]["code"]),
        (&json!("cancelled"), &json!("cancelled")),
        "{cancelled}"
    );
    assert!(cancelled["finalized_at"].is_string() && cancelled["why"].is_null());
    let again = admin.post(&format!("/jobs/{job}/cancel"), Value::Null).await;
    assert_problem(again, 409, "already_ended", "");
    let revived = admin.post(&format!("/jobs/{job}/revive"), Value::Null).await;
    assert_problem(revived, 409, "not_dead", "");
    super::resume(&admin, &account).await;
    let next = admin.text(&account, "wxid_customer", "发", "interactive").await;
    here.ended(&admin, next).await;
    let texts: Vec<Value> =
        here.received_from(&account).await.iter().map(|one| one["body"]["content"].clone()).collect();
    assert_eq!(texts, ["发"]);
}

#[tokio::test]
async fn a_message_on_its_way_is_not_called_back() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    here.sandbox
        .fail(json!({"mode": "delay_after_accept", "delay_ms": 3000, "app_id": account.app_id}))
        .await;
    let job = admin.text(&account, "wxid_customer", "已经在路上", "interactive").await;
    let behind = admin.text(&account, "wxid_customer", "下一条", "interactive").await;
    eventually("it is on its way", secs(10), async || here.received_from(&account).await.len() == 1).await;
    let running = admin.job(job).await;
    assert_eq!(
        (&running["state"], &running["why"]["code"]),
        (&json!("running"), &json!("running")),
        "{running}"
    );
    let waits = admin.job(behind).await;
    assert_eq!(
        (&waits["why"]["code"], &waits["why"]["jobs_ahead"]),
        (&json!("lane_busy"), &json!(1)),
        "{waits}"
    );
    let late = admin.post(&format!("/jobs/{job}/cancel"), Value::Null).await;
    assert_problem(late, 409, "too_late", "");
    assert_problem(resolve(&admin, job, "sent").await, 409, "nothing_to_resolve", "");
    for job in [job, behind] {
        assert_eq!(here.ended(&admin, job).await["state"], "completed");
    }
}
