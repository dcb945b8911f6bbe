//! One organisation never sees another: whatever is not ours answers as if it were not there.

use reqwest::Method;
use serde_json::{Value, json};

use super::{assert_problem, count_jobs, id, items, pause};
use crate::harness::Here;
use crate::harness::client::send;

#[tokio::test]
async fn what_belongs_to_another_organisation_is_not_there() {
    let here = Here::open().await;
    let (owner, stranger) = (here.register().await, here.register().await);
    let account = owner.account(600, 0).await;
    here.sandbox.fail(json!({"mode": "not_json", "app_id": account.app_id})).await;
    let unknown = owner.text(&account, "wxid_customer", "你好", "interactive").await;
    here.ended(&owner, unknown).await;
    pause(&owner, &account).await;
    let waiting = owner.text(&account, "wxid_customer", "你好", "interactive").await;

    let (post, account_id) = (Method::POST, account.id);
    let of_account = |rest: &str| format!("/wechat-accounts/{account_id}{rest}");
    let cases = [
        (Method::GET, of_account(""), Value::Null, "account_not_found"),
        (Method::PATCH, of_account(""), json!({"nickname": "mine"}), "account_not_found"),
        (Method::PUT, of_account(""), json!({"limits": {"messages_per_minute": 1}}), "account_not_found"),
        (Method::DELETE, of_account(""), Value::Null, "account_not_found"),
        (post.clone(), of_account("/pause"), json!({}), "account_not_found"),
        (post.clone(), of_account("/resume"), Value::Null, "account_not_found"),
        (
            post.clone(),
            "/jobs/send-message".into(),
            send(account_id, "wxid_a", "a", "reply"),
            "account_not_found",
        ),
        (
            post.clone(),
            "/jobs/cost-tally".into(),
            json!({"request_id": "r", "account_id": account_id, "model": "m", "input_tokens": 1, "output_tokens": 1}),
            "account_not_found",
        ),
        (Method::GET, format!("/jobs/{waiting}"), Value::Null, "job_not_found"),
        (post.clone(), format!("/jobs/{waiting}/cancel"), Value::Null, "job_not_found"),
        (post.clone(), format!("/jobs/{unknown}/revive"), Value::Null, "job_not_found"),
        (post.clone(), format!("/jobs/{unknown}/resolve"), json!({"as": "sent"}), "job_not_found"),
        (post.clone(), format!("/jobs/{unknown}/resolve"), json!({"as": "resend"}), "job_not_found"),
        (post.clone(), format!("/lanes/{account_id}/pause"), json!({}), "lane_not_found"),
        (post, format!("/lanes/{account_id}/resume"), Value::Null, "lane_not_found"),
        (Method::PUT, format!("/users/{}", owner.user), json!({"is_active": false}), "user_not_found"),
    ];
    // Once as it is, and once after the owner's own request has warmed what the process remembers.
    for _ in 0..2 {
        for (method, path, body, code) in &cases {
            let request = stranger.request(method.clone(), path);
            let request = if body.is_null() { request } else { request.json(body) };
            assert_problem(stranger.send(request).await, 404, code, "");
        }
        let item = json!({"kind": "send_message", "args": send(account_id, "wxid_a", "a", "reply")});
        let batch = stranger.post("/jobs/batch", json!({"jobs": [item]})).await.expect(202);
        assert_eq!(items(&batch)[0]["error"]["code"], "account_not_found");
        let another = owner.text(&account, "wxid_customer", "你好", "interactive").await;
        owner.post(&format!("/jobs/{another}/cancel"), Value::Null).await.expect(200);
    }
    for path in
        ["/wechat-accounts", "/jobs", "/sends", "/lanes", "/cost-ledgers", "/model-prices", "/budgets"]
    {
        assert_eq!(stranger.get(path).await.expect(200)["items"], json!([]), "{path}");
        for query in [
            format!("/jobs?account_id={account_id}"),
            format!("/jobs?lane={account_id}"),
            format!("/sends?job_id={unknown}"),
        ] {
            assert_eq!(stranger.get(&query).await.expect(200)["items"], json!([]), "{query}");
        }
    }
    for line in items(&stranger.get("/audit-log").await.expect(200)) {
        assert!(!line.to_string().contains(&owner.user.to_string()), "{line}");
    }
    let people = stranger.get("/users").await.expect(200);
    assert_eq!(items(&people).iter().map(|one| id(&one["id"])).collect::<Vec<_>>(), [stranger.user]);
    assert_eq!(count_jobs(&here, &stranger).await, 0);
    // And nothing was changed from outside.
    let shown = owner.get(&of_account("")).await.expect(200);
    assert_eq!((&shown["nickname"], &shown["paused"]), (&json!("小李"), &json!(true)));
    assert_eq!(owner.job(waiting).await["state"], "available");
    assert_eq!(owner.job(unknown).await["result"]["send_status"], "unknown");
}
