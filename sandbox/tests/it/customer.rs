//! What customers write, and how the callbacks tell of it.

use serde_json::{Value, json};

use crate::harness::{APP, FRIEND, Inbox, TestSandbox, envelope};

async fn connected(status: u16) -> (TestSandbox, Inbox) {
    let sandbox = TestSandbox::start().await;
    let inbox = Inbox::start(status).await;
    let answer = sandbox.post("/_sandbox/callbacks", json!({"url": inbox.url})).await;
    assert_eq!(answer.status(), 200);
    sandbox.put(&format!("/_sandbox/accounts/{APP}"), json!({"wxid": "wxid_own"})).await;
    (sandbox, inbox)
}

async fn write(sandbox: &TestSandbox, extra: Value) -> Value {
    let mut body = json!({"app_id": APP, "from": FRIEND});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let answer = sandbox.post("/_sandbox/customer/messages", body).await;
    let status = answer.status();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(status, 202, "{answer}");
    answer
}

async fn happen(sandbox: &TestSandbox, kind: &str, extra: Value) {
    let mut body = json!({"app_id": APP, "from": FRIEND, "kind": kind});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let answer = sandbox.post("/_sandbox/customer/events", body).await;
    assert_eq!(answer.status(), 202, "{kind}: {}", answer.text().await.unwrap());
}

#[tokio::test]
async fn a_burst_arrives_in_order_and_copies_are_the_same_event() {
    let (sandbox, inbox) = connected(200).await;
    let made = write(&sandbox, json!({"burst": ["在吗", "多少钱", "几点开门"], "copies": 2})).await;
    assert_eq!(made["deliveries"], 6);
    let received = inbox.wait_for(6).await;
    let text = |n: usize| received[n].json()["Data"]["Content"]["string"].as_str().unwrap().to_owned();
    assert_eq!((text(0), text(2), text(4)), ("在吗".into(), "多少钱".into(), "几点开门".into()));
    assert_eq!(received[0].body, received[1].body);
    let id = received[0].json()["Data"]["NewMsgId"].as_u64().unwrap();
    assert!(id > 1 << 53);
    assert_eq!(made["items"][0]["new_msg_id"], id.to_string());
    let attempts = sandbox.get("/_sandbox/customer/callbacks").await;
    assert_eq!((&attempts["total"], &attempts["outcomes"]["200"]), (&json!(6), &json!(6)));
}

#[tokio::test]
async fn every_kind_is_told_in_every_format() {
    let (sandbox, inbox) = connected(200).await;
    let kinds = [
        "text",
        "image",
        "voice",
        "video",
        "emoji",
        "file",
        "file_notice",
        "link",
        "group_invitation",
        "mini_program",
        "quote",
        "chat_record",
        "location",
        "name_card",
        "channel_feed",
        "transfer",
        "red_packet",
        "call",
        "phone_state",
        "system",
        "unknown",
    ];
    for format in ["classic", "lowercase", "flat"] {
        let burst: Vec<_> = kinds.iter().map(|kind| json!({"kind": kind})).collect();
        write(&sandbox, json!({"burst": burst, "format": format, "concurrent": true})).await;
    }
    for received in inbox.wait_for(kinds.len() * 3).await {
        let body = received.json();
        let app_id = body.get("Appid").or_else(|| body.get("appid")).unwrap();
        assert_eq!(app_id, APP);
    }
}

#[tokio::test]
async fn every_event_has_a_body() {
    let (sandbox, inbox) = connected(200).await;
    write(&sandbox, json!({"text": "发错了"})).await;
    let group = json!({"group": "1@chatroom"});
    let events = [
        ("recall", json!({})),
        ("friend_request", json!({})),
        ("friend_added", json!({"nickname": "李雷"})),
        ("friend_deleted", json!({})),
        ("contact_changed", json!({})),
        ("group_renamed", group.clone()),
        ("group_left", group.clone()),
        ("group_dismissed", group.clone()),
        ("group_members", group.clone()),
        ("group_announcement", group),
        ("pat", json!({})),
        ("offline", json!({})),
        ("logged_out", json!({})),
        ("online", json!({})),
        ("reconnecting", json!({})),
        ("login_failed", json!({})),
        ("probe", json!({})),
        ("probe_text", json!({})),
        ("probe_console", json!({})),
        ("empty", json!({})),
        ("raw", json!({"body": "{not json"})),
    ];
    let mut count = 1;
    for format in ["classic", "flat"] {
        write(&sandbox, json!({"text": "又发错了"})).await;
        count += 1;
        for (kind, extra) in &events {
            let mut extra = extra.clone();
            extra["format"] = json!(format);
            happen(&sandbox, kind, extra).await;
            count += 1;
        }
    }
    let received = inbox.wait_for(count).await;
    let has = |part: &str| received.iter().any(|received| received.body.contains(part));
    let parts = [
        "revokemsg",
        "ModContacts",
        "DelContacts",
        "OFFLINE",
        "LOGOUT",
        "REVOKE_MSG",
        "testMsg",
        "{not json",
    ];
    for part in parts {
        assert!(has(part), "{part}");
    }
}

