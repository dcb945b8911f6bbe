//! Materials: revisions, uploads, approvals, and the plans that pin them.

use reqwest::Method;
use serde_json::{Value, json};

use super::{assert_problem, id, items, person};
use crate::harness::Here;
use crate::harness::client::{Client, Reply};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

/// Uploads a file.
async fn upload(client: &Client, path: &str, bytes: Vec<u8>) -> Reply {
    let request = client.request(Method::PUT, path).header("content-type", "image/png");
    client.send(request.body(bytes)).await
}

/// A link as a message.
fn link(title: &str) -> Value {
    json!({
        "kind": "link", "title": title, "desc": "三位学员的一年", "url": "https://www.example.com/a",
        "thumb_url": "https://www.example.com/a.jpg"
    })
}

#[tokio::test]
async fn a_change_is_a_new_revision_and_needs_an_approval_of_its_own() {
    let here = Here::open().await;
    let admin = here.register().await;
    let agent = person(&admin, "agent").await;
    let new = |key: &str, kind: &str| json!({"key": key, "kind": kind, "name": "学员案例"});
    let mut body = new("mat_case_article", "link");
    body["content"] = link("案例");
    let made = agent.post("/materials", body.clone()).await.expect(201);
    assert_eq!((&made["revision"], &made["approved_revision"]), (&json!(1), &Value::Null));
    assert_problem(agent.post("/materials", body.clone()).await, 409, "key_in_use", "");
    let path = format!("/materials/{}", id(&made["id"]));
    let approve = |revision: i32| json!({ "revision": revision });
    let at = format!("{path}/approve");
    assert_problem(agent.post(&at, approve(1)).await, 403, "forbidden", "");
    assert_problem(admin.post(&at, approve(2)).await, 422, "validation_failed", "revision");
    for _ in 0..2 {
        assert_eq!(admin.post(&at, approve(1)).await.expect(200)["approved_revision"], 1);
    }
    let changed = agent.put(&path, json!({"content": link("新案例")})).await.expect(200);
    assert_eq!((&changed["revision"], &changed["approved_revision"]), (&json!(2), &json!(1)));
    let renamed = agent.put(&path, json!({"name": "案例文章"})).await.expect(200);
    assert_eq!((&renamed["revision"], &renamed["content"]["title"]), (&json!(2), &json!("新案例")));
    let shown = agent.get(&path).await.expect(200);
    let titles: Vec<_> =
        shown["revisions"].as_array().expect("a list").iter().map(|one| &one["content"]["title"]).collect();
    assert_eq!(titles, [&json!("新案例"), &json!("案例")]);

    body["key"] = json!("Mat");
    assert_problem(agent.post("/materials", body.clone()).await, 422, "validation_failed", "key");
    body["key"] = json!("mat_other");
    body["content"]["url"] = json!("http://127.0.0.1/");
    assert_problem(agent.post("/materials", body.clone()).await, 422, "validation_failed", "content.url");
    body["kind"] = json!("image");
    assert_problem(agent.post("/materials", body).await, 422, "validation_failed", "content.kind");

    let stranger = here.register().await;
    for reply in [
        stranger.get(&path).await,
        stranger.put(&path, json!({})).await,
        stranger.post(&at, approve(1)).await,
        stranger.delete(&path).await,
        upload(&stranger, &format!("{path}/file"), PNG.to_vec()).await,
    ] {
        assert_problem(reply, 404, "material_not_found", "");
    }
    assert_eq!(stranger.get("/materials").await.expect(200)["items"], json!([]));
    assert_eq!(items(&agent.get("/materials?kind=link").await.expect(200)).len(), 1);
    assert_eq!(items(&agent.get("/materials?kind=file").await.expect(200)).len(), 0);
}

