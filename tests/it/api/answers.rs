//! Who answers customers: workflows, what accounts use them for, and what organisations choose.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, ids, items, person, unique};
use crate::harness::Here;
use crate::harness::client::Client;

/// A key of which every piece would be recognised.
fn key() -> String {
    format!("{}-{}", unique("fastgpt"), unique("geheim"))
}

async fn workflow(client: &Client, alias: &str) -> Value {
    client.post("/ai-workflows", json!({"alias": alias, "api_key": key()})).await.expect(201)
}

#[tokio::test]
async fn the_key_of_a_workflow_is_kept_sealed_and_never_shown() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (first, second) = (key(), key());
    let body = json!({"alias": " 售前客服 ", "api_key": first, "endpoint": "https://fastgpt.example.com/api/",
        "reserve_yuan": "0.80", "variables": {"token": "variable-geheim", "level": 3}});
    let made = admin.post("/ai-workflows", body).await;
    assert!(!made.text.contains(&first), "{}", made.text);
    let made = made.expect(201);
    assert_eq!(
        (&made["alias"], &made["endpoint"], &made["reserve_yuan"], &made["stream"]),
        (&json!("售前客服"), &json!("https://fastgpt.example.com/api"), &json!("0.8"), &json!(true))
    );
    assert_eq!((&made["requests_per_minute"], &made["timeout_ms"]), (&json!(60), &json!(90_000)));
    let path = format!("/ai-workflows/{}", id(&made["id"]));

    // Changed in part: the rest stays, the key is another one.
    let hash = format!(
        "SELECT ('x' || substr(key_hash, 1, 8))::bit(32)::bigint AS n FROM ai_workflows WHERE id = {}",
        quoted(&made)
    );
    let old = here.number(&hash).await;
    let changed = admin.put(&path, json!({"api_key": second, "app_id": "65f0c0ffee"})).await;
    assert!(!changed.text.contains(&second), "{}", changed.text);
    assert_eq!(changed.body["alias"], "售前客服");
    assert_ne!(here.number(&hash).await, old);
    admin.put(&path, json!({"timeout_ms": 5000, "endpoint": null})).await.expect(200);
    let shown = admin.get(&path).await.expect(200);
    assert_eq!((&shown["timeout_ms"], &shown["endpoint"]), (&json!(5000), &Value::Null));
    assert_eq!((&shown["app_id"], &shown["variables"]["level"]), (&json!("65f0c0ffee"), &json!(3)));
    let stored = format!(
        "SELECT count(*) AS n FROM ai_workflows WHERE id = {} AND api_key LIKE 'v1:%' \
         AND strpos(api_key, '{}') = 0 AND length(key_hash) = 32",
        quoted(&made),
        &second[..20]
    );
    assert_eq!(here.number(&stored).await, 1, "it is sealed");

    // A key that ends in the app's id names the app.
    let third = format!("{}-65f0c0ffe2", key());
    let named = admin.post("/ai-workflows", json!({"alias": "b", "api_key": third})).await.expect(201);
    assert_eq!(named["app_id"], "65f0c0ffe2");

    assert_eq!(admin.delete(&path).await.status, 204);
    assert_problem(admin.get(&path).await, 404, "workflow_not_found", "");
    assert_problem(admin.delete(&path).await, 404, "workflow_not_found", "");
    let wiped =
        format!("SELECT count(*) AS n FROM ai_workflows WHERE id = {} AND api_key = ''", quoted(&made));
    assert_eq!(here.number(&wiped).await, 1, "its key is gone");
    workflow(&admin, "售前客服").await;
    let log = admin.get("/audit-log?limit=200").await;
    for secret in [&first, &second, &third, "variable-geheim"] {
        assert!(!log.text.contains(secret), "the audit log repeats a secret");
    }
    let actions: Vec<_> = items(&log.body)
        .iter()
        .filter_map(|line| line["action"].as_str())
        .filter(|action| action.starts_with("ai_"))
        .collect();
    let expected = ["create", "delete", "create", "update", "update", "create"]
        .map(|action| format!("ai_workflow.{action}"));
    assert_eq!(actions, expected);
}

fn quoted(made: &Value) -> String {
    format!("'{}'", id(&made["id"]))
}

