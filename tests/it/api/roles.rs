//! Who may do what.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, person};
use crate::harness::Here;
use crate::harness::client::send;

/// Every operation with the least role that may use it. Bodies are well-formed but lead to nothing.
fn operations() -> Vec<(Method, &'static str, Value, &'static str)> {
    let nothing = Value::Null;
    let message = send(Uuid::nil(), "wxid_a", "a", "reply");
    let tally = json!({"request_id": "r", "account_id": Uuid::nil(), "model": "m", "input_tokens": 1, "output_tokens": 1});
    let none = json!({"filter": {"kind": "nothing"}, "preview": true});
    let price = json!({"model": "", "input_per_1k": "1", "output_per_1k": "1", "effective_from": "2026-01-01T00:00:00Z"});
    let workflow = json!({"alias": "", "api_key": "fastgpt-a"});
    let plan = json!({"name": "", "target_type": "tag", "workflow_config": {}});
    let get = |path, role| (Method::GET, path, Value::Null, role);
    let post = |path, body: &Value, role| (Method::POST, path, body.clone(), role);
    vec![
        get("/auth/me", "viewer"),
        get("/wechat-accounts", "viewer"),
        get("/wechat-accounts/{id}", "viewer"),
        get("/jobs", "viewer"),
        get("/jobs/{id}", "viewer"),
        get("/ai-runs", "viewer"),
        get("/sends", "viewer"),
        get("/conversations", "viewer"),
        get("/conversations/{id}", "viewer"),
        get("/conversations/{id}/messages", "viewer"),
        get("/conversations/{id}/mode-changes", "viewer"),
        get("/contacts", "viewer"),
        get("/contacts/{id}", "viewer"),
        get("/wechat-accounts/{id}/contacts/sync", "viewer"),
        get("/messages/{id}/media", "agent"),
        post("/wechat-accounts/{id}/contacts/sync", &nothing, "agent"),
        get("/queues", "viewer"),
        get("/lanes", "viewer"),
        get("/workers", "viewer"),
        get("/model-prices", "viewer"),
        get("/cost-ledgers", "viewer"),
        get("/costs", "viewer"),
        get("/budgets", "viewer"),
        get("/reports/conversations", "viewer"),
        (
            Method::PUT,
            "/budgets",
            json!({"scope": "organization", "period": "day", "limit_yuan": "-1"}),
            "manager",
        ),
        (Method::DELETE, "/budgets/{id}", Value::Null, "manager"),
        get("/ai-workflows", "viewer"),
        get("/ai-workflows/{id}", "viewer"),
        get("/wechat-accounts/{id}/ai", "viewer"),
        get("/organization/settings", "viewer"),
        get("/sensitive-words", "viewer"),
        get("/drafts", "agent"),
        get("/alerts", "agent"),
        get("/callback-events", "manager"),
        get("/messages/search?q=价格", "agent"),
        get("/users", "admin"),
        get("/audit-log", "admin"),
        post("/jobs/send-message", &message, "agent"),
        post("/jobs/cost-tally", &tally, "agent"),
        post("/jobs/ai-reply", &json!({"conversation_id": Uuid::nil()}), "agent"),
        post("/jobs/sop-step", &json!({"enrollment_id": Uuid::nil()}), "agent"),
        get("/sop-tasks/{id}/enrollments", "viewer"),
        get("/sop-tasks/{id}/enrollments/{enrollment_id}", "viewer"),
        post("/sop-tasks/{id}/enrollments", &json!({"contact_ids": []}), "agent"),
        (Method::DELETE, "/sop-tasks/{id}/enrollments/{enrollment_id}", Value::Null, "agent"),
        get("/sop-tasks/{id}/enrollments/{enrollment_id}/why", "viewer"),
        get("/sop-tasks/{id}/contacts/{contact_id}/why", "viewer"),
        get("/sop-tasks/{id}/funnel", "viewer"),
        get("/contacts/{id}/enrollments", "viewer"),
        post("/sop-tasks/{id}/dry-run", &json!({}), "agent"),
        post("/contacts/import", &json!({"account_id": Uuid::nil(), "items": []}), "agent"),
        post("/jobs/batch", &json!({"jobs": []}), "agent"),
        post("/jobs/{id}/cancel", &nothing, "agent"),
        post("/jobs/{id}/resolve", &json!({"as": "sent"}), "agent"),
        post("/conversations/{id}/takeover", &json!({"minutes": 30}), "agent"),
        post("/conversations/{id}/hand-back", &json!({}), "agent"),
        post("/conversations/{id}/pause", &nothing, "agent"),
        post("/conversations/{id}/read", &nothing, "agent"),
        (Method::PUT, "/contacts/{id}", json!({}), "agent"),
        post("/contacts/{id}/opt-out", &nothing, "agent"),
        (Method::DELETE, "/contacts/{id}/opt-out", Value::Null, "agent"),
        post("/jobs/{id}/revive", &nothing, "manager"),
        post("/jobs/bulk/cancel", &none, "manager"),
        post("/jobs/bulk/revive", &none, "manager"),
        post("/wechat-accounts", &json!({"wxid": "not one"}), "agent"),
        (Method::PATCH, "/wechat-accounts/{id}", json!({}), "agent"),
        (Method::PUT, "/wechat-accounts/{id}", json!({}), "agent"),
        post("/wechat-accounts/{id}/pause", &json!({}), "agent"),
        post("/wechat-accounts/{id}/resume", &nothing, "agent"),
        (Method::DELETE, "/wechat-accounts/{id}", Value::Null, "manager"),
        post("/lanes/{id}/pause", &json!({}), "manager"),
        post("/lanes/{id}/resume", &nothing, "manager"),
        post("/queues/nothing/pause", &nothing, "manager"),
        post("/queues/nothing/resume", &nothing, "manager"),
        post("/ai-workflows", &workflow, "manager"),
        (Method::PUT, "/ai-workflows/{id}", json!({}), "manager"),
        (Method::DELETE, "/ai-workflows/{id}", Value::Null, "manager"),
        (Method::PUT, "/wechat-accounts/{id}/ai", json!({"enabled": false}), "manager"),
        (Method::PUT, "/organization/settings", json!({}), "manager"),
        post("/sensitive-words", &json!({"word": "", "action": "mask"}), "manager"),
        post("/sensitive-words/import", &json!({"words": []}), "manager"),
        post("/sensitive-words/defaults", &nothing, "manager"),
        (Method::DELETE, "/sensitive-words/{id}", Value::Null, "manager"),
        post("/drafts/{id}/approve", &json!({}), "agent"),
        post("/drafts/{id}/reject", &json!({}), "agent"),
        post("/alerts/{id}/acknowledge", &nothing, "agent"),
        post("/alerts/acknowledge-all", &nothing, "agent"),
        post("/model-prices", &price, "admin"),
        post("/model-prices/preview", &price, "admin"),
        post(
            "/cost-ledgers/reprice",
            &json!({"model": "m", "from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}),
            "admin",
        ),
        post("/model-prices/{id}/end", &json!({"effective_to": "2026-01-01T00:00:00Z"}), "admin"),
        get("/sop-reviews", "agent"),
        post("/sop-reviews/{enrollment_id}/{step_id}/approve", &nothing, "agent"),
        post("/sop-reviews/{enrollment_id}/{step_id}/edit", &json!({"text": "好"}), "agent"),
        post("/sop-reviews/{enrollment_id}/{step_id}/reject", &json!({}), "agent"),
        post("/materials/{id}/check", &nothing, "agent"),
        get("/sop/schema", "viewer"),
        get("/sop/templates", "viewer"),
        get("/sop-tasks", "viewer"),
        get("/sop-tasks/{id}", "viewer"),
        get("/sop-tasks/{id}/export", "viewer"),
        get("/sop-tasks/{id}/versions", "viewer"),
        get("/sop-tasks/{id}/versions/{version}", "viewer"),
        post("/sop-tasks/validate", &json!({"workflow_config": {}}), "viewer"),
        post("/sop-tasks", &plan, "agent"),
        (Method::PUT, "/sop-tasks/{id}", plan.clone(), "agent"),
        post(
            "/sop-tasks/import",
            &json!({"format": "", "name": "", "target_type": "tag", "workflow_config": {}}),
            "agent",
        ),
        post("/sop-tasks/{id}/submit", &nothing, "agent"),
        post("/sop-tasks/{id}/approve", &json!({"sha256": ""}), "manager"),
        post("/sop-tasks/{id}/audience", &nothing, "agent"),
        post("/sop-tasks/{id}/start", &nothing, "agent"),
        get("/sop-tasks/{id}/runs", "viewer"),
        post("/sop-tasks/{id}/move", &json!({"how": "finish"}), "agent"),
        post("/sop-tasks/{id}/pause", &nothing, "agent"),
        post("/sop-tasks/{id}/resume", &nothing, "agent"),
        post("/sop-tasks/{id}/stop", &nothing, "agent"),
        post("/sop-tasks/{id}/archive", &nothing, "agent"),
        post("/sop-tasks/{id}/copy", &nothing, "agent"),
        get("/materials", "viewer"),
        get("/materials/{id}", "viewer"),
        post("/materials", &json!({"key": "", "kind": "link", "name": ""}), "agent"),
        (Method::PUT, "/materials/{id}", json!({}), "agent"),
        (Method::PUT, "/materials/{id}/file", Value::Null, "agent"),
        post("/materials/{id}/approve", &json!({"revision": 1}), "manager"),
        (Method::DELETE, "/materials/{id}", Value::Null, "manager"),
        get("/calendars/cn/{year}", "viewer"),
        (Method::PUT, "/calendars/cn/{year}", json!({"holidays": ["2000-01-01"], "workdays": []}), "manager"),
        get("/stop", "viewer"),
        post("/stop", &json!({"scope": "account", "reason": "停"}), "manager"),
        (Method::DELETE, "/stop", json!({"scope": "account"}), "manager"),
        get("/schedules", "manager"),
        get("/schedules/{id}", "manager"),
        post("/schedules", &json!({"name": "", "task": "expire_keys", "cron": "0 * * * *"}), "admin"),
        (Method::PUT, "/schedules", json!({"name": "没有这一行"}), "admin"),
        (Method::PUT, "/schedules/{id}", json!({}), "admin"),
        (Method::DELETE, "/schedules/{id}", Value::Null, "admin"),
        post("/schedules/{id}/run", &nothing, "admin"),
        post("/users", &json!({"username": "a", "password": "a", "role": "admin"}), "admin"),
        (Method::PUT, "/users/{id}", json!({}), "admin"),
    ]
}

#[tokio::test]
async fn each_role_may_do_what_the_table_says_and_no_more() {
    let here = Here::open().await;
    let admin = here.register().await;
    let roles = ["viewer", "agent", "manager", "admin"];
    let mut people = Vec::new();
    for role in &roles[..3] {
        people.push(person(&admin, role).await);
    }
    people.push(admin);
    let rank = |role: &str| roles.iter().position(|known| *known == role).expect("a role");
    for (method, path, body, least) in operations() {
        for (role, client) in roles.iter().zip(&people) {
            let path = path.replace("{id}", &Uuid::now_v7().to_string());
            let path = path.replace("{enrollment_id}", &Uuid::now_v7().to_string());
            let path = path.replace("{contact_id}", &Uuid::now_v7().to_string());
            let path = path.replace("{version}", "1").replace("{year}", "2027");
            let request = client.request(method.clone(), &path);
            let request = if body.is_null() { request } else { request.json(&body) };
            let reply = client.send(request).await;
            if rank(role) < rank(least) {
                assert!(reply.text.contains(least), "it names the role that is needed: {}", reply.text);
                assert_problem(reply, 403, "forbidden", "");
            } else {
                let expected = [200, 404, 422];
                assert!(
                    expected.contains(&reply.status),
                    "{method} {path} as {role}: {} {}",
                    reply.status,
                    reply.text
                );
            }
        }
    }
}

#[tokio::test]
async fn every_operation_of_the_document_stands_in_the_table() {
    let here = Here::open().await;
    let document = here.anonymous().get("/openapi.json").await.expect(200);
    let mut missing = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let open = operation["security"].is_null();
            let known = operations().into_iter().any(|(known, at, ..)| {
                let at = at.split('?').next().unwrap_or_default();
                known.as_str().eq_ignore_ascii_case(method) && at.replace("nothing", "{name}") == *path
            });
            if !open && !known {
                missing.push(format!("{method} {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "add a line for {missing:?}");
}

#[tokio::test]
async fn viewers_see_no_message_text() {
    let here = Here::open().await;
    let admin = here.register().await;
    let viewer = person(&admin, "viewer").await;
    let account = admin.account(600, 0).await;
    let texts = ["底价三百二十八元", "https://cdn.example.com/geheim.png"];
    let first = admin.text(&account, "wxid_customer", texts[0], "interactive").await;
    let image = json!({"account_id": account.id, "to_wxid": "wxid_customer", "message": {"kind": "image", "url": texts[1]}});
    let second = id(&admin.post("/jobs/send-message", image).await.expect(202)["id"]);
    for job in [first, second] {
        here.ended(&admin, job).await;
    }
    for path in [format!("/jobs/{first}"), format!("/jobs/{second}"), "/jobs".into(), "/sends".into()] {
        let shown = viewer.get(&path).await;
        assert!(texts.iter().all(|text| !shown.text.contains(text)), "{path}: {}", shown.text);
        assert!(shown.text.contains("wxid_customer"), "{path} is shown otherwise: {}", shown.text);
    }
    assert_eq!(viewer.job(first).await["args"]["message"], json!({"kind": "text"}));
    assert_eq!(admin.job(first).await["args"]["message"], json!({"kind": "text", "text": texts[0]}));
}
