//! The switches of the FastGPT half, under `/_sandbox/fastgpt`.

use poem::http::StatusCode;
use poem::web::{Data, Json, Query};
use poem::{Body, IntoResponse, Response, Route, get, handler, put};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Settings;
use super::keys::Key;
use super::scripts::NewScript;
use crate::Sandbox;
use crate::control::{BadRequest, read};

pub(crate) fn routes() -> Route {
    Route::new()
        .at("/scripts", get(list_scripts).post(add_script).delete(clear_scripts))
        .at("/runs", get(list_runs))
        .at("/settings", get(show_settings).put(set_settings))
        .at("/keys", put(set_keys))
}

/// Adds a script; answers 201 with it.
#[handler]
async fn add_script(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Response> {
    let new: NewScript = read(body).await?;
    let script = sandbox.state().fastgpt.scripts.add(new).map_err(BadRequest)?;
    Ok(Json(script).with_status(StatusCode::CREATED).into_response())
}

/// Lists the scripts that are still in force.
#[handler]
fn list_scripts(Data(sandbox): Data<&Sandbox>) -> Json<Value> {
    Json(json!({ "items": sandbox.state().fastgpt.scripts.list() }))
}

#[handler]
fn clear_scripts(Data(sandbox): Data<&Sandbox>) -> StatusCode {
    sandbox.state().fastgpt.scripts.clear();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunsQuery {
    chat_id: Option<String>,
    /// Lists what came after that `seq`.
    since: Option<u64>,
    limit: Option<usize>,
}

/// Lists the runs, oldest first.
#[handler]
fn list_runs(Data(sandbox): Data<&Sandbox>, Query(query): Query<RunsQuery>) -> Json<Value> {
    let limit = query.limit.unwrap_or(10_000).min(100_000);
    let chat_id = query.chat_id.as_deref();
    let (items, total) = sandbox.state().fastgpt.runs.list(chat_id, query.since.unwrap_or(0), limit);
    Json(json!({ "items": items, "total": total }))
}

#[handler]
fn show_settings(Data(sandbox): Data<&Sandbox>) -> Json<Settings> {
    Json(sandbox.state().fastgpt.settings)
}

/// Replaces all settings; an absent one is as at the start.
#[handler]
async fn set_settings(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Json<Settings>> {
    let settings: Settings = read(body).await?;
    sandbox.state().fastgpt.settings = settings;
    Ok(Json(settings))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKeys {
    items: Vec<Key>,
}

/// Replaces the keys that exist; an empty list lets every well-formed key in again.
#[handler]
async fn set_keys(Data(sandbox): Data<&Sandbox>, body: Body) -> poem::Result<Json<Value>> {
    let NewKeys { items } = read(body).await?;
    let mut state = sandbox.state();
    state.fastgpt.keys.set(items);
    Ok(Json(json!({ "keys": state.fastgpt.keys.len() })))
}
