//! The page for people.

use serde_json::json;

use crate::harness::{APP, FRIEND, Inbox, TestSandbox};

#[tokio::test]
async fn the_page_runs_no_script_but_its_own_and_is_never_the_same_twice() {
    let sandbox = TestSandbox::start().await;
    sandbox.text("<script>你好</script>").send().await.unwrap();
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let response = sandbox.client.get(&sandbox.base).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
        let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(!policy.contains("unsafe") && policy.contains("default-src 'none'"), "{policy}");
        let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        let page = response.text().await.unwrap();
        assert!(page.contains(&format!("<script nonce=\"{nonce}\">")) && !page.contains("{nonce}"));
        assert_eq!(page.matches("<script").count(), 1);
        assert!(!page.contains("innerHTML") && !page.contains("你好</script>"));
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn the_chat_shows_both_sides_in_order_and_no_token() {
    let sandbox = TestSandbox::start().await;
    let inbox = Inbox::start(200).await;
    sandbox.post("/_sandbox/callbacks", json!({"token": "token-1", "url": inbox.url})).await;
    let write = json!({"app_id": APP, "from": FRIEND, "nickname": "李雷", "text": "在吗"});
    sandbox.post("/_sandbox/customer/messages", write).await;
    sandbox.text("<b>在的</b>").send().await.unwrap();
    sandbox.text_failing("never arrived", "silent_drop").send().await.unwrap();
    let typed = json!({"app_id": APP, "from": FRIEND, "typed": true, "text": "我来"});
    sandbox.post("/_sandbox/customer/messages", typed).await;
    let recall = json!({"app_id": APP, "from": FRIEND, "kind": "recall"});
    sandbox.post("/_sandbox/customer/events", recall).await;
    let view = sandbox.get("/_sandbox/phone").await;
    let lines: Vec<_> = view["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["side"].as_str().unwrap(), line["text"].as_str().unwrap()))
        .collect();
    assert_eq!(lines, [("customer", "在吗"), ("account", "<b>在的</b>"), ("owner", "我来")]);
    assert_eq!(view["lines"][0]["recalled"], true);
    assert_eq!((&view["peer"], &view["contacts"][0]["name"]), (&json!(FRIEND), &json!("李雷")));
    assert_eq!((&view["accounts"][0]["app_id"], &view["received"]), (&json!(APP), &json!(1)));
    assert!(!view.to_string().contains("token-1"));
}

#[tokio::test]
async fn the_chat_keeps_to_the_last_hundred() {
    let sandbox = TestSandbox::start().await;
    for n in 0..105 {
        sandbox.text(&format!("message-{n}.")).send().await.unwrap();
    }
    let view = sandbox.get(&format!("/_sandbox/phone?app_id={APP}&peer={FRIEND}")).await;
    let lines = view["lines"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[0]["text"]), (100, &json!("message-5.")));
    assert_eq!(view["received"], 105);
}

#[tokio::test]
async fn healthz_answers() {
    let sandbox = TestSandbox::start().await;
    assert_eq!(sandbox.get("/healthz").await, json!({"status": "ok"}));
}
