//! Conversations and contacts over the API.

use serde_json::{Value, json};

use super::{assert_problem, id, items, pause, person};
use crate::harness::Here;

#[tokio::test]
async fn what_is_sent_stands_in_a_conversation_and_what_waits_stands_before_it() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let first = admin.text(&account, "wxid_customer", "您好，底价三百", "interactive").await;
    here.ended(&admin, first).await;
    pause(&admin, &account).await;
    let waiting = admin.text(&account, "wxid_customer", "还在吗", "interactive").await;
    admin.text(&account, "wxid_other", "您好", "interactive").await;

    let chats = admin.get(&format!("/conversations?account_id={}", account.id)).await.expect(200);
    let [chat] = items(&chats) else { panic!("one conversation: {chats}") };
    assert_eq!(chat["contact"]["wxid"], "wxid_customer");
    assert_eq!((&chat["kind"], &chat["mode"], &chat["unread"]), (&json!("friend"), &json!("ai"), &json!(0)));
    let path = format!("/conversations/{}/messages", id(&chat["id"]));
    let messages = admin.get(&path).await.expect(200);
    let said: Vec<_> = items(&messages)
        .iter()
        .map(|m| (m["text"].clone(), m["status"].clone(), m["origin"].clone()))
        .collect();
    assert_eq!(
        said,
        [
            (json!("还在吗"), json!("queued"), json!("person")),
            (json!("您好，底价三百"), json!("sent"), json!("person"))
        ]
    );
    assert_eq!(id(&items(&messages)[0]["job_id"]), waiting);
    assert!(items(&messages)[1]["new_msg_id"].is_string());
    let viewer = person(&admin, "viewer").await;
    let shown = viewer.get(&path).await;
    assert!(!shown.text.contains("底价") && !shown.text.contains("还在吗"), "{}", shown.text);
    assert_eq!(items(&shown.expect(200)).len(), 2);
}

#[tokio::test]
async fn people_take_over_hand_back_pause_and_every_change_is_written_down() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let sent = admin.text(&account, "wxid_customer", "您好", "interactive").await;
    here.ended(&admin, sent).await;
    let chats = admin.get("/conversations").await.expect(200);
    let chat = format!("/conversations/{}", id(&items(&chats)[0]["id"]));
    let taken = admin.post(&format!("{chat}/takeover"), json!({"minutes": 30})).await.expect(200);
    assert!(taken["mode"] == "human" && taken["mode_until"].is_string(), "{taken}");
    let taken = admin.post(&format!("{chat}/takeover"), json!({})).await.expect(200);
    assert!(taken["mode"] == "human" && taken["mode_until"].is_null(), "{taken}");
    assert_eq!(items(&admin.get("/conversations?mode=human").await.expect(200)).len(), 1);
    let back = admin.post(&format!("{chat}/hand-back"), json!({})).await.expect(200);
    assert_eq!(back["mode"], "ai");
    let paused = admin.post(&format!("{chat}/pause"), json!({})).await.expect(200);
    assert_eq!(paused["mode"], "paused");
    let changes = admin.get(&format!("{chat}/mode-changes")).await.expect(200);
    let reasons: Vec<_> = items(&changes).iter().map(|change| change["reason"].clone()).collect();
    assert_eq!(reasons, ["paused", "hand_back", "takeover", "takeover"]);
    assert_eq!(admin.post(&format!("{chat}/read"), json!({})).await.expect(200)["unread"], 0);
    for bad in [json!({"minutes": 0}), json!({"minutes": 10_081})] {
        assert_problem(
            admin.post(&format!("{chat}/takeover"), bad).await,
            422,
            "validation_failed",
            "minutes",
        );
    }
    let stranger = here.register().await;
    for action in ["takeover", "hand-back", "pause", "read"] {
        let reply = stranger.post(&format!("{chat}/{action}"), json!({})).await;
        assert_problem(reply, 404, "conversation_not_found", "");
    }
    assert_problem(stranger.get(&format!("{chat}/messages")).await, 404, "conversation_not_found", "");
    assert_problem(stranger.get(&chat).await, 404, "conversation_not_found", "");
    let log = admin.get("/audit-log").await.expect(200);
    assert!(items(&log).iter().any(|line| line["action"] == "conversation.takeover"));
}

