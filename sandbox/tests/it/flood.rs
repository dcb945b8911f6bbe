//! Callbacks by the hundred.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Inbox, TestSandbox};

#[tokio::test]
async fn a_flood_delivers_every_message_as_often_as_it_says_and_reports() {
    let sandbox = TestSandbox::start().await;
    let inbox = Inbox::start(200).await;
    let accounts: Vec<_> =
        (0..3).map(|n| json!({"app_id": format!("wx_{n}"), "wxid": format!("wxid_{n}")})).collect();
    let flood = json!({
        "accounts": accounts, "messages": 100, "copies": [1, 3], "shuffle": true, "seed": 7, "url": inbox.url
    });
    let started = sandbox.post("/_sandbox/customer/flood", flood).await;
    assert_eq!(started.status(), 202);
    let started: Value = started.json().await.unwrap();
    let deliveries = started["deliveries"].as_u64().unwrap();
    let received = inbox.wait_for(deliveries as usize).await;
    let mut copies: BTreeMap<String, u64> = BTreeMap::new();
    for received in &received {
        let body = received.json();
        let id = body["Data"].get("NewMsgId").or_else(|| body.get("newMsgId")).unwrap();
        *copies.entry(id.to_string()).or_default() += 1;
    }
    let planned = sandbox.get("/_sandbox/customer/flood/messages").await;
    assert_eq!(planned["total"], 100);
    for message in planned["items"].as_array().unwrap() {
        assert_eq!(json!(copies[message["new_msg_id"].as_str().unwrap()]), message["copies"]);
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let report = loop {
        let report = sandbox.get("/_sandbox/customer/flood").await;
        if report["state"] == "finished" {
            break report;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited for the end of the flood");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!((&report["accepted"], &report["failed"]), (&json!(deliveries), &json!(0)));
    assert!(report["ms"]["p99"].is_number());
}
