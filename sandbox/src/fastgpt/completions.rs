//! One call of the model: checks, the run, and the answer in either form.
//!
//! The order of the checks is: form, key, points, haste, messages, then the script's failure.
//! The run itself is a task of the sandbox, so that it goes on when its client has left.

use std::io::{Error, ErrorKind};
use std::time::{Duration, Instant};

use chrono::Utc;
use futures::stream;
use poem::error::ReadBodyError;
use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{Body, Request, Response, handler};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::chats::Record;
use super::keys::{Caller, Refused};
use super::nodes::{self, Facts};
use super::runs::{Outcome, Run, shown};
use super::scripts::{Fail, Script, friendly};
use super::wire::{self, Said, Step};
use super::{Profile, Settings};
use crate::Sandbox;

/// The largest body that FastGPT takes.
const BODY_LIMIT: usize = 20 * 1024 * 1024;

/// What an app's own prompt adds to every question, in tokens.
const PROMPT_TOKENS: u64 = 200;

/// How long a broken answer rests before it breaks, so that what came before gets out.
const CUT_PAUSE: Duration = Duration::from_millis(20);

const GATEWAY_TIMEOUT: &str = "<html>\r\n<head><title>504 Gateway Time-out</title></head>\r\n<body>\r\n\
    <center><h1>504 Gateway Time-out</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";
const BAD_GATEWAY: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";

/// The fields that matter here; FastGPT minds no others.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ask {
    messages: Value,
    chat_id: Option<String>,
    stream: bool,
    detail: bool,
    response_chat_item_id: Option<String>,
    variables: Value,
    custom_uid: Option<String>,
    app_id: Option<String>,
}

/// A call that passed its checks.
struct Call {
    caller: Caller,
    app_id: String,
    ask: Ask,
    question: String,
    settings: Settings,
    script: Option<Script>,
    is_v2: bool,
    trace_id: Option<String>,
}

/// Answers the first route.
#[handler]
pub(crate) async fn v1(request: &Request, body: Body, Data(sandbox): Data<&Sandbox>) -> Response {
    answer(request, body, sandbox, false).await
}

/// Answers the second route, which tells each node as it ends.
#[handler]
pub(crate) async fn v2(request: &Request, body: Body, Data(sandbox): Data<&Sandbox>) -> Response {
    answer(request, body, sandbox, true).await
}

async fn answer(request: &Request, body: Body, sandbox: &Sandbox, is_v2: bool) -> Response {
    let bytes = match body.into_bytes_limit(BODY_LIMIT).await {
        Ok(bytes) => bytes,
        Err(ReadBodyError::PayloadTooLarge) => {
            return Response::builder()
                .status(StatusCode::PAYLOAD_TOO_LARGE)
                .body("Body exceeded 20mb limit");
        }
        Err(error) => return wire::refuse(&Refused::text(&error.to_string()), false),
    };
    let Ok(ask) = serde_json::from_slice::<Ask>(&bytes) else {
        return Response::builder().status(StatusCode::BAD_REQUEST).body("Invalid JSON");
    };
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let trace_id = header("traceparent").and_then(|value| value.split('-').nth(1)).map(str::to_owned);
    let authorization = header(header::AUTHORIZATION.as_str());
    let stream = ask.stream;
    match check(sandbox, authorization, ask, is_v2, trace_id) {
        Err(refusal) => refusal,
        Ok(call) => {
            tracing::debug!(stream, script = ?call.script.as_ref().map(|script| script.id), "fastgpt call");
            begin(sandbox, request, call).await
        }
    }
}

/// Checks a call, counts it, and takes its script.
fn check(
    sandbox: &Sandbox,
    authorization: Option<&str>,
    ask: Ask,
    is_v2: bool,
    trace_id: Option<String>,
) -> Result<Call, Response> {
    let mut state = sandbox.state();
    let fastgpt = &mut state.fastgpt;
    let settings = fastgpt.settings;
    let refuse = |refused: Refused| wire::refuse(&refused, ask.stream);
    let caller = fastgpt.keys.check(authorization).map_err(refuse)?;
    let app_id = caller.app(ask.app_id.as_deref()).map_err(refuse)?;
    if settings.points_exhausted || caller.exhausted {
        return Err(refuse(Refused::points()));
    }
    fastgpt.admit(Instant::now()).map_err(|seconds| {
        wire::refuse_haste(settings.profile, settings.requests_per_minute.unwrap_or_default(), seconds)
    })?;
    let question = question(&ask.messages).map_err(|problem| refuse(Refused::text(problem)))?;
    let chat_id = ask.chat_id.as_deref().unwrap_or_default();
    let script = fastgpt.scripts.take(&question, &caller.key, chat_id);
    Ok(Call { caller, app_id, ask, question, settings, script, is_v2, trace_id })
}

