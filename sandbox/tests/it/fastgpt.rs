//! The FastGPT half: keys, both forms of an answer, records, and the ways to fail.

use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::TestSandbox;

const KEY: &str = "fastgpt-sandbox1";

fn ask(sandbox: &TestSandbox, extra: Value) -> RequestBuilder {
    ask_with(sandbox, KEY, extra)
}

fn ask_with(sandbox: &TestSandbox, key: &str, extra: Value) -> RequestBuilder {
    let mut body = json!({
        "chatId": "c1", "detail": true, "responseChatItemId": "run1",
        "messages": [{"role": "user", "content": "几点开门"}]
    });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let url = format!("{}/fastgpt/api/v1/chat/completions", sandbox.base);
    sandbox.client.post(url).bearer_auth(key).json(&body)
}

async fn send(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The names of the events and their data, up to the end or the break.
async fn events(mut answer: Response) -> (Vec<(String, String)>, bool) {
    let mut bytes = Vec::new();
    let whole = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => bytes.extend(chunk),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    let text = String::from_utf8(bytes).unwrap();
    let event = |frame: &str| {
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
        (field("event: ").unwrap_or_default().to_owned(), field("data: ").unwrap_or_default().to_owned())
    };
    (text.split("\n\n").filter(|frame| !frame.is_empty()).map(event).collect(), whole)
}

fn text_of(events: &[(String, String)]) -> String {
    let text = |(name, data): &(String, String)| {
        let data: Value = (name == "answer").then(|| serde_json::from_str(data).ok())??;
        data["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
    };
    events.iter().filter_map(text).collect()
}

async fn script(sandbox: &TestSandbox, script: Value) {
    assert_eq!(sandbox.post("/_sandbox/fastgpt/scripts", script).await.status(), 201);
}

async fn last_run(sandbox: &TestSandbox) -> Value {
    sandbox.get("/_sandbox/fastgpt/runs").await["items"].as_array().unwrap().last().unwrap().clone()
}

async fn res_data(sandbox: &TestSandbox, data_id: &str) -> Value {
    let url = format!(
        "{}/fastgpt/api/core/chat/getResData?appId=app_sandbox1&chatId=c1&dataId={data_id}",
        sandbox.base
    );
    send(sandbox.client.get(url).bearer_auth(KEY)).await.1["data"].clone()
}

#[tokio::test]
async fn the_default_answer_quotes_the_question_and_every_node_reports() {
    let sandbox = TestSandbox::start().await;
    let (status, answer) = send(ask(&sandbox, json!({"variables": {"tier": "gold"}}))).await;
    assert_eq!(status, 200);
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.contains("几点开门"), "{content}");
    assert_eq!(answer["usage"], json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1}));
    assert_eq!(answer["newVariables"]["tier"], "gold");
    let types: Vec<_> = answer["responseData"].as_array().unwrap().iter().map(|n| &n["moduleType"]).collect();
    assert_eq!(types, ["workflowStart", "datasetSearchNode", "chatNode"]);
    let run = last_run(&sandbox).await;
    assert_eq!((run["outcome"].as_str(), run["data_id"].as_str()), (Some("answered"), Some("run1")));
    assert!(run["finished_at_us"].as_i64().unwrap() >= run["started_at_us"].as_i64().unwrap());
    assert_eq!(run["key_end"], "box1");
    assert_eq!(res_data(&sandbox, "run1").await, answer["responseData"]);
}

#[tokio::test]
async fn a_stream_says_the_same_and_ends_as_its_version_does() {
    let sandbox = TestSandbox::start().await;
    for (profile, end) in [("v4.12", ["[DONE]", "flowResponses"]), ("main", ["flowResponses", "[DONE]"])] {
        sandbox.put("/_sandbox/fastgpt/settings", json!({"profile": profile})).await;
        script(&sandbox, json!({"answer": "我们九点开门，欢迎光临，期待您的到来。", "chunk_chars": 5})).await;
        let answer = ask(&sandbox, json!({"stream": true})).send().await.unwrap();
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        let (events, whole) = events(answer).await;
        assert!(whole);
        assert_eq!(text_of(&events), "我们九点开门，欢迎光临，期待您的到来。");
        let last: Vec<_> = events[events.len() - 2..]
            .iter()
            .map(|(name, data)| if data == "[DONE]" { "[DONE]" } else { name.as_str() })
            .collect();
        assert_eq!(last, end);
        assert_eq!(last_run(&sandbox).await["outcome"], "answered");
    }
}