#[tokio::test]
async fn an_upload_is_looked_at_before_it_is_kept() {
    let here = Here::open().await;
    let admin = here.register().await;
    let make = |key: &str, kind: &str| json!({"key": key, "kind": kind, "name": "大纲"});
    let image = admin.post("/materials", make("mat_cover", "image")).await.expect(201);
    assert_eq!((&image["revision"], &image["content"]), (&json!(0), &Value::Null));
    let path = format!("/materials/{}", id(&image["id"]));
    let at = format!("{path}/file");
    for bad in [b"<html><script>".to_vec(), b"MZ\x90\0".to_vec(), b"plain".to_vec(), Vec::new()] {
        assert_problem(upload(&admin, &at, bad).await, 422, "file_refused", "");
    }
    assert_eq!(admin.get(&path).await.expect(200)["revision"], 0);
    let kept = upload(&admin, &at, PNG.to_vec()).await.expect(200);
    assert_eq!((&kept["revision"], &kept["media_type"]), (&json!(1), &json!("image/png")));
    assert_eq!((&kept["bytes"], &kept["content"]), (&json!(PNG.len()), &json!({"kind": "image"})));
    let shown = admin.get(&path).await.expect(200);
    let url = shown["revisions"][0]["file_url"].as_str().expect("a link").to_owned();
    let nobody = admin.anonymous_again();
    let served = nobody.send(nobody.bare(Method::GET, &url)).await;
    assert_eq!((served.status, served.header("content-type")), (200, Some("image/png")));
    let forged = url.replace("/1?", "/2?");
    assert_problem(nobody.send(nobody.bare(Method::GET, &forged)).await, 404, "media_not_found", "");

    let file = admin.post("/materials", make("mat_outline", "file")).await.expect(201);
    let at = format!("/materials/{}/file", id(&file["id"]));
    let named = upload(&admin, &format!("{at}?name=课程大纲.pdf"), b"%PDF-1.7".to_vec()).await.expect(200);
    assert_eq!(named["content"], json!({"kind": "file", "name": "课程大纲.pdf"}));
    let again = upload(&admin, &at, b"%PDF-1.4".to_vec()).await.expect(200);
    assert_eq!((&again["revision"], &again["content"]["name"]), (&json!(2), &json!("课程大纲.pdf")));
    let reply = upload(&admin, &format!("{at}?name=..%2Fa"), PNG.to_vec()).await;
    assert_problem(reply, 422, "validation_failed", "name");
    assert_problem(upload(&admin, &at, vec![0; (20 << 20) + 1]).await, 413, "file_too_large", "");

    let mut linked = make("mat_link", "link");
    linked["content"] = link("案例");
    let linked = admin.post("/materials", linked).await.expect(201);
    let reply = upload(&admin, &format!("/materials/{}/file", id(&linked["id"])), PNG.to_vec()).await;
    assert_problem(reply, 409, "not_a_file", "");
}

#[tokio::test]
async fn a_plan_pins_the_approved_revision_and_keeps_its_material() {
    let here = Here::open().await;
    let admin = here.register().await;
    let body = json!({"key": "mat_case", "kind": "link", "name": "案例", "content": link("案例")});
    let made = admin.post("/materials", body.clone()).await.expect(201);
    let material = format!("/materials/{}", id(&made["id"]));
    let templates = admin.get("/sop/templates").await.expect(200);
    let mut config = items(&templates)[0]["workflow_config"].clone();
    config["steps"][3]["message"] = json!({"kind": "link", "material_id": "mat_case"});
    let plan = json!({"name": "带案例", "target_type": "tag", "target_ids": [], "workflow_config": config});
    let path = format!("/sop-tasks/{}", id(&admin.post("/sop-tasks", plan).await.expect(201)["id"]));
    let submit = format!("{path}/submit");
    // Not before it was approved.
    assert_problem(
        admin.post(&submit, Value::Null).await,
        422,
        "invalid_plan",
        "/steps/3/message/material_id",
    );
    admin.post(&format!("{material}/approve"), json!({"revision": 1})).await.expect(200);
    admin.put(&material, json!({"content": link("新案例")})).await.expect(200);
    admin.post(&submit, Value::Null).await.expect(200);
    let version = admin.get(&format!("{path}/versions/1")).await.expect(200);
    assert_eq!(version["materials"], json!({"mat_case": 1}));
    assert_problem(admin.delete(&material).await, 409, "material_in_use", "");
    admin.post(&format!("{path}/archive"), Value::Null).await.expect(200);
    assert_eq!(admin.delete(&material).await.status, 204);
    assert_problem(admin.get(&material).await, 404, "material_not_found", "");
    // Its key is free again.
    admin.post("/materials", body).await.expect(201);
}
