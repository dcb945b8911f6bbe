//! What a plan would do, has done, and why not, as a front end asks for it.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::scene::{end, send};
use crate::harness::Here;
use crate::harness::client::{Account, Client};

/// A plan for a tag, as it is written.
fn plan(steps: Value) -> Value {
    json!({
        "name": "公开课邀约", "target_type": "tag", "target_ids": ["新线索"],
        "workflow_config": {
            "schema_version": 1,
            "timezone": "Asia/Shanghai",
            "trigger": { "type": "manual" },
            "audience": { "kind": "friend", "consent": { "required": true, "purpose": "活动通知" } },
            "send_window": { "days": "any", "ranges": [{ "from": "09:00", "to": "21:00" }] },
            "caps": { "per_contact_per_day": 2, "per_account_per_day": 150, "max_unanswered": 3 },
            "stop": [{ "on": "reply", "do": "exit", "outcome": "客户已回复" }],
            "variables": {
                "称呼": { "label": "称呼", "default": "您" }, "机构": { "label": "机构名称", "default": "慧学教育" } },
            "entry": "first",
            "steps": steps,
        },
    })
}

fn two_messages() -> Value {
    json!([
        send("first", "{{称呼}}好，我是{{机构}}的小李。回复“退订”不再打扰。", json!("arm")),
        { "id": "arm", "type": "split", "arms": [
            { "key": "a", "weight": 50, "next": "rest" }, { "key": "b", "weight": 50, "next": "rest" } ] },
        { "id": "rest", "type": "wait", "for": "P1D", "next": "second" },
        send("second", "公开课明天开始。", json!("over")),
        end("over", "已完成"),
    ])
}

/// Contacts with the tag; the last of them has agreed to nothing.
async fn people(admin: &Client, account: &Account, count: usize) -> Vec<Uuid> {
    let consent =
        json!([{ "purpose": "活动通知", "basis": "到店登记表", "given_at": "2026-01-05T10:00:00+08:00" }]);
    let items: Vec<Value> = (0..count)
        .map(|n| {
            let consents = if n + 1 < count { consent.clone() } else { json!([]) };
            json!({ "wxid": format!("wxid_{n}_{}", account.id.simple()), "nickname": "小王", "remark": format!("王女士{n}"),
                "tags": ["新线索"], "consents": consents })
        })
        .collect();
    admin.post("/contacts/import", json!({ "account_id": account.id, "items": items })).await.expect(200);
    let known = admin.all(&format!("/contacts?account_id={}", account.id)).await;
    let id = |name: String| {
        let found = known.iter().find(|contact| contact["remark"] == json!(name)).expect("imported");
        found["id"].as_str().expect("an id").parse().expect("an id")
    };
    (0..count).map(|n| id(format!("王女士{n}"))).collect()
}

#[tokio::test]
async fn a_draft_is_played_before_anybody_approves_it() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let people = people(&admin, &account, 4).await;
    let made = admin.post("/sop-tasks", plan(two_messages())).await.expect(201);
    let path = format!("/sop-tasks/{}/dry-run", made["id"].as_str().expect("an id"));

    let played = admin.send(admin.request(Method::POST, &path)).await.expect(200);
    let numbers = ["targets", "recipients", "messages"].map(|field| played[field].clone());
    assert_eq!(numbers, [json!(4), json!(3), json!(6)], "{played}");
    assert_eq!((&played["blocked"], &played["cost_yuan"]), (&json!({"consent_missing": 1}), &json!("0")));
    assert!(played["version"].is_null() && played["bottleneck_account_id"].is_null(), "{played}");
    assert!(
        played["ends_at"].as_str() < played["finishes_at"].as_str()
            || played["ends_at"] == played["finishes_at"]
    );
    let items = played["items"].as_array().expect("a list");
    assert_eq!(items.len(), 7);
    let of =
        |contact: Uuid| items.iter().filter(|item| item["contact_id"] == json!(contact)).collect::<Vec<_>>();
    let first = of(people[0]);
    assert_eq!((&first[0]["step_id"], &first[1]["step_id"]), (&json!("first"), &json!("second")));
    assert_eq!(first[0]["text"], "王女士0好，我是慧学教育的小李。回复“退订”不再打扰。");
    assert!(first.iter().all(|item| item["planned_at"].is_string() && item["outcome"] == "sent"));
    let blocked = of(people[3])[0];
    assert_eq!((&blocked["reasons"], &blocked["outcome"]), (&json!(["consent_missing"]), &json!("blocked")));
    assert!(blocked["planned_at"].is_null() && blocked["text"].is_string());

    // Page by page it is the same.
    let mut seen = Vec::new();
    let mut cursor = Value::Null;
    for _ in 0..4 {
        let page = admin.post(&path, json!({ "limit": 2, "cursor": cursor })).await.expect(200);
        seen.extend(page["items"].as_array().expect("a list").iter().map(|item| item["step_id"].clone()));
        cursor = page["next_cursor"].clone();
    }
    assert!(cursor.is_null() && seen == items.iter().map(|item| item["step_id"].clone()).collect::<Vec<_>>());

    // Whoever answers is not written to again; a stranger's id is said to be one.
    let answered = admin.post(&path, json!({ "assume": { "reply_share": 1.0 } })).await.expect(200);
    assert_eq!((&answered["recipients"], &answered["messages"]), (&json!(3), &json!(3)));
    let named = json!({ "contact_ids": [people[1], Uuid::now_v7()] });
    let named = admin.post(&path, named).await.expect(200);
    assert_eq!((&named["targets"], &named["blocked"]), (&json!(2), &json!({"contact_not_found": 1})));

    for (body, field) in [
        (json!({ "contact_ids": [] }), "contact_ids"),
        (json!({ "assume": { "reply_share": 1.5 } }), "assume.reply_share"),
        (json!({ "assume": { "starts_at": "2099-01-01T00:00:00Z" } }), "assume.starts_at"),
    ] {
        let refused = admin.post(&path, body).await;
        assert!(refused.status == 422 && refused.text.contains(field), "{}", refused.text);
    }
    assert_eq!(admin.post(&path, json!({ "version": 7 })).await.status, 404);
    let mut broken = two_messages();
    broken[2]["next"] = json!("nowhere");
    admin.put(&path.replace("/dry-run", ""), plan(broken)).await.expect(200);
    let refused = admin.post(&path, json!({})).await;
    assert!(refused.text.contains("invalid_plan") && refused.text.contains("E03"), "{}", refused.text);
    let other = here.register().await;
    assert_eq!(other.post(&path, json!({})).await.status, 404);
}

