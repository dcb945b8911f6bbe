//! Plans of campaigns: how they are written, looked at, approved and run.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, items, person};
use crate::harness::Here;
use crate::harness::client::{Client, Reply};

/// The config of a shipped template.
async fn template(client: &Client, key: &str) -> Value {
    let all = client.get("/sop/templates").await.expect(200);
    let found = items(&all).iter().find(|one| one["key"] == key);
    found.unwrap_or_else(|| panic!("no template {key}: {all}"))["workflow_config"].clone()
}

/// A plan as it is written.
fn plan(config: &Value) -> Value {
    json!({
        "name": "新线索三日跟进", "description": "咨询过课程的客户", "target_type": "tag", "target_ids": ["新线索"],
        "workflow_config": config
    })
}

/// Makes a draft of a template.
async fn draft(client: &Client, key: &str) -> String {
    let made = client.post("/sop-tasks", plan(&template(client, key).await)).await.expect(201);
    format!("/sop-tasks/{}", id(&made["id"]))
}

/// Does something with a plan that takes no body.
async fn act(client: &Client, path: &str, action: &str) -> Reply {
    client.post(&format!("{path}/{action}"), Value::Null).await
}

/// Submits and approves a plan.
async fn approve(client: &Client, path: &str) -> Value {
    let submitted = act(client, path, "submit").await.expect(200);
    let sha256 = &submitted["review"]["sha256"];
    client.post(&format!("{path}/approve"), json!({ "sha256": sha256 })).await.expect(200)
}

#[tokio::test]
async fn a_plan_lives_from_its_draft_to_the_archive() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (agent, manager) = (person(&admin, "agent").await, person(&admin, "manager").await);
    let config = template(&agent, "new_lead").await;
    let made = agent.post("/sop-tasks", plan(&config)).await.expect(201);
    assert_eq!((&made["status"], &made["version"]), (&json!("DRAFT"), &Value::Null));
    assert_eq!((id(&made["user_id"]), id(&made["organization_id"])), (agent.user, agent.organization));
    assert_eq!((&made["target_type"], &made["target_ids"]), (&json!("tag"), &json!(["新线索"])));
    assert_eq!((&made["everyone"], &made["account_ids"]), (&json!(false), &json!([])));
    let path = format!("/sop-tasks/{}", id(&made["id"]));
    assert_eq!(agent.get(&path).await.expect(200)["workflow_config"], config);

    // Nothing goes ahead of its time.
    for (action, code) in [("start", "not_approved"), ("pause", "not_running"), ("stop", "not_running")] {
        assert_problem(act(&agent, &path, action).await, 409, code, "");
    }
    let approve = |sha256: Value| json!({ "sha256": sha256 });
    let at = format!("{path}/approve");
    assert_problem(manager.post(&at, approve(json!("00"))).await, 409, "not_in_review", "");

    let submitted = act(&agent, &path, "submit").await.expect(200);
    assert_eq!((&submitted["status"], &submitted["review"]["version"]), (&json!("IN_REVIEW"), &json!(1)));
    assert_eq!(submitted["warnings"], json!([]));
    let sha256 = submitted["review"]["sha256"].clone();
    assert_eq!(sha256.as_str().map(str::len), Some(64));
    assert_problem(act(&agent, &path, "submit").await, 409, "already_in_review", "");
    assert_problem(agent.post(&at, approve(sha256.clone())).await, 403, "forbidden", "");
    assert_problem(manager.post(&at, approve(json!("00"))).await, 409, "version_changed", "");
    let approved = manager.post(&at, approve(sha256.clone())).await.expect(200);
    assert_eq!((&approved["status"], &approved["version"]), (&json!("APPROVED"), &json!(1)));
    assert_problem(manager.post(&at, approve(sha256)).await, 409, "already_approved", "");

    let started = act(&agent, &path, "start").await.expect(200);
    assert_eq!(started["status"], "RUNNING");
    assert!(started["started_at"].is_string());
    for (action, status) in [("pause", "PAUSED"), ("resume", "RUNNING")] {
        assert_eq!(act(&agent, &path, action).await.expect(200)["status"], status);
    }
    for (action, code) in
        [("start", "already_running"), ("resume", "already_running"), ("archive", "still_running")]
    {
        assert_problem(act(&agent, &path, action).await, 409, code, "");
    }
    assert_eq!(act(&agent, &path, "stop").await.expect(200)["status"], "STOPPED");
    for action in ["start", "resume", "submit", "stop"] {
        assert_problem(act(&agent, &path, action).await, 409, "plan_stopped", "");
    }
    assert_eq!(act(&agent, &path, "archive").await.expect(200)["status"], "ARCHIVED");
    assert_problem(agent.put(&path, plan(&config)).await, 409, "plan_archived", "");

    let copy = act(&agent, &path, "copy").await.expect(200);
    assert_eq!((&copy["status"], &copy["version"]), (&json!("DRAFT"), &Value::Null));
    assert_eq!((&copy["name"], &copy["workflow_config"]), (&json!("新线索三日跟进（副本）"), &config));
    assert_ne!(copy["id"], made["id"]);
    let drafts = agent.get("/sop-tasks?status=DRAFT").await.expect(200);
    assert_eq!(items(&drafts).iter().map(|item| &item["id"]).collect::<Vec<_>>(), [&copy["id"]]);
    let audit = admin.get("/audit-log?limit=200").await.expect(200);
    for action in ["create", "submit", "approve", "start", "pause", "resume", "stop", "archive", "copy"] {
        let action = format!("sop_task.{action}");
        assert!(items(&audit).iter().any(|line| line["action"] == action.as_str()), "{action}");
    }
    assert!(!audit.to_string().contains("退订"), "the log says which text, not the text");
}

