//! The processes that carry jobs out.

use chrono::{DateTime, Utc};
use entropy_schema::views::workers::{self, Worker};
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::problem::ApiError;

/// A worker process. Workers serve all organisations of the install.
#[derive(Debug, Object)]
struct WorkerView {
    /// New at every boot.
    id: Uuid,
    host: String,
    pid: i32,
    version: String,
    /// `running`, `draining` or `stopped`.
    state: String,
    /// It has said that it lives in the last 30 seconds and has not stopped.
    alive: bool,
    /// Attempts that it runs at once.
    slots: i32,
    /// Attempts that it runs now.
    running: i32,
    started_at: DateTime<Utc>,
    heartbeat_at: DateTime<Utc>,
}

/// All workers.
#[derive(Debug, Object)]
struct WorkersView {
    items: Vec<WorkerView>,
}

/// Workers.
pub(super) struct Workers;

#[OpenApi(tag = "Tag::Operations")]
impl Workers {
    /// Lists the workers
    ///
    /// Those that were heard of last come first; rows of processes that are gone stay for some days.
    #[oai(path = "/workers", method = "get", operation_id = "list_workers")]
    async fn list(&self, state: Data<&AppState>, _caller: Caller) -> Result<Json<WorkersView>, ApiError> {
        let mut conn = state.db.conn().await?;
        let rows = workers::list(&mut conn).await?;
        Ok(Json(WorkersView { items: rows.into_iter().map(view).collect() }))
    }
}

fn view(worker: Worker) -> WorkerView {
    WorkerView {
        id: worker.id,
        host: worker.host,
        pid: worker.pid,
        version: worker.version,
        state: worker.state,
        alive: worker.alive,
        slots: worker.slots,
        running: worker.running,
        started_at: worker.started_at,
        heartbeat_at: worker.heartbeat_at,
    }
}