#[tokio::test]
async fn workflows_that_cannot_be_are_refused() {
    let here = Here::open().await;
    let admin = here.register().await;
    let made = workflow(&admin, "客服").await;
    let good = || json!({"alias": "b", "api_key": key()});
    for (field, value, path) in [
        ("alias", json!(" "), "alias"),
        ("alias", json!("字".repeat(65)), "alias"),
        ("api_key", json!("fastgpt"), "api_key"),
        ("api_key", json!("a-b-c-d"), "api_key"),
        ("api_key", json!("fastgpt-a b"), "api_key"),
        ("endpoint", json!("ftp://a.example"), "endpoint"),
        ("endpoint", json!("https://u:p@a.example"), "endpoint"),
        ("endpoint", json!("http://169.254.169.254/api"), "endpoint"),
        ("app_id", json!("a b"), "app_id"),
        ("requests_per_minute", json!(0), "requests_per_minute"),
        ("timeout_ms", json!(999), "timeout_ms"),
        ("reserve_yuan", json!("-1"), "reserve_yuan"),
        ("variables", json!({"a": {"b": 1}}), "variables.a"),
        ("variables", json!({"a": "x".repeat(20_000)}), "variables"),
    ] {
        let mut body = good();
        body[field] = value.clone();
        let reply = admin.post("/ai-workflows", body).await;
        assert!(!reply.text.contains("fastgpt-a b") && !reply.text.contains("a-b-c-d"), "{}", reply.text);
        assert_problem(reply, 422, "validation_failed", path);
        if field != "alias" {
            let change =
                admin.put(&format!("/ai-workflows/{}", id(&made["id"])), json!({field: value})).await;
            assert_problem(change, 422, "validation_failed", path);
        }
    }
    for (field, value) in
        [("alias", json!(1)), ("variables", json!([])), ("stream", json!("yes")), ("key", json!("x"))]
    {
        let mut body = good();
        body[field] = value;
        assert_problem(admin.post("/ai-workflows", body).await, 400, "invalid_request", field);
    }
    assert_problem(
        admin.post("/ai-workflows", json!({"alias": "客服", "api_key": key()})).await,
        409,
        "alias_in_use",
        "",
    );
    let other = workflow(&admin, "另一个").await;
    let path = format!("/ai-workflows/{}", id(&other["id"]));
    assert_problem(admin.put(&path, json!({"alias": "客服"})).await, 409, "alias_in_use", "");
    assert_eq!(ids(&admin.get("/ai-workflows").await.expect(200)), [id(&other["id"]), id(&made["id"])]);
    let by_one = admin.all_by("/ai-workflows", 1).await;
    assert_eq!(by_one.len(), 2);

    let stranger = here.register().await;
    workflow(&stranger, "客服").await;
    assert_problem(stranger.get(&path).await, 404, "workflow_not_found", "");
    assert_problem(stranger.put(&path, json!({})).await, 404, "workflow_not_found", "");
    assert_problem(stranger.delete(&path).await, 404, "workflow_not_found", "");
}

#[tokio::test]
async fn an_account_is_answered_as_was_chosen_for_it() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let path = format!("/wechat-accounts/{}/ai", account.id);
    let never = admin.get(&path).await.expect(200);
    assert_eq!(
        (&never["enabled"], &never["workflow"], &never["updated_at"], &never["groups"]),
        (&json!(false), &Value::Null, &Value::Null, &json!("off"))
    );
    assert_eq!(never["debounce"], json!({"quiet_ms": 4000, "max_ms": 15_000, "max_messages": 10}));
    assert!(never["disclosure"].as_str().is_some_and(|text| text.contains("AI")), "{never}");

    let made = workflow(&admin, "客服").await;
    let everything = json!({
        "enabled": true, "workflow": "客服",
        "debounce": {"quiet_ms": 300, "max_ms": 900, "max_messages": 3},
        "groups": "at_only", "takeover_minutes": 45, "max_age_seconds": 120, "review": "human", "draft_minutes": 15,
        "disclosure": "您好！\n我是 AI 助手。", "silence_minutes": 60,
        "allow": {"wxids": [" wxid_a ", "wxid_a", "123@chatroom"], "tags": ["意向客户"]},
        "block": {"wxids": ["wxid_b"]},
    });
    let chosen = admin.put(&path, everything.clone()).await.expect(200);
    assert_eq!((&chosen["workflow"], &chosen["workflow_id"]), (&json!("客服"), &made["id"]));
    assert_eq!(chosen["allow"], json!({"wxids": ["wxid_a", "123@chatroom"], "tags": ["意向客户"]}));
    assert_eq!(chosen["block"], json!({"wxids": ["wxid_b"], "tags": []}));
    for field in [
        "debounce",
        "groups",
        "takeover_minutes",
        "max_age_seconds",
        "review",
        "draft_minutes",
        "disclosure",
        "silence_minutes",
    ] {
        assert_eq!(chosen[field], everything[field], "{field}");
    }
    assert_eq!(admin.get(&path).await.expect(200), chosen);
    assert_eq!(chosen["updated_by"], json!(admin.user));

    // It is used, so it stays.
    let of_workflow = format!("/ai-workflows/{}", id(&made["id"]));
    assert_problem(admin.delete(&of_workflow).await, 409, "workflow_in_use", "");

    // PUT replaces everything.
    let off = admin.put(&path, json!({"enabled": false})).await.expect(200);
    assert_eq!(
        (&off["workflow"], &off["takeover_minutes"], &off["review"]),
        (&Value::Null, &json!(30), &json!("none"))
    );
    assert_eq!(off["allow"], json!({"wxids": [], "tags": []}));
    assert_eq!(admin.delete(&of_workflow).await.status, 204);
    let audit = admin.get("/audit-log").await.expect(200);
    let line =
        items(&audit).iter().find(|line| line["action"] == "account_ai.update").expect("it is in the log");
    assert_eq!((&line["before"]["enabled"], &line["after"]["enabled"]), (&json!(true), &json!(false)));
}

