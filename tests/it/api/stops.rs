//! Emergency stops, calendars, and what an organisation lets campaigns do.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{assert_problem, id, items, person};
use crate::harness::Here;
use crate::harness::client::{Client, Reply};

async fn lift(client: &Client, body: Value) -> Reply {
    client.send(client.request(Method::DELETE, "/stop").json(&body)).await
}

#[tokio::test]
async fn a_stop_stands_once_and_is_lifted_once() {
    let here = Here::open().await;
    let (admin, stranger) = (here.register().await, here.register().await);
    let agent = person(&admin, "agent").await;
    let account = admin.account(600, 0).await;
    let stop = |scope: &str, scope_id: Option<Uuid>| json!({"scope": scope, "scope_id": scope_id, "reason": "话术有误"});
    assert_problem(agent.post("/stop", stop("ai", None)).await, 403, "forbidden", "");
    let first = admin.post("/stop", stop("organization", None)).await.expect(200);
    assert_eq!((id(&first["scope_id"]), id(&first["stopped_by"])), (admin.organization, admin.user));
    let mut again = stop("organization", Some(admin.organization));
    again["reason"] = json!("别的原因");
    assert_eq!(admin.post("/stop", again).await.expect(200), first, "the stop that stands stays as it is");
    admin.post("/stop", stop("ai", None)).await.expect(200);
    admin.post("/stop", stop("account", Some(account.id))).await.expect(200);
    let draft = json!({"name": "活动", "target_type": "tag", "workflow_config": {}});
    let plan = id(&admin.post("/sop-tasks", draft).await.expect(201)["id"]);
    admin.post("/stop", stop("sop", Some(plan))).await.expect(200);
    let listed = agent.get("/stop").await.expect(200);
    let scopes: Vec<_> = items(&listed).iter().map(|one| one["scope"].as_str().unwrap_or_default()).collect();
    assert_eq!(scopes, ["sop", "account", "ai", "organization"]);

    for (scope, scope_id, status, code, path) in [
        ("account", None, 422, "validation_failed", "scope_id"),
        ("sop", None, 422, "validation_failed", "scope_id"),
        ("ai", Some(account.id), 422, "validation_failed", "scope_id"),
        ("account", Some(plan), 404, "account_not_found", ""),
        ("sop", Some(account.id), 404, "plan_not_found", ""),
    ] {
        assert_problem(admin.post("/stop", stop(scope, scope_id)).await, status, code, path);
    }
    let mut silent = stop("ai", None);
    silent["reason"] = json!(" ");
    assert_problem(admin.post("/stop", silent).await, 422, "validation_failed", "reason");
    assert_problem(
        stranger.post("/stop", stop("account", Some(account.id))).await,
        404,
        "account_not_found",
        "",
    );
    assert_problem(stranger.post("/stop", stop("sop", Some(plan))).await, 404, "plan_not_found", "");
    assert_eq!(stranger.get("/stop").await.expect(200)["items"], json!([]));

    assert_problem(lift(&agent, json!({"scope": "ai"})).await, 403, "forbidden", "");
    for _ in 0..2 {
        assert_eq!(lift(&admin, json!({"scope": "organization", "reason": "已改好"})).await.status, 204);
    }
    assert_eq!(items(&admin.get("/stop").await.expect(200)).len(), 3);
    let audit = admin.get("/audit-log?limit=200").await.expect(200);
    let count = |action: &str| items(&audit).iter().filter(|line| line["action"] == action).count();
    assert_eq!((count("stop.create"), count("stop.lift")), (4, 1));
}

#[tokio::test]
async fn an_organisation_corrects_its_own_calendar() {
    let here = Here::open().await;
    let (admin, stranger) = (here.register().await, here.register().await);
    let shipped = admin.get("/calendars/cn/2026").await.expect(200);
    assert_eq!(shipped["source"], "shipped");
    assert!(shipped["holidays"].as_array().is_some_and(|days| days.contains(&json!("2026-10-01"))));
    assert!(shipped["workdays"].as_array().is_some_and(|days| days.contains(&json!("2026-10-10"))));
    let unknown = admin.get("/calendars/cn/2040").await.expect(200);
    assert_eq!((&unknown["source"], &unknown["holidays"]), (&json!("none"), &json!([])));
    let mine = json!({"holidays": ["2040-10-02", "2040-10-01", "2040-10-01"], "workdays": ["2040-10-06"]});
    let put = admin.put("/calendars/cn/2040", mine).await.expect(200);
    assert_eq!(
        (&put["source"], &put["holidays"]),
        (&json!("organization"), &json!(["2040-10-01", "2040-10-02"]))
    );
    assert_eq!(admin.get("/calendars/cn/2040").await.expect(200)["workdays"], json!(["2040-10-06"]));
    assert_eq!(stranger.get("/calendars/cn/2040").await.expect(200)["source"], "none");
    let both = json!({"holidays": ["2040-10-06"], "workdays": ["2040-10-06"]});
    assert_problem(admin.put("/calendars/cn/2040", both).await, 422, "validation_failed", "holidays");
    let other = json!({"holidays": [], "workdays": ["2041-01-05"]});
    assert_problem(admin.put("/calendars/cn/2040", other).await, 422, "validation_failed", "workdays");
    let no_day = json!({"holidays": ["2040-02-30"], "workdays": []});
    assert_eq!(admin.put("/calendars/cn/2040", no_day).await.problem(400), "invalid_request");
    assert_problem(admin.get("/calendars/cn/1999").await, 404, "calendar_not_found", "");
}

#[tokio::test]
async fn caps_are_lowered_by_managers_and_raised_by_admins() {
    let here = Here::open().await;
    let admin = here.register().await;
    let manager = person(&admin, "manager").await;
    let path = "/organization/settings";
    let defaults = manager.get(path).await.expect(200);
    assert_eq!((&defaults["campaign_from"], &defaults["campaign_until"]), (&json!("09:00"), &json!("21:00")));
    let caps =
        ["contact_per_day", "contact_per_week", "account_per_day", "new_contacts_per_day", "max_unanswered"];
    assert_eq!(caps.map(|cap| defaults[cap].as_i64().unwrap_or_default()), [2, 5, 150, 30, 3]);
    assert_eq!(defaults["approval_required"], true);
    let lower = json!({"account_per_day": 100, "campaign_until": "20:30", "campaign_name": "青松教育"});
    let lowered = manager.put(path, lower).await.expect(200);
    assert_eq!((&lowered["account_per_day"], &lowered["contact_per_day"]), (&json!(100), &json!(2)));
    for raised in
        [json!({"account_per_day": 101}), json!({"campaign_from": "08:30"}), json!({"max_unanswered": 4})]
    {
        assert_problem(manager.put(path, raised.clone()).await, 403, "limits_need_admin", "");
        admin.put(path, raised).await.expect(200);
    }
    for (field, value) in [
        ("contact_per_day", json!(6)),
        ("contact_per_week", json!(0)),
        ("account_per_day", json!(501)),
        ("max_unanswered", json!(6)),
        ("campaign_from", json!("07:59")),
        ("campaign_until", json!("22:01")),
        ("campaign_until", json!("24:00")),
        ("campaign_until", json!("08:30")),
        ("campaign_name", json!("名".repeat(101))),
    ] {
        assert_problem(admin.put(path, json!({ field: value })).await, 422, "validation_failed", field);
    }
    assert_eq!(manager.get(path).await.expect(200)["campaign_name"], "青松教育");
}