#[tokio::test]
async fn an_edit_voids_a_review_and_a_version_never_changes() {
    let here = Here::open().await;
    let admin = here.register().await;
    let path = draft(&admin, "new_lead").await;
    let first = approve(&admin, &path).await;
    let old = template(&admin, "new_lead").await;
    let mut new = old.clone();
    new["steps"][0]["label"] = json!("第1天 问好");

    let edited = admin.put(&path, plan(&new)).await.expect(200);
    assert_eq!((&edited["status"], &edited["version"]), (&json!("DRAFT"), &Value::Null));
    assert_problem(act(&admin, &path, "start").await, 409, "not_approved", "");
    let submitted = act(&admin, &path, "submit").await.expect(200);
    assert_eq!(submitted["review"]["version"], 2);
    // What was looked at before the edit cannot be approved after it.
    let stale = submitted["review"]["sha256"].clone();
    admin.put(&path, plan(&old)).await.expect(200);
    act(&admin, &path, "submit").await.expect(200);
    let reply = admin.post(&format!("{path}/approve"), json!({ "sha256": stale })).await;
    assert_problem(reply, 409, "version_changed", "");
    let waiting = admin.get(&path).await.expect(200)["review"].clone();
    admin.post(&format!("{path}/approve"), json!({ "sha256": waiting["sha256"] })).await.expect(200);
    act(&admin, &path, "start").await.expect(200);

    // A plan that runs goes on as it was approved, until the next version is.
    let running = admin.put(&path, plan(&new)).await.expect(200);
    assert_eq!((&running["status"], &running["version"]), (&json!("RUNNING"), &json!(3)));
    let mut elsewhere = plan(&new);
    elsewhere["target_ids"] = json!(["老客户"]);
    assert_problem(admin.put(&path, elsewhere).await, 409, "targets_frozen", "");
    let submitted = act(&admin, &path, "submit").await.expect(200);
    assert_eq!((&submitted["status"], &submitted["version"]), (&json!("RUNNING"), &json!(3)));
    let next = json!({ "sha256": submitted["review"]["sha256"] });
    let approved = admin.post(&format!("{path}/approve"), next.clone()).await.expect(200);
    assert_eq!((&approved["status"], &approved["version"]), (&json!("RUNNING"), &json!(4)));
    assert_problem(admin.post(&format!("{path}/approve"), next).await, 409, "not_in_review", "");

    let versions = admin.get(&format!("{path}/versions")).await.expect(200);
    let seen: Vec<_> =
        items(&versions).iter().map(|one| (one["version"].as_i64(), one["state"].as_str())).collect();
    let expected = [(4, "approved"), (3, "retired"), (2, "retired"), (1, "retired")];
    assert_eq!(seen, expected.map(|(number, state)| (Some(number), Some(state))));
    let page = admin.get(&format!("{path}/versions?limit=3")).await.expect(200);
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    let rest = admin.get(&format!("{path}/versions?limit=3&cursor={cursor}")).await.expect(200);
    assert_eq!(items(&rest)[0]["version"], 1);
    let one = admin.get(&format!("{path}/versions/1")).await.expect(200);
    assert_eq!((&one["workflow_config"], &one["state"]), (&old, &json!("retired")));
    assert_eq!(items(&versions)[1]["sha256"], one["sha256"], "the same text has the same hash");
    assert_eq!(first["version"], 1);
    assert_problem(admin.get(&format!("{path}/versions/9")).await, 404, "version_not_found", "");
}

