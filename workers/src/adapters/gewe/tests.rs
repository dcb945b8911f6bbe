//! The client against a real socket whose far end does exactly what a test says, byte for byte.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use entropy_jobs::message::Message;
use entropy_jobs::provider::{Device, ErrorClass, MessageSender as _, SendError, Sent};
use entropy_jobs::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{GeweClient, Timeouts, wire};

mod hostile;

const TOKEN: &str = "hunter2-0f1e2d3c";
const SENT: &str = r#"{"ret":200,"msg":"操作成功","data":{"toWxid":"wxid_to","createTime":1790000001,"msgId":0,"newMsgId":7300000000000000011,"type":1}}"#;

/// What the server does with one request, after it has read the whole of it.
enum Act {
    /// Writes these bytes and waits for the next request on the connection.
    Write(String),
    /// Writes these bytes and closes.
    WriteAndClose(String),
    /// Writes these bytes and then nothing, for as long as the client waits.
    WriteAndHang(String),
    /// Breaks the connection with a TCP reset.
    Reset,
    /// Writes this head and then a body without end.
    Endless(String),
}

#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: Value,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    requests: Vec<Request>,
    endless_bytes: usize,
}

struct Server {
    base_url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    async fn start(acts: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/gewe/v2/api", listener.local_addr().unwrap());
        let acts: Arc<Mutex<VecDeque<Act>>> = Arc::new(Mutex::new(acts.into_iter().collect()));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let server = Self { base_url, seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.lock().unwrap().connections += 1;
                tokio::spawn(serve(stream, Arc::clone(&acts), Arc::clone(&seen)));
            }
        });
        server
    }

    fn client(&self) -> GeweClient {
        client(&self.base_url)
    }

    fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().requests.clone()
    }

    fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }
}