#[tokio::test]
async fn conversations_are_listed_by_their_latest_message_over_all_pages() {
    let here = Here::open().await;
    let admin = here.register().await;
    let accounts = [admin.account(600, 0).await, admin.account(600, 0).await];
    for n in 0..6 {
        let job = admin.text(&accounts[n % 2], &format!("wxid_{n}"), "您好", "interactive").await;
        here.ended(&admin, job).await;
    }
    let job = admin.text(&accounts[0], "wxid_0", "又是我", "interactive").await;
    here.ended(&admin, job).await;
    let all = admin.all_by("/conversations", 4).await;
    let order: Vec<_> = all.iter().map(|chat| chat["contact"]["wxid"].as_str().expect("a wxid")).collect();
    assert_eq!(order, ["wxid_0", "wxid_5", "wxid_4", "wxid_3", "wxid_2", "wxid_1"]);
    let found = admin.get("/conversations?q=WXID_3").await.expect(200);
    assert_eq!(items(&found).len(), 1);
    assert_eq!(items(&admin.get("/conversations?unread=true").await.expect(200)).len(), 0);
    assert_eq!(items(&admin.get("/conversations?q=%25").await.expect(200)).len(), 0, "no pattern");
    assert_eq!(admin.get("/conversations?cursor=AAAA").await.status, 400);
}

#[tokio::test]
async fn contacts_are_tagged_suppressed_and_opted_out_by_people() {
    let here = Here::open().await;
    let admin = here.register().await;
    let accounts = [admin.account(600, 0).await, admin.account(600, 0).await];
    for account in &accounts {
        let job = admin.text(account, "wxid_customer", "您好", "interactive").await;
        here.ended(&admin, job).await;
    }
    let contacts = admin.get("/contacts?kind=friend").await.expect(200);
    assert_eq!(items(&contacts).len(), 2, "each account knows it in its own way");
    let contact = format!("/contacts/{}", id(&items(&contacts)[0]["id"]));
    let change = json!({"tags": ["VIP", " 老客户 ", "VIP"], "variables": {"城市": "杭州", "级别": 3}, "suppressed": true});
    let changed = admin.put(&contact, change).await.expect(200);
    assert_eq!(changed["tags"], json!(["VIP", "老客户"]));
    assert!(changed["suppressed"] == true && changed["variables"]["城市"] == "杭州", "{changed}");
    assert_eq!(items(&admin.get("/contacts?tag=VIP").await.expect(200)).len(), 1);
    assert_eq!(admin.put(&contact, json!({"suppressed": false})).await.expect(200)["tags"], changed["tags"]);
    for (bad, path) in [
        (json!({"tags": ["签".repeat(33)]}), "tags[0]"),
        (json!({"tags": vec!["a"; 51]}), "tags"),
        (json!({"variables": {"a": {"b": 1}}}), "variables"),
        (json!({"variables": []}), "variables"),
    ] {
        assert_problem(admin.put(&contact, bad).await, 422, "validation_failed", path);
    }
    for _ in 0..2 {
        let out = admin.post(&format!("{contact}/opt-out"), Value::Null).await.expect(200);
        assert!(out["opted_out"] == true && out["opted_out_by"] == "person", "{out}");
    }
    let everywhere = admin.get("/contacts").await.expect(200);
    assert!(items(&everywhere).iter().all(|contact| contact["opted_out"] == true), "{everywhere}");
    assert_eq!(admin.delete(&format!("{contact}/opt-out")).await.expect(200)["opted_out"], false);
    let stranger = here.register().await;
    assert_problem(stranger.get(&contact).await, 404, "contact_not_found", "");
    assert_problem(stranger.put(&contact, json!({})).await, 404, "contact_not_found", "");
    assert_problem(
        stranger.post(&format!("{contact}/opt-out"), Value::Null).await,
        404,
        "contact_not_found",
        "",
    );
    assert_eq!(stranger.get("/contacts").await.expect(200)["items"], json!([]));
}