#[tokio::test]
async fn answers_that_cannot_be_chosen_are_refused() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let path = format!("/wechat-accounts/{}/ai", account.id);
    workflow(&admin, "客服").await;
    let stranger = here.register().await;
    workflow(&stranger, "别人的").await;
    let good = || json!({"enabled": true, "workflow": "客服"});
    for (field, value, problem) in [
        ("workflow", Value::Null, "workflow"),
        ("workflow", json!(" "), "workflow"),
        ("workflow", json!("没有"), "workflow"),
        ("workflow", json!("别人的"), "workflow"),
        ("debounce", json!({"quiet_ms": -1}), "debounce.quiet_ms"),
        ("debounce", json!({"max_messages": 0}), "debounce.max_messages"),
        ("takeover_minutes", json!(0), "takeover_minutes"),
        ("max_age_seconds", json!(9), "max_age_seconds"),
        ("draft_minutes", json!(1441), "draft_minutes"),
        ("silence_minutes", json!(-1), "silence_minutes"),
        ("disclosure", json!("字".repeat(501)), "disclosure"),
        ("disclosure", json!("a\u{7}"), "disclosure"),
        ("allow", json!({"wxids": ["wxid_a", "kein wxid"]}), "allow.wxids[1]"),
        ("block", json!({"tags": [""]}), "block.tags[0]"),
        ("block", json!({"tags": vec!["重复"; 501]}), "block.tags"),
    ] {
        let mut body = good();
        body[field] = value;
        assert_problem(admin.put(&path, body).await, 422, "validation_failed", problem);
    }
    for (field, value, problem) in [
        ("groups", json!("on"), "groups"),
        ("debounce", json!({"quiet": 1}), "debounce.quiet"),
        ("enabled", json!("true"), "enabled"),
        ("mode", json!("ai"), "mode"),
    ] {
        let mut body = good();
        body[field] = value;
        assert_problem(admin.put(&path, body).await, 400, "invalid_request", problem);
    }
    assert_eq!(admin.get(&path).await.expect(200)["updated_at"], Value::Null, "nothing was stored");
    let mut longest = good();
    longest["disclosure"] = json!("字".repeat(500));
    admin.put(&path, longest).await.expect(200);
    assert_problem(stranger.get(&path).await, 404, "account_not_found", "");
    assert_problem(stranger.put(&path, json!({"enabled": false})).await, 404, "account_not_found", "");
    let nobodys = format!("/wechat-accounts/{}/ai", Uuid::now_v7());
    assert_problem(admin.put(&nobodys, json!({"enabled": false})).await, 404, "account_not_found", "");
}

#[tokio::test]
async fn an_organisation_chooses_its_time_zone_and_its_words() {
    let here = Here::open().await;
    let admin = here.register().await;
    let path = "/organization/settings";
    let defaults = admin.get(path).await.expect(200);
    assert_eq!((&defaults["timezone"], &defaults["opt_out_words"]), (&json!("Asia/Shanghai"), &json!([])));
    assert_eq!(defaults["updated_at"], Value::Null);
    let chosen = json!({"timezone": "Asia/Urumqi", "opt_out_words": [" 别再发了 ", "別再發了", "别 再发了"], "handoff_words": ["找经理"]});
    let chosen = admin.put(path, chosen).await.expect(200);
    assert_eq!(chosen["opt_out_words"], json!(["别再发了", "別再發了"]), "each once");
    // What is left out stays, and nothing may be said.
    let silent = admin.put(path, json!({"opt_out_confirmation": ""})).await.expect(200);
    assert_eq!((&silent["timezone"], &silent["handoff_words"]), (&json!("Asia/Urumqi"), &json!(["找经理"])));
    assert_eq!(silent["opt_out_confirmation"], "");
    for (body, problem) in [
        (json!({"timezone": "Shanghai"}), "timezone"),
        (json!({"timezone": ""}), "timezone"),
        (json!({"opt_out_words": ["退订", "\u{200b}"]}), "opt_out_words[1]"),
        (json!({"opt_out_words": ["字".repeat(21)]}), "opt_out_words[0]"),
        (json!({"handoff_words": vec!["a"; 51]}), "handoff_words"),
        (json!({"opt_out_confirmation": "字".repeat(501)}), "opt_out_confirmation"),
    ] {
        assert_problem(admin.put(path, body).await, 422, "validation_failed", problem);
    }
    assert_problem(admin.put(path, json!({"zone": "x"})).await, 400, "invalid_request", "zone");
    let mut after = admin.get(path).await.expect(200);
    assert_eq!(after, silent);
    // Two at once: no change is lost.
    let agent = person(&admin, "manager").await;
    let (one, other) = tokio::join!(
        admin.put(path, json!({"timezone": "Europe/Berlin"})),
        agent.put(path, json!({"handoff_words": ["人工"]}))
    );
    one.expect(200);
    other.expect(200);
    after = admin.get(path).await.expect(200);
    assert_eq!((&after["timezone"], &after["handoff_words"]), (&json!("Europe/Berlin"), &json!(["人工"])));
    let stranger = here.register().await;
    assert_eq!(stranger.get(path).await.expect(200)["timezone"], "Asia/Shanghai");
}