async fn serve(mut stream: TcpStream, acts: Arc<Mutex<VecDeque<Act>>>, seen: Arc<Mutex<Seen>>) {
    while let Some(request) = read_request(&mut stream).await {
        seen.lock().unwrap().requests.push(request);
        // Anything beyond the script is a request too many; the test sees it in the count.
        let act = acts.lock().unwrap().pop_front().unwrap_or(Act::Reset);
        match act {
            Act::Write(bytes) => stream.write_all(bytes.as_bytes()).await.unwrap(),
            Act::WriteAndClose(bytes) => return stream.write_all(bytes.as_bytes()).await.unwrap(),
            Act::WriteAndHang(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                let _ = stream.read(&mut [0]).await;
                return;
            }
            Act::Reset => return stream.set_zero_linger().unwrap(),
            Act::Endless(head) => {
                stream.write_all(head.as_bytes()).await.unwrap();
                while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {
                    seen.lock().unwrap().endless_bytes += 16 * 1024;
                }
                return;
            }
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
                assert_eq!(bytes.len(), end + 4 + length, "one request at a time");
                return Some(Request { head, body: serde_json::from_slice(&bytes[end + 4..]).unwrap() });
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

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn ok(body: &str) -> Act {
    Act::Write(http("200 OK", body))
}

fn client(base_url: &str) -> GeweClient {
    client_with(base_url, Timeouts::default()).unwrap()
}

fn client_with(base_url: &str, timeouts: Timeouts) -> anyhow::Result<GeweClient> {
    // Refused where another test was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    GeweClient::new(base_url, timeouts)
}

fn device() -> Device {
    Device { app_id: "wx_dev".into(), token: Secret::new(TOKEN) }
}

fn text() -> Message {
    serde_json::from_value(json!({"kind": "text", "text": "secret words"})).unwrap()
}

async fn send(client: &GeweClient) -> Result<Sent, SendError> {
    send_message(client, &text()).await
}

async fn send_message(client: &GeweClient, message: &Message) -> Result<Sent, SendError> {
    client.send(&device(), "wxid_to", message, Instant::now() + Duration::from_secs(5), "trace-1").await
}

/// Sends one text to a server that acts so, and checks the class, the code and that it was asked just once.
async fn check(act: Act, class: ErrorClass, code: &str) -> SendError {
    check_within(Timeouts::default(), act, class, code).await
}

async fn check_within(timeouts: Timeouts, act: Act, class: ErrorClass, code: &str) -> SendError {
    let server = Server::start([act]).await;
    let error = send(&client_with(&server.base_url, timeouts).unwrap()).await.unwrap_err();
    assert_eq!((error.class, error.code), (class, code), "{:?}", error.detail);
    assert_eq!(server.requests().len(), 1, "{code}");
    let printed = format!("{error} {error:?} {}", error.detail.as_deref().unwrap_or_default());
    assert!(!printed.contains(TOKEN), "{printed}");
    assert!(!format!("{error} {error:?}").contains("secret words"), "{error:?}");
    error
}

#[tokio::test]
async fn a_send_of_every_kind_goes_out_as_documented() {
    let url = "https://cdn.example.com/a";
    let messages = [
        json!({"kind": "text", "text": "你好", "ats": ["a", "b"]}),
        json!({"kind": "image", "url": url}),
        json!({"kind": "file", "url": url, "name": "n"}),
        json!({"kind": "voice", "url": url, "duration_ms": 1}),
        json!({"kind": "video", "url": url, "thumb_url": url, "duration_s": 1}),
        json!({"kind": "link", "title": "t", "desc": "d", "url": url, "thumb_url": url}),
        json!({"kind": "mini_program", "app_id": "wx1", "user_name": "gh_1@app", "title": "t",
               "display_name": "n", "page_path": "p", "cover_url": url}),
        json!({"kind": "name_card", "wxid": "c", "nickname": "c"}),
        json!({"kind": "emoji", "md5": "m", "size": 1}),
        json!({"kind": "app_message", "xml": "<appmsg/>"}),
    ];
    let server = Server::start(messages.iter().map(|_| ok(SENT))).await;
    let client = server.client();
    for message in messages {
        let message: Message = serde_json::from_value(message).unwrap();
        let sent = send_message(&client, &message).await.unwrap();
        assert_eq!(sent.new_msg_id, "7300000000000000011");
        assert_eq!((sent.msg_id.as_deref(), sent.create_time), (Some("0"), Some(1_790_000_001)));

        let Request { head, body } = server.requests().pop().unwrap();
        let (route, expected) = wire::send_request("wx_dev", "wxid_to", &message);
        assert_eq!(head.lines().next(), Some(format!("POST /gewe/v2/api{route} HTTP/1.1").as_str()));
        assert_eq!(body, expected);
        assert_eq!(header(&head, "x-gewe-token"), Some(TOKEN));
        assert_eq!(header(&head, "x-trace-id"), Some("trace-1"));
        assert_eq!(header(&head, "content-type"), Some("application/json"));
        assert_eq!(header(&head, "transfer-encoding"), None);
    }
    assert_eq!(server.connections(), 1, "the connection is kept");
}

#[tokio::test]
async fn refusals_are_classed_whatever_the_http_status() {
    let refuse = |status: &str, body: &str| Act::Write(http(status, body));
    let offline = r#"{"ret":500,"msg":"发送消息失败","data":{"code":"-1","msg":"微信已离线"}}"#;
    check(refuse("200 OK", offline), ErrorClass::AccountOffline, "account_offline").await;
    check(refuse("500 Oops", offline), ErrorClass::AccountOffline, "account_offline").await;
    let token = format!(r#"{{"ret":500,"msg":"X-GEWE-TOKEN {TOKEN} 不可用或已过期"}}"#);
    let error = check(refuse("200 OK", &token), ErrorClass::Token, "token_rejected").await;
    assert!(error.detail.unwrap().contains("X-GEWE-TOKEN *** 不可用"));
    check(refuse("200 OK", r#"{"ret":500,"msg":"操作频繁"}"#), ErrorClass::RiskControl, "risk_control").await;
    let unknown = r#"{"ret":500,"msg":"失败","data":{"code":"-9","msg":"secret words"}}"#;
    let error = check(refuse("200 OK", unknown), ErrorClass::Refused, "refused").await;
    assert_eq!(error.detail.unwrap(), format!("HTTP 200: {unknown}"));
}

#[tokio::test]
async fn answers_that_prove_nothing_are_ambiguous() {
    let ambiguous = async |act, code| check(act, ErrorClass::Ambiguous, code).await;
    let html = "<html>502 hunter2-0f1e2d3c</html>";
    let error = ambiguous(Act::Write(http("502 Bad Gateway", html)), "http_server_error").await;
    assert_eq!(error.detail.unwrap(), "HTTP 502: <html>502 ***</html>");
    ambiguous(Act::Write(http("404 Not Found", "")), "http_client_error").await;
    ambiguous(ok("it works"), "answer_unreadable").await;
    ambiguous(ok(""), "answer_unreadable").await;
    ambiguous(ok(r#"{"ret":200,"msg":"操作成功"}"#), "no_message_id").await;
    ambiguous(ok(r#"{"ret":200,"data":{"newMsgId":null}}"#), "no_message_id").await;
    ambiguous(Act::Write(http("500 Oops", SENT)), "contradictory_answer").await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let head =
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: /gewe/v2/api/elsewhere\r\nContent-Length: 0\r\n\r\n";
    check(Act::Write(head.into()), ErrorClass::Ambiguous, "http_redirect").await;
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_is_ambiguous_and_not_repeated() {
    check(Act::Reset, ErrorClass::Ambiguous, "connection_lost").await;
    check(Act::WriteAndClose(String::new()), ErrorClass::Ambiguous, "connection_lost").await;
    check(Act::WriteAndClose("HTTP/1.1 200 OK\r\nContent-".into()), ErrorClass::Ambiguous, "connection_lost")
        .await;
    check(Act::WriteAndClose("not http\r\n\r\n".into()), ErrorClass::Ambiguous, "connection_lost").await;
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"ret\":200";
    check(Act::WriteAndClose(half.into()), ErrorClass::Ambiguous, "answer_incomplete").await;
}

#[tokio::test]
async fn a_kept_connection_that_breaks_upon_the_next_request_gets_that_request_once() {
    for breaks in [Act::Reset, Act::WriteAndClose(String::new())] {
        let server = Server::start([ok(SENT), breaks, ok(SENT)]).await;
        let client = server.client();
        send(&client).await.unwrap();
        let error = send(&client).await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Ambiguous, "connection_lost"));
        assert_eq!((server.requests().len(), server.connections()), (2, 1));
        send(&client).await.unwrap();
        assert_eq!((server.requests().len(), server.connections()), (3, 2));
    }
}

#[tokio::test]
async fn a_call_ends_at_its_own_timeout_wherever_the_answer_hangs() {
    let timeouts = Timeouts { text: Duration::from_millis(500), ..Timeouts::default() };
    for start in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"ret\""] {
        let begun = Instant::now();
        check_within(timeouts, Act::WriteAndHang(start.into()), ErrorClass::Ambiguous, "timeout").await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{start}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_at_the_limit() {
    let known = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    let until_close = "HTTP/1.1 200 OK\r\n\r\n";
    for head in [known, until_close] {
        let server = Server::start([Act::Endless(head.into())]).await;
        // The long timeout of media: it is the limit that must end this.
        let image = serde_json::from_value(json!({"kind": "image", "url": "https://a.example/b"})).unwrap();
        let error = send_message(&server.client(), &image).await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Ambiguous, "answer_too_large"));
        assert_eq!(error.detail.unwrap().len(), 500);
        // What was written beyond the limit had to fit into the buffers of the two sockets.
        assert!(server.seen.lock().unwrap().endless_bytes < 32 * 1024 * 1024);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_was_not_sent_anything() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v2/api", listener.local_addr().unwrap());
    drop(listener);
    let error = send(&client(&base_url)).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::NotSent, "connect_failed"));
    assert!(!error.detail.unwrap().contains("v2/api"), "the address is the operator's affair");

    let error = send(&client("http://gewe.invalid/v2/api")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::NotSent, "{error}");
}

#[tokio::test]
async fn a_failed_handshake_was_not_sent_anything() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://{}/v2/api", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // The client's hello has to be read, or closing would reset the connection before it saw the answer.
        let _ = stream.read(&mut [0; 4096]).await;
    });
    let Ok(client) = client_with(&base_url, Timeouts::default()) else {
        // A machine without any certificates cannot speak TLS at all.
        return;
    };
    let error = send(&client).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::NotSent, "connect_failed"), "{:?}", error.detail);
    server.await.unwrap();
}

#[tokio::test]
async fn a_past_deadline_writes_nothing() {
    let server = Server::start([ok(SENT)]).await;
    let client = server.client();
    let error = client.send(&device(), "wxid_to", &text(), Instant::now(), "t").await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::NotSent, "deadline_before_send"));
    assert_eq!((server.requests().len(), server.connections()), (0, 0));
}

