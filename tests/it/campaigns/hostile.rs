//! What plans and customers should not say: every code of the validation over HTTP, and values that want to be more than values.

use reqwest::Method;
use serde_json::{Value, json};

use super::Scene;
use super::scene::{end, send};
use crate::harness::Here;
use crate::harness::client::Client;

/// A plan without a fault, for people who must have agreed.
fn sound() -> Value {
    json!({
        "schema_version": 1,
        "timezone": "Asia/Shanghai",
        "trigger": { "type": "manual" },
        "audience": { "kind": "friend", "consent": { "required": true, "purpose": "活动通知" } },
        "send_window": { "days": "any", "ranges": [{ "from": "09:00", "to": "21:00" }] },
        "caps": { "per_contact_per_day": 2, "per_account_per_day": 150, "max_unanswered": 3 },
        "stop": [{ "on": "reply", "do": "exit" }],
        "variables": { "机构名": { "label": "机构名称" } },
        "entry": "first",
        "steps": [
            send("first", "您好，我是{{机构名}}。不想再收到请回复“退订”。", json!("rest")),
            { "id": "rest", "type": "wait", "for": "PT1H", "next": "second" },
            send("second", "周六有一堂公开课。", json!("over")),
            end("over", "已完成"),
        ],
    })
}

/// The sound plan with something else in one place.
fn with(pointer: &str, value: Value) -> Value {
    let mut config = sound();
    match config.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
            match config.pointer_mut(parent).expect("a parent") {
                Value::Array(list) => list.push(value),
                object => object[field] = value,
            }
        }
    }
    config
}

async fn told(admin: &Client, config: &Value) -> (Vec<String>, Vec<String>) {
    let report = admin.post("/sop-tasks/validate", json!({ "workflow_config": config })).await.expect(200);
    let of = |list: &str| {
        let findings = report[list].as_array().expect("a list").iter();
        let line = |one: &Value| {
            assert!(one["message"].as_str().is_some_and(|message| message.contains(' ')), "{one}");
            format!("{} {}", one["code"].as_str().unwrap_or("?"), one["path"].as_str().unwrap_or("?"))
        };
        findings.map(line).collect()
    };
    (of("errors"), of("warnings"))
}

