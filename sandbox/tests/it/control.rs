//! The control API: plans, throttle, lists, reset, shutdown.

use serde_json::{Value, json};

use crate::harness::{APP, FRIEND, TestSandbox, envelope};

#[tokio::test]
async fn a_planned_failure_meets_the_calls_it_names_and_no_more() {
    let sandbox = TestSandbox::start().await;
    let plan = json!({"app_id": APP, "to_wxid": FRIEND, "mode": "risk", "times": 2});
    let planned = sandbox.post("/_sandbox/failures", plan).await;
    assert_eq!(planned.status(), 201);
    assert_eq!(planned.json::<Value>().await.unwrap()["remaining"], 2);

    let other = json!({"appId": APP, "toWxid": "wxid_other", "content": "other"});
    assert_eq!(envelope(sandbox.gewe("/message/postText", &other)).await["ret"], 200);
    assert_eq!(envelope(sandbox.text("1")).await["ret"], 500);
    let plans = sandbox.get("/_sandbox/failures").await;
    assert_eq!((&plans["items"][0]["remaining"], &plans["items"][0]["met"]), (&json!(1), &json!(1)));
    assert_eq!(envelope(sandbox.text("2")).await["ret"], 500);
    assert_eq!(envelope(sandbox.text("3")).await["ret"], 200);
    assert_eq!(sandbox.get("/_sandbox/failures").await["items"], json!([]));
    assert_eq!(sandbox.received().await, ["other", "3"]);
}

#[tokio::test]
async fn deleting_the_failures_ends_those_without_end() {
    let sandbox = TestSandbox::start().await;
    sandbox.post("/_sandbox/failures", json!({"mode": "offline", "times": 0})).await;
    for _ in 0..5 {
        assert_eq!(envelope(sandbox.text("no")).await["ret"], 500);
    }
    let deleted = sandbox.client.delete(format!("{}/_sandbox/failures", sandbox.base)).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    assert_eq!(envelope(sandbox.text("yes")).await["ret"], 200);
}

#[tokio::test]
async fn a_failure_with_a_probability_meets_some_calls() {
    let sandbox = TestSandbox::start().await;
    let plan = json!({"mode": "silent_drop", "times": 0, "probability": 0.5});
    sandbox.post("/_sandbox/failures", plan).await;
    for n in 0..200 {
        sandbox.text(&n.to_string()).send().await.unwrap();
    }
    let delivered = sandbox.received().await.len();
    assert!((40..160).contains(&delivered), "{delivered} of 200 delivered");
}

#[tokio::test]
async fn the_header_of_a_call_wins_over_a_plan_and_spends_none() {
    let sandbox = TestSandbox::start().await;
    sandbox.post("/_sandbox/failures", json!({"mode": "risk"})).await;
    assert_eq!(sandbox.text_failing("m", "bad_gateway_html").send().await.unwrap().status(), 502);
    assert_eq!(sandbox.get("/_sandbox/failures").await["items"][0]["remaining"], 1);
}

#[tokio::test]
async fn check_online_can_lie_while_sends_fail() {
    let sandbox = TestSandbox::start().await;
    sandbox.post("/_sandbox/failures", json!({"app_id": APP, "mode": "offline", "times": 0})).await;
    let check = sandbox.gewe("/login/checkOnline", &json!({"appId": APP}));
    assert_eq!(envelope(check).await["data"], true);
    assert_eq!(envelope(sandbox.text("m")).await["data"]["msg"], "微信已离线");
}

#[tokio::test]
async fn the_throttle_drops_then_warns_then_logs_out() {
    let sandbox = TestSandbox::start().await;
    let limits = json!({"per_minute_silent_drop": 2, "per_minute_risk": 3, "per_minute_offline": 4});
    assert_eq!(sandbox.put("/_sandbox/throttle", limits.clone()).await.status(), 200);
    assert_eq!(sandbox.get("/_sandbox/throttle").await, limits);
    let mut outcomes = Vec::new();
    for n in 1..=5 {
        sandbox.text(&n.to_string()).send().await.unwrap();
        outcomes.push(sandbox.last_call().await["outcome"].as_str().unwrap().to_owned());
    }
    assert_eq!(outcomes, ["delivered", "delivered", "dropped", "risk", "offline"]);
    sandbox.put("/_sandbox/throttle", json!({})).await;
    assert_eq!(envelope(sandbox.text("6")).await["data"]["msg"], "微信已离线");
    let accounts = sandbox.get("/_sandbox/accounts").await;
    assert_eq!(accounts["items"], json!([{"app_id": APP, "state": "offline"}]));
    assert_eq!(sandbox.received().await, ["1", "2"]);
}

