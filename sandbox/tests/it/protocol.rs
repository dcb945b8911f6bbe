//! Tokens, prefixes, devices, and the calls that send nothing.

use serde_json::json;

use crate::harness::{APP, FRIEND, TestSandbox, envelope};

#[tokio::test]
async fn both_prefixes_lead_to_the_same_phone() {
    let sandbox = TestSandbox::start().await;
    sandbox.text("hosted").send().await.unwrap();
    let self_hosted = sandbox
        .client
        .post(format!("{}/v2/api/message/postText", sandbox.base))
        .header("X-GEWE-TOKEN", "t")
        .json(&json!({"appId": APP, "toWxid": FRIEND, "content": "self-hosted"}));
    assert_eq!(envelope(self_hosted).await["ret"], 200);
    assert_eq!(sandbox.received().await, ["hosted", "self-hosted"]);
}

#[tokio::test]
async fn a_call_without_a_token_and_one_with_a_bad_token_get_the_observed_texts() {
    let sandbox = TestSandbox::start().await;
    let url = format!("{}/gewe/v2/api/message/postText", sandbox.base);
    let missing = json!({"ret": 500, "msg": "header:X-GEWE-TOKEN 不可为空"});
    assert_eq!(envelope(sandbox.client.post(&url)).await, missing);
    assert_eq!(envelope(sandbox.client.post(&url).header("X-GEWE-TOKEN", " ")).await, missing);
    for token in ["bad", "expired-1"] {
        let answer = envelope(sandbox.client.post(&url).header("X-GEWE-TOKEN", token)).await;
        assert_eq!(answer, json!({"ret": 500, "msg": "token不可用或已过期"}));
        assert_eq!(sandbox.last_call().await["outcome"], "token_refused");
    }
}

#[tokio::test]
async fn configured_tokens_are_the_only_ones() {
    let sandbox = TestSandbox::with_tokens(&["bad-but-mine"]).await;
    assert_eq!(envelope(sandbox.text("no")).await["ret"], 500);
    let body = json!({"appId": APP, "toWxid": FRIEND, "content": "yes"});
    let request = sandbox
        .client
        .post(format!("{}/v2/api/message/postText", sandbox.base))
        .header("X-GEWE-TOKEN", "bad-but-mine")
        .json(&body);
    assert_eq!(envelope(request).await["ret"], 200);
    assert_eq!(sandbox.received().await, ["yes"]);
}

#[tokio::test]
async fn an_unknown_device_is_refused_by_its_name() {
    let sandbox = TestSandbox::start().await;
    let body = json!({"appId": "phone-7", "toWxid": FRIEND, "content": "hi"});
    let answer = envelope(sandbox.gewe("/message/postText", &body)).await;
    assert_eq!(
        answer,
        json!({"ret": 500, "msg": "发送消息失败", "data": {"code": "-1", "msg": "[phone-7]设备不存在"}})
    );
    sandbox.put("/_sandbox/accounts/phone-7", json!({"state": "online"})).await;
    assert_eq!(envelope(sandbox.gewe("/message/postText", &body)).await["ret"], 200);
}

#[tokio::test]
async fn unknown_routes_other_methods_and_bodies_that_are_not_json_are_refused() {
    let sandbox = TestSandbox::start().await;
    let unknown = sandbox.gewe("/message/postSmell", &json!({})).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(sandbox.last_call().await["outcome"], "not_found");
    let got =
        sandbox.client.get(format!("{}/gewe/v2/api/message/postText", sandbox.base)).send().await.unwrap();
    assert_eq!(got.status(), 405);
    let not_json = sandbox
        .client
        .post(format!("{}/gewe/v2/api/message/postText", sandbox.base))
        .header("X-GEWE-TOKEN", "t")
        .body("appId=1");
    assert_eq!(envelope(not_json).await, json!({"ret": 500, "msg": "参数格式错误"}));
}

#[tokio::test]
async fn a_body_over_two_mebibytes_is_refused() {
    let sandbox = TestSandbox::start().await;
    let long = "x".repeat(2 * 1024 * 1024);
    let answer = sandbox.text(&long).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(sandbox.last_call().await["outcome"], "body_too_large");
    assert_eq!(sandbox.received().await, Vec::<String>::new());
}

#[tokio::test]
async fn check_online_tells_the_state_of_the_account() {
    let sandbox = TestSandbox::start().await;
    let check = || sandbox.gewe("/login/checkOnline", &json!({"appId": APP}));
    assert_eq!(envelope(check()).await, json!({"ret": 200, "msg": "操作成功", "data": true}));
    sandbox.put(&format!("/_sandbox/accounts/{APP}"), json!({"state": "offline"})).await;
    assert_eq!(envelope(check()).await, json!({"ret": 200, "msg": "操作成功", "data": false}));
    assert_eq!(envelope(sandbox.gewe("/login/checkOnline", &json!({}))).await["msg"], "appId不可为空");
}

#[tokio::test]
async fn an_account_sends_nothing_while_it_is_offline_or_under_risk_control() {
    let sandbox = TestSandbox::start().await;
    let path = format!("/_sandbox/accounts/{APP}");
    sandbox.put(&path, json!({"state": "offline"})).await;
    assert_eq!(
        envelope(sandbox.text("1")).await,
        json!({"ret": 500, "msg": "发送消息失败", "data": {"code": "-1", "msg": "微信已离线"}})
    );
    sandbox.put(&path, json!({"state": "risk"})).await;
    let risk = envelope(sandbox.text("2")).await;
    assert!(risk["data"]["msg"].as_str().unwrap().contains("频繁"));
    sandbox.put(&path, json!({"state": "online"})).await;
    assert_eq!(envelope(sandbox.text("3")).await["ret"], 200);
    assert_eq!(sandbox.received().await, ["3"]);
}

#[tokio::test]
async fn both_ways_to_set_the_callback_store_its_address() {
    let sandbox = TestSandbox::start().await;
    for (route, url) in
        [("/login/setCallback", "http://a.invalid"), ("/tools/setCallback", "http://b.invalid")]
    {
        let body = json!({"token": "token-1", "callbackUrl": url});
        assert_eq!(envelope(sandbox.gewe(route, &body)).await, json!({"ret": 200, "msg": "操作成功"}));
        let callbacks = sandbox.get("/_sandbox/callbacks").await;
        assert_eq!(callbacks["items"], json!([{"token": "token-1", "callback_url": url}]));
    }
    let answer = envelope(sandbox.gewe("/login/setCallback", &json!({"token": "token-1"}))).await;
    assert_eq!(answer["msg"], "callbackUrl不可为空");
}

#[tokio::test]
async fn the_trace_id_of_a_call_is_kept() {
    let sandbox = TestSandbox::start().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    sandbox.text("1").header("traceparent", parent).send().await.unwrap();
    sandbox.text("2").header("x-trace-id", "trace-2").send().await.unwrap();
    let ledger = sandbox.get("/_sandbox/ledger").await;
    assert_eq!(ledger["items"][0]["trace_id"], trace);
    assert_eq!(ledger["items"][1]["trace_id"], "trace-2");
    assert_eq!(sandbox.last_call().await["trace_id"], "trace-2");
}
