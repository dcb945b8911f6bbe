//! The switches and the ledger, under `/_sandbox`.
//!
//! Bodies are read as JSON whatever their content type, so that a bare `curl -d` works.
//! Everything wrong in a request is a 400 with an `error` that says what.

use chrono::{DateTime, Utc};
use poem::http::StatusCode;
use poem::web::{Data, Json, Path, Query};
use poem::{Body, IntoResponse, Request, Response, Route, get, handler, post, put};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Sandbox;
use crate::accounts::{AccountState, Throttle};
use crate::books::Book;
use crate::customer;
use crate::failures::NewPlan;
use crate::fastgpt;
use crate::ledger::{Arrival, Ending, Filter, Outcome, Since};
use crate::media::{self, MediaMode};
use crate::mix::NewMix;

const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// Of a flood or an address book.
const LARGE_BODY_LIMIT: usize = 32 * 1024 * 1024;
const DEFAULT_LIMIT: usize = 10_000;
const MAX_LIMIT: usize = 100_000;

pub(crate) fn routes() -> Route {
    Route::new()
        .at("/ledger", get(list_ledger))
        .at("/calls", get(list_calls))
        .at("/reset", post(reset))
        .at("/accounts", get(list_accounts))
        .at("/accounts/:app_id", put(set_account))
        .at("/callbacks", get(list_callbacks).post(set_callback))
        .at("/failures", get(list_failures).post(plan_failure).delete(clear_failures))
        .at("/failures/mix", post(plan_mix))
        .at("/throttle", get(show_throttle).put(set_throttle))
        .at("/redirect-target", redirect_target)
        .at("/books/:app_id", get(show_book).put(set_book))
        .at("/media", put(set_media))
        .at("/media/:name", get(media::download))
        .nest("/customer", customer::control_routes())
        .nest("/fastgpt", fastgpt::control_routes())
}

/// A request that makes no sense, and why.
pub(crate) struct BadRequest(pub(crate) String);

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        Json(json!({ "error": self.0 })).with_status(StatusCode::BAD_REQUEST).into_response()
    }
}