#[tokio::test]
async fn every_code_of_the_validation_is_answered_over_http() {
    let here = Here::open().await;
    let admin = here.register().await;
    admin.post("/sensitive-words", json!({ "word": "稳赚", "action": "block" })).await.expect(201);
    assert_eq!(told(&admin, &sound()).await, (vec![], vec![]));
    let wait = |id: &str, next: &str| json!({ "id": id, "type": "wait", "for": "PT1H", "next": next });
    let errors: [(&str, Value, &str); 18] = [
        ("E01", with("/caps/max_unanswerd", json!(1)), "/caps/max_unanswerd"),
        ("E02", with("/steps/3/id", json!("rest")), "/steps/3/id"),
        ("E03", with("/steps/2/next", json!("nowhere")), "/steps/2/next"),
        ("E04", with("/steps/2/next", json!("rest")), "/steps/2/next"),
        ("E05", with("/steps/4", end("apart", "没人到")), "/steps/4"),
        ("E06", with("/steps/2/message/text", json!("{{姓名}}好")), "/steps/2/message/text"),
        ("E07", with("/goal", json!({ "fact": "contact.phone", "op": "eq", "value": "1" })), "/goal"),
        (
            "E08",
            with("/steps/2/message", json!({ "kind": "file", "material_id": "mat_lost" })),
            "/steps/2/message/material_id",
        ),
        (
            "E09",
            with(
                "/steps/2",
                json!({
                    "id": "second", "type": "ai_send", "workflow": "nobody", "instruction": "写一句", "review": "human",
                    "fallback_text": "您好", "max_chars": 80, "next": "over"
                }),
            ),
            "/steps/2/workflow",
        ),
        ("E10", with("/send_window/ranges/0/from", json!("07:00")), "/send_window/ranges/0"),
        ("E11", with("/caps/max_unanswered", json!(5)), "/caps/max_unanswered"),
        (
            "E12",
            with(
                "/steps/1",
                json!({ "id": "rest", "type": "split", "arms": [
                    { "key": "a", "weight": 50, "next": "second" }, { "key": "b", "weight": 49, "next": "over" } ] }),
            ),
            "/steps/1/arms",
        ),
        ("E13", with("/trigger", json!({ "type": "cron", "cron": "*/30 * * * *" })), "/trigger/cron"),
        ("E14", with("/audience/kind", json!("group")), "/steps/1/type"),
        ("E15", with("/trigger", json!({ "type": "event", "event": "tag_added" })), "/trigger/tags"),
        ("E16", with("/send_window/ranges/0/to", json!("09:00")), "/send_window/ranges/0/to"),
        ("E17", with("/stop", json!([])), "/stop"),
        ("E18", with("/steps/0/message/text", json!("您好！")), "/steps/0/message/text"),
    ];
    for (code, mut config, path) in errors {
        if code == "E14" {
            config["steps"][1] =
                json!({ "id": "rest", "type": "wait_reply", "timeout": "PT1H", "on_timeout": "second" });
        }
        let (errors, _) = told(&admin, &config).await;
        assert!(errors.contains(&format!("{code} {path}")), "{code} {path}: {errors:?}");
    }
    let several = json!([
        send("first", "您好，我是{{机构名}}。不想再收到请回复“退订”。", json!("a")),
        wait("a", "second"),
        send("second", "二", json!("b")),
        wait("b", "third"),
        send("third", "三", json!("c")),
        wait("c", "fourth"),
        send("fourth", "四", json!(null)),
    ]);
    admin
        .post(
            "/ai-workflows",
            json!({
                "alias": "sales", "api_key": "fastgpt-hostile", "app_id": "apphostile", "reserve_yuan": "0.01",
                "requests_per_minute": 60, "timeout_ms": 2000
            }),
        )
        .await
        .expect(201);
    let unseen = json!({
        "id": "second", "type": "ai_send", "workflow": "sales", "instruction": "写一句", "review": "none",
        "fallback_text": "您好", "max_chars": 80, "next": "over"
    });
    let holiday = with("/trigger", json!({ "type": "once", "at": "2026-10-01T10:00:00+08:00" }));
    let warnings: [(&str, Value, &str); 5] = [
        ("W01", with("/steps", several), "/steps/6"),
        ("W02", with("/steps/0/next", json!("second")), "/steps/2"),
        ("W03", with("/steps/2", unseen), "/steps/2/review"),
        ("W05", holiday, "/trigger/at"),
        ("W06", with("/steps/2/message/text", json!("稳 赚不赔")), "/steps/2/message/text"),
    ];
    for (code, config, path) in warnings {
        let (_, warnings) = told(&admin, &config).await;
        assert!(warnings.contains(&format!("{code} {path}")), "{code} {path}: {warnings:?}");
    }
    // How many people it is for is known when it is submitted.
    let account = admin.account(600, 0).await;
    let items: Vec<Value> = (0..2).map(|n| json!({ "wxid": format!("wxid_w04_{n}") })).collect();
    admin.post("/contacts/import", json!({ "account_id": account.id, "items": items })).await.expect(200);
    let people: Vec<Value> = admin.all("/contacts").await.iter().map(|one| one["id"].clone()).collect();
    let config = with("/caps/per_account_per_day", json!(1));
    let plan =
        json!({ "name": "两个人", "target_type": "friend", "target_ids": people, "workflow_config": config });
    let made = admin.post("/sop-tasks", plan).await.expect(201);
    let path = format!("/sop-tasks/{}/submit", made["id"].as_str().expect("an id"));
    let submitted = admin.post(&path, Value::Null).await.expect(200);
    assert_eq!(submitted["warnings"][0]["code"], "W04", "{submitted}");
}

