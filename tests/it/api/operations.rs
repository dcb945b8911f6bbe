//! For machines and operators: health, metrics, the document, workers, the audit log.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use super::{id, items, pause};
use crate::harness::process::ENTROPY;
use crate::harness::{Here, eventually, secs};

#[tokio::test]
async fn health_and_readiness_are_answered_without_a_login() {
    let here = Here::open().await;
    let nobody = here.anonymous();
    let get = async |path: &str| nobody.send(nobody.bare(Method::GET, path)).await;
    assert_eq!(get("/healthz").await.expect(200), json!({"status": "ok"}));
    assert_eq!(get("/readyz").await.expect(200), json!({"status": "ok", "postgres": "ok", "redis": "ok"}));
}

#[tokio::test]
async fn the_metrics_name_everything_that_an_operator_watches() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(1, 0).await;
    here.sandbox.fail(json!({"mode": "unknown_error", "app_id": account.app_id})).await;
    let job = admin.text(&account, "wxid_customer", "你好", "interactive").await;
    here.ended(&admin, job).await;
    let waiting = admin.text(&account, "wxid_customer", "你好", "interactive").await;
    here.waits(&admin, waiting, "messages_per_minute").await;
    let names = [
        "entropy_http_requests_total{",
        "entropy_http_request_seconds_bucket{",
        // Counts by kind and outcome.
        "entropy_attempts_total{kind=\"send_message\",outcome=\"dead\"}",
        // Runnable and waiting depth, and the age of the oldest runnable job.
        "entropy_jobs_waiting{queue=\"send\"}",
        "entropy_jobs_leased",
        "entropy_jobs_dead",
        "entropy_sends_unknown",
        "entropy_oldest_runnable_seconds",
        // Histograms of attempts and of pickup.
        "entropy_attempt_seconds_bucket{kind=\"send_message\",le=",
        "entropy_pickup_seconds_bucket{le=",
        // Provider errors by class, limiter waits, pool use.
        "entropy_provider_errors_total{class=\"refused\",provider=\"gewe\"}",
        "entropy_limiter_waits_total",
        "entropy_api_pool_in_use",
        "entropy_api_pool_size",
        "entropy_worker_pool_in_use",
        "entropy_workers_alive 1",
        "entropy_record_up 1",
    ];
    let nobody = here.anonymous();
    let text = eventually("the metrics hold every name", secs(20), async || {
        let page = nobody.send(nobody.bare(Method::GET, "/metrics")).await;
        assert!(
            page.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4"))
        );
        let missing: Vec<_> = names.iter().filter(|name| !page.text.contains(*name)).collect();
        if missing.is_empty() {
            Ok(page.text)
        } else {
            Err(format!("{missing:?} are missing from\n{}", page.text))
        }
    })
    .await;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "not a sample: {line}");
        assert!(
            !line.contains(&job.to_string()) && !line.contains(&account.id.to_string()),
            "a label per thing: {line}"
        );
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE entropy_attempts_total ")).count(), 1);
}

#[tokio::test]
async fn the_document_is_served_and_is_the_reviewed_one() {
    let here = Here::open().await;
    let served = here.anonymous().get("/openapi.json").await;
    assert_eq!(served.header("content-type"), Some("application/json"));
    let printed = Command::new(ENTROPY).arg("openapi").env_clear().output().expect("the program starts");
    let printed = String::from_utf8(printed.stdout).expect("text");
    assert_eq!(served.text.trim_end(), printed.trim_end());
    let snapshot = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let reviewed = std::fs::read_to_string(&snapshot).unwrap_or_default();
    if reviewed.trim_end() != printed.trim_end() {
        let differs = reviewed.lines().zip(printed.lines()).position(|(old, new)| old != new);
        panic!(
            "docs/openapi.json is not what the API does (from line {}); look at what changes, and update it with\n\
             cargo run -- openapi > docs/openapi.json",
            differs.unwrap_or_default() + 1
        );
    }
}

