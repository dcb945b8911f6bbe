//! The page for people.

use serde_json::json;

use crate::harness::{APP, TestSandbox};

async fn page(sandbox: &TestSandbox) -> String {
    let response = sandbox.client.get(&sandbox.base).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    response.text().await.unwrap()
}

#[tokio::test]
async fn the_page_shows_messages_by_conversation_and_escapes_them() {
    let sandbox = TestSandbox::start().await;
    assert!(page(&sandbox).await.contains("Nothing has arrived yet"));
    sandbox.text("<script>你好</script>").send().await.unwrap();
    let image = json!({"appId": APP, "toWxid": "1@chatroom", "imgUrl": "https://e.invalid/a.jpg"});
    sandbox.gewe("/message/postImage", &image).send().await.unwrap();
    sandbox.text_failing("never arrived", "silent_drop").send().await.unwrap();
    let page = page(&sandbox).await;
    assert!(page.contains("&lt;script&gt;你好&lt;/script&gt;") && !page.contains("<script"));
    assert!(page.contains("[图片 Image] https://e.invalid/a.jpg"));
    assert!(page.contains(APP) && page.contains("群聊 Group 1@chatroom"));
    assert!(!page.contains("never arrived") && !page.contains("token-1"));
    assert!(page.contains("http-equiv=\"refresh\""));
}

#[tokio::test]
async fn the_page_keeps_to_the_last_hundred() {
    let sandbox = TestSandbox::start().await;
    for n in 0..105 {
        sandbox.text(&format!("message-{n}.")).send().await.unwrap();
    }
    let page = page(&sandbox).await;
    assert!(page.contains("message-104.") && page.contains("message-5.") && !page.contains("message-4."));
    assert!(page.contains("收到 105 条消息"));
}

#[tokio::test]
async fn healthz_answers() {
    let sandbox = TestSandbox::start().await;
    assert_eq!(sandbox.get("/healthz").await, json!({"status": "ok"}));
}