#[tokio::test]
async fn a_plan_with_errors_stays_a_draft_and_is_told_all_of_them() {
    let here = Here::open().await;
    let admin = here.register().await;
    let mut config = template(&admin, "new_lead").await;
    config["caps"]["max_unanswered"] = json!(5);
    config["steps"][0]["message"] = json!({"kind": "file", "material_id": "mat_outline"});
    config["steps"][2]["next"] = json!("nowhere");
    config["send_window"]["ranges"][0]["from"] = json!("07:00");
    let validated = admin.post("/sop-tasks/validate", json!({ "workflow_config": config })).await.expect(200);
    let pairs = |list: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = list.as_array().expect("a list").iter();
        all.map(|one| (text(&one["code"]), text(&one["path"]))).collect()
    };
    let errors = pairs(&validated["errors"]);
    for (code, path) in [
        ("E03", "/steps/2/next"),
        ("E08", "/steps/0/message/material_id"),
        ("E10", "/send_window/ranges/0"),
        ("E11", "/caps/max_unanswered"),
        ("E18", "/steps/0/message"),
    ] {
        assert!(errors.contains(&(code.into(), path.into())), "{code} {path}: {errors:?}");
    }
    let made = admin.post("/sop-tasks", plan(&config)).await.expect(201);
    let path = format!("/sop-tasks/{}", id(&made["id"]));
    let refused = act(&admin, &path, "submit").await;
    assert_eq!(pairs(&refused.body["errors"]), errors);
    assert_problem(refused, 422, "invalid_plan", "/caps/max_unanswered");
    assert_eq!(admin.get(&path).await.expect(200)["status"], "DRAFT");
    assert_eq!(admin.get(&format!("{path}/versions")).await.expect(200)["items"], json!([]));

    // No form at all is a draft, too.
    let nothing = admin.post("/sop-tasks", plan(&json!({}))).await.expect(201);
    let refused = act(&admin, &format!("/sop-tasks/{}", id(&nothing["id"])), "submit").await;
    assert!(pairs(&refused.body["errors"]).iter().all(|(code, _)| code == "E01"), "{}", refused.text);
    assert_problem(refused, 422, "invalid_plan", "");

    // Larger and deeper than any plan.
    let large = json!({"workflow_config": {"ui": {"x": "字".repeat((5 << 20) / 3)}}});
    assert_problem(admin.post("/sop-tasks/validate", large).await, 413, "body_too_large", "");
    let deep = format!("{{\"workflow_config\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let request =
        admin.request(Method::POST, "/sop-tasks/validate").header("content-type", "application/json");
    assert_problem(admin.send(request.body(deep)).await, 400, "invalid_request", "");
    // Which of the two was meant?
    let twice = r#"{"workflow_config": {"caps": {"max_unanswered": 1, "max_unanswered": 5}}}"#;
    let request =
        admin.request(Method::POST, "/sop-tasks/validate").header("content-type", "application/json");
    let reply = admin.send(request.body(twice)).await;
    assert_problem(reply, 400, "invalid_request", "workflow_config.caps.max_unanswered");
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let told =
        admin.post("/sop-tasks/validate", json!({"workflow_config": {"ui": {"x": deep}}})).await.expect(200);
    assert_eq!(pairs(&told["errors"]), [("E01".to_owned(), String::new())]);
}