/// Returns the text of the last message, or what is wrong with the list.
fn question(messages: &Value) -> Result<String, &'static str> {
    let messages = messages.as_array().ok_or("messages is not array")?;
    let last = messages.last().ok_or("messages is empty")?;
    if last["role"] != "user" {
        return Err("User question is empty");
    }
    let text = match &last["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let part = |part: &Value| match part["type"].as_str() {
                Some("text") => part["text"].as_str().map(str::to_owned),
                Some("image_url") => Some("[图片]".to_owned()),
                Some("file_url") => Some(format!("[文件 {}]", part["name"].as_str().unwrap_or_default())),
                _ => None,
            };
            parts.iter().filter_map(part).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    };
    if text.trim().is_empty() { Err("User question is empty") } else { Ok(text) }
}

/// Runs a call that passed its checks, as its script says.
async fn begin(sandbox: &Sandbox, request: &Request, call: Call) -> Response {
    let says = call.script.as_ref().map(|script| script.says.clone()).unwrap_or_default();
    let profile = says.profile.unwrap_or(call.settings.profile);
    let seq = sandbox.state().fastgpt.runs.begin(call.run(profile));
    let refused = Refused {
        code: says.code.unwrap_or(500),
        status_text: says.status_text.clone().unwrap_or_default(),
        message: says.message.clone().unwrap_or_else(|| "网络连接异常".to_owned()),
    };
    let delay = Duration::from_millis(says.delay_ms.unwrap_or(call.settings.delay_ms));
    let stream = call.ask.stream;
    let refusal = match says.fail {
        Some(Fail::Error) => Some(wire::refuse(&refused, stream)),
        Some(Fail::ErrorAsOk) => Some(json_answer(refused.envelope().to_string())),
        Some(Fail::PointsExhausted) => Some(wire::refuse(&Refused::points(), stream)),
        Some(Fail::RateLimit) => {
            Some(wire::refuse_haste(profile, call.settings.requests_per_minute.unwrap_or(60), 30))
        }
        Some(Fail::BadGateway) => Some(page(StatusCode::BAD_GATEWAY, BAD_GATEWAY)),
        Some(Fail::Reset) => {
            sandbox.connections().reset(request);
            Some(Response::default())
        }
        _ => None,
    };
    if let Some(refusal) = refusal {
        sleep(delay).await;
        let status = (says.fail != Some(Fail::Reset)).then_some(refusal.status().as_u16());
        sandbox.state().fastgpt.runs.update(seq, |run| run.finish(Outcome::Refused, status));
        return refusal;
    }
    let said = say(sandbox, &call, profile, delay, refused);
    sandbox.state().fastgpt.runs.update(seq, |run| {
        run.answer = Some(said.answer.clone());
        run.nodes = said.nodes.clone();
    });
    let round = Round { seq, save_after: Duration::from_millis(says.save_after_ms), call, said };
    let answered_at_once =
        matches!(round.said.fail, Some(Fail::GatewayTimeout | Fail::ResetAfterRun | Fail::NotJson));
    if stream && !answered_at_once { streamed(sandbox, round) } else { whole(sandbox, request, round).await }
}

/// Works out what a run says and what its nodes report.
fn say(sandbox: &Sandbox, call: &Call, profile: Profile, delay: Duration, refused: Refused) -> Said {
    let says = call.script.as_ref().map(|script| script.says.clone()).unwrap_or_default();
    let chat_id = call.ask.chat_id.clone().unwrap_or_default();
    let failed = says.fail == Some(Fail::NodeError);
    let answer = match says.answer {
        _ if failed || says.fail == Some(Fail::Empty) => String::new(),
        Some(answer) => answer,
        None => friendly(&call.question),
    };
    let history = sandbox.state().fastgpt.chats.history(&call.app_id, &chat_id) as u64;
    let counted = |text: &str| text.chars().count() as u64;
    let model = says.model.unwrap_or_else(|| "sandbox-chat".to_owned());
    let error = says.message.clone().unwrap_or_else(|| "429 Too Many Requests".to_owned());
    let facts = Facts {
        question: &call.question,
        answer: &answer,
        model: &model,
        input_tokens: says.input_tokens.unwrap_or(PROMPT_TOKENS + history + counted(&call.question)),
        output_tokens: says.output_tokens.unwrap_or(counted(&answer)),
        error: failed.then_some(error.as_str()),
    };
    let nodes = match &says.nodes {
        Some(scripted) => nodes::complete(scripted),
        None => nodes::preset(says.preset, facts),
    };
    Said {
        chat_id,
        nodes: nodes::in_words_of(profile, nodes),
        answer,
        reasoning: says.reasoning,
        interactive: says.interactive,
        tools: says.tools,
        array: says.array,
        fast: says.fast,
        variables: if call.ask.variables.is_object() { call.ask.variables.clone() } else { json!({}) },
        profile,
        detail: call.ask.detail,
        is_v2: call.is_v2,
        delay,
        chunk: Duration::from_millis(says.chunk_ms),
        chunk_chars: says.chunk_chars,
        fail: says.fail,
        refused,
    }
}