#[tokio::test]
async fn a_circle_of_sixty_steps_and_a_plan_of_five_mebibytes_are_answered_at_once() {
    let here = Here::open().await;
    let admin = here.register().await;
    let step = |at: usize| json!({ "id": format!("s{at:02}"), "type": "wait", "for": "PT1H", "next": format!("s{:02}", (at + 1) % 60) });
    let mut config = with("/steps", (0..60).map(step).collect());
    config["entry"] = json!("s00");
    let report = admin.post("/sop-tasks/validate", json!({ "workflow_config": config })).await.expect(200);
    let [circle] = &report["errors"].as_array().expect("a list")[..] else { panic!("{report}") };
    assert_eq!((&circle["code"], &circle["path"]), (&json!("E04"), &json!("/steps/59/next")));
    let message = circle["message"].as_str().expect("a message");
    assert!(message.contains("s00 → s01") && message.contains("60 steps"), "{message}");

    let large = with("/ui", json!({ "x": "a".repeat(5 << 20) }));
    for (method, path, body) in [
        (Method::POST, "/sop-tasks/validate", json!({ "workflow_config": large })),
        (
            Method::POST,
            "/sop-tasks",
            json!({ "name": "大", "target_type": "tag", "target_ids": [], "workflow_config": large }),
        ),
    ] {
        let reply = admin.send(admin.request(method, path).json(&body)).await;
        assert_eq!(reply.problem(413), "body_too_large", "{path}");
    }
    assert_eq!(admin.get("/sop-tasks").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn what_customers_call_themselves_is_shown_and_never_read() {
    let scene = Scene::set().await;
    let plan = scene
        .plan_with(json!({
            "variables": { "称呼": { "label": "称呼", "default": "您" }, "顾问名": { "label": "顾问" } },
            "steps": [send("first", "{{称呼}}好，我是{{顾问名}}。", json!(null))],
        }))
        .await;
    let (long, cut) = ("长".repeat(200), format!("{}好，我是小李。", "长".repeat(30)));
    let names = [
        ("{{顾问名}}", "您好，我是小李。"),
        ("王\r\n小\u{202e}雨", "王小雨好，我是小李。"),
        ("加微信 abc123", "您好，我是小李。"),
        ("🌸🌸", "您好，我是小李。"),
        ("'; DROP TABLE jobs; --", "'; DROP TABLE jobs; --好，我是小李。"),
        (long.as_str(), cut.as_str()),
    ];
    let mut people = Vec::new();
    for (n, (name, _)) in names.iter().enumerate() {
        let contact = scene.friend(&format!("wxid_{n}")).await;
        let name = name.replace('\'', "''");
        scene
            .book
            .run(&format!("UPDATE contacts SET remark = '', nickname = '{name}' WHERE id = '{contact}'"))
            .await;
        people.push(contact);
    }
    scene.enroll(plan, &people).await;
    scene.settles().await;
    let mut said = scene.said();
    said.sort();
    let expected: Vec<(String, String)> =
        names.iter().enumerate().map(|(n, (_, said))| (format!("wxid_{n}"), (*said).to_owned())).collect();
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_value_that_is_missing_leaves_a_message_out_or_ends_the_plan() {
    let scene = Scene::set().await;
    let step = |id: &str, missing: Value, next: Value| {
        let mut step = send(id, "{{课程名}}的资料发您了。", next);
        step["on_missing_variable"] = missing;
        step
    };
    let plan = scene
        .plan_with(json!({
            "variables": { "课程名": { "label": "课程" } },
            "steps": [
                step("first", json!("skip"), json!("second")), send("second", "您好", json!("third")),
                step("third", json!("exit"), json!("over")), end("over", "已完成"),
            ],
        }))
        .await;
    let lacks = scene.friend("wxid_lacks").await;
    let has = scene.friend("wxid_has").await;
    scene
        .book
        .run(&format!("UPDATE contacts SET variables = '{{\"课程名\": \"编程\"}}' WHERE id = '{has}'"))
        .await;
    scene.enroll(plan, &[lacks, has]).await;
    scene.settles().await;
    assert_eq!(scene.standing().await, ["exited third missing_variable", "completed over 已完成"]);
    assert_eq!(
        scene.steps().await[..3],
        ["first skipped missing_variable", "second sent", "third skipped missing_variable"]
    );
    let mut said = scene.said();
    said.sort();
    let line = |wxid: &str, text: &str| (wxid.to_owned(), text.to_owned());
    assert_eq!(
        said,
        [
            line("wxid_has", "您好"),
            line("wxid_has", "编程的资料发您了。"),
            line("wxid_has", "编程的资料发您了。"),
            line("wxid_lacks", "您好"),
        ]
    );
}