#[tokio::test]
async fn what_a_plan_is_made_of_has_its_bounds() {
    let here = Here::open().await;
    let admin = here.register().await;
    let (agent, stranger) = (person(&admin, "agent").await, here.register().await);
    let with = |field: &str, value: Value| {
        let mut body = plan(&json!({}));
        body[field] = value;
        body
    };
    let long = "名".repeat(101);
    for (field, value, path) in [
        ("name", json!(" "), "name"),
        ("name", json!(long), "name"),
        ("description", json!("述".repeat(2001)), "description"),
        ("target_ids", json!(["好", ""]), "target_ids[1]"),
        ("target_ids", json!(vec!["词"; 10_001]), "target_ids"),
        ("workflow_config", json!([]), "workflow_config"),
    ] {
        assert_problem(agent.post("/sop-tasks", with(field, value)).await, 422, "validation_failed", path);
    }
    let mut friends = plan(&json!({}));
    friends["target_type"] = json!("friend");
    assert_problem(agent.post("/sop-tasks", friends).await, 422, "validation_failed", "target_ids[0]");
    let theirs = stranger.account(600, 0).await;
    let reply = agent.post("/sop-tasks", with("account_ids", json!([theirs.id]))).await;
    assert_problem(reply, 422, "validation_failed", "account_ids");
    assert_problem(
        agent.post("/sop-tasks", with("targets", json!([]))).await,
        400,
        "invalid_request",
        "targets",
    );
    // Everybody is said in so many words, by a manager, and beside nobody.
    assert_problem(
        admin.post("/sop-tasks", with("everyone", json!(true))).await,
        422,
        "validation_failed",
        "everyone",
    );
    let mut everyone = with("everyone", json!(true));
    everyone["target_ids"] = json!([]);
    assert_problem(agent.post("/sop-tasks", everyone.clone()).await, 403, "everyone_needs_manager", "");
    let made = admin.post("/sop-tasks", everyone).await.expect(201);
    let copied = act(&agent, &format!("/sop-tasks/{}", id(&made["id"])), "copy").await.expect(200);
    assert_eq!((&made["everyone"], &copied["everyone"]), (&json!(true), &json!(false)));
    // A trigger of time needs to know for whom.
    let mut config = template(&admin, "win_back").await;
    config["audience"].as_object_mut().expect("an object").remove("filter");
    let mut nobody = plan(&config);
    nobody["target_ids"] = json!([]);
    let made = admin.post("/sop-tasks", nobody).await.expect(201);
    let reply = act(&admin, &format!("/sop-tasks/{}", id(&made["id"])), "submit").await;
    assert_problem(reply, 422, "invalid_plan", "target_ids");
    // Groups and people do not mix, and contacts must be ours.
    let mut strangers = plan(&template(&admin, "event_invitation").await);
    strangers["target_type"] = json!("friend");
    strangers["target_ids"] = json!([Uuid::now_v7()]);
    let made = admin.post("/sop-tasks", strangers.clone()).await.expect(201);
    let reply = act(&admin, &format!("/sop-tasks/{}", id(&made["id"])), "submit").await;
    assert_problem(reply, 422, "invalid_plan", "target_ids");
    strangers["target_type"] = json!("group");
    let made = admin.post("/sop-tasks", strangers).await.expect(201);
    let reply = act(&admin, &format!("/sop-tasks/{}", id(&made["id"])), "submit").await;
    assert_problem(reply, 422, "invalid_plan", "target_type");
}

#[tokio::test]
async fn approvals_are_needed_where_plan_or_organisation_ask_for_them() {
    let here = Here::open().await;
    let admin = here.register().await;
    let manager = person(&admin, "manager").await;
    let mut config = template(&admin, "event_invitation").await;
    config["approval"] = json!({"required": true, "role": "admin"});
    let made = manager.post("/sop-tasks", plan(&config)).await.expect(201);
    let path = format!("/sop-tasks/{}", id(&made["id"]));
    let submitted = act(&manager, &path, "submit").await.expect(200);
    let sha256 = json!({ "sha256": submitted["review"]["sha256"] });
    assert_problem(manager.post(&format!("{path}/approve"), sha256.clone()).await, 403, "forbidden", "");
    assert_eq!(admin.post(&format!("{path}/approve"), sha256).await.expect(200)["status"], "APPROVED");

    // The plan asks for none, and the organisation does until an admin says otherwise.
    config["approval"] = json!({"required": false});
    let made = manager.post("/sop-tasks", plan(&config)).await.expect(201);
    let path = format!("/sop-tasks/{}", id(&made["id"]));
    assert_eq!(act(&manager, &path, "submit").await.expect(200)["status"], "IN_REVIEW");
    let without = json!({"approval_required": false});
    let reply = manager.put("/organization/settings", without.clone()).await;
    assert_problem(reply, 403, "limits_need_admin", "");
    admin.put("/organization/settings", without).await.expect(200);
    manager.put(&path, plan(&config)).await.expect(200);
    let submitted = act(&manager, &path, "submit").await.expect(200);
    assert_eq!((&submitted["status"], &submitted["version"]), (&json!("APPROVED"), &json!(2)));
    assert_eq!(submitted["review"], Value::Null);
}

