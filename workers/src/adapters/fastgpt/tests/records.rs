//! Looking for a run whose answer was lost.

use super::*;

const ITEM: &str = "01930000000070008000000000000001";

fn data(data: Value) -> Act {
    ok(&json!({"code": 200, "statusText": "", "message": "", "data": data}))
}

async fn look(acts: Vec<Act>) -> (Result<Found, AiError>, Vec<Request>) {
    let server = Server::start(acts).await;
    let found = server.client().look_up(&app(), "聊天 1", run_id(), "trace-1").await;
    (found, server.requests())
}

fn nodes() -> Value {
    json!([{"id": "n", "moduleName": "AI", "model": "m", "inputTokens": 3, "outputTokens": 2, "quoteList": [1]}])
}

fn records() -> Value {
    json!({"total": 3, "list": [
        {"dataId": "other", "obj": "AI", "value": [{"text": {"content": "旧的"}}]},
        {"dataId": ITEM, "obj": "Human", "value": [{"text": {"content": "几点开门"}}]},
        {"dataId": ITEM, "obj": "AI", "value": [{"type": "reasoning", "reasoning": {"content": "想"}},
                                                {"type": "text", "text": {"content": "九点。"}}]}]})
}

#[tokio::test]
async fn a_run_is_found_with_its_text_and_its_nodes() {
    let (found, requests) = look(vec![data(nodes()), data(records())]).await;
    let Found::Ran(answer) = found.unwrap() else { panic!("it ran") };
    assert_eq!(answer.text, "九点。");
    let kept = json!({"id": "n", "moduleName": "AI", "model": "m", "inputTokens": 3, "outputTokens": 2});
    assert_eq!(answer.nodes, [kept]);
    let line = requests[0].head.lines().next().unwrap();
    let path = format!("/api/core/chat/getResData?appId=app-1&chatId=%E8%81%8A%E5%A4%A9+1&dataId={ITEM}");
    assert_eq!(line, format!("GET {path} HTTP/1.1"));
    assert_eq!(header(&requests[0].head, "authorization"), Some("Bearer fastgpt-hunter2"));
    assert!(requests[1].head.starts_with("POST /api/core/chat/getPaginationRecords HTTP/1.1"));
    assert_eq!(requests[1].body, json!({"appId": "app-1", "chatId": "聊天 1", "offset": 0, "pageSize": 30}));
}

#[tokio::test]
async fn newer_paths_are_tried_where_the_documented_ones_are_missing() {
    let gone = || Act::Write(http("404 Not Found", "", "<html></html>"));
    let (found, requests) = look(vec![gone(), data(nodes()), data(json!({"list": []}))]).await;
    let Found::Ran(answer) = found.unwrap() else { panic!("it ran") };
    assert_eq!((answer.text.as_str(), answer.nodes.len()), ("", 1));
    assert!(requests[2].head.starts_with("POST /api/core/chat/record/getPaginationRecords "));
    let (found, _) = look(vec![gone(), gone()]).await;
    assert_eq!(found.unwrap_err().code, "not_found");
}

#[tokio::test]
async fn nothing_in_the_records_proves_nothing() {
    let (found, requests) = look(vec![data(json!([]))]).await;
    assert!(matches!(found.unwrap(), Found::Nothing));
    assert_eq!(requests.len(), 1);
    // Without the app's id there is nothing to ask by.
    let nameless = App { app_id: None, ..app() };
    let found = client(None).look_up(&nameless, "chat", run_id(), "trace-1").await;
    assert!(matches!(found.unwrap(), Found::Nothing));
}

#[tokio::test]
async fn a_look_that_fails_never_says_that_nothing_ran() {
    let failed = async |act: Act| {
        let error = look(vec![act]).await.0.unwrap_err();
        assert!(!format!("{error:?}").contains("secret words"));
        (error.class, error.code)
    };
    assert_eq!(failed(Act::Reset).await.0, ErrorClass::Ambiguous);
    let inside = http("500 Oops", "", r#"{"code":500,"statusText":"","message":"secret words"}"#);
    assert_eq!(failed(Act::Write(inside)).await, (ErrorClass::Ambiguous, "run_failed"));
    let key = http("500 Oops", "", r#"{"code":514,"statusText":"unAuthApiKey"}"#);
    assert_eq!(failed(Act::Write(key)).await, (ErrorClass::Refused, "key_refused"));
    assert_eq!(failed(Act::Write(http("429 Slow", "Retry-After: 3\r\n", ""))).await.0, ErrorClass::Throttled);
    assert_eq!(failed(Act::Write(http("200 OK", "", "<html>"))).await.0, ErrorClass::Ambiguous);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/api", listener.local_addr().unwrap());
    drop(listener);
    let error = client(Some(&endpoint)).look_up(&app(), "chat", run_id(), "trace-1").await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Ambiguous);
}