/// Accepts once on a thread of its own, which goes on while the runtime of the test stands still, and returns
/// all that came until the client closed.
fn listen_once() -> (String, std::thread::JoinHandle<Vec<u8>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}/v2/api", listener.local_addr().unwrap());
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    });
    (base_url, reader)
}

#[tokio::test]
async fn a_process_frozen_while_it_connects_writes_nothing_after_its_deadline() {
    let (base_url, reader) = listen_once();
    let (client, device, text) = (client(&base_url), device(), text());
    let mut call = client.send(&device, "wxid_to", &text, Instant::now() + Duration::from_millis(100), "t");
    assert!(futures::poll!(&mut call).is_pending(), "the connection is being made");
    // Blocks the one thread of this runtime, as SIGSTOP would.
    std::thread::sleep(Duration::from_millis(150));
    let error = call.await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::NotSent, "deadline_before_send"));
    drop(client);
    assert_eq!(reader.join().unwrap(), b"", "not even the head");
}

#[tokio::test]
async fn a_process_frozen_with_a_kept_connection_writes_nothing_after_its_deadline() {
    let server = Server::start([ok(SENT), ok(SENT)]).await;
    let (client, device, text) = (server.client(), device(), text());
    send(&client).await.unwrap();
    let mut call = client.send(&device, "wxid_to", &text, Instant::now() + Duration::from_millis(100), "t");
    assert!(futures::poll!(&mut call).is_pending());
    std::thread::sleep(Duration::from_millis(150));
    let error = call.await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::NotSent, "deadline_before_send"));
    send(&client).await.unwrap();
    assert_eq!(server.requests().len(), 2, "the late request never arrived");
}

