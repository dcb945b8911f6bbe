//! The client against a real socket whose far end does exactly what a test says, byte for byte.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use entropy_jobs::ai::port::{AiClient as _, AiError, Answer, App, Ask, ErrorClass, Found, Part};
use entropy_jobs::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::{FastGptClient, Patience};

mod failures;
mod records;
mod streams;

const KEY: &str = "fastgpt-hunter2";

/// What the server does with one request, after it has read the whole of it.
enum Act {
    /// Writes these bytes and waits for the next request on the connection.
    Write(Vec<u8>),
    /// Writes these bytes and closes.
    WriteAndClose(Vec<u8>),
    /// Writes these bytes and then nothing, for as long as the client waits.
    WriteAndHang(Vec<u8>),
    /// Writes these bytes and then the others again and again, each time after the pause.
    WriteAndRepeat(Vec<u8>, Vec<u8>, Duration),
    /// Writes the pieces, each in a packet of its own as far as that can be forced, and closes.
    Pieces(Vec<Vec<u8>>),
    /// Breaks the connection with a TCP reset.
    Reset,
}

#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: Value,
}

struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    async fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/api", listener.local_addr().unwrap());
        let acts: Arc<Mutex<VecDeque<Act>>> = Arc::new(Mutex::new(acts.into_iter().collect()));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let server = Self { endpoint, requests: Arc::clone(&requests) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&acts), Arc::clone(&requests)));
            }
        });
        server
    }

    fn client(&self) -> FastGptClient {
        client(Some(&self.endpoint))
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, acts: Arc<Mutex<VecDeque<Act>>>, requests: Arc<Mutex<Vec<Request>>>) {
    stream.set_nodelay(true).unwrap();
    while let Some(request) = read_request(&mut stream).await {
        requests.lock().unwrap().push(request);
        // Anything beyond the script is a request too many; the test sees it in the count.
        let act = acts.lock().unwrap().pop_front().unwrap_or(Act::Reset);
        match act {
            Act::Write(bytes) => stream.write_all(&bytes).await.unwrap(),
            Act::WriteAndClose(bytes) => return stream.write_all(&bytes).await.unwrap(),
            Act::WriteAndHang(bytes) => {
                stream.write_all(&bytes).await.unwrap();
                let _ = stream.read(&mut [0]).await;
                return;
            }
            Act::WriteAndRepeat(bytes, again, pause) => {
                stream.write_all(&bytes).await.unwrap();
                while stream.write_all(&again).await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
                return;
            }
            Act::Pieces(pieces) => {
                for piece in pieces {
                    stream.write_all(&piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                return;
            }
            Act::Reset => return stream.set_zero_linger().unwrap(),
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default();
                return Some(Request { head, body });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

fn ok(body: &Value) -> Act {
    Act::Write(http("200 OK", "Content-Type: application/json\r\n", &body.to_string()))
}

fn client(endpoint: Option<&str>) -> FastGptClient {
    client_with(endpoint, Patience::default())
}

fn client_with(endpoint: Option<&str>, patience: Patience) -> FastGptClient {
    // Refused where another test was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    FastGptClient::new(endpoint, patience).unwrap()
}

fn app() -> App {
    App { endpoint: None, api_key: Secret::new(KEY), app_id: Some("app-1".into()) }
}

fn run_id() -> Uuid {
    Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001)
}

fn question(stream: bool) -> Ask {
    Ask {
        run_id: run_id(),
        chat_id: "chat-1".into(),
        customer: "friend-9".into(),
        parts: vec![Part::Text("几点开门？".into())],
        variables: json!({"tier": "gold"}),
        stream,
        timeout: Duration::from_secs(20),
        trace_id: "trace-1".into(),
    }
}

/// Asks a server that acts so.
async fn ask(act: Act, stream: bool) -> Result<Answer, AiError> {
    let server = Server::start([act]).await;
    let answer = server.client().ask(&app(), &question(stream)).await;
    assert_eq!(server.requests().len(), 1, "asked once: {answer:?}");
    answer
}

/// Checks the class and the code, and that nothing of the key, the question or the answer is repeated.
fn check(answer: Result<Answer, AiError>, class: ErrorClass, code: &str) -> AiError {
    let error = answer.expect_err(code);
    assert_eq!((error.class, error.code), (class, code), "{error}");
    let printed = format!("{error} {error:?}");
    assert!(
        !printed.contains("hunter2") && !printed.contains("开门") && !printed.contains("secret words"),
        "{printed}"
    );
    error
}

#[tokio::test]
async fn a_question_goes_out_as_documented() {
    let server =
        Server::start((0..4).map(|_| ok(&json!({"choices": [{"message": {"content": "好"}}]})))).await;
    let client = server.client();
    client.ask(&app(), &question(false)).await.unwrap();
    let Request { head, body } = server.requests().pop().unwrap();
    assert_eq!(head.lines().next(), Some("POST /api/v1/chat/completions HTTP/1.1"));
    assert_eq!(header(&head, "authorization"), Some("Bearer fastgpt-hunter2"));
    assert_eq!((header(&head, "x-trace-id"), header(&head, "traceparent")), (Some("trace-1"), None));
    assert_eq!(header(&head, "accept-encoding"), None, "nothing is decoded");
    assert_eq!(header(&head, "transfer-encoding"), None);
    assert_eq!(
        body,
        json!({
            "chatId": "chat-1", "stream": false, "detail": true, "customUid": "friend-9", "appId": "app-1",
            "responseChatItemId": "01930000000070008000000000000001", "variables": {"tier": "gold"},
            "messages": [{"role": "user", "content": "几点开门？"}]
        })
    );

    // A key that carries its app, texts in a row, and no variables.
    let carried = App { api_key: Secret::new("fastgpt-hunter2-app"), ..app() };
    let parts = vec![Part::Text("一".into()), Part::Text("二".into())];
    let asked = Ask { parts, variables: Value::Null, trace_id: "ab".repeat(16), ..question(true) };
    client.ask(&carried, &asked).await.unwrap();
    let Request { head, body } = server.requests().pop().unwrap();
    assert_eq!(header(&head, "accept"), Some("text/event-stream"));
    let parent = format!("00-{}-8000000000000001-01", "ab".repeat(16));
    assert_eq!(header(&head, "traceparent"), Some(parent.as_str()));
    assert_eq!((&body["messages"][0]["content"], &body["stream"]), (&json!("一\n二"), &json!(true)));
    assert!(body.get("appId").is_none() && body.get("variables").is_none(), "{body}");

    // Pictures and files, at an address of the workflow's own.
    let own = App { endpoint: Some(format!("{}/v2/", server.endpoint)), app_id: None, ..app() };
    let parts = vec![
        Part::Text("看图".into()),
        Part::Image { url: "https://cdn.example/a.png".into() },
        Part::File { name: "报价.pdf".into(), url: "https://cdn.example/b".into() },
    ];
    client.ask(&own, &Ask { parts, ..question(false) }).await.unwrap();
    let Request { head, body } = server.requests().pop().unwrap();
    assert_eq!(head.lines().next(), Some("POST /api/v2/chat/completions HTTP/1.1"));
    assert_eq!(
        body["messages"],
        json!([{"role": "user", "content": [
            {"type": "text", "text": "看图"},
            {"type": "image_url", "image_url": {"url": "https://cdn.example/a.png"}},
            {"type": "file_url", "name": "报价.pdf", "url": "https://cdn.example/b"}]}])
    );
}

#[tokio::test]
async fn the_documented_answer_is_read_and_its_nodes_are_trimmed() {
    let body = json!({
        "id": "chat-1", "model": "", "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1},
        "choices": [{"message": {"role": "assistant", "content": "九点开门。"}, "finish_reason": "stop", "index": 0}],
        "responseData": [
            {"id": "n1", "moduleName": "start", "moduleType": "workflowStart", "runningTime": 0},
            {"id": "n3", "moduleName": "AI", "moduleType": "chatNode", "totalPoints": 0.31, "model": "demo-model",
             "inputTokens": 812, "outputTokens": 46, "query": "secret words", "historyPreview": [{"value": "x"}],
             "quoteList": [{"q": "y"}], "pluginOutput": {"a": 1}, "finishReason": "stop",
             "toolDetail": [{"id": "t", "model": "small", "inputTokens": 1, "toolRes": "z"}]}],
        "newVariables": {"tier": "gold"}
    });
    let before = Instant::now();
    let answer = ask(ok(&body), false).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.interactive, answer.node_error), ("九点开门。", false, None));
    assert!(answer.finished >= before && answer.finished <= Instant::now());
    assert_eq!(
        answer.nodes,
        [
            json!({"id": "n1", "moduleName": "start", "moduleType": "workflowStart", "runningTime": 0}),
            json!({"id": "n3", "moduleName": "AI", "moduleType": "chatNode", "totalPoints": 0.31,
                   "model": "demo-model", "inputTokens": 812, "outputTokens": 46, "finishReason": "stop",
                   "toolDetail": [{"id": "t", "model": "small", "inputTokens": 1}]}),
        ]
    );
}

#[tokio::test]
async fn items_give_their_texts_and_a_question_back_its_choices() {
    let answer = async |content: Value| {
        ask(ok(&json!({"choices": [{"message": {"content": content}}]})), false).await.unwrap()
    };
    let texts = answer(json!([
        {"type": "reasoning", "reasoning": {"content": "想一想"}},
        {"type": "text", "text": {"content": "第一"}},
        {"type": "tool", "tools": [{"response": "x"}]},
        {"text": {"content": "第二"}}
    ]))
    .await;
    assert_eq!((texts.text.as_str(), texts.interactive), ("第一\n第二", false));
    assert_eq!(answer(Value::Null).await.text, "");

    let select = json!({"type": "userSelect", "params": {"description": "要哪一种？", "userSelectOptions": [
        {"key": "a", "value": "标准版"}, {"key": "b", "value": "专业版"}]}});
    let choice = answer(json!([{"text": {"content": "您好"}}, {"interactive": select}])).await;
    assert!(choice.interactive);
    assert_eq!(choice.text, "您好\n要哪一种？\n1. 标准版\n2. 专业版");
    let nested = json!({"type": "childrenInteractive", "params": {"childrenResponse":
        {"type": "loopInteractive", "params": {"childrenResponse": select}}}});
    assert_eq!(answer(json!([{"interactive": nested}])).await.text, "要哪一种？\n1. 标准版\n2. 专业版");
    let form = json!({"type": "userInput", "params": {"description": "请填写", "inputForm": [
        {"key": "phone", "label": "电话"}, {"key": "city"}]}});
    assert_eq!(answer(json!([{"interactive": form}])).await.text, "请填写\n1. 电话\n2. city");
}

#[tokio::test]
async fn a_node_that_failed_is_told_and_fails_no_call() {
    let failed = async |body: Value| ask(ok(&body), false).await.unwrap().node_error;
    let with = |extra: Value| {
        let mut body =
            json!({"choices": [{"message": {"content": ""}}], "responseData": [{"moduleName": "AI"}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    assert_eq!(failed(with(json!({}))).await, None);
    assert_eq!(failed(with(json!({"error": "429 busy"}))).await.as_deref(), Some("429 busy"));
    assert_eq!(failed(with(json!({"error": {"message": "坏了\0"}}))).await.as_deref(), Some("坏了"));
    let nodes =
        json!({"responseData": [{"errorText": "first"}, {"loopDetail": [{"error": {"errorText": "deep"}}]}]});
    assert_eq!(failed(with(nodes)).await.as_deref(), Some("deep"));
}

#[tokio::test]
async fn an_endless_text_is_cut_and_the_bill_is_still_read() {
    let long = "长".repeat(200_001);
    let body =
        json!({"choices": [{"message": {"content": long}}], "responseData": [{"id": "n", "inputTokens": 1}]});
    let answer = ask(ok(&body), false).await.unwrap();
    assert_eq!((answer.text.chars().count(), answer.nodes.len()), (200_000, 1));
}