/// A run and all that is needed to end it.
struct Round {
    seq: u64,
    save_after: Duration,
    call: Call,
    said: Said,
}

impl Round {
    /// Puts the round into the records, perhaps later than its end.
    fn save(&self, sandbox: &Sandbox, began: Instant) {
        let (seq, later) = (self.seq, self.save_after);
        let (app_id, chat_id) = (self.call.app_id.clone(), self.said.chat_id.clone());
        if chat_id.is_empty() || chat_id == "NO_RECORD_HISTORIES" {
            return;
        }
        let question = Record {
            data_id: format!("q{seq}"),
            is_answer: false,
            value: vec![json!({ "type": "text", "text": { "content": self.call.question } })],
            nodes: Vec::new(),
            seconds: 0.0,
            time: Utc::now(),
            is_waiting: false,
        };
        let answer = Record {
            data_id: self.call.data_id(seq),
            is_answer: true,
            value: wire::items(&self.said),
            nodes: self.said.nodes.clone(),
            seconds: began.elapsed().as_secs_f64(),
            time: Utc::now(),
            is_waiting: self.said.interactive.is_some(),
        };
        let keep = {
            let sandbox = sandbox.clone();
            move || {
                let mut state = sandbox.state();
                state.fastgpt.chats.save(&app_id, &chat_id, question, answer);
                state.fastgpt.runs.update(seq, |run| run.saved = true);
            }
        };
        if later.is_zero() {
            keep();
        } else {
            sandbox.spawn(async move {
                sleep(later).await;
                keep();
            });
        }
    }

    fn finish(&self, sandbox: &Sandbox, outcome: Outcome, status: Option<StatusCode>, client_gone: bool) {
        sandbox.state().fastgpt.runs.update(self.seq, |run| {
            run.client_gone = client_gone;
            run.finish(outcome, status.map(|status| status.as_u16()));
        });
    }
}

/// Answers at once and in one piece, when the run has ended.
async fn whole(sandbox: &Sandbox, request: &Request, round: Round) -> Response {
    let fail = round.said.fail;
    let object = wire::object(&round.said).to_string();
    let error = round.said.refused.clone();
    let (delay, seq) = (round.said.delay, round.seq);
    let hangup = sandbox.connections().hangup(request);
    let (ended, end) = oneshot::channel();
    let task = sandbox.clone();
    sandbox.spawn(async move {
        let began = Instant::now();
        // A proxy that gives up does not wait for the run, which takes as long again.
        sleep(if fail == Some(Fail::GatewayTimeout) { delay * 2 } else { delay }).await;
        if fail != Some(Fail::Hang) {
            round.save(&task, began);
        }
        if fail == Some(Fail::GatewayTimeout) {
            return;
        }
        let client_gone = hangup.is_cancelled();
        let outcome = match fail {
            Some(
                Fail::ResetAfterRun | Fail::Cut | Fail::EndsEarly | Fail::CutBeforeNodes | Fail::NotJson,
            ) => Outcome::Lost,
            Some(Fail::ErrorMidStream) => Outcome::Lost,
            _ if client_gone => Outcome::Lost,
            _ => Outcome::Answered,
        };
        let status = if fail == Some(Fail::ErrorMidStream) {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::OK
        };
        round.finish(&task, outcome, (fail != Some(Fail::ResetAfterRun)).then_some(status), client_gone);
        // Nobody may be there to be told.
        let _ = ended.send(());
    });
    if fail == Some(Fail::GatewayTimeout) {
        sleep(delay).await;
        let status = StatusCode::GATEWAY_TIMEOUT;
        sandbox.state().fastgpt.runs.update(seq, |run| run.finish(Outcome::Lost, Some(status.as_u16())));
        return page(status, GATEWAY_TIMEOUT);
    }
    if fail == Some(Fail::Hang) {
        std::future::pending::<()>().await;
    }
    if end.await.is_err() {
        return Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).finish();
    }
    match fail {
        Some(Fail::ResetAfterRun) => {
            sandbox.connections().reset(request);
            Response::default()
        }
        Some(Fail::NotJson) => json_answer("操作成功".to_owned()),
        Some(Fail::ErrorMidStream) => wire::refuse(&error, false),
        Some(Fail::Cut | Fail::CutBeforeNodes | Fail::EndsEarly) => broken(object),
        _ => json_answer(object),
    }
}