#[tokio::test]
async fn refusals_come_as_envelopes_and_in_a_stream_as_an_event() {
    let sandbox = TestSandbox::start().await;
    for (key, code, name) in [
        ("fastgpt", 403, "unAuthorization"),
        ("fastgpt-bad1", 514, "unAuthApiKey"),
        ("fastgpt-exhausted", 500_004, "aiPointsNotEnough"),
    ] {
        let (status, answer) = send(ask_with(&sandbox, key, json!({}))).await;
        assert_eq!((status, &answer["code"], &answer["statusText"]), (500, &json!(code), &json!(name)));
        let answer = ask_with(&sandbox, key, json!({"stream": true})).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let (events, _) = events(answer).await;
        assert_eq!(events[0].0, "error");
        assert!(events[0].1.contains(name));
    }
    let (_, personal) = send(ask_with(&sandbox, "fastgpt-personal", json!({}))).await;
    assert!(personal["message"].as_str().unwrap().contains("app key"));
    let (status, _) = send(ask_with(&sandbox, "fastgpt-personal", json!({"appId": "a1"}))).await;
    assert_eq!(status, 200);
    let (_, empty) = send(ask(&sandbox, json!({"messages": []}))).await;
    assert_eq!(empty["message"], "messages is empty");
}

#[tokio::test]
async fn the_team_may_call_so_often_a_minute() {
    let sandbox = TestSandbox::start().await;
    let settings = json!({"profile": "main", "requests_per_minute": 1});
    sandbox.put("/_sandbox/fastgpt/settings", settings).await;
    assert_eq!(send(ask(&sandbox, json!({}))).await.0, 200);
    let answer = ask(&sandbox, json!({"stream": true})).send().await.unwrap();
    assert_eq!(answer.status(), 429);
    assert_eq!(answer.headers()["x-ratelimit-limit"], "1");
}

#[tokio::test]
async fn a_node_that_fails_does_not_fail_the_call() {
    let sandbox = TestSandbox::start().await;
    script(&sandbox, json!({"fail": "node_error", "message": "content filter"})).await;
    let (status, answer) = send(ask(&sandbox, json!({}))).await;
    assert_eq!((status, &answer["choices"][0]["message"]["content"]), (200, &json!("")));
    let last = answer["responseData"].as_array().unwrap().last().unwrap();
    assert_eq!(last["errorText"], "content filter");
    assert!(answer.get("error").is_none());
    script(&sandbox, json!({"fail": "node_error", "profile": "main"})).await;
    let (_, answer) = send(ask(&sandbox, json!({}))).await;
    assert!(answer["error"]["message"].is_string());
}

#[tokio::test]
async fn what_breaks_off_is_found_in_the_records_afterwards() {
    let sandbox = TestSandbox::start().await;
    for (number, fail) in ["cut", "cut_before_nodes"].iter().enumerate() {
        let id = format!("cut{number}");
        script(&sandbox, json!({"fail": fail, "answer": "一二三四五六七八九十", "chunk_chars": 2})).await;
        let body = json!({"stream": true, "responseChatItemId": id});
        let (events, whole) = events(ask(&sandbox, body).send().await.unwrap()).await;
        assert!(!whole);
        assert!(!events.iter().any(|(name, _)| name == "flowResponses"));
        wait_until_saved(&sandbox, &id).await;
    }
    script(&sandbox, json!({"fail": "gateway_timeout", "delay_ms": 30})).await;
    let answer = ask(&sandbox, json!({"responseChatItemId": "late"})).send().await.unwrap();
    assert_eq!(answer.status(), 504);
    assert!(answer.text().await.unwrap().contains("<html>"));
    assert_eq!(res_data(&sandbox, "late").await, json!([]));
    wait_until_saved(&sandbox, "late").await;
    script(&sandbox, json!({"fail": "reset"})).await;
    assert!(ask(&sandbox, json!({"responseChatItemId": "never"})).send().await.is_err());
    assert_eq!(res_data(&sandbox, "never").await, json!([]));
}

