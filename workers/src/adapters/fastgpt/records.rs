//! Finding a run whose answer was lost, in the chat's records.
//!
//! Only reads, so it may be repeated. An empty answer says nothing: up to 4.12 a run is in the records only when it is
//! over, and the record of an answer to a question back never has the name that we gave it.

use std::time::Instant;

use entropy_jobs::ai::port::{AiError, App, ErrorClass, Found};
use reqwest::header::{ACCEPT, HeaderMap};
use reqwest::{StatusCode, Url};
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::Words;
use super::client::{FastGptClient, headers};
use super::errors::{self, Envelope};
use super::nodes::{self, Kept};
use super::reading::{self, MAX_ANSWER_BYTES};
use super::request::item_id;

/// The folders of the records, the documented one first; newer versions have moved them.
const FAMILIES: [&str; 2] = ["/core/chat", "/core/chat/record"];

/// How many records are looked at for the text: the newest ones.
const PAGE: usize = 30;

/// Looks for one run.
pub(super) async fn look_up(
    client: &FastGptClient,
    app: &App,
    chat_id: &str,
    run_id: Uuid,
    trace_id: &str,
) -> Result<Found, AiError> {
    let Some(app_id) = app.app_id.as_deref().filter(|id| !id.is_empty()) else { return Ok(Found::Nothing) };
    let headers = headers(app, trace_id, run_id)?;
    let item = item_id(run_id);
    let looking = search(client, app, app_id, chat_id, &item, headers);
    match tokio::time::timeout(client.look_up_time(), looking).await {
        Ok(found) => found,
        Err(_) => Err(unanswered(errors::timed_out_after_writing())),
    }
}

async fn search(
    client: &FastGptClient,
    app: &App,
    app_id: &str,
    chat_id: &str,
    item: &str,
    headers: HeaderMap,
) -> Result<Found, AiError> {
    let (endpoint, http) = client.target(app)?;
    for family in FAMILIES {
        let mut url = Url::parse(&endpoint.route(&format!("{family}/getResData")))
            .map_err(|_| errors::bad_endpoint())?;
        url.query_pairs_mut()
            .append_pair("appId", app_id)
            .append_pair("chatId", chat_id)
            .append_pair("dataId", item);
        let request = http.get(url).headers(headers.clone()).header(ACCEPT, "application/json");
        let Some(results) = data_of(request).await? else { continue };
        let results = results.as_array().map(Vec::as_slice).unwrap_or_default();
        let nodes = Kept::all(results);
        if nodes.is_empty() {
            return Ok(Found::Nothing);
        }
        let request = http
            .post(endpoint.route(&format!("{family}/getPaginationRecords")))
            .headers(headers)
            .header(ACCEPT, "application/json")
            .json(&json!({ "appId": app_id, "chatId": chat_id, "offset": 0, "pageSize": PAGE }));
        let records = data_of(request).await?.unwrap_or_default();
        let record = record_of(&records, item);
        let mut words = Words::default();
        if let Some(value) = record.and_then(|record| record.get("value")) {
            words.content(value);
        }
        let said = record.and_then(|record| record.get("errorMsg")).and_then(nodes::error_text);
        let node_error = nodes::error_in(nodes.as_slice()).or(said);
        return Ok(Found::Ran(reading::answer(words, nodes, node_error, Instant::now())));
    }
    Err(unanswered(errors::foreign(StatusCode::NOT_FOUND)))
}

/// Returns the AI's record of that name.
fn record_of<'a>(records: &'a Value, item: &str) -> Option<&'a Value> {
    let list = records.get("list").or_else(|| records.get("history")).and_then(Value::as_array)?;
    list.iter().rev().find(|record| {
        record.get("dataId").and_then(Value::as_str) == Some(item)
            && record.get("obj").and_then(Value::as_str).is_none_or(|who| who == "AI")
    })
}

/// Makes one call and opens the envelope. None: there is no such route.
async fn data_of(request: reqwest::RequestBuilder) -> Result<Option<Value>, AiError> {
    let mut response = request.send().await.map_err(|_| unanswered(errors::incomplete()))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| unanswered(errors::incomplete()))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(unanswered(errors::too_long()));
        }
        body.extend_from_slice(&chunk);
    }
    if let Some(error) = errors::of_status(status) {
        return Err(unanswered(error));
    }
    let mut envelope: Value = match serde_json::from_slice(&body) {
        Ok(envelope) => envelope,
        Err(_) if status == StatusCode::NOT_FOUND => return Ok(None),
        Err(_) => return Err(unanswered(errors::foreign(status))),
    };
    let read = Envelope::of(&envelope);
    if status.is_success() && read.is_success() {
        return Ok(Some(envelope.get_mut("data").map(Value::take).unwrap_or_default()));
    }
    if status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    Err(unanswered(read.error(false, None)))
}

/// A question that brought nothing says nothing about the run, least of all that it did not happen.
fn unanswered(mut error: AiError) -> AiError {
    if matches!(error.class, ErrorClass::NotRun | ErrorClass::Failed) {
        error.class = ErrorClass::Ambiguous;
    }
    if error.class == ErrorClass::Ambiguous {
        error.message = "FastGPT's records could not be read; the run's outcome is still unknown".to_owned();
    }
    error
}
