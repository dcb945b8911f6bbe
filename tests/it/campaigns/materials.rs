//! What is sent beside texts: as it was pinned, by links that are made when it leaves, and looked at before a plan begins.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use entropy_jobs::campaign::material;
use entropy_jobs::job::{Job, JobError};
use entropy_jobs::kinds::check_material::CheckMaterial;
use entropy_jobs::media::{FetchError, MediaSource, Wanted};
use entropy_jobs::provider::{Device, SendError};
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Scene;
use super::scene::end;
use super::whole::{clock, contacts};
use crate::harness::client::Client;
use crate::harness::{Platform, eventually, secs};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
const PDF: &[u8] = b"%PDF-1.4\n";

/// Puts a material in, approves it, and returns its id.
async fn material(admin: &Client, kind: &str, revision: &str) -> Uuid {
    let page = "https://www.example.com/a";
    let content = match kind {
        "link" => json!({ "kind": kind, "title": revision, "desc": "一年", "url": page, "thumb_url": page }),
        "mini_program" => json!({ "kind": kind, "app_id": "wx0123456789abcdef", "user_name": "gh_0a@app",
            "title": revision, "display_name": "课程", "page_path": "pages/index", "cover_url": page }),
        _ => Value::Null,
    };
    let mut made = json!({ "key": format!("mat_{kind}"), "kind": kind, "name": "报价单" });
    if content.is_object() {
        made["content"] = content;
    }
    let made = admin.post("/materials", made).await.expect(201);
    let id: Uuid = made["id"].as_str().expect("an id").parse().expect("an id");
    if matches!(kind, "image" | "file") {
        upload(admin, id, kind, PNG, PDF).await;
    }
    admin.post(&format!("/materials/{id}/approve"), json!({ "revision": 1 })).await.expect(200);
    id
}

async fn upload(admin: &Client, id: Uuid, kind: &str, image: &[u8], file: &[u8]) {
    let (bytes, media_type) = if kind == "image" { (image, "image/png") } else { (file, "application/pdf") };
    let request = admin.request(Method::PUT, &format!("/materials/{id}/file"));
    let request = request.header("content-type", media_type).body(bytes.to_vec());
    admin.send(request).await.expect(200);
}

#[tokio::test]
async fn each_kind_reaches_the_phone_as_it_was_pinned_though_a_newer_one_was_approved() {
    let platform = Platform::with().env("PUBLIC_URL", "https://entropy.example.com").start().await;
    clock(&platform, "2026-12-01T10:00:00+08:00").await;
    let admin = platform.register().await;
    let account = admin.account(600, 0).await;
    let kinds = ["image", "file", "link", "mini_program"];
    let mut steps = Vec::new();
    for (n, kind) in kinds.iter().enumerate() {
        let id = material(&admin, kind, "第一版").await;
        let path = format!("/materials/{id}");
        if n < 2 {
            upload(&admin, id, kind, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR2", b"%PDF-1.4\n2").await;
        } else {
            let mut newer = admin.get(&path).await.expect(200)["content"].clone();
            newer["title"] = json!("第二版");
            admin.put(&path, json!({ "content": newer })).await.expect(200);
        }
        admin.post(&format!("{path}/approve"), json!({ "revision": 2 })).await.expect(200);
        let next = kinds.get(n + 1).map_or("over".to_owned(), |kind| format!("send_{kind}"));
        let message = json!({ "kind": kind, "material_id": format!("mat_{kind}") });
        steps.push(json!({ "id": format!("send_{kind}"), "type": "send", "message": message, "next": next }));
    }
    steps.push(end("over", "已完成"));
    let config = json!({
        "schema_version": 1, "trigger": { "type": "manual" },
        "audience": { "kind": "friend", "consent": { "required": false } },
        "send_window": { "days": "any", "ranges": [{ "from": "09:00", "to": "21:00" }] },
        "caps": { "per_contact_per_day": 5, "per_account_per_day": 150, "max_unanswered": 5 },
        "stop": [{ "on": "reply", "do": "exit" }], "entry": "send_image", "steps": steps,
    });
    let pins = json!({ "mat_image": 1, "mat_file": 1, "mat_link": 1, "mat_mini_program": 1 });
    let (plan, organization) = (Uuid::now_v7(), admin.organization);
    let mut conn = platform.db.conn().await.expect("a connection");
    conn.batch_execute(&format!(
        "INSERT INTO sop_tasks (id, organization_id, user_id, name, target_type, workflow_config, status, version)
         VALUES ('{plan}', '{organization}', '{plan}', '测试计划', 'friend', '{config}', 'RUNNING', 1);
         INSERT INTO sop_versions (sop_id, version, organization_id, config, materials, sha256, state, created_by)
         VALUES ('{plan}', 1, '{organization}', '{config}', '{pins}', sha256('x'), 'approved', '{plan}');
         INSERT INTO organization_settings (organization_id, contact_per_day, max_unanswered)
         VALUES ('{organization}', 5, 5)
         ON CONFLICT (organization_id) DO UPDATE SET contact_per_day = 5, max_unanswered = 5"
    ))
    .await
    .expect("a plan");
    let people = contacts(&admin, &account, "m", 1).await;
    let path = format!("/sop-tasks/{plan}/enrollments");
    admin.post(&path, json!({ "contact_ids": people })).await.expect(202);
    eventually("all four arrive", secs(40), async || {
        let arrived = platform.sandbox.entries_of(&account.app_id).await.len();
        if arrived == 4 { Ok(()) } else { Err(format!("{arrived} {:?}", admin.all(&path).await)) }
    })
    .await;
    let arrived = platform.sandbox.entries_of(&account.app_id).await;
    let body = |field: &str| {
        let found = arrived.iter().find_map(|entry| entry["body"][field].as_str());
        found.unwrap_or_else(|| panic!("{field} in {arrived:?}")).to_owned()
    };
    assert_eq!(body("fileName"), "报价单.pdf");
    let titles: Vec<&str> = arrived.iter().filter_map(|entry| entry["body"]["title"].as_str()).collect();
    assert_eq!(titles, ["第一版", "第一版"]);
    for (field, bytes) in [("imgUrl", PNG), ("fileUrl", PDF)] {
        let url = body(field);
        let path = url.strip_prefix("https://entropy.example.com").unwrap_or_else(|| panic!("{url}"));
        assert!(path.contains("/1?expires="), "{url}");
        let served = reqwest::get(format!("{}{path}", platform.base(0))).await.expect("served");
        assert_eq!(served.bytes().await.expect("bytes"), bytes, "{field}");
    }
}

/// Addresses, and what is found there; whatever else is there.
struct Web(HashMap<&'static str, FetchError>);

impl MediaSource for Web {
    fn locate<'a>(
        &'a self,
        _: &'a Device,
        _: Wanted<'a>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<String, SendError>> {
        async { panic!("nobody asks for that") }.boxed()
    }

    fn fetch<'a>(&'a self, _: &'a str, _: &'a Path, _: u64) -> BoxFuture<'a, Result<u64, FetchError>> {
        async { Err(FetchError::Gone) }.boxed()
    }

    fn probe<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<(), FetchError>> {
        let found = self.0.get(url).copied();
        async move { found.map_or(Ok(()), Err) }.boxed()
    }
}

