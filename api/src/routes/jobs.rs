//! Where jobs stand.

use chrono::{DateTime, Utc};
use entropy_schema::views::jobs::{self, Filter, State};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, OpenApi};
use uuid::Uuid;

use super::Tag;
use super::job_view::{JobView, listed, read};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::page::{Ask, Page};
use crate::problem::{ApiError, FieldProblem};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(super) enum JobState {
    /// Waits for the time it was asked for.
    Scheduled,
    /// May run as soon as its lane and a worker are free.
    Available,
    /// A worker has it.
    Running,
    /// Waits after a failed attempt, or because something held it back.
    Retryable,
    /// Has done what it was made for.
    Completed,
    /// Was called off, or its deadline passed.
    Cancelled,
    /// Cannot go on by itself.
    Dead,
}

impl From<JobState> for State {
    fn from(state: JobState) -> State {
        match state {
            JobState::Scheduled => State::Scheduled,
            JobState::Available => State::Available,
            JobState::Running => State::Running,
            JobState::Retryable => State::Retryable,
            JobState::Completed => State::Completed,
            JobState::Cancelled => State::Cancelled,
            JobState::Dead => State::Dead,
        }
    }
}

/// Jobs.
pub(super) struct Jobs;

#[OpenApi(tag = "Tag::Jobs")]
impl Jobs {
    /// Lists jobs
    ///
    /// Newest first. All filters given must apply.
    #[oai(path = "/jobs", method = "get", operation_id = "list_jobs")]
    #[expect(clippy::too_many_arguments, reason = "one per query parameter")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only in this state.
        #[oai(name = "state")]
        job_state: Query<Option<JobState>>,
        /// Only of this kind, such as `send_message`.
        kind: Query<Option<String>>,
        /// Only in this lane: `account:<id>`, or the id alone.
        lane: Query<Option<String>>,
        /// Only of this account.
        account_id: Query<Option<Uuid>>,
        /// Only created at this time or later.
        created_from: Query<Option<DateTime<Utc>>>,
        /// Only created before this time.
        created_to: Query<Option<DateTime<Utc>>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<JobView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            state: job_state.0.map(State::from),
            kind: kind.0,
            lane_id: lane.0.as_deref().map(lane_id).transpose()?,
            account_id: account_id.0,
            created_from: created_from.0.map(storable),
            created_to: created_to.0.map(storable),
        };
        let mut conn = state.db.conn().await?;
        let rows = jobs::list(&mut conn, caller.organization_id, &filter, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(rows, |job| job.id, |job| listed(job, &caller))))
    }

    /// Shows a job
    ///
    /// With its attempts, what came of it, and, while it is not running, why and when it goes on.
    #[oai(path = "/jobs/:id", method = "get", operation_id = "get_job")]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<JobView>, ApiError> {
        let mut conn = state.db.conn().await?;
        Ok(Json(read(&mut conn, &caller, id.0).await?))
    }
}

/// Reads a lane as it is shown.
pub(super) fn lane_id(text: &str) -> Result<Uuid, ApiError> {
    let id = text.rsplit(':').next().unwrap_or_default();
    id.parse().map_err(|_| {
        let message = "must be a lane such as account:01890a5d-ac96-774b-bcce-b302099a8057";
        ApiError::malformed(vec![FieldProblem::new("lane", "wrong_form", message)])
    })
}

/// Brings a time that the database cannot hold into its range; nothing lies beyond it anyway.
pub(super) fn storable(at: DateTime<Utc>) -> DateTime<Utc> {
    const FAR_FUTURE_S: i64 = 253_402_300_799;
    at.clamp(DateTime::UNIX_EPOCH, DateTime::from_timestamp(FAR_FUTURE_S, 0).unwrap_or(DateTime::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_read_with_or_without_its_kind() {
        let id = Uuid::now_v7();
        assert_eq!(lane_id(&format!("account:{id}")).ok(), Some(id));
        assert_eq!(lane_id(&id.to_string()).ok(), Some(id));
        assert!(lane_id("account:x").is_err() && lane_id("").is_err());
    }

    #[test]
    fn times_beyond_the_databases_are_brought_into_its_range() {
        assert_eq!(storable(DateTime::<Utc>::MIN_UTC), DateTime::UNIX_EPOCH);
        assert_eq!(storable(DateTime::<Utc>::MAX_UTC).to_rfc3339(), "9999-12-31T23:59:59+00:00");
    }
}