async fn wait_until_saved(sandbox: &TestSandbox, data_id: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while res_data(sandbox, data_id).await == json!([]) {
        assert!(tokio::time::Instant::now() < deadline, "waited for {data_id} in the records");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_run_goes_on_when_its_client_has_left() {
    let sandbox = TestSandbox::start().await;
    script(&sandbox, json!({"delay_ms": 150})).await;
    for stream in [true, false] {
        let body = json!({"stream": stream, "responseChatItemId": "left"});
        let hasty = ask(&sandbox, body).timeout(std::time::Duration::from_millis(50)).send().await;
        drop(hasty);
        wait_until_saved(&sandbox, "left").await;
    }
}

#[tokio::test]
async fn the_records_of_a_chat_hold_both_sides_in_order_on_every_path() {
    let sandbox = TestSandbox::start().await;
    for id in ["r1", "r2"] {
        script(&sandbox, json!({"answer": format!("answer {id}")})).await;
        send(ask(&sandbox, json!({"responseChatItemId": id}))).await;
    }
    for path in ["/api/core/chat/getPaginationRecords", "/api/core/chat/history/getPaginationRecords"] {
        let body = json!({"appId": "app_sandbox1", "chatId": "c1", "offset": 0, "pageSize": 2});
        let request = sandbox.client.post(format!("{}/fastgpt{path}", sandbox.base)).bearer_auth(KEY);
        let (_, page) = send(request.json(&body)).await;
        assert_eq!(page["data"]["total"], 4);
        let list = page["data"]["list"].as_array().unwrap();
        assert_eq!((list[0]["obj"].as_str(), list[1]["dataId"].as_str()), (Some("Human"), Some("r2")));
        assert_eq!(list[1]["value"][0]["text"]["content"], "answer r2");
    }
}

#[tokio::test]
async fn the_chat_remembers_that_it_asked_the_customer() {
    let sandbox = TestSandbox::start().await;
    let select = json!({"type": "userSelect", "params": {
        "description": "请选择", "userSelectOptions": [{"key": "a", "value": "售前"}, {"key": "b", "value": "售后"}]
    }});
    script(&sandbox, json!({"answer": "", "interactive": select})).await;
    let (_, answer) = send(ask(&sandbox, json!({}))).await;
    let content = answer["choices"][0]["message"]["content"].as_array().unwrap();
    assert_eq!(content.last().unwrap()["interactive"]["type"], "userSelect");
    send(ask(&sandbox, json!({"responseChatItemId": "run2"}))).await;
    assert_eq!(res_data(&sandbox, "run2").await, json!([]), "it became part of the answer that asked");
    assert_eq!(res_data(&sandbox, "run1").await.as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn scripts_are_listed_until_they_are_spent() {
    let sandbox = TestSandbox::start().await;
    script(&sandbox, json!({"match": {"regex": "价格"}, "answer": "一百元"})).await;
    let bad = sandbox.post("/_sandbox/fastgpt/scripts", json!({"match": {"regex": "("}})).await;
    assert_eq!(bad.status(), 400);
    assert_eq!(sandbox.get("/_sandbox/fastgpt/scripts").await["items"].as_array().unwrap().len(), 1);
    let (_, answer) = send(ask(&sandbox, json!({"messages": [{"role": "user", "content": "价格？"}]}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "一百元");
    assert_eq!(sandbox.get("/_sandbox/fastgpt/scripts").await["items"], json!([]));
}