impl From<BadRequest> for poem::Error {
    fn from(bad: BadRequest) -> Self {
        Self::from_response(bad.into_response())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    app_id: Option<String>,
    to_wxid: Option<String>,
    /// A number lists what came after that `seq`, an RFC 3339 time what came from then on.
    since: Option<String>,
    limit: Option<usize>,
    /// `true` (the default), `false` for what was dropped in silence, or `all`. Ledger only.
    delivered: Option<String>,
}

impl ListQuery {
    fn read(self) -> Result<(Filter, usize), BadRequest> {
        let since = self.since.as_deref().map(parse_since).transpose()?;
        let delivered = match self.delivered.as_deref() {
            None | Some("true") => Some(true),
            Some("false") => Some(false),
            Some("all") => None,
            Some(other) => {
                return Err(BadRequest(format!("delivered must be true, false or all, not `{other}`")));
            }
        };
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
        Ok((Filter { app_id: self.app_id, to_wxid: self.to_wxid, since, delivered }, limit))
    }
}

fn parse_since(text: &str) -> Result<Since, BadRequest> {
    if let Ok(seq) = text.parse() {
        return Ok(Since::Seq(seq));
    }
    DateTime::parse_from_rfc3339(text)
        .map(|time| Since::Time(time.with_timezone(&Utc)))
        .map_err(|_| BadRequest("since must be a seq or an RFC 3339 time (write + as %2B)".to_owned()))
}

/// Lists what the phone received, oldest first; `total` counts all that match, beyond `limit` too.
#[handler]
fn list_ledger(Data(sandbox): Data<&Sandbox>, Query(query): Query<ListQuery>) -> poem::Result<Json<Value>> {
    let (filter, limit) = query.read()?;
    // The lock is free again before anything is written out.
    let (items, total) = sandbox.state().ledger.entries(&filter, limit);
    let items: Vec<_> = items.iter().map(AsRef::as_ref).collect();
    Ok(Json(json!({ "items": items, "total": total })))
}

/// Lists every call to the GeWe half, oldest first, with counters by account.
#[handler]
fn list_calls(Data(sandbox): Data<&Sandbox>, Query(query): Query<ListQuery>) -> poem::Result<Json<Value>> {
    let (filter, limit) = query.read()?;
    let (items, total, counts) = {
        let state = sandbox.state();
        let (items, total) = state.ledger.calls(&filter, limit);
        (items, total, state.ledger.counts())
    };
    Ok(Json(json!({ "items": items, "total": total, "by_app_id": counts })))
}

/// Empties the ledger, the calls, the failures, the accounts, the throttle and the callbacks.
///
/// A call that is under way finishes; if it is accepted later, it lands in the new ledger.
#[handler]
fn reset(Data(sandbox): Data<&Sandbox>) -> Json<Value> {
    let mut state = sandbox.state();
    state.ledger.clear();
    state.failures.clear();
    state.accounts = Default::default();
    state.callbacks.clear();
    state.fastgpt.reset();
    state.customer.reset();
    state.books = Default::default();
    state.media = Default::default();
    Json(json!({ "reset": true }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccount {
    state: Option<AccountState>,
    /// Its id in WeChat, which callbacks name.
    wxid: Option<String>,
    /// Whose callback address is its own.
    token: Option<String>,
}

#[handler]
async fn set_account(
    Data(sandbox): Data<&Sandbox>,
    Path(app_id): Path<String>,
    body: Body,
) -> poem::Result<Json<Value>> {
    let new: NewAccount = read(body).await?;
    let mut sandbox = sandbox.state();
    let accounts = &mut sandbox.accounts;
    if new.state.is_none() && new.wxid.is_none() && new.token.is_none() {
        return Err(BadRequest("state, wxid or token is needed".to_owned()).into());
    }
    accounts.set_state(&app_id, new.state.unwrap_or_else(|| accounts.state(&app_id)));
    if let Some(wxid) = &new.wxid {
        accounts.set_wxid(&app_id, wxid);
    }
    if let Some(token) = &new.token {
        accounts.set_token(&app_id, token);
    }
    Ok(Json(json!({ "app_id": app_id, "state": accounts.state(&app_id), "wxid": accounts.wxid(&app_id) })))
}

#[handler]
fn list_accounts(Data(sandbox): Data<&Sandbox>) -> Json<Value> {
    let state = sandbox.state();
    let items: Vec<_> =
        state.accounts.states().map(|(app_id, state)| json!({ "app_id": app_id, "state": state })).collect();
    Json(json!({ "items": items }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCallback {
    /// Absent: of every token that has none of its own.
    token: Option<String>,
    url: String,
}

/// Sets a callback address, without the probe that setCallback makes.
#[handler]
async fn set_callback(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Json<Value>> {
    let new: NewCallback = read(body).await?;
    let token = new.token.unwrap_or_else(|| "*".to_owned());
    sandbox.state().callbacks.insert(token.clone(), new.url.clone());
    Ok(Json(json!({ "token": token, "callback_url": new.url })))
}

#[handler]
async fn set_book(
    Data(sandbox): Data<&Sandbox>,
    Path(app_id): Path<String>,
    body: Body,
) -> poem::Result<Json<Value>> {
    let book: Book = read_large(body).await?;
    let counts =
        json!({ "friends": book.friends.len(), "groups": book.groups.len(), "labels": book.labels.len() });
    sandbox.state().books.set(&app_id, book);
    Ok(Json(counts))
}

#[handler]
fn show_book(Data(sandbox): Data<&Sandbox>, Path(app_id): Path<String>) -> Json<Value> {
    Json(json!(sandbox.state().books.get(&app_id)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMediaMode {
    mode: MediaMode,
}

/// Says how downloads go of media that say nothing themselves.
#[handler]
async fn set_media(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Json<Value>> {
    let NewMediaMode { mode } = read(body).await?;
    sandbox.state().media.mode = mode;
    Ok(Json(json!({ "mode": mode })))
}

#[handler]
fn list_callbacks(Data(sandbox): Data<&Sandbox>) -> Json<Value> {
    let state = sandbox.state();
    let items: Vec<_> =
        state.callbacks.iter().map(|(token, url)| json!({ "token": token, "callback_url": url })).collect();
    Json(json!({ "items": items }))
}

/// Plans a failure; answers 201 with the plan.
#[handler]
async fn plan_failure(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Response> {
    let new: NewPlan = read(body).await?;
    let plan = sandbox.state().failures.add(new).map_err(BadRequest)?;
    Ok(Json(plan).with_status(StatusCode::CREATED).into_response())
}

/// Plans a mix of failures, in force until the failures are cleared; answers 201 with its seed.
#[handler]
async fn plan_mix(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Response> {
    let new: NewMix = read(body).await?;
    let mix = new.shuffle().map_err(BadRequest)?;
    let seed = mix.seed();
    sandbox.state().failures.add_mix(mix);
    Ok(Json(json!({ "seed": seed })).with_status(StatusCode::CREATED).into_response())
}

/// Lists the plans that are still in force.
#[handler]
fn list_failures(Data(sandbox): Data<&Sandbox>) -> Json<Value> {
    Json(json!({ "items": sandbox.state().failures.plans() }))
}

#[handler]
fn clear_failures(Data(sandbox): Data<&Sandbox>) -> StatusCode {
    sandbox.state().failures.clear();
    StatusCode::NO_CONTENT
}

#[handler]
fn show_throttle(Data(sandbox): Data<&Sandbox>) -> Json<Throttle> {
    Json(sandbox.state().accounts.throttle())
}

/// Replaces all three limits; an absent one is off.
#[handler]
async fn set_throttle(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Json<Throttle>> {
    let throttle = read(body).await?;
    sandbox.state().accounts.set_throttle(throttle);
    Ok(Json(throttle))
}

/// Notes that a client came here, where only the `redirect` failure sends one.
#[handler]
fn redirect_target(request: &Request, Data(sandbox): Data<&Sandbox>) -> Json<Value> {
    let arrival = Arrival {
        method: request.method().to_string(),
        path: request.original_uri().path().to_owned(),
        app_id: None,
        to_wxid: None,
        trace_id: None,
    };
    sandbox.begin_call(arrival).finish(Ending::answered(Outcome::RedirectFollowed, StatusCode::OK));
    Json(json!({ "error": "a client must not follow redirects of GeWe" }))
}

/// Reads a body as JSON, whatever it calls itself.
pub(crate) async fn read<T: DeserializeOwned>(body: Body) -> Result<T, BadRequest> {
    read_limited(body, BODY_LIMIT).await
}

/// The same for bodies that may be large.
pub(crate) async fn read_large<T: DeserializeOwned>(body: Body) -> Result<T, BadRequest> {
    read_limited(body, LARGE_BODY_LIMIT).await
}

async fn read_limited<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, BadRequest> {
    let bytes = body.into_bytes_limit(limit).await.map_err(|error| BadRequest(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| BadRequest(error.to_string()))
}