#[tokio::test]
async fn a_plan_says_how_far_its_people_came_and_why_somebody_was_not_written_to() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let people = people(&admin, &account, 4).await;
    let made = admin.post("/sop-tasks", plan(two_messages())).await.expect(201);
    let path = format!("/sop-tasks/{}", made["id"].as_str().expect("an id"));
    let submitted = admin.post(&format!("{path}/submit"), Value::Null).await.expect(200);
    let approval = json!({ "sha256": submitted["review"]["sha256"] });
    admin.post(&format!("{path}/approve"), approval).await.expect(200);
    let why = |contact: Uuid| format!("{path}/contacts/{contact}/why");
    let early = admin.get(&why(people[0])).await.expect(200);
    assert_eq!(early["reasons"][0]["code"], "plan_not_running");
    // Nobody enters before this organisation's account is held: where they stand does not depend on the time of day.
    here.run(&format!("UPDATE wechat_accounts SET status = 'RISK_HOLD' WHERE id = '{}'", account.id)).await;
    admin.post(&format!("{path}/start"), Value::Null).await.expect(200);
    let taken =
        admin.post(&format!("{path}/enrollments"), json!({ "contact_ids": people })).await.expect(202);
    assert_eq!(taken["refused"][0]["reason"], "consent_missing");

    let funnel = admin.get(&format!("{path}/funnel?by=step")).await.expect(200);
    let numbers = ["enrolled", "sent", "replied", "goal", "opted_out", "failed", "unknown"];
    assert_eq!(
        numbers.map(|field| funnel[field].clone()),
        [3, 0, 0, 0, 0, 0, 0].map(|n: i64| json!(n)),
        "{funnel}"
    );
    let waiting = funnel["waiting"].as_object().expect("an object");
    assert_eq!(waiting.values().filter_map(Value::as_i64).sum::<i64>(), 3, "{funnel}");
    assert!(admin.get(&format!("{path}/funnel?by=arm&version=1")).await.expect(200)["arms"].is_object());
    assert_eq!(admin.get(&format!("{path}/funnel?version=2")).await.expect(200)["enrolled"], 0);
    assert!([400, 422].contains(&admin.get(&format!("{path}/funnel?by=day")).await.status));

    let enrolled = taken["enrolled"].as_array().expect("a list");
    let of_first = enrolled.iter().find(|one| one["contact_id"] == json!(people[0])).expect("enrolled");
    let one = format!("{path}/enrollments/{}/why", of_first["enrollment_id"].as_str().expect("an id"));
    let shown = admin.get(&one).await.expect(200);
    assert_eq!((&shown["step_id"], &shown["sop_name"]), (&json!("first"), &json!("公开课邀约")));
    assert!(shown["reason"]["message"].as_str().is_some_and(|text| text.ends_with('.')), "{shown}");
    let now: Vec<&str> =
        shown["now"].as_array().expect("a list").iter().filter_map(|one| one["code"].as_str()).collect();
    assert_eq!(now[0], "account_risk", "{shown}");

    let last = admin.get(&why(people[3])).await.expect(200);
    assert!(last["enrollment"].is_null(), "{last}");
    assert_eq!(last["reasons"][0]["code"], "consent_missing");
    let inside = admin.get(&why(people[0])).await.expect(200);
    assert_eq!(
        (&inside["reasons"][0]["code"], &inside["enrollment"]["enrollment_id"]),
        (&json!("in_plan"), &of_first["enrollment_id"])
    );
    let line = admin.get(&format!("/contacts/{}/enrollments", people[0])).await.expect(200);
    assert_eq!(line["items"].as_array().map(Vec::len), Some(1), "{line}");
    assert_eq!(line["items"][0]["sop_name"], "公开课邀约");
    let other = here.register().await;
    for hidden in
        [one, why(people[0]), format!("{path}/funnel"), format!("/contacts/{}/enrollments", people[0])]
    {
        assert_eq!(other.get(&hidden).await.status, 404, "{hidden}");
    }
    admin.post(&format!("{path}/stop"), Value::Null).await.expect(200);
}

