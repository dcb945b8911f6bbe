//! Up to a thousand jobs in one request, each answered on its own.

use std::time::Instant;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, count_jobs, id, items, unique};
use crate::harness::Here;
use crate::harness::client::send;

fn message(account: Uuid, text: &str) -> Value {
    json!({"kind": "send_message", "args": send(account, "wxid_customer", text, "campaign")})
}

fn tally(account: Uuid, request: &str) -> Value {
    let args = json!({"request_id": request, "account_id": account, "model": "m", "input_tokens": 1, "output_tokens": 1});
    json!({"kind": "cost_tally", "args": args})
}

#[tokio::test]
async fn good_and_bad_items_are_answered_in_their_order() {
    let here = Here::open().await;
    let (admin, stranger) = (here.register().await, here.register().await);
    let account = admin.account(600, 0).await;
    let foreign = stranger.account(600, 0).await;
    let mut wordy = message(account.id, "a");
    wordy["args"]["message"]["text"] = json!("好".repeat(2001));
    let mut unknown_field = message(account.id, "a");
    unknown_field["args"]["delay"] = json!(5);
    let mut no_text = message(account.id, "a");
    no_text["args"]["message"] = json!({"kind": "text"});
    let mut other_key = message(account.id, "b");
    other_key["idempotency_key"] = json!("k1");
    let mut keyed = message(account.id, "a");
    keyed["idempotency_key"] = json!("k1");
    let mut empty_key = message(account.id, "a");
    empty_key["idempotency_key"] = json!("");
    let jobs = [
        (message(account.id, "第一条"), None, ""),
        (wordy, Some("validation_failed"), "args.message.text"),
        (tally(account.id, &unique("run-")), None, ""),
        (message(foreign.id, "a"), Some("account_not_found"), ""),
        (tally(foreign.id, "r"), Some("account_not_found"), ""),
        (message(Uuid::now_v7(), "a"), Some("account_not_found"), ""),
        (keyed.clone(), None, ""),
        (unknown_field, Some("invalid_request"), "args.delay"),
        (no_text, Some("invalid_request"), "args.message.text"),
        (json!({"kind": "sop_step", "args": {}}), Some("invalid_request"), "kind"),
        (json!({"kind": "send_message"}), Some("invalid_request"), "args"),
        (json!("send_message"), Some("invalid_request"), ""),
        (Value::Null, Some("invalid_request"), ""),
        (other_key, Some("idempotency_key_reused"), ""),
        (empty_key, Some("invalid_request"), "idempotency_key"),
        (message(account.id, "最后一条"), None, ""),
    ];
    let body: Vec<&Value> = jobs.iter().map(|(job, ..)| job).collect();
    let answer = admin.post("/jobs/batch", json!({"jobs": body})).await.expect(202);
    assert_eq!(items(&answer).len(), jobs.len());
    let mut made = Vec::new();
    for (index, ((job, code, path), item)) in jobs.iter().zip(items(&answer)).enumerate() {
        assert_eq!(item["index"], index, "{answer}");
        match code {
            None => {
                assert_eq!(item["created"], true, "{job} got {item}");
                made.push(id(&item["id"]));
                assert!(item.get("error").is_none());
            }
            Some(code) => {
                assert_eq!(item["error"]["code"], *code, "{job} got {item}");
                assert!(item["error"]["message"].as_str().is_some_and(|text| text.ends_with('.')), "{item}");
                assert!(item.get("id").is_none() && item.get("created").is_none(), "{item}");
                if !path.is_empty() {
                    assert_eq!(item["error"]["errors"][0]["path"], *path, "{item}");
                }
            }
        }
    }
    assert_eq!(count_jobs(&here, &admin).await, 4);
    assert_eq!(count_jobs(&here, &stranger).await, 0);
    for job in &made {
        assert_eq!(here.ended(&admin, *job).await["state"], "completed");
    }
    let texts: Vec<Value> =
        here.received_from(&account).await.iter().map(|one| one["body"]["content"].clone()).collect();
    assert_eq!(texts, ["第一条", "a", "最后一条"], "they keep their order");

    // Once more: only the item with a key is the same job.
    let again = admin
        .post("/jobs/batch", json!({"jobs": [keyed, keyed, message(account.id, "再一条")]}))
        .await
        .expect(202);
    let again = items(&again);
    assert_eq!((&again[0]["created"], id(&again[0]["id"])), (&json!(false), made[2]));
    assert_eq!((&again[1]["created"], id(&again[1]["id"])), (&json!(false), made[2]));
    assert_eq!(again[2]["created"], true);
}

#[tokio::test]
async fn the_same_key_twice_in_one_batch_is_one_job_and_the_same_as_alone() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let key = unique("k-");
    let mut item = message(account.id, "只发一次");
    item["idempotency_key"] = json!(key);
    let answer = admin.post("/jobs/batch", json!({"jobs": [item, item]})).await.expect(202);
    let answer = items(&answer);
    assert_eq!(answer[0]["id"], answer[1]["id"]);
    assert_eq!((&answer[0]["created"], &answer[1]["created"]), (&json!(true), &json!(false)));
    let alone = admin.post_once("/jobs/send-message", &key, item["args"].clone()).await.expect(200);
    assert_eq!(alone["id"], answer[0]["id"]);
    here.ended(&admin, id(&alone["id"])).await;
    assert_eq!(here.received_from(&account).await.len(), 1);
}

#[tokio::test]
async fn a_batch_holds_one_to_a_thousand_jobs() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    super::pause(&admin, &account).await;
    let many = |n: usize| json!({"jobs": (0..n).map(|n| message(account.id, &format!("第 {n} 条"))).collect::<Vec<_>>()});
    for n in [0, 1001] {
        assert_problem(admin.post("/jobs/batch", many(n)).await, 422, "validation_failed", "jobs");
    }
    assert_problem(admin.post("/jobs/batch", json!({"jobs": {}})).await, 400, "invalid_request", "jobs");
    assert_problem(admin.post("/jobs/batch", json!([])).await, 400, "invalid_request", "");
    assert_eq!(count_jobs(&here, &admin).await, 0);
    let started = Instant::now();
    let answer = admin.post("/jobs/batch", many(1000)).await.expect(202);
    let took = started.elapsed();
    println!("a batch of 1000: {took:?} (debug build)");
    assert!(took.as_secs() < 3, "{took:?}");
    assert_eq!(items(&answer).iter().filter(|item| item["created"] == true).count(), 1000);
    assert_eq!(count_jobs(&here, &admin).await, 1000);
    let first = admin.job(id(&items(&answer)[0]["id"])).await;
    let last = admin.job(id(&items(&answer)[999]["id"])).await;
    assert_eq!((&first["why"]["jobs_ahead"], &last["why"]["jobs_ahead"]), (&json!(0), &json!(999)));
    let done = admin.post("/jobs/bulk/cancel", json!({"filter": {}})).await.expect(200);
    assert_eq!(done["changed"], 1000);
}