#[tokio::test]
async fn a_trigger_of_time_is_set_when_the_plan_starts() {
    let here = Here::open().await;
    let admin = here.register().await;
    let path = draft(&admin, "win_back").await;
    assert_eq!(approve(&admin, &path).await["next_trigger_at"], Value::Null);
    let started = act(&admin, &path, "start").await.expect(200);
    // Tuesdays at ten in Shanghai.
    let next = started["next_trigger_at"].as_str().expect("a time");
    assert!(next.contains("T02:00:00"), "{next}");
    assert_eq!(act(&admin, &path, "stop").await.expect(200)["next_trigger_at"], Value::Null);

    let mut config = template(&admin, "event_invitation").await;
    config["trigger"] = json!({"type": "once", "at": "2026-01-05T10:00:00+08:00"});
    let made = admin.post("/sop-tasks", plan(&config)).await.expect(201);
    let path = format!("/sop-tasks/{}", id(&made["id"]));
    approve(&admin, &path).await;
    assert_problem(act(&admin, &path, "start").await, 409, "trigger_passed", "");
}

#[tokio::test]
async fn plans_travel_as_files_and_templates_have_no_errors() {
    let here = Here::open().await;
    let admin = here.register().await;
    let schema = admin.get("/sop/schema").await.expect(200);
    assert_eq!(schema["$id"], "sop-workflow-config/v1");
    let templates = admin.get("/sop/templates").await.expect(200);
    let names: Vec<_> =
        items(&templates).iter().map(|one| one["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["新线索", "活动邀约", "沉默唤醒", "复购"]);
    for one in items(&templates) {
        let body = json!({ "workflow_config": one["workflow_config"] });
        let report = admin.post("/sop-tasks/validate", body).await.expect(200);
        assert_eq!(report["errors"], json!([]), "{}", one["name"]);
    }
    let path = draft(&admin, "repurchase").await;
    let file = admin.get(&format!("{path}/export")).await.expect(200);
    assert_eq!(file["format"], "entropy-sop/1");
    let other = here.register().await;
    let imported = other.post("/sop-tasks/import", file.clone()).await.expect(201);
    assert_eq!((&imported["status"], &imported["target_ids"]), (&json!("DRAFT"), &json!([])));
    assert_eq!(imported["workflow_config"], file["workflow_config"]);
    let again = other.get(&format!("/sop-tasks/{}/export", id(&imported["id"]))).await.expect(200);
    assert_eq!(again, file);
    let mut later = file;
    later["format"] = json!("entropy-sop/2");
    assert_problem(other.post("/sop-tasks/import", later).await, 422, "validation_failed", "format");
}

#[tokio::test]
async fn another_organisations_plan_is_not_there() {
    let here = Here::open().await;
    let (owner, stranger) = (here.register().await, here.register().await);
    let path = draft(&owner, "new_lead").await;
    approve(&owner, &path).await;
    let anything = json!({ "sha256": "00" });
    for (method, at, body) in [
        (Method::GET, path.clone(), Value::Null),
        (Method::PUT, path.clone(), plan(&json!({}))),
        (Method::GET, format!("{path}/export"), Value::Null),
        (Method::GET, format!("{path}/versions"), Value::Null),
        (Method::POST, format!("{path}/approve"), anything),
    ] {
        let request = stranger.request(method, &at);
        let request = if body.is_null() { request } else { request.json(&body) };
        assert_problem(stranger.send(request).await, 404, "plan_not_found", "");
    }
    for action in ["submit", "start", "pause", "resume", "stop", "archive", "copy"] {
        assert_problem(act(&stranger, &path, action).await, 404, "plan_not_found", "");
    }
    assert_problem(stranger.get(&format!("{path}/versions/1")).await, 404, "version_not_found", "");
    assert_eq!(stranger.get("/sop-tasks").await.expect(200)["items"], json!([]));
    assert_eq!(owner.get(&path).await.expect(200)["status"], "APPROVED");
}
