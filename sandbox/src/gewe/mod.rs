//! GeWe's protocol: token, required fields, device, then the call itself.
//!
//! The same routes answer under both prefixes. `routes` says what there is, `answers` how it is
//! answered, `faults` how an answer is spoilt. The order of the checks is:
//! path, method, token, body, fields, device, planned failure, account state, throttle.

mod answers;
mod faults;
mod reads;
mod routes;

use poem::error::ReadBodyError;
use poem::http::Method;
use poem::web::Data;
use poem::{Body, Request, Response, handler};
use serde_json::{Map, Value};
use tokio::time::sleep;

pub(crate) use answers::Refusal;

use crate::Sandbox;
use crate::failures::{Effect, Failure, Mode, Target};
use crate::ledger::{Arrival, Ending};
use answers::Reply;
use reads::Read;
use routes::{Route, SendRoute};

/// The prefix of the hosted service.
pub(crate) const HOSTED_PREFIX: &str = "/gewe/v2/api";

/// The prefix of the image that people host themselves.
pub(crate) const SELF_HOSTED_PREFIX: &str = "/v2/api";

/// The largest body that is read.
const BODY_LIMIT: usize = 2 * 1024 * 1024;

/// A message on its way to the phone.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) token: String,
    pub(crate) app_id: String,
    pub(crate) to_wxid: String,
    pub(crate) route: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) body: Value,
    pub(crate) trace_id: Option<String>,
}

/// Where a token's callbacks are to go.
pub(crate) struct CallbackUrl {
    pub(crate) token: String,
    pub(crate) url: String,
}

