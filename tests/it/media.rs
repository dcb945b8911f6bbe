//! Media that customers send: downloaded once, looked at, kept, and handed out to whoever has a link.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::client::{Account, Client};
use crate::harness::platform::CALLBACK_SECRET;
use crate::harness::{Here, Platform, eventually, secs};

/// Lets the customer send media and waits until each of them was dealt with; returns the messages, oldest first.
async fn sent(here: &Here, client: &Client, account: &Account, what: &[Value]) -> Vec<Value> {
    let customer = format!("wxid_c{:012x}", fastrand::u64(..) >> 16);
    for one in what {
        let mut message = json!({
            "app_id": account.app_id, "wxid": account.app_id.replacen("wx_", "wxid_", 1), "from": customer,
            "url": format!("{}/callbacks/gewe/{CALLBACK_SECRET}", here.base(0)),
        });
        message.as_object_mut().expect("fields").extend(one.as_object().expect("fields").clone());
        here.sandbox.customer_writes(&message).await;
    }
    let unsettled = format!(
        "SELECT {} - count(*) AS n FROM messages m JOIN conversations c ON c.id = m.conversation_id \
         WHERE c.account_id = '{}' AND c.peer_wxid = '{customer}' AND m.media_state <> 'waiting'",
        what.len(),
        account.id
    );
    eventually("every medium was dealt with", secs(20), async || match here.number(&unsettled).await {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    })
    .await;
    let conversations = client.all(&format!("/conversations?account_id={}", account.id)).await;
    let chat = conversations.iter().find(|chat| chat["contact"]["wxid"] == customer).expect("the chat");
    let mut messages =
        client.all(&format!("/conversations/{}/messages", chat["id"].as_str().expect("an id"))).await;
    messages.retain(|message| message["direction"] == "in");
    messages.sort_by_key(|message| message["id"].as_str().map(str::to_owned));
    messages
}

fn path(message: &Value) -> String {
    format!("/messages/{}/media", message["id"].as_str().expect("an id"))
}

#[tokio::test]
async fn what_a_customer_sends_is_kept_and_served_to_whoever_has_a_link() {
    let here = Here::open().await;
    let (admin, other) = (here.register().await, here.register().await);
    let account = admin.account(600, 0).await;
    let what = [
        json!({"kind": "image"}),
        json!({"kind": "video"}),
        json!({"kind": "voice"}),
        json!({"kind": "file", "title": "报价单.pdf"}),
    ];
    let messages = sent(&here, &admin, &account, &what).await;
    assert_eq!(messages.len(), what.len());
    let mut types = Vec::new();
    for message in &messages {
        assert_eq!(other.get(&path(message)).await.problem(404), "media_not_found");
        let link = admin.get(&path(message)).await.expect(200);
        types.push(link["media_type"].as_str().expect("a type").to_owned());
        let url = link["url"].as_str().expect("a link");
        let reply = here.anonymous().send(here.anonymous().bare(Method::GET, url)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.header("content-type"), link["media_type"].as_str());
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(reply.header("cache-control").is_some_and(|said| said.starts_with("private")));
        let named = reply.header("content-disposition");
        assert_eq!(named.is_some(), link["media_type"] != "image/png", "only pictures are shown in a page");
        for forged in [url.replace("signature=", "signature=0"), url.replace("expires=1", "expires=2")] {
            let reply = here.anonymous().send(here.anonymous().bare(Method::GET, &forged)).await;
            assert_eq!(reply.problem(404), "media_not_found", "{forged}");
        }
    }
    // When its time has passed, it is gone for everybody, and they are told why.
    let old = &messages[0];
    let link = admin.get(&path(old)).await.expect(200)["url"].as_str().expect("a link").to_owned();
    let pruned = "UPDATE messages SET media_state = 'pruned', media_path = NULL WHERE id =";
    here.run(&format!("{pruned} '{}'", old["id"].as_str().expect("an id"))).await;
    assert_eq!(admin.get(&path(old)).await.problem(410), "media_pruned");
    let reply = here.anonymous().send(here.anonymous().bare(Method::GET, &link)).await;
    assert_eq!(reply.problem(410), "media_pruned");
    types.sort();
    assert_eq!(types, ["application/pdf", "audio/silk", "image/png", "video/mp4"]);
    let jobs = admin.all("/jobs?kind=download_media").await;
    assert_eq!(jobs.len(), what.len(), "each is downloaded once");
    assert!(jobs.iter().all(|job| job["lane"].as_str().is_some_and(|lane| lane.starts_with("background:"))));
}