#[tokio::test]
async fn a_plan_does_not_begin_with_what_is_known_to_be_dead() {
    let web = Web(HashMap::from([
        ("https://a.example/gone", FetchError::Gone),
        ("https://a.example/silent", FetchError::Failed("no answer in time")),
    ]));
    let scene = Scene::set_with(|services| services.media = Arc::new(web)).await;
    let organization = scene.book.organization;
    let plan = scene.plan(json!([end("first", "已完成")])).await;
    let mut pins = serde_json::Map::new();
    for (n, place) in ["there", "gone", "silent"].into_iter().enumerate() {
        let id = Uuid::from_u128(n as u128 + 1);
        let content = json!({ "kind": "link", "title": "t", "desc": "d", "url": format!("https://a.example/{place}"),
            "thumb_url": "https://a.example/t" });
        scene
            .book
            .run(&format!(
                "INSERT INTO materials (id, organization_id, key, kind, name, revision, approved_revision)
                 VALUES ('{id}', '{organization}', 'mat_{place}', 'link', '资料', 1, 1);
                 INSERT INTO material_revisions (material_id, revision, organization_id, content, approved_at)
                 VALUES ('{id}', 1, '{organization}', '{content}', now())"
            ))
            .await;
        pins.insert(format!("mat_{place}"), json!(1));
    }
    let pins = Value::Object(pins);
    scene.book.run(&format!("UPDATE sop_versions SET materials = '{pins}'")).await;
    let before = async || {
        let mut conn = scene.book.conn().await;
        conn.transaction(async |conn| material::before_start(conn, organization, plan, 1, "trace").await)
            .await
            .expect("an answer")
    };
    assert_eq!(before().await, Vec::<String>::new(), "nobody has looked yet");
    let jobs = "SELECT args ->> 'material_id' AS word FROM jobs WHERE kind = 'check_material' ORDER BY 1";
    assert_eq!(scene.lines(jobs).await.len(), 3, "now somebody does");
    for n in 1..=3_u128 {
        let job = CheckMaterial { material_id: Uuid::from_u128(n), revision: 1 };
        let first = job.run(&scene.context(Uuid::now_v7(), 1, Uuid::now_v7())).await;
        assert_eq!(
            matches!(first, Err(JobError::Retry(_))),
            n == 3,
            "who is silent is asked again: {first:?}"
        );
        if n == 3 {
            job.run(&scene.context(Uuid::now_v7(), 3, Uuid::now_v7())).await.expect("noted");
        }
    }
    let found = "SELECT coalesce(left(check_error, 9), '-') || ' ' || (checked_at IS NOT NULL) AS word
        FROM material_revisions ORDER BY material_id";
    assert_eq!(scene.lines(found).await, ["- true", "dead: url true", "silent: u true"]);
    let alerts = "SELECT details ->> 'revision' AS word FROM alerts WHERE kind = 'material_dead'";
    assert_eq!(scene.lines(alerts).await.len(), 2);
    assert_eq!(before().await, ["mat_gone"]);
    assert_eq!(scene.lines(jobs).await.len(), 3, "nothing is looked at for a plan that does not begin");
}
