//! For machines that watch over this process: is it up, is it ready, what does it count.

use std::time::Duration;

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

/// Postgres can be reached. Redis is named too, but work is accepted without it.
#[handler]
pub(crate) async fn readyz(request: &poem::Request) -> poem::Result<Response> {
    let state = request.data::<AppState>().ok_or_else(|| ApiError::internal("no state in the request"))?;
    let (postgres, redis) = tokio::join!(postgres_answers(state), redis_answers(state));
    let word = |answers| if answers { "ok" } else { "away" };
    let status = if postgres { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"status": word(postgres), "postgres": word(postgres), "redis": word(redis)});
    let mut response = Response::builder().status(status).content_type("application/json");
    if !postgres {
        response = response.header(header::RETRY_AFTER, "2");
    }
    Ok(response.body(body.to_string()))
}

async fn postgres_answers(state: &AppState) -> bool {
    let ask = async {
        let mut conn = state.db.conn().await?;
        diesel_async::RunQueryDsl::execute(diesel::sql_query("SELECT 1"), &mut *conn).await?;
        Ok::<_, entropy_schema::Error>(())
    };
    matches!(tokio::time::timeout(PATIENCE, ask).await, Ok(Ok(())))
}

async fn redis_answers(state: &AppState) -> bool {
    let mut redis = state.redis.clone();
    let ask = async move { redis::cmd("PING").query_async::<String>(&mut redis).await };
    matches!(tokio::time::timeout(PATIENCE, ask).await, Ok(Ok(_)))
}

/// What this process, the workers and the record count, in Prometheus' text form.
#[handler]
pub(crate) async fn metrics(request: &poem::Request) -> poem::Result<Response> {
    let state = request.data::<AppState>().ok_or_else(|| ApiError::internal("no state in the request"))?;
    let text = crate::metrics::page(state).await;
    Ok(Response::builder().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
