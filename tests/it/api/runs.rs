//! How plans take people in, over HTTP: whom they are for, their start, their runs.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, items, person};
use crate::harness::client::{Account, Client};
use crate::harness::{Here, eventually, secs};

/// A plan for contacts with a tag, as it is written.
fn plan(targets: Value, audience: Value) -> Value {
    json!({
        "name": "活动邀约", "target_type": "tag", "target_ids": targets,
        "workflow_config": {
            "schema_version": 1, "timezone": "Asia/Shanghai",
            "trigger": { "type": "manual" },
            "audience": audience,
            "send_window": { "days": "any", "ranges": [{ "from": "09:00", "to": "20:00" }] },
            "caps": { "per_contact_per_day": 1, "per_account_per_day": 100, "max_unanswered": 2 },
            "stop": [{ "on": "reply", "do": "exit" }],
            "entry": "day",
            "steps": [
                { "id": "day", "type": "wait", "for": "P3D", "next": "over" },
                { "id": "over", "type": "end", "outcome": "已完成" },
            ],
        },
    })
}

fn anybody() -> Value {
    json!({ "kind": "friend", "consent": { "required": false } })
}

async fn approved(client: &Client, plan: Value) -> String {
    let made = client.post("/sop-tasks", plan).await.expect(201);
    let path = format!("/sop-tasks/{}", id(&made["id"]));
    let submitted = client.post(&format!("{path}/submit"), Value::Null).await.expect(200);
    let sha256 = json!({ "sha256": submitted["review"]["sha256"] });
    client.post(&format!("{path}/approve"), sha256).await.expect(200);
    path
}

async fn import(client: &Client, account: &Account, people: &[(&str, &[&str])]) {
    let items: Vec<Value> =
        people.iter().map(|(wxid, tags)| json!({ "wxid": wxid, "nickname": "小王", "tags": tags })).collect();
    client.post("/contacts/import", json!({ "account_id": account.id, "items": items })).await.expect(200);
}

/// Waits until the newest run of a plan is over, and returns it.
async fn over(client: &Client, path: &str) -> Value {
    eventually("the run is over", secs(20), async || {
        let page = client.get(&format!("{path}/runs")).await.expect(200);
        let newest = items(&page)[0].clone();
        if newest["finished_at"].is_string() { Ok(newest) } else { Err(page.to_string()) }
    })
    .await
}