#[tokio::test]
async fn a_group_message_mentions_the_account_and_the_owner_types_as_the_account() {
    let (sandbox, inbox) = connected(200).await;
    write(&sandbox, json!({"group": "1@chatroom", "text": "在吗", "mention": true, "nickname": "李雷"}))
        .await;
    let mention = inbox.wait_for(1).await[0].json();
    assert!(mention["Data"]["MsgSource"].as_str().unwrap().contains("[,wxid_own]"));
    assert!(mention["Data"]["Content"]["string"].as_str().unwrap().starts_with(&format!("{FRIEND}:\n@")));
    assert_eq!(mention["Data"]["PushContent"], "李雷在群聊中@了你");
    write(&sandbox, json!({"text": "我来回复", "phone_typed": true})).await;
    let typed = inbox.wait_for(2).await[1].json();
    assert_eq!(typed["Data"]["FromUserName"]["string"], "wxid_own");
    assert_eq!(typed["Data"]["ToUserName"]["string"], FRIEND);
}

#[tokio::test]
async fn an_account_that_logs_out_answers_so_and_comes_back() {
    let (sandbox, inbox) = connected(200).await;
    happen(&sandbox, "offline", json!({})).await;
    let check = || sandbox.gewe("/login/checkOnline", &json!({"appId": APP}));
    assert_eq!(envelope(check()).await["data"], false);
    assert_eq!(
        inbox.wait_for(1).await[0].json(),
        json!({"TypeName": "Offline", "Appid": APP, "Wxid": "wxid_own"})
    );
    happen(&sandbox, "online", json!({})).await;
    assert_eq!(envelope(check()).await["data"], true);
}

#[tokio::test]
async fn setting_the_address_tries_it_without_the_secret_that_messages_carry() {
    let sandbox = TestSandbox::start().await;
    let inbox = Inbox::start(200).await;
    sandbox.put("/_sandbox/customer/settings", json!({"authorization": "header-secret"})).await;
    let body = json!({"token": "token-1", "callbackUrl": inbox.url});
    assert_eq!(envelope(sandbox.gewe("/login/setCallback", &body)).await["ret"], 200);
    let probe = inbox.wait_for(1).await[0].clone();
    assert_eq!(probe.json()["token"], "token-1");
    assert_eq!(probe.authorization, None);
    sandbox.text("a call says whose account it is").send().await.unwrap();
    write(&sandbox, json!({"format": "flat"})).await;
    assert_eq!(inbox.wait_for(2).await[1].authorization.as_deref(), Some("header-secret"));
}

#[tokio::test]
async fn a_delivery_that_fails_is_made_again_only_if_asked() {
    let (sandbox, inbox) = connected(503).await;
    write(&sandbox, json!({})).await;
    write(&sandbox, json!({"retries": 2, "retry_ms": 1})).await;
    inbox.wait_for(4).await;
    let idle = || async { sandbox.get("/_sandbox/customer/callbacks").await };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while idle().await["pending"] != 0 {
        assert!(tokio::time::Instant::now() < deadline, "waited for the deliveries to end");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(idle().await["outcomes"], json!({"503": 4}));
}

#[tokio::test]
async fn without_an_address_or_with_nonsense_nothing_is_written() {
    let sandbox = TestSandbox::start().await;
    let path = "/_sandbox/customer/messages";
    let homeless = sandbox.post(path, json!({"app_id": APP, "from": FRIEND})).await;
    assert_eq!(homeless.status(), 400);
    assert!(homeless.text().await.unwrap().contains("callback address"));
    let nonsense = sandbox.post(path, json!({"app_id": APP, "from": FRIEND, "smell": 1})).await;
    assert_eq!(nonsense.status(), 400);
}

#[tokio::test]
async fn sends_are_echoed_only_by_a_deployment_that_does_so() {
    let (sandbox, inbox) = connected(200).await;
    sandbox.text("not echoed").send().await.unwrap();
    sandbox.put("/_sandbox/customer/settings", json!({"echo_api_sends": true})).await;
    let sent = envelope(sandbox.text("echoed")).await;
    let echo = inbox.wait_for(1).await[0].json();
    assert_eq!(echo["Data"]["NewMsgId"], sent["data"]["newMsgId"]);
    assert_eq!(echo["Data"]["Content"]["string"], "echoed");
}