#[tokio::test]
async fn arms_are_told_apart_by_who_answered_and_who_wanted_no_more() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let people = people(&admin, &account, 7).await;
    let made = admin.post("/sop-tasks", plan(two_messages())).await.expect(201);
    let path = format!("/sop-tasks/{}", made["id"].as_str().expect("an id"));
    let sop = made["id"].as_str().expect("an id");
    // Arm, state, reason, what they wait for, messages, whether they answered, whether the goal was reached.
    let stand = [
        ("a", "exited", "'replied'", "NULL", 1, true, false),
        ("a", "completed", "NULL", "NULL", 2, false, true),
        ("a", "waiting", "NULL", "'wait'", 1, false, false),
        ("b", "exited", "'opted_out'", "NULL", 2, true, false),
        ("b", "failed", "'plan_unreadable'", "NULL", 1, false, false),
        ("b", "paused", "'replied'", "'paused'", 1, true, false),
    ];
    for ((arm, state, reason, wait_code, sent, replied, goal), contact) in stand.into_iter().zip(&people) {
        let over = matches!(state, "exited" | "completed" | "failed");
        here.run(&format!(
            "INSERT INTO sop_enrollments (id, organization_id, sop_id, version, account_id, contact_id, state, reason, step_id,
                reached_at, wait_code, sent, replied_at, goal_at, arms, source, finished_at)
             VALUES ('{}', '{}', '{sop}', 1, '{}', '{contact}', '{state}', {reason}, 'rest', now(), {wait_code}, {sent},
                CASE WHEN {replied} THEN now() END, CASE WHEN {goal} THEN now() END, '{{\"arm\": \"{arm}\"}}', 'manual',
                CASE WHEN {over} THEN now() END)",
            Uuid::now_v7(),
            admin.organization,
            account.id
        ))
        .await;
    }
    let funnel = admin.get(&format!("{path}/funnel?by=arm")).await.expect(200);
    let numbers = |of: &Value| {
        ["enrolled", "sent", "replied", "goal", "opted_out", "failed", "completed", "messages"]
            .map(|field| of[field].as_i64().expect("a number"))
    };
    assert_eq!(numbers(&funnel), [6, 6, 3, 1, 1, 1, 1, 8], "{funnel}");
    let arms = &funnel["arms"];
    assert_eq!(numbers(&arms["arm.a"]), [3, 3, 1, 1, 0, 0, 1, 4], "{funnel}");
    assert_eq!(numbers(&arms["arm.b"]), [3, 3, 2, 0, 1, 1, 0, 4], "{funnel}");
    assert_eq!(
        (&arms["arm.a"]["exited"], &arms["arm.b"]["exited"]),
        (&json!({ "replied": 1 }), &json!({ "opted_out": 1 }))
    );
    // What they wait for is called as in the list of them.
    assert_eq!(funnel["waiting"], json!({ "wait": 1, "replied": 1 }), "{funnel}");
    let listed = admin.get(&format!("{path}/enrollments?state=paused")).await.expect(200);
    assert_eq!(listed["items"][0]["reason"], "replied", "{listed}");
    let ended = admin.get(&format!("{path}/enrollments?state=exited")).await.expect(200);
    assert_eq!(ended["items"].as_array().map(Vec::len), Some(2), "{ended}");
    let by_step = admin.get(&format!("{path}/funnel?by=step&version=1")).await.expect(200);
    assert_eq!((numbers(&by_step), &by_step["arms"]), (numbers(&funnel), &json!({})), "{by_step}");
    let rest = &by_step["steps"][0];
    assert_eq!(
        ["replied", "opted_out", "goal"].map(|field| rest[field].as_i64().expect("a number")),
        [1, 1, 0],
        "{by_step}"
    );
}