#[tokio::test]
async fn the_ledger_is_filtered_and_paged() {
    let sandbox = TestSandbox::start().await;
    for n in 0..6 {
        let (app, to) = (format!("wx_{}", n % 2), format!("wxid_{}", n % 3));
        let body = json!({"appId": app, "toWxid": to, "content": n.to_string()});
        sandbox.gewe("/message/postText", &body).send().await.unwrap();
    }
    let contents = async |query: &str| {
        let ledger = sandbox.get(&format!("/_sandbox/ledger?{query}")).await;
        let items = ledger["items"].as_array().unwrap();
        let all: String = items.iter().map(|item| item["body"]["content"].as_str().unwrap()).collect();
        (all, ledger["total"].as_u64().unwrap())
    };
    assert_eq!(contents("app_id=wx_1").await, ("135".to_owned(), 3));
    assert_eq!(contents("to_wxid=wxid_0").await, ("03".to_owned(), 2));
    assert_eq!(contents("app_id=wx_0&to_wxid=wxid_2").await, ("2".to_owned(), 1));
    assert_eq!(contents("limit=2").await, ("01".to_owned(), 6));
    assert_eq!(contents("since=4").await, ("45".to_owned(), 2));
    let fourth = sandbox.get("/_sandbox/ledger?since=3&limit=1").await;
    let time = fourth["items"][0]["received_at"].as_str().unwrap();
    assert_eq!(time.len(), "2026-01-02T03:04:05.123456Z".len());
    assert_eq!(contents(&format!("since={time}")).await, ("345".to_owned(), 3));
}

#[tokio::test]
async fn calls_are_counted_by_account_also_those_that_failed() {
    let sandbox = TestSandbox::start().await;
    sandbox.text("1").send().await.unwrap();
    sandbox.text_failing("2", "risk").send().await.unwrap();
    sandbox.gewe("/message/postText", &json!({"appId": APP})).send().await.unwrap();
    sandbox.gewe("/message/postText", &json!({})).send().await.unwrap();
    let calls = sandbox.get("/_sandbox/calls").await;
    assert_eq!(calls["total"], 4);
    assert_eq!(calls["by_app_id"][APP], json!({"calls": 3, "delivered": 1}));
    assert_eq!(calls["by_app_id"][""], json!({"calls": 1, "delivered": 0}));
    let outcomes: Vec<_> = calls["items"].as_array().unwrap().iter().map(|call| &call["outcome"]).collect();
    assert_eq!(outcomes, ["delivered", "risk", "bad_request", "bad_request"]);
    assert_eq!(calls["items"][0]["path"], "/gewe/v2/api/message/postText");
    assert_eq!(sandbox.get(&format!("/_sandbox/calls?app_id={APP}&limit=1")).await["total"], 3);
}

#[tokio::test]
async fn reset_empties_everything_but_never_gives_an_id_twice() {
    let sandbox = TestSandbox::start().await;
    let before = envelope(sandbox.text("1")).await["data"]["newMsgId"].as_u64().unwrap();
    sandbox.post("/_sandbox/failures", json!({"mode": "risk", "times": 0})).await;
    sandbox.put("/_sandbox/throttle", json!({"per_minute_offline": 0})).await;
    sandbox.put(&format!("/_sandbox/accounts/{APP}"), json!({"state": "offline"})).await;
    let callback = json!({"token": "token-1", "callbackUrl": "http://a.invalid"});
    sandbox.gewe("/login/setCallback", &callback).send().await.unwrap();

    assert_eq!(sandbox.post("/_sandbox/reset", json!({})).await.status(), 200);
    assert_eq!(sandbox.get("/_sandbox/ledger?delivered=all").await, json!({"items": [], "total": 0}));
    assert_eq!(sandbox.get("/_sandbox/calls").await, json!({"items": [], "total": 0, "by_app_id": {}}));
    for list in ["failures", "accounts", "callbacks"] {
        assert_eq!(sandbox.get(&format!("/_sandbox/{list}")).await, json!({"items": []}), "{list}");
    }
    let after = envelope(sandbox.text("2")).await["data"]["newMsgId"].as_u64().unwrap();
    assert!(after > before);
    assert_eq!(sandbox.received().await, ["2"]);
}

#[tokio::test]
async fn what_the_control_api_does_not_understand_it_refuses_with_a_reason() {
    let sandbox = TestSandbox::start().await;
    for (path, body) in [
        ("/_sandbox/failures", json!({"mode": "explode"})),
        ("/_sandbox/failures", json!({"mode": "risk", "app": "wx_1"})),
        ("/_sandbox/failures", json!({"mode": "risk", "probability": 1.5})),
        ("/_sandbox/failures", json!({"mode": "risk", "delay_ms": 10_000_000})),
    ] {
        let response = sandbox.post(path, body.clone()).await;
        assert_eq!(response.status(), 400, "{body}");
        assert!(response.json::<Value>().await.unwrap()["error"].is_string(), "{body}");
    }
    assert_eq!(sandbox.put("/_sandbox/accounts/wx_1", json!({"state": "asleep"})).await.status(), 400);
    assert_eq!(sandbox.put("/_sandbox/throttle", json!({"per_hour": 1})).await.status(), 400);
    for query in ["since=yesterday", "delivered=maybe", "limit=-1", "wxid=1"] {
        let url = format!("{}/_sandbox/ledger?{query}", sandbox.base);
        assert_eq!(sandbox.client.get(url).send().await.unwrap().status(), 400, "{query}");
    }
}

#[tokio::test]
async fn shutdown_does_not_wait_for_an_answer_that_is_long_in_coming() {
    let sandbox = TestSandbox::start().await;
    let slow = tokio::spawn(sandbox.text_failing("m", "delay_after_accept;delay_ms=60000").send());
    sandbox.wait_for(&["m"]).await;
    sandbox.stop().await.unwrap();
    assert!(slow.await.unwrap().is_err());
}
