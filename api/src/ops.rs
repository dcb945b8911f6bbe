//! For machines that watch over this process: is it up, is it ready, what does it count.

use std::sync::atomic::Ordering;
use std::time::Duration;

use entropy_jobs::redis_health;
use entropy_schema::migrations;
use poem::http::{StatusCode, header};
use poem::web::{Json, Redirect};
use poem::{Response, handler};
use serde_json::json;

use crate::AppState;
use crate::problem::ApiError;

/// How long each store may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process is up.
#[handler]
pub(crate) fn healthz() -> Json<serde_json::Value> {
    Json(json!({"status": "ok"}))
}

/// The way in for people.
#[handler]
pub(crate) fn home() -> Redirect {
    Redirect::temporary("/docs")
}

/// Postgres can be reached and is up to date. Redis is named too (`ok`, `away`, `refuses_writes`, `evicts`), but
/// work is accepted without it.
#[handler]
pub(crate) async fn readyz(request: &poem::Request) -> poem::Result<Response> {
    let state = request.data::<AppState>().ok_or_else(|| ApiError::internal("no state in the request"))?;
    let (missing, redis) = tokio::join!(missing_migrations(state), redis_stands(state));
    let word = |answers| if answers { "ok" } else { "away" };
    let postgres = word(missing.is_some());
    let ready = missing.as_ref().is_some_and(Vec::is_empty);
    let (status, body) = match &missing {
        Some(missing) if !ready => {
            let detail =
                "The database is older than this program; run `entropy migrate` of the same version.";
            ("behind", json!({"missing_migrations": missing, "detail": detail}))
        }
        _ => (postgres, json!({})),
    };
    let mut body = body;
    body["status"] = status.into();
    body["postgres"] = postgres.into();
    body["redis"] = redis.into();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = Response::builder().status(status).content_type("application/json");
    if !ready {
        response = response.header(header::RETRY_AFTER, "2");
    }
    Ok(response.body(body.to_string()))
}

/// Asks Postgres which migrations of this program it lacks. None: no answer. Once it lacks none, that is not asked again.
async fn missing_migrations(state: &AppState) -> Option<Vec<String>> {
    let ask = async {
        let mut conn = state.db.conn().await?;
        if state.migrated.load(Ordering::Relaxed) {
            diesel_async::RunQueryDsl::execute(diesel::sql_query("SELECT 1"), &mut *conn).await?;
            return Ok(Vec::new());
        }
        let missing = migrations::missing(&mut conn).await?;
        state.migrated.store(missing.is_empty(), Ordering::Relaxed);
        Ok::<_, entropy_schema::Error>(missing)
    };
    tokio::time::timeout(PATIENCE, ask).await.ok()?.ok()
}

async fn redis_stands(state: &AppState) -> &'static str {
    let mut redis = state.redis.clone();
    let ask = redis_health::examine(&mut redis, &state.namespace);
    tokio::time::timeout(PATIENCE, ask).await.map_or("away", |health| health.word())
}

/// What this process, the workers and the record count, in Prometheus' text form.
#[handler]
pub(crate) async fn metrics(request: &poem::Request) -> poem::Result<Response> {
    let state = request.data::<AppState>().ok_or_else(|| ApiError::internal("no state in the request"))?;
    let text = crate::metrics::page(state).await;
    Ok(Response::builder().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
