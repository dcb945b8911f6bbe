//! Address books and downloads.

use serde_json::{Value, json};

use crate::harness::{APP, FRIEND, Inbox, TestSandbox, envelope};

#[tokio::test]
async fn the_list_is_slow_and_its_cache_is_empty_for_a_while() {
    let sandbox = TestSandbox::start().await;
    let book = json!({
        "friends": [{"wxid": "wxid_1", "nickname": "李雷", "labels": ["华东"]}],
        "groups": [{"wxid": "1@chatroom", "nickname": "客户群", "members": [{"wxid": "wxid_1", "nickname": "李雷"}]}],
        "list_delay_ms": 30, "pending_polls": 1
    });
    assert_eq!(sandbox.put(&format!("/_sandbox/books/{APP}"), book).await.status(), 200);
    let cache = || sandbox.gewe("/contacts/fetchContactsListCache", &json!({"appId": APP}));
    assert!(envelope(cache()).await.get("data").is_none());
    let list = envelope(sandbox.gewe("/contacts/fetchContactsList", &json!({"appId": APP}))).await;
    assert_eq!(envelope(cache()).await, list);
    assert_eq!(list["data"]["chatrooms"], json!(["1@chatroom"]));
    let brief =
        |wxids: Vec<String>| sandbox.gewe("/contacts/getBriefInfo", &json!({"appId": APP, "wxids": wxids}));
    assert_eq!(envelope(brief(vec!["wxid_1".into()])).await["data"][0]["labelList"], "1");
    let many = (0..21).map(|n| format!("wxid_{n}")).collect();
    assert_eq!(envelope(brief(many)).await["ret"], 500);
    let labels = envelope(sandbox.gewe("/label/list", &json!({"appId": APP}))).await;
    assert_eq!(labels["data"]["labelList"], json!([{"labelId": 1, "labelName": "华东"}]));
    let group = json!({"appId": APP, "chatroomId": "1@chatroom"});
    let members = envelope(sandbox.gewe("/group/getChatroomMemberList", &group)).await;
    assert_eq!(members["data"]["memberList"][0]["nickName"], "李雷");
    let plan = json!({"mode": "offline", "route": "getBriefInfo"});
    sandbox.post("/_sandbox/failures", plan).await;
    assert_eq!(envelope(brief(vec!["wxid_1".into()])).await["data"]["msg"], "微信已离线");
}

#[tokio::test]
async fn a_picture_is_downloaded_by_its_xml_and_fails_as_it_was_told() {
    let sandbox = TestSandbox::start().await;
    let inbox = Inbox::start(200).await;
    sandbox.post("/_sandbox/callbacks", json!({"url": inbox.url})).await;
    let modes = ["right", "html", "not_found", "redirect_to_private", "private_address", "refused"];
    for mode in modes {
        let body = json!({"app_id": APP, "from": FRIEND, "kind": "image", "media": mode, "bytes": 4096});
        sandbox.post("/_sandbox/customer/messages", body).await;
    }
    let xmls: Vec<Value> = inbox
        .wait_for(modes.len())
        .await
        .iter()
        .map(|received| received.json()["Data"]["Content"]["string"].clone())
        .collect();
    let mut answers = Vec::new();
    for xml in &xmls {
        let body = json!({"appId": APP, "xml": xml, "type": 2});
        answers.push(envelope(sandbox.gewe("/message/downloadImage", &body)).await);
    }
    let url = |n: usize| answers[n]["data"]["fileUrl"].as_str().unwrap().to_owned();
    let right = sandbox.client.get(url(0)).send().await.unwrap();
    assert_eq!(right.headers()["content-type"], "image/png");
    assert_eq!(right.bytes().await.unwrap().len(), 4096);
    assert!(sandbox.client.get(url(1)).send().await.unwrap().text().await.unwrap().contains("<html>"));
    assert_eq!(sandbox.client.get(url(2)).send().await.unwrap().status(), 404);
    assert_eq!(sandbox.client.get(url(3)).send().await.unwrap().status(), 302);
    assert!(url(4).contains("169.254.169.254"));
    assert_eq!(answers[5]["msg"], "下载图片失败");
}