/// A call that has passed every check.
enum Command {
    Send(&'static SendRoute, Message),
    CheckOnline(String),
    SetCallback(CallbackUrl),
    Read(Read),
}

/// Answers any call under one of the prefixes.
#[handler]
pub(crate) async fn call(request: &Request, body: Body, Data(sandbox): Data<&Sandbox>) -> Response {
    let bytes = body.into_bytes_limit(BODY_LIMIT).await;
    let too_large = matches!(bytes, Err(ReadBodyError::PayloadTooLarge));
    let body = bytes.ok().and_then(|bytes| serde_json::from_slice::<Map<String, Value>>(&bytes).ok());
    let open = sandbox.begin_call(arrival(request, body.as_ref()));
    let answered = if too_large {
        Err(Reply::body_too_large(request.uri().path()))
    } else {
        answer(sandbox, request, body).await
    };
    let (Ok((reply, _)) | Err(reply)) = &answered;
    tracing::debug!(path = request.uri().path(), outcome = ?reply.outcome, "gewe call");
    match answered {
        Ok((reply, Some(failure))) => {
            let outcome = reply.outcome;
            let shaped = faults::shape(sandbox, request, failure, reply).await;
            let client_gone = sandbox.connections().has_hung_up(request);
            open.finish(Ending { outcome, failure: Some(failure.mode), status: shaped.status, client_gone });
            shaped.response
        }
        Ok((reply, None)) | Err(reply) => {
            open.finish(Ending::answered(reply.outcome, reply.status));
            faults::plain(&reply)
        }
    }
}

/// Finds the answer, and the failure that is to spoil it.
///
/// An `Err` is an answer as well: one that comes before any failure has its turn.
async fn answer(
    sandbox: &Sandbox,
    request: &Request,
    body: Option<Map<String, Value>>,
) -> Result<(Reply, Option<Failure>), Reply> {
    let path = request.uri().path();
    let tail = path.strip_prefix(HOSTED_PREFIX).or_else(|| path.strip_prefix(SELF_HOSTED_PREFIX));
    let route = tail.and_then(Route::find).ok_or_else(|| Reply::not_found(path))?;
    if request.method() != Method::POST {
        return Err(Reply::method_not_allowed(path));
    }
    let command =
        check(sandbox, request, route, body).map_err(|refusal| Reply::refused(&refusal, route.failed()))?;
    if let Command::Read(read) = &command {
        sleep(read.delay(sandbox)).await;
    }
    let Some(failure) = choose_failure(sandbox, request, &command, path)? else {
        return Ok((carry_out(sandbox, command, route), None));
    };
    Ok((carry_out_with(sandbox, request, command, route, failure).await, Some(failure)))
}

fn check(
    sandbox: &Sandbox,
    request: &Request,
    route: Route,
    body: Option<Map<String, Value>>,
) -> Result<Command, Refusal> {
    let token = match request.headers().get("x-gewe-token") {
        None => return Err(Refusal::TokenMissing),
        Some(token) => token.to_str().map_err(|_| Refusal::TokenRefused)?.trim(),
    };
    if token.is_empty() {
        return Err(Refusal::TokenMissing);
    }
    if !sandbox.accepts_token(token) {
        return Err(Refusal::TokenRefused);
    }
    let body = body.ok_or_else(|| Refusal::BadRequest("参数格式错误".to_owned()))?;
    route.check(&body)?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Route::SetCallback = route {
        return Ok(Command::SetCallback(CallbackUrl { token: text("token"), url: text("callbackUrl") }));
    }
    let app_id = text("appId");
    if !sandbox.has_device(&app_id) {
        return Err(Refusal::UnknownDevice(app_id));
    }
    sandbox.note_token(&app_id, token);
    let send = match route {
        Route::Send(send) => send,
        Route::Read(route) => {
            return Ok(Command::Read(Read { route, app_id, body, base: reads::base(request) }));
        }
        Route::CheckOnline | Route::SetCallback => return Ok(Command::CheckOnline(app_id)),
    };
    let message = Message {
        token: token.to_owned(),
        app_id,
        to_wxid: text("toWxid"),
        route: send.path,
        kind: send.kind,
        body: Value::Object(body),
        trace_id: trace_id(request),
    };
    Ok(Command::Send(send, message))
}

fn choose_failure(
    sandbox: &Sandbox,
    request: &Request,
    command: &Command,
    path: &str,
) -> Result<Option<Failure>, Reply> {
    if let Some(value) = request.headers().get("x-sandbox-failure") {
        let value = value.to_str().map_err(|_| Reply::bad_failure_header("not text"))?;
        return Failure::from_header(value).map(Some).map_err(|problem| Reply::bad_failure_header(&problem));
    }
    let (app_id, to_wxid) = match command {
        Command::Send(_, message) => (Some(message.app_id.as_str()), Some(message.to_wxid.as_str())),
        Command::CheckOnline(app_id) => (Some(app_id.as_str()), None),
        Command::Read(read) => (Some(read.app_id.as_str()), None),
        Command::SetCallback(_) => (None, None),
    };
    let route = path.rsplit('/').next().unwrap_or_default();
    let is_send = matches!(command, Command::Send(..));
    Ok(sandbox.take_failure(Target { app_id, to_wxid, route, is_send }))
}

async fn carry_out_with(
    sandbox: &Sandbox,
    request: &Request,
    command: Command,
    route: Route,
    failure: Failure,
) -> Reply {
    if failure.mode == Mode::DelayBeforeAccept {
        if sandbox.connections().wait(request, failure.delay).await.is_err() {
            return Reply::not_accepted(route.failed());
        }
    } else if failure.mode == Mode::LateAccept {
        // Nobody looks whether the client is still there.
        sleep(failure.delay).await;
    }
    match (failure.mode.effect(), command) {
        (Effect::Refuse, _) => refusal_of(failure.mode).map_or_else(
            || Reply::not_accepted(route.failed()),
            |refusal| Reply::refused(&refusal, route.failed()),
        ),
        (Effect::Drop, Command::Send(send, message)) => {
            let to_wxid = message.to_wxid.clone();
            Reply::accepted(send, &to_wxid, sandbox.accept_and_drop(message))
        }
        (Effect::Accept | Effect::Drop, command) => carry_out(sandbox, command, route),
    }
}

fn refusal_of(mode: Mode) -> Option<Refusal> {
    match mode {
        Mode::Offline => Some(Refusal::Offline),
        Mode::Risk => Some(Refusal::Risk),
        Mode::Token => Some(Refusal::TokenRefused),
        Mode::UnknownError => Some(Refusal::UnknownError),
        _ => None,
    }
}

fn carry_out(sandbox: &Sandbox, command: Command, route: Route) -> Reply {
    let done = match command {
        Command::Send(send, message) => {
            let to_wxid = message.to_wxid.clone();
            sandbox.accept(message).map(|receipt| Reply::accepted(send, &to_wxid, receipt))
        }
        Command::CheckOnline(app_id) => {
            sandbox.is_online(&app_id).map(|online| Reply::answered(Some(Value::Bool(online))))
        }
        Command::Read(read) => read.answer(sandbox),
        Command::SetCallback(callback) => {
            sandbox.set_callback(&callback);
            Ok(Reply::answered(None))
        }
    };
    done.unwrap_or_else(|refusal| Reply::refused(&refusal, route.failed()))
}

fn arrival(request: &Request, body: Option<&Map<String, Value>>) -> Arrival {
    let text = |name: &str| body?.get(name)?.as_str().map(str::to_owned);
    Arrival {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        app_id: text("appId"),
        to_wxid: text("toWxid"),
        trace_id: trace_id(request),
    }
}

/// Returns the trace id out of a W3C `traceparent`, or else a bare `x-trace-id`.
fn trace_id(request: &Request) -> Option<String> {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    let from_parent = header("traceparent").and_then(|value| value.split('-').nth(1));
    from_parent.or_else(|| header("x-trace-id")).map(str::to_owned)
}