/// Answers piece by piece.
fn streamed(sandbox: &Sandbox, round: Round) -> Response {
    let (sender, receiver) = mpsc::channel(16);
    let task = sandbox.clone();
    sandbox.spawn(async move { play(&task, round, sender).await });
    let body = stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    Response::builder()
        .content_type("text/event-stream;charset=utf-8")
        .header(header::CACHE_CONTROL, "no-cache, no-transform")
        .header("X-Accel-Buffering", "no")
        .body(Body::from_bytes_stream(body))
}

type Pieces = mpsc::Sender<Result<Vec<u8>, Error>>;

/// Goes through the steps of a stream; a client that leaves changes nothing for the run.
async fn play(sandbox: &Sandbox, round: Round, sender: Pieces) {
    let began = Instant::now();
    let mut sender = Some(sender);
    let mut outcome = Outcome::Lost;
    let mut client_gone = false;
    let heartbeat = Duration::from_millis(round.call.settings.heartbeat_ms.max(1));
    for step in wire::steps(&round.said) {
        match step {
            Step::Wait(wait) => {
                let mut rest = wait;
                while rest > heartbeat {
                    sleep(heartbeat).await;
                    rest -= heartbeat;
                    send(&mut sender, &mut client_gone, Ok(round.said.heartbeat().into_bytes())).await;
                }
                sleep(rest).await;
            }
            Step::Send(text) => send(&mut sender, &mut client_gone, Ok(text.into_bytes())).await,
            Step::Save => round.save(sandbox, began),
            Step::Cut => {
                sleep(CUT_PAUSE).await;
                let cut = Error::new(ErrorKind::UnexpectedEof, "cut as planned");
                send(&mut sender, &mut client_gone, Err(cut)).await;
                round.finish(sandbox, Outcome::Lost, Some(StatusCode::OK), client_gone);
                sender = None;
            }
            Step::End => {
                if !client_gone && !matches!(round.said.fail, Some(Fail::EndsEarly | Fail::ErrorMidStream)) {
                    outcome = Outcome::Answered;
                }
                round.finish(sandbox, outcome, Some(StatusCode::OK), client_gone);
                sender = None;
            }
        }
    }
}

async fn send(sender: &mut Option<Pieces>, client_gone: &mut bool, piece: Result<Vec<u8>, Error>) {
    if let Some(pieces) = sender
        && pieces.send(piece).await.is_err()
    {
        *client_gone = true;
        *sender = None;
    }
}

/// Announces the whole answer and breaks off in its middle.
fn broken(text: String) -> Response {
    let length = text.len();
    let half = text.into_bytes().into_iter().take(length / 2).collect::<Vec<_>>();
    let parts = stream::unfold(Some(half), |half| async move {
        match half {
            Some(half) if !half.is_empty() => Some((Ok(half), Some(Vec::new()))),
            _ => {
                sleep(CUT_PAUSE).await;
                Some((Err(Error::new(ErrorKind::UnexpectedEof, "cut as planned")), None))
            }
        }
    });
    Response::builder()
        .content_type("application/json; charset=utf-8")
        .header(header::CONTENT_LENGTH, length)
        .body(Body::from_bytes_stream(parts))
}

fn json_answer(text: String) -> Response {
    Response::builder().content_type("application/json; charset=utf-8").body(text)
}

fn page(status: StatusCode, html: &'static str) -> Response {
    Response::builder().status(status).content_type("text/html").body(html)
}

impl Call {
    fn data_id(&self, seq: u64) -> String {
        let sent = self.ask.response_chat_item_id.clone().filter(|id| !id.is_empty());
        sent.unwrap_or_else(|| format!("sandboxItem{seq:013}"))
    }

    fn run(&self, profile: Profile) -> Run {
        let now = Utc::now();
        let characters = self.caller.key.chars().count();
        Run {
            seq: 0,
            app_id: self.app_id.clone(),
            key_end: self.caller.key.chars().skip(characters.saturating_sub(4)).collect(),
            chat_id: self.ask.chat_id.clone().unwrap_or_default(),
            data_id: self.ask.response_chat_item_id.clone().unwrap_or_default(),
            custom_uid: self.ask.custom_uid.clone(),
            stream: self.ask.stream,
            detail: self.ask.detail,
            profile,
            question: self.question.clone(),
            messages: self.ask.messages.clone(),
            variables: self.ask.variables.clone(),
            trace_id: self.trace_id.clone(),
            script: self.script.as_ref().map(|script| script.id),
            answer: None,
            nodes: Vec::new(),
            outcome: Outcome::Running,
            http_status: None,
            saved: false,
            client_gone: false,
            started_at: shown(now),
            started_at_us: now.timestamp_micros(),
            finished_at: None,
            finished_at_us: None,
        }
    }
}