#[tokio::test]
async fn the_document_is_shown_to_people() {
    let here = Here::open().await;
    let nobody = here.anonymous();
    let docs = nobody.send(nobody.bare(Method::GET, "/docs")).await;
    assert_eq!(docs.status, 200);
    assert!(docs.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(docs.text.contains("<html") && docs.text.contains("/jobs/send-message"), "it holds the document");
    let home = nobody.send(nobody.bare(Method::GET, "/")).await;
    assert_eq!((home.status, home.header("location")), (307, Some("/docs")));
}

#[tokio::test]
async fn workers_are_listed_with_what_they_do() {
    let here = Here::open().await;
    let admin = here.register().await;
    let workers = admin.get("/workers").await.expect(200);
    let [worker] = items(&workers) else { panic!("one worker: {workers}") };
    assert_eq!((&worker["state"], &worker["alive"]), (&json!("running"), &json!(true)));
    assert!(worker["slots"].as_i64().is_some_and(|slots| slots > 0), "{worker}");
    for field in ["host", "version", "started_at", "heartbeat_at"] {
        assert!(worker[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {worker}");
    }
    assert!(worker["pid"].as_i64().is_some_and(|pid| pid > 1), "{worker}");
}

#[tokio::test]
async fn the_audit_log_holds_who_changed_what() {
    let here = Here::open().await;
    let admin = here.register().await;
    let agent = super::person(&admin, "agent").await;
    let account = admin.account(600, 0).await;
    let path = format!("/wechat-accounts/{}", account.id);
    agent.patch(&path, json!({"nickname": "小王"})).await.expect(200);
    pause(&agent, &account).await;
    let job = agent.text(&account, "wxid_customer", "机密内容", "interactive").await;
    agent.post(&format!("/jobs/{job}/cancel"), Value::Null).await.expect(200);
    agent.text(&account, "wxid_customer", "机密内容", "interactive").await;
    admin.post("/jobs/bulk/cancel", json!({"filter": {}})).await.expect(200);
    super::resume(&agent, &account).await;
    for mode in ["unknown_error", "not_json"] {
        here.sandbox.fail(json!({"mode": mode, "app_id": account.app_id})).await;
        let job = agent.text(&account, "wxid_customer", "机密内容", "interactive").await;
        here.ended(&agent, job).await;
        match mode {
            "not_json" => {
                agent.post(&format!("/jobs/{job}/resolve"), json!({"as": "failed"})).await.expect(200)
            }
            _ => admin.post(&format!("/jobs/{job}/revive"), Value::Null).await.expect(200),
        };
        if mode == "unknown_error" {
            here.ended(&agent, job).await;
        }
    }
    admin.post("/jobs/bulk/revive", json!({"filter": {}})).await.expect(200);
    for action in ["pause", "resume"] {
        admin.post(&format!("/queues/cost/{action}"), Value::Null).await.expect(200);
        admin
            .post(
                &format!("/lanes/{}/{action}", account.id),
                if action == "pause" { json!({}) } else { Value::Null },
            )
            .await
            .expect(200);
    }
    let price = json!({"model": "m", "input_per_1k": "1", "output_per_1k": "1", "effective_from": "2026-01-01T00:00:00Z"});
    admin.post("/model-prices", price).await.expect(201);
    admin.put(&format!("/users/{}", agent.user), json!({"role": "viewer"})).await.expect(200);
    assert_eq!(admin.delete(&path).await.status, 204);

    let lines = admin.all_by("/audit-log", 7).await;
    let expected = [
        ("organization.register", admin.user),
        ("user.create", admin.user),
        ("user.login", agent.user),
        ("account.create", admin.user),
        ("account.update", agent.user),
        ("account.pause", agent.user),
        ("job.cancel", agent.user),
        ("job.bulk_cancel", admin.user),
        ("account.resume", agent.user),
        ("job.revive", admin.user),
        ("job.resolve", agent.user),
        ("job.bulk_revive", admin.user),
        ("queue.pause", admin.user),
        ("lane.pause", admin.user),
        ("queue.resume", admin.user),
        ("lane.resume", admin.user),
        ("model_price.create", admin.user),
        ("user.update", admin.user),
        ("account.delete", admin.user),
    ];
    let found: Vec<_> = lines
        .iter()
        .rev()
        .map(|line| (line["action"].as_str().unwrap_or_default(), id(&line["user_id"])))
        .collect();
    assert_eq!(found, expected);
    let update = lines.iter().find(|line| line["action"] == "account.update").expect("it is there");
    assert_eq!(
        (&update["before"]["nickname"], &update["after"]["nickname"]),
        (&json!("小李"), &json!("小王"))
    );
    assert_eq!(update["target_id"], json!(account.id));
    assert!(
        update["address"].is_string() && update["trace_id"].is_string() && update["created_at"].is_string(),
        "{update}"
    );
    let all = serde_json::to_string(&lines).expect("text");
    assert!(!all.contains("机密内容") && !all.contains("pass phrase"), "no message and no password: {all}");
}
