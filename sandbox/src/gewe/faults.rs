//! How each failure mode looks on the wire.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use futures::stream;
use poem::http::{StatusCode, header};
use poem::{Body, Request, Response};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::answers::Reply;
use crate::Sandbox;
use crate::failures::{Failure, Mode};
use crate::gzip;

/// Larger than any limit that a client would set at 10 MiB.
const HUGE: usize = 11 * 1024 * 1024;

/// How long a truncated answer rests before it breaks, so that its first half gets out.
const TRUNCATION_PAUSE: Duration = Duration::from_millis(20);

/// More than the hundred headers that HTTP clients commonly take.
const FLOOD: usize = 500;

/// How often an echoing refusal repeats the token.
const ECHOES: usize = 200;

/// What GeWe's own transport was seen to say, in the words of Go.
const UPSTREAM_LOST: &str =
    r#"{"ret":500,"msg":"发送消息失败","data":{"code":"-1","msg":"Post \"http://10.0.0.7:8080/api\": EOF"}}"#;

const BAD_GATEWAY: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";

/// What a client gets, and whether that includes an answer at all.
pub(crate) struct Shaped {
    pub(crate) response: Response,
    /// `None` if the connection is reset instead, or the client has hung up.
    pub(crate) status: Option<StatusCode>,
}

