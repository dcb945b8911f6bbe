//! Every kind of message: what it needs, what it answers, what the phone gets.

use serde_json::{Value, json};

use crate::harness::{APP, FRIEND, TestSandbox, envelope};

/// Route, kind, fields of its own, `type`, and whether `createTime` is a number.
fn kinds() -> Vec<(&'static str, &'static str, Value, Value, bool)> {
    vec![
        ("postText", "text", json!({"content": "你好"}), json!(1), true),
        (
            "postFile",
            "file",
            json!({"fileUrl": "https://e.invalid/a.pdf", "fileName": "a.pdf"}),
            json!(6),
            true,
        ),
        ("postImage", "image", json!({"imgUrl": "https://e.invalid/a.jpg"}), json!(null), false),
        (
            "postVoice",
            "voice",
            json!({"voiceUrl": "https://e.invalid/a.silk", "voiceDuration": 2000}),
            json!(null),
            true,
        ),
        (
            "postVideo",
            "video",
            json!({"videoUrl": "https://e.invalid/a.mp4", "thumbUrl": "https://e.invalid/a.jpg", "videoDuration": 9}),
            json!(null),
            false,
        ),
        (
            "postLink",
            "link",
            json!({"title": "t", "desc": "d", "linkUrl": "https://e.invalid", "thumbUrl": "https://e.invalid/a.jpg"}),
            json!(5),
            true,
        ),
        (
            "postNameCard",
            "name_card",
            json!({"nickName": "Lee", "nameCardWxid": "wxid_card"}),
            json!(42),
            true,
        ),
        (
            "postEmoji",
            "emoji",
            json!({"emojiMd5": "4cc7540a85b5b6cf4ba14e9f4ae08b7c", "emojiSize": 102357}),
            json!(null),
            false,
        ),
        ("postAppMsg", "app_message", json!({"appmsg": "<appmsg><title>t</title></appmsg>"}), json!(0), true),
        (
            "postMiniApp",
            "mini_program",
            json!({
                "miniAppId": "wx1", "userName": "gh_1@app", "title": "t", "displayName": "d",
                "pagePath": "pages/index", "coverImgUrl": "https://e.invalid/a.jpg"
            }),
            json!(33),
            true,
        ),
    ]
}

fn addressed(fields: &Value) -> Value {
    let mut body = fields.clone();
    body["appId"] = json!(APP);
    body["toWxid"] = json!(FRIEND);
    body
}

#[tokio::test]
async fn every_kind_is_answered_as_documented_and_lands_on_the_phone() {
    let sandbox = TestSandbox::start().await;
    let mut last_id = 1_u64 << 53;
    for (route, kind, fields, answer_type, has_time) in kinds() {
        let body = addressed(&fields);
        let answer = envelope(sandbox.gewe(&format!("/message/{route}"), &body)).await;
        assert_eq!((&answer["ret"], &answer["msg"]), (&json!(200), &json!("操作成功")), "{route}");
        let data = answer["data"].as_object().unwrap();
        assert_eq!(data["toWxid"], FRIEND, "{route}");
        assert_eq!(data["type"], answer_type, "{route}");
        assert_eq!(data["createTime"].is_i64(), has_time, "{route}: {}", data["createTime"]);
        assert!(data.contains_key("createTime") && data["msgId"].as_i64().unwrap() > 0, "{route}");
        let media = ["aesKey", "fileId", "length"].iter().all(|name| data.contains_key(*name));
        assert_eq!(media, matches!(kind, "image" | "video"), "{route}");
        let pixels = ["width", "height", "md5"].iter().all(|name| data.contains_key(*name));
        assert_eq!(pixels, kind == "image", "{route}");
        let id = data["newMsgId"].as_u64().unwrap();
        assert!(id > last_id, "{route}: ids grow and are beyond 2^53");
        last_id = id;

        let ledger = sandbox.get("/_sandbox/ledger").await;
        let item = ledger["items"].as_array().unwrap().last().unwrap();
        assert_eq!(item["kind"], kind);
        assert_eq!(item["route"], format!("/message/{route}"));
        assert_eq!(item["body"], body);
        assert_eq!(item["new_msg_id"], id.to_string());
        assert_eq!(item["token"], "token-1");
        assert_eq!(item["delivered"], true);
    }
    assert_eq!(sandbox.get("/_sandbox/ledger").await["total"], kinds().len());
}

#[tokio::test]
async fn every_required_field_is_missed_by_its_name() {
    let sandbox = TestSandbox::start().await;
    for (route, _, fields, _, _) in kinds() {
        let body = addressed(&fields);
        for name in body.as_object().unwrap().keys() {
            for empty in [None, Some(json!(null)), Some(json!(""))] {
                let mut incomplete = body.as_object().unwrap().clone();
                match empty {
                    None => incomplete.remove(name),
                    Some(empty) => incomplete.insert(name.clone(), empty),
                };
                let answer = envelope(sandbox.gewe(&format!("/message/{route}"), &json!(incomplete))).await;
                assert_eq!(answer, json!({"ret": 500, "msg": format!("{name}不可为空")}), "{route}");
            }
        }
    }
    assert_eq!(sandbox.get("/_sandbox/ledger").await["total"], 0);
}

#[tokio::test]
async fn a_field_of_the_wrong_type_is_refused_but_a_number_may_be_text() {
    let sandbox = TestSandbox::start().await;
    let body = addressed(&json!({"content": 5}));
    let answer = envelope(sandbox.gewe("/message/postText", &body)).await;
    assert_eq!(answer, json!({"ret": 500, "msg": "content参数类型错误"}));
    let mut body = addressed(&json!({"voiceUrl": "https://e.invalid/a.silk", "voiceDuration": "2000"}));
    assert_eq!(envelope(sandbox.gewe("/message/postVoice", &body)).await["ret"], 200);
    body["voiceDuration"] = json!("long");
    assert_eq!(envelope(sandbox.gewe("/message/postVoice", &body)).await["ret"], 500);
}

#[tokio::test]
async fn text_to_a_group_sometimes_has_no_local_id() {
    let sandbox = TestSandbox::start().await;
    let body = json!({"appId": APP, "toWxid": "10000000001@chatroom", "content": "@Lee hi", "ats": FRIEND});
    let mut hidden = 0;
    for _ in 0..10 {
        let answer = envelope(sandbox.gewe("/message/postText", &body)).await;
        hidden += u32::from(answer["data"]["msgId"] == 0);
    }
    assert_eq!(hidden, 5);
}

#[tokio::test]
async fn concurrent_sends_are_each_recorded_once_in_the_order_of_their_times() {
    let sandbox = TestSandbox::start().await;
    let sends = (0..400).map(|n| {
        let request = sandbox.text(&n.to_string());
        async move { envelope(request).await["data"]["newMsgId"].as_u64().unwrap() }
    });
    let mut answered = futures::future::join_all(sends).await;
    answered.sort_unstable();
    answered.dedup();
    assert_eq!(answered.len(), 400, "every answer has an id of its own");

    let ledger = sandbox.get("/_sandbox/ledger").await;
    let items = ledger["items"].as_array().unwrap();
    let recorded: Vec<u64> =
        items.iter().map(|item| item["new_msg_id"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(recorded, answered, "the ledger grows in the order of the ids");
    assert!(items.is_sorted_by_key(|item| item["received_at_us"].as_i64().unwrap()));
    assert!(items.iter().zip(1..).all(|(item, seq)| item["seq"] == seq));
}
