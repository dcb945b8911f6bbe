//! Queues: what the organisation has in them, pause and resume.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::{queues, views};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::origin::Origin;
use crate::problem::ApiError;

/// What the organisation has in a queue. Counts are up to two seconds old and stop at a million.
#[derive(Debug, Object)]
struct QueueView {
    name: String,
    /// The organisation has paused it for itself.
    paused: bool,
    paused_at: Option<DateTime<Utc>>,
    /// Jobs that wait for the time they were asked for.
    scheduled: i64,
    /// Jobs that may run.
    available: i64,
    /// Jobs that a worker has.
    running: i64,
    /// Jobs that wait for a retry.
    retryable: i64,
    /// Jobs that cannot go on by themselves; stops at ten thousand.
    dead: i64,
    /// How long the first available job has waited, in seconds; null if there is none.
    oldest_available_age_s: Option<f64>,
}

/// All queues.
#[derive(Debug, Object)]
struct QueuesView {
    items: Vec<QueueView>,
}

/// Queues.
pub(super) struct Queues;

#[OpenApi(tag = "Tag::Operations")]
impl Queues {
    /// Lists the queues
    ///
    /// With what the organisation has in each, by state, and how long the first has waited.
    #[oai(path = "/queues", method = "get", operation_id = "list_queues")]
    async fn list(&self, state: Data<&AppState>, caller: Caller) -> Result<Json<QueuesView>, ApiError> {
        Ok(Json(QueuesView { items: read(&state, caller.organization_id).await? }))
    }

    /// Pauses a queue
    ///
    /// Needs the role manager. For the caller's organisation only. In force for every message whose call has not begun.
    #[oai(path = "/queues/:name/pause", method = "post", operation_id = "pause_queue")]
    async fn pause(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        name: Path<String>,
    ) -> Result<Json<QueueView>, ApiError> {
        set(&state, &caller, &origin, &name.0, true).await
    }

    /// Resumes a queue
    ///
    /// Needs the role manager. Everything that waited for it may run at once.
    #[oai(path = "/queues/:name/resume", method = "post", operation_id = "resume_queue")]
    async fn resume(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        name: Path<String>,
    ) -> Result<Json<QueueView>, ApiError> {
        set(&state, &caller, &origin, &name.0, false).await
    }
}

async fn set(
    state: &AppState,
    caller: &Caller,
    origin: &Origin,
    name: &str,
    pause: bool,
) -> Result<Json<QueueView>, ApiError> {
    caller.require(Role::Manager)?;
    if !state.registry.queues().contains(&name) {
        let known = state.registry.queues().join(", ");
        return Err(ApiError::not_found(
            "queue_not_found",
            format!("There is no such queue; there are {known}."),
        ));
    }
    let mut conn = state.db.conn().await?;
    conn.transaction(async |conn| {
        let (action, changed) = if pause {
            ("queue.pause", queues::pause(conn, caller.organization_id, name).await?)
        } else {
            ("queue.resume", queues::resume(conn, caller.organization_id, name).await?)
        };
        if changed {
            Note::new(action, "queue", name).write(conn, caller, origin).await?;
        }
        Ok::<_, ApiError>(())
    })
    .await?;
    drop(conn);
    state.waker.wake();
    let found = read(state, caller.organization_id).await?.into_iter().find(|queue| queue.name == name);
    found.map(Json).ok_or_else(|| ApiError::internal("a known queue is missing from the list"))
}

async fn read(state: &AppState, organization: Uuid) -> Result<Vec<QueueView>, ApiError> {
    let now = state.now().await;
    let mut conn = state.db.conn().await?;
    let counts = match state.queue_counts.get(&organization) {
        Some(counts) => counts,
        None => {
            let counts = views::queues::counts(&mut conn, organization).await?;
            state.queue_counts.put(organization, counts.clone());
            counts
        }
    };
    let paused = queues::paused(&mut conn, organization).await?;
    let view = |name: &str| {
        let count = counts.iter().find(|count| count.queue == name);
        let paused_at = paused.iter().find(|(queue, _)| queue == name).map(|(_, at)| *at);
        QueueView {
            name: name.to_owned(),
            paused: paused_at.is_some(),
            paused_at,
            scheduled: count.map_or(0, |count| count.scheduled),
            available: count.map_or(0, |count| count.available),
            running: count.map_or(0, |count| count.running),
            retryable: count.map_or(0, |count| count.retryable),
            dead: count.map_or(0, |count| count.dead),
            oldest_available_age_s: count
                .and_then(|count| count.oldest_available_at)
                .map(|at| age_s(now, at)),
        }
    };
    Ok(state.registry.queues().into_iter().map(view).collect())
}

/// Seconds since `at`, to the millisecond; never negative.
pub(super) fn age_s(now: DateTime<Utc>, at: DateTime<Utc>) -> f64 {
    (now - at).num_milliseconds().max(0) as f64 / 1000.0
}