/// Turns an answer into what the failure makes of it, after the delay it asks for.
///
/// The delay before acceptance lies behind us here; a drip spends its delay between bytes.
pub(crate) async fn shape(sandbox: &Sandbox, request: &Request, failure: Failure, reply: Reply) -> Shaped {
    let spent = matches!(
        failure.mode,
        Mode::DelayBeforeAccept | Mode::LateAccept | Mode::SlowDrip | Mode::EndlessDrip
    );
    let connections = sandbox.connections();
    let waited = if spent { Ok(()) } else { connections.wait(request, failure.delay).await };
    if waited.is_err() || connections.has_hung_up(request) {
        return Shaped { response: Response::default(), status: None };
    }
    let json = reply.envelope.to_string();
    let response = match failure.mode {
        Mode::ResetBeforeAccept | Mode::ResetAfterAccept => {
            connections.reset(request);
            return Shaped { response: Response::default(), status: None };
        }
        Mode::TruncatedBody => truncated(json),
        Mode::SlowDrip => drip(json, failure.delay),
        Mode::EndlessDrip => endless(failure.delay),
        Mode::EmptyAnswer => Response::builder().status(StatusCode::NO_CONTENT).finish(),
        Mode::HugeGarbage => content("application/json", "熵".repeat(HUGE / "熵".len())).finish(),
        Mode::GzipBody => Response::builder()
            .content_type("application/json")
            .header(header::CONTENT_ENCODING, "gzip")
            .body(gzip::wrap(json.as_bytes())),
        Mode::HeaderFlood => flooded(json),
        Mode::NoMessageId => content("application/json", r#"{"ret":200,"msg":"操作成功"}"#).finish(),
        Mode::UnstorableId => content("application/json", unstorable(reply.envelope)).finish(),
        Mode::UpstreamLost => content("application/json", UPSTREAM_LOST).finish(),
        Mode::EchoingRefusal => content("application/json", echo(request, reply.envelope)).finish(),
        Mode::BadGatewayHtml | Mode::BadGatewayHtmlAfterAccept => {
            content("text/html", BAD_GATEWAY).status(StatusCode::BAD_GATEWAY).finish()
        }
        Mode::NotJson => content("application/json", "操作成功").finish(),
        Mode::HugeBody => content("application/json", padded(&json)).finish(),
        Mode::WrongContentType => content("text/html;charset=UTF-8", json).finish(),
        Mode::Redirect => Response::builder()
            .status(StatusCode::FOUND)
            .header(header::LOCATION, format!("http://{}/_sandbox/redirect-target", local_address(request)))
            .finish(),
        Mode::RedirectToItself => Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(header::LOCATION, request.uri().path())
            .finish(),
        Mode::ServerErrorEnvelope => {
            content("application/json", json).status(StatusCode::INTERNAL_SERVER_ERROR).finish()
        }
        Mode::DelayAfterAccept
        | Mode::DelayBeforeAccept
        | Mode::LateAccept
        | Mode::Offline
        | Mode::Risk
        | Mode::Token
        | Mode::UnknownError
        | Mode::SilentDrop => content("application/json", json).status(reply.status).finish(),
    };
    Shaped { status: Some(response.status()), response }
}

/// Writes an answer as it is.
pub(crate) fn plain(reply: &Reply) -> Response {
    content("application/json", reply.envelope.to_string()).status(reply.status).finish()
}

struct Content {
    content_type: &'static str,
    body: Body,
    status: StatusCode,
}

fn content(content_type: &'static str, body: impl Into<Body>) -> Content {
    Content { content_type, body: body.into(), status: StatusCode::OK }
}

impl Content {
    fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    fn finish(self) -> Response {
        Response::builder().status(self.status).content_type(self.content_type).body(self.body)
    }
}

/// The whole answer, behind so much padding that it should not be read to its end.
fn padded(json: &str) -> String {
    let padding = "x".repeat(HUGE);
    let rest = json.strip_prefix('{').unwrap_or(json);
    format!("{{\"padding\":\"{padding}\",{rest}")
}

/// Announces the whole answer and breaks off in its middle.
fn truncated(json: String) -> Response {
    let length = json.len();
    let half = json.into_bytes().into_iter().take(length / 2).collect::<Vec<_>>();
    let parts = stream::unfold(Some(half), move |half| async move {
        match half {
            Some(half) if !half.is_empty() => Some((Ok(half), Some(Vec::new()))),
            _ => {
                sleep(TRUNCATION_PAUSE).await;
                Some((Err(Error::new(ErrorKind::UnexpectedEof, "truncated as planned")), None))
            }
        }
    });
    streamed(length, Body::from_bytes_stream(parts))
}

fn drip(json: String, gap: Duration) -> Response {
    let length = json.len();
    let bytes = stream::unfold(json.into_bytes().into_iter(), move |mut rest| async move {
        let byte = rest.next()?;
        sleep(gap).await;
        Some((Ok::<_, Error>(vec![byte]), rest))
    });
    streamed(length, Body::from_bytes_stream(bytes))
}

/// Blanks for ever, which no reader of JSON minds.
fn endless(gap: Duration) -> Response {
    let blanks = stream::unfold((), move |()| async move {
        sleep(gap).await;
        Some((Ok::<_, Error>(vec![b' ']), ()))
    });
    Response::builder().content_type("application/json").body(Body::from_bytes_stream(blanks))
}

fn flooded(json: String) -> Response {
    let flood = (0..FLOOD)
        .fold(Response::builder(), |answer, n| answer.header(format!("x-flood-{n}"), "x".repeat(200)));
    flood.content_type("application/json").body(json)
}

/// Ids with a character that databases refuse in a text.
fn unstorable(mut envelope: Value) -> String {
    if let Some(data) = envelope.get_mut("data").and_then(Value::as_object_mut) {
        data.insert("newMsgId".to_owned(), json!("73\0\u{feff}00"));
        data.insert("msgId".to_owned(), json!("\0"));
    }
    envelope.to_string()
}

/// A refusal with all that must not be kept: the token, control characters, and far too much of both.
fn echo(request: &Request, mut envelope: Value) -> String {
    let token =
        request.headers().get("x-gewe-token").and_then(|token| token.to_str().ok()).unwrap_or_default();
    envelope["data"]["echo"] = json!(format!("{token}\0\r\n").repeat(ECHOES));
    envelope.to_string()
}

fn streamed(length: usize, body: Body) -> Response {
    Response::builder().content_type("application/json").header(header::CONTENT_LENGTH, length).body(body)
}

/// The address this very connection came in on: private wherever a sandbox is of use.
fn local_address(request: &Request) -> String {
    request.local_addr().as_socket_addr().map_or_else(|| "127.0.0.1".to_owned(), ToString::to_string)
}