/// The far end answers from a thread of its own while this one, with the whole client in it, is frozen.
#[tokio::test]
async fn an_answer_that_lay_there_while_the_process_was_frozen_beyond_the_timeout_counts() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("http://{}/gewe/v2/api", listener.local_addr().unwrap());
    let read = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let far_end = std::thread::spawn({
        let read = Arc::clone(&read);
        move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4096];
            while !bytes.windows(5).any(|window| window == b"wxid_") {
                let _ = stream.read(&mut bytes).unwrap();
            }
            read.store(true, std::sync::atomic::Ordering::Release);
            std::thread::sleep(Duration::from_millis(100));
            std::io::Write::write_all(&mut stream, http("200 OK", SENT).as_bytes()).unwrap();
            stream
        }
    });
    let timeouts = Timeouts { text: Duration::from_millis(500), ..Timeouts::default() };
    let client = client_with(&base_url, timeouts).unwrap();
    let freeze = async {
        while !read.load(std::sync::atomic::Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        std::thread::sleep(Duration::from_millis(800));
    };
    let (sent, ()) = tokio::join!(send(&client), freeze);
    assert_eq!(sent.unwrap().new_msg_id, "7300000000000000011");
    drop(far_end.join().unwrap());
}

#[tokio::test]
async fn a_dropped_call_that_was_not_written_never_is() {
    let (base_url, reader) = listen_once();
    let (client, device, text) = (client(&base_url), device(), text());
    let mut call = client.send(&device, "wxid_to", &text, Instant::now() + Duration::from_secs(5), "t");
    assert!(futures::poll!(&mut call).is_pending());
    drop(call);
    drop(client);
    // Lets the connection, which goes on being made without its call, come to its end.
    let reader = tokio::task::spawn_blocking(|| reader.join().unwrap());
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), reader).await.unwrap().unwrap(), b"");
}

#[tokio::test]
async fn a_token_that_fits_no_header_is_a_token_error() {
    let server = Server::start([]).await;
    let device = Device { app_id: "a".into(), token: Secret::new("hunter2\nX: y") };
    let deadline = Instant::now() + Duration::from_secs(5);
    let error = server.client().send(&device, "wxid_to", &text(), deadline, "t").await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Token, "token_malformed"));
    assert!(!format!("{error:?}").contains("hunter2"));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_trace_id_that_fits_no_header_is_left_out() {
    let server = Server::start([ok(SENT)]).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    server.client().send(&device(), "wxid_to", &text(), deadline, "a\r\nb").await.unwrap();
    assert_eq!(header(&server.requests()[0].head, "x-trace-id"), None);
}

#[tokio::test]
async fn check_online_and_set_callback_speak_their_routes() {
    let done = r#"{"ret":200,"msg":"操作成功"}"#;
    let server = Server::start([
        ok(r#"{"ret":200,"msg":"操作成功","data":false}"#),
        ok(done),
        ok(done),
        ok(r#"{"ret":500,"msg":"微信已离线"}"#),
    ])
    .await;
    let client = server.client();
    assert_eq!(client.check_online(&device(), "t").await, Ok(false));
    client.set_callback(&Secret::new(TOKEN), "http://us.example/hook", "t").await.unwrap();
    assert_eq!(client.check_online(&device(), "t").await.unwrap_err().code, "answer_unreadable");
    assert_eq!(client.check_online(&device(), "t").await.unwrap_err().class, ErrorClass::AccountOffline);

    let requests = server.requests();
    assert!(requests[0].head.starts_with("POST /gewe/v2/api/login/checkOnline "));
    assert_eq!(requests[0].body, json!({"appId": "wx_dev"}));
    assert!(requests[1].head.starts_with("POST /gewe/v2/api/login/setCallback "));
    assert_eq!(requests[1].body, json!({"token": TOKEN, "callbackUrl": "http://us.example/hook"}));
}