#[tokio::test]
async fn a_plan_starts_with_whom_was_looked_at() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (agent, stranger) = (person(&admin, "agent").await, here.register().await);
    let account = admin.account(600, 0).await;
    let people: [(&str, &[&str]); 4] =
        [("wxid_1", &["客户"]), ("wxid_2", &["客户"]), ("wxid_3", &["客户", "员工"]), ("wxid_4", &[])];
    import(&admin, &account, &people).await;
    let audience = json!({ "kind": "friend", "consent": { "required": false }, "max_size": 2,
        "filter": { "not": { "fact": "contact.tags", "op": "contains", "value": "员工" } } });
    let known = admin.all("/contacts").await;
    let of = |wxid: &str| id(&known.iter().find(|one| one["wxid"] == wxid).expect("known")["id"]);
    admin.post(&format!("/contacts/{}/opt-out", of("wxid_2")), Value::Null).await.expect(200);

    // Of a draft, too.
    let made = agent.post("/sop-tasks", plan(json!(["客户"]), audience.clone())).await.expect(201);
    let path = format!("/sop-tasks/{}", id(&made["id"]));
    let preview = |path: String| {
        let agent = agent.clone();
        async move { agent.post(&format!("{path}/audience"), Value::Null).await }
    };
    let seen = preview(path.clone()).await.expect(200);
    assert_eq!((&seen["count"], &seen["looked_at"], &seen["max_size"]), (&json!(2), &json!(2), &json!(2)));
    assert_eq!(seen["blocked"], json!({ "opted_out": 1 }));
    let named: Vec<Uuid> = items_of(&seen["sample"]).iter().map(|one| id(&one["contact_id"])).collect();
    assert!(named.len() == 2 && named.contains(&of("wxid_1")) && named.contains(&of("wxid_2")));
    let broken =
        agent.post("/sop-tasks", json!({ "name": "坏", "target_type": "tag", "workflow_config": {} })).await;
    let broken = format!("/sop-tasks/{}", id(&broken.expect(201)["id"]));
    assert_problem(preview(broken).await, 422, "invalid_plan", "");
    assert_problem(stranger.post(&format!("{path}/audience"), Value::Null).await, 404, "plan_not_found", "");

    let path = approved(&admin, plan(json!(["客户"]), audience)).await;
    let start = format!("{path}/start");
    assert_problem(agent.post(&start, json!({ "expected_count": 3 })).await, 409, "audience_changed", "");
    assert_problem(agent.post(&start, json!({ "expected": 3 })).await, 400, "invalid_request", "expected");
    import(&admin, &account, &[("wxid_5", &["客户"])]).await;
    assert_problem(agent.post(&start, json!({ "expected_count": 3 })).await, 409, "audience_too_large", "");
    assert_problem(preview(path.clone()).await, 409, "audience_too_large", "");
    import(&admin, &account, &[("wxid_5", &[])]).await;
    let started = agent.post(&start, json!({ "expected_count": 2 })).await.expect(200);
    assert_eq!(started["status"], "RUNNING");
    let run = over(&agent, &path).await;
    assert_eq!(
        (&run["source"], &run["state"], &run["version"]),
        (&json!("manual"), &json!("finished"), &json!(1))
    );
    assert_eq!((&run["audience"], &run["enrolled"]), (&json!(2), &json!(1)));
    assert_eq!(run["refused"], json!({ "opted_out": 1 }));
    let enrolled = agent.all(&format!("{path}/enrollments")).await;
    assert_eq!(enrolled.iter().map(|one| id(&one["contact_id"])).collect::<Vec<_>>(), [of("wxid_1")]);
    assert_eq!(enrolled[0]["source"], "manual");
    assert_problem(stranger.get(&format!("{path}/runs")).await, 404, "plan_not_found", "");

    // The next version: who is on the way finishes, goes on, or is out of it.
    let move_to = format!("{path}/move");
    let all = json!({ "how": "move" });
    assert_eq!(agent.post(&move_to, all.clone()).await.expect(200)["to_version"], 1);
    let current = agent.post(&move_to, json!({ "from_version": 1, "how": "stop" })).await;
    assert_problem(current, 422, "validation_failed", "from_version");
    let next = agent.get(&path).await.expect(200);
    let next = json!({ "name": next["name"], "target_type": "tag", "target_ids": ["客户"],
        "workflow_config": next["workflow_config"] });
    admin.put(&path, next).await.expect(200);
    let submitted = admin.post(&format!("{path}/submit"), Value::Null).await.expect(200);
    let sha256 = json!({ "sha256": submitted["review"]["sha256"] });
    admin.post(&format!("{path}/approve"), sha256).await.expect(200);
    let moved = agent.post(&move_to, all).await.expect(200);
    assert_eq!((&moved["moved"], &moved["finishing"], &moved["more"]), (&json!(1), &json!(0), &json!(false)));
    assert_eq!(agent.all(&format!("{path}/enrollments")).await[0]["version"], 2);
    assert_problem(stranger.post(&move_to, json!({ "how": "stop" })).await, 404, "plan_not_found", "");
    agent.post(&format!("{path}/stop"), Value::Null).await.expect(200);
    let out = agent.all(&format!("{path}/enrollments")).await;
    assert_eq!((&out[0]["state"], &out[0]["reason"]), (&json!("exited"), &json!("canceled")));
    let steps = agent.get(&format!("{path}/enrollments/{}", id(&out[0]["id"]))).await.expect(200);
    for step in items_of(&steps["steps"]) {
        assert_eq!((&step["state"], &step["reason"]), (&json!("canceled"), &json!("canceled")));
    }
    assert_problem(agent.post(&move_to, json!({ "how": "stop" })).await, 409, "plan_not_running", "");
}

#[tokio::test]
async fn nobody_and_everybody_are_said_in_so_many_words() {
    let here = Here::open().await;
    let admin = here.register().await;
    let agent = person(&admin, "agent").await;
    let account = admin.account(600, 0).await;
    import(&admin, &account, &[("wxid_1", &[]), ("wxid_2", &[]), ("12@chatroom", &[])]).await;
    let nobody = approved(&admin, plan(json!([]), anybody())).await;
    let start = format!("{nobody}/start");
    assert_problem(agent.post(&start, Value::Null).await, 409, "no_targets", "");
    assert_problem(agent.post(&start, json!({ "expected_count": 2 })).await, 409, "no_targets", "");
    let empty = agent.post(&format!("{nobody}/audience"), Value::Null).await.expect(200);
    assert_eq!((&empty["count"], &empty["sample"]), (&json!(0), &json!([])));
    agent.post(&start, json!({ "expected_count": 0 })).await.expect(200);
    assert_eq!(over(&agent, &nobody).await["enrolled"], 0);
    let mut all = plan(json!([]), anybody());
    all["everyone"] = json!(true);
    all["account_ids"] = json!([account.id]);
    let everybody = approved(&admin, all).await;
    let start = format!("{everybody}/start");
    assert_problem(agent.post(&start, Value::Null).await, 403, "everyone_needs_manager", "");
    admin.post(&start, Value::Null).await.expect(200);
    let run = over(&agent, &everybody).await;
    assert_eq!((&run["audience"], &run["enrolled"]), (&json!(2), &json!(2)), "friends, and no group");
}

fn items_of(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}