#[tokio::test]
async fn what_is_no_medium_of_its_message_is_not_kept_and_nothing_private_is_asked() {
    let here = Here::open().await;
    let admin = here.register().await;
    let account = admin.account(600, 0).await;
    let modes = [
        ("html", "media_refused"),
        ("html_page", "media_refused"),
        ("wrong_type", "media_refused"),
        ("empty", "media_refused"),
        ("too_big", "media_refused"),
        ("too_big_unannounced", "media_refused"),
        ("redirect_to_private", "media_refused"),
        ("private_address", "media_refused"),
        ("file_address", "media_refused"),
        ("not_found", "media_gone"),
    ];
    let what: Vec<Value> = modes.iter().map(|(mode, _)| json!({"kind": "image", "media": mode})).collect();
    let messages = sent(&here, &admin, &account, &what).await;
    let mut codes = Vec::new();
    for message in &messages {
        codes.push(admin.get(&path(message)).await.problem(410));
    }
    codes.sort();
    let mut expected: Vec<String> = modes.iter().map(|(_, code)| (*code).to_owned()).collect();
    expected.sort();
    assert_eq!(codes, expected);
    let stored = format!(
        "SELECT count(*) AS n FROM messages WHERE account_id = '{}' AND media_path IS NOT NULL",
        account.id
    );
    assert_eq!(here.number(&stored).await, 0);
}

#[tokio::test]
async fn the_model_is_shown_the_picture_that_a_customer_sent() {
    let platform = Platform::with().env("PUBLIC_URL", "https://entropy.example/").start().await;
    let admin = platform.register().await;
    let account = admin.account(600, 0).await;
    let workflow = json!({"alias": "客服", "api_key": "fastgpt-pictures", "requests_per_minute": 6000});
    admin.post("/ai-workflows", workflow).await.expect(201);
    let debounce = json!({"quiet_ms": 500, "max_ms": 15_000, "max_messages": 10});
    let ai = json!({"enabled": true, "workflow": "客服", "debounce": debounce, "disclosure": ""});
    admin.put(&format!("/wechat-accounts/{}/ai", account.id), ai).await.expect(200);
    platform.sandbox.tell("/_sandbox/fastgpt/scripts", &json!({"answer": "这是红色 L 码。"})).await;
    let message = json!({
        "app_id": account.app_id, "wxid": account.app_id.replacen("wx_", "wxid_", 1), "from": "wxid_li_nushi",
        "url": format!("{}/callbacks/gewe/{CALLBACK_SECRET}", platform.base(0)),
        "burst": ["这个还有吗？", {"kind": "image"}, {"kind": "file", "title": "尺码表.pdf"}],
    });
    platform.sandbox.customer_writes(&message).await;
    eventually("the customer is answered", secs(30), async || {
        platform.sandbox.entries_of(&account.app_id).await.len() == 1
    })
    .await;
    let runs = platform.sandbox.show("/_sandbox/fastgpt/runs").await;
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(1), "{runs}");
    let content = &runs["items"][0]["messages"][0]["content"];
    assert_eq!(content[0]["text"], "这个还有吗？\n[图片]\n[文件：尺码表.pdf]", "{content}");
    assert_eq!((&content[1]["type"], &content[2]["type"]), (&json!("image_url"), &json!("file_url")));
    assert_eq!(content[2]["name"], "尺码表.pdf");
    for (url, media_type) in
        [(&content[1]["image_url"]["url"], "image/png"), (&content[2]["url"], "application/pdf")]
    {
        let path =
            url.as_str().and_then(|url| url.strip_prefix("https://entropy.example")).expect("our address");
        let nobody = platform.anonymous();
        let reply = nobody.send(nobody.bare(Method::GET, path)).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(media_type)), "{}", reply.text);
        // Some versions look before they fetch.
        assert_eq!(nobody.send(nobody.bare(Method::HEAD, path)).await.status, 200);
    }
}
