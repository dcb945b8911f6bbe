//! Lanes: what runs one job at a time, what waits in it, pause and resume.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::step;
use entropy_schema::lanes;
use entropy_schema::views::lanes::{self as view, Lane};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::accounts::{PauseRequest, reason};
use super::audit::Note;
use super::job_view::lane as lane_name;
use super::queues::age_s;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::OptionalBody;
use crate::http::origin::Origin;
use crate::page::{Ask, Page};
use crate::problem::ApiError;

/// A lane.
#[derive(Debug, Object)]
struct LaneView {
    /// The id of what it serialises.
    id: Uuid,
    /// As jobs name it: `account:<id>`.
    lane: String,
    /// `account`: its sends. `background`: an account's calls for which nobody waits. `conversation`: its answers.
    kind: String,
    /// The account that it belongs to.
    account_id: Option<Uuid>,
    /// Name of that account.
    label: Option<String>,
    paused: bool,
    paused_at: Option<DateTime<Utc>>,
    paused_reason: Option<String>,
    /// It runs a job.
    busy: bool,
    busy_job_id: Option<Uuid>,
    /// Why it does not look for its next job before `runnable_at`, such as `messages_per_minute`.
    wait_code: Option<String>,
    runnable_at: Option<DateTime<Utc>>,
    /// Jobs that wait for their turn; stops at ten thousand.
    available: i64,
    /// Jobs that wait for a retry; stops at ten thousand.
    retryable: i64,
    /// How long the oldest of the next jobs has waited, in seconds; null if none waits.
    oldest_age_s: Option<f64>,
}

/// What a lane serialises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum LaneKind {
    /// What an account sends.
    Account,
    /// An account's calls for which nobody waits.
    Background,
    /// What is answered in a chat.
    Conversation,
    /// A person's way through a plan.
    Enrollment,
}

impl LaneKind {
    fn as_str(self) -> &'static str {
        match self {
            LaneKind::Account => "account",
            LaneKind::Background => "background",
            LaneKind::Conversation => "conversation",
            LaneKind::Enrollment => "enrollment",
        }
    }
}

/// Lanes.
pub(super) struct Lanes;

#[OpenApi(tag = "Tag::Operations")]
impl Lanes {
    /// Lists the lanes
    ///
    /// Newest first, with what waits in each, for how long, and what the lane itself waits for.
    #[oai(path = "/lanes", method = "get", operation_id = "list_lanes")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only lanes of this kind: account, background, conversation or enrollment.
        kind: Query<Option<LaneKind>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<LaneView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let kind = kind.0.map(LaneKind::as_str);
        let rows = view::list(&mut conn, caller.organization_id, kind, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(rows, |lane| lane.id, |lane| show(lane, now))))
    }

    /// Pauses a lane
    ///
    /// Needs the role manager. In force for every message whose call has not begun. Jobs are still accepted and wait.
    #[oai(path = "/lanes/:id/pause", method = "post", operation_id = "pause_lane")]
    async fn pause(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: OptionalBody<PauseRequest>,
    ) -> Result<Json<LaneView>, ApiError> {
        caller.require(Role::Manager)?;
        let reason = reason(body.0)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            if !lanes::pause(conn, caller.organization_id, id.0, &reason).await? {
                return Err(lane_not_found());
            }
            Note::new("lane.pause", "lane", id.0)
                .after(json!({"reason": reason}))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        step!("control.paused");
        let lane = view::get(&mut conn, caller.organization_id, id.0).await?;
        lane.map(|lane| Json(show(lane, now))).ok_or_else(lane_not_found)
    }

    /// Resumes a lane
    ///
    /// Needs the role manager. It looks for its next job at once. The account's status stays as it is; see
    /// `/wechat-accounts/{id}/resume`.
    #[oai(path = "/lanes/:id/resume", method = "post", operation_id = "resume_lane")]
    async fn resume(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<LaneView>, ApiError> {
        caller.require(Role::Manager)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            if !lanes::resume(conn, caller.organization_id, id.0).await? {
                return Err(lane_not_found());
            }
            Note::new("lane.resume", "lane", id.0).write(conn, &caller, &origin).await
        })
        .await?;
        state.waker.wake();
        let lane = view::get(&mut conn, caller.organization_id, id.0).await?;
        lane.map(|lane| Json(show(lane, now))).ok_or_else(lane_not_found)
    }
}

fn lane_not_found() -> ApiError {
    ApiError::not_found("lane_not_found", "Your organisation has no such lane.")
}

fn show(lane: Lane, now: DateTime<Utc>) -> LaneView {
    LaneView {
        id: lane.id,
        lane: lane_name(&lane.kind, lane.id),
        kind: lane.kind,
        account_id: lane.account_id,
        label: lane.label,
        paused: lane.paused_at.is_some(),
        paused_at: lane.paused_at,
        paused_reason: lane.paused_reason,
        busy: lane.busy_job_id.is_some(),
        busy_job_id: lane.busy_job_id,
        wait_code: lane.wait_code,
        runnable_at: lane.runnable_at,
        available: lane.available,
        retryable: lane.retryable,
        oldest_age_s: lane.oldest_at.map(|at| age_s(now, at)),
    }
}
