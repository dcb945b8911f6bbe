//! Steps in by the thousand: cancels waiting jobs and revives dead ones by filter, after a preview.
//!
//! A call works through slices of a thousand jobs, newest first, one transaction and one line of the audit log each, so
//! that no lock is held for long. It stops after a hundred thousand; `remaining` says whether to call again.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::Conn;
use entropy_schema::record::control;
use entropy_schema::views::jobs::{self, Filter, State};
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::control::called_off_by;
use super::jobs::{JobState, lane_id, storable};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::ApiError;

const SLICE: i64 = 1000;
const MOST: i64 = 100_000;

/// Which jobs; the same filters as in the list of jobs. All given must apply.
#[derive(Debug, Default, Object)]
#[oai(deny_unknown_fields)]
struct BulkFilter {
    /// To cancel: `scheduled`, `available`, `retryable`, or left out for all three. To revive: `dead`, or left out.
    state: Option<JobState>,
    /// Only of this kind.
    kind: Option<Text>,
    /// Only in this lane: `account:<id>`, or the id alone.
    lane: Option<Text>,
    /// Only of this account.
    account_id: Option<Uuid>,
    /// Only created at this time or later.
    created_from: Option<DateTime<Utc>>,
    /// Only created before this time.
    created_to: Option<DateTime<Utc>>,
}

/// Jobs to change.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct BulkRequest {
    filter: BulkFilter,
    /// True: only count what would be changed. Look at the count before you let it happen.
    #[oai(default)]
    preview: bool,
}

/// What was changed, or would be.
#[derive(Debug, Object)]
struct BulkView {
    /// Jobs that the filter matches, up to 100,000.
    matched: i64,
    /// Jobs that were changed. Less than `matched`: some moved on meanwhile, or may not be changed.
    changed: i64,
    /// More jobs match than one call looks at; call again.
    remaining: bool,
    /// Nothing was changed.
    preview: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Cancel,
    Revive,
}

/// Changes by filter.
pub(super) struct Bulk;

#[OpenApi(tag = "Tag::Jobs")]
impl Bulk {
    /// Cancels waiting jobs by filter
    ///
    /// Needs the role manager. Only jobs that wait: what was handed out or runs is cancelled one by one. An empty filter
    /// means every waiting job of the organisation.
    #[oai(path = "/jobs/bulk/cancel", method = "post", operation_id = "bulk_cancel_jobs")]
    async fn cancel(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<BulkRequest>,
    ) -> Result<Json<BulkView>, ApiError> {
        carry_out(&state, &caller, &origin, Change::Cancel, body.0).await
    }

    /// Revives dead jobs by filter
    ///
    /// Needs the role manager. Jobs whose message may have been sent, whose deadline has passed, or whose work another
    /// living job does, stay as they are.
    #[oai(path = "/jobs/bulk/revive", method = "post", operation_id = "bulk_revive_jobs")]
    async fn revive(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<BulkRequest>,
    ) -> Result<Json<BulkView>, ApiError> {
        carry_out(&state, &caller, &origin, Change::Revive, body.0).await
    }
}

async fn carry_out(
    state: &AppState,
    caller: &Caller,
    origin: &Origin,
    change: Change,
    request: BulkRequest,
) -> Result<Json<BulkView>, ApiError> {
    caller.require(Role::Manager)?;
    let filter = filter(change, request.filter)?;
    let waiting_only = change == Change::Cancel;
    let mut conn = state.db.conn().await?;
    if request.preview {
        let organization = caller.organization_id;
        let found = jobs::count(&mut conn, organization, &filter, waiting_only, None, MOST + 1).await?;
        let (matched, remaining) = (found.min(MOST), found > MOST);
        return Ok(Json(BulkView { matched, changed: 0, remaining, preview: true }));
    }
    let done = all(&mut conn, caller, origin, change, &filter).await;
    // Also after a failure: the slices before it are committed.
    state.waker.wake();
    state.queue_counts.forget(&caller.organization_id);
    Ok(Json(done?))
}

/// Cancels whatever waits for an account that was removed, a slice at a time.
pub(super) async fn cancel_all_of_account(
    state: &AppState,
    conn: &mut Conn,
    caller: &Caller,
    origin: &Origin,
    account: Uuid,
) -> Result<(), ApiError> {
    let filter = Filter { lane_id: Some(account), ..Filter::default() };
    while all(conn, caller, origin, Change::Cancel, &filter).await?.remaining {}
    state.queue_counts.forget(&caller.organization_id);
    Ok(())
}

async fn all(
    conn: &mut Conn,
    caller: &Caller,
    origin: &Origin,
    change: Change,
    filter: &Filter,
) -> Result<BulkView, ApiError> {
    let waiting_only = change == Change::Cancel;
    let (mut matched, mut changed, mut before) = (0, 0, None);
    loop {
        let ids = jobs::ids(conn, caller.organization_id, filter, waiting_only, before, SLICE).await?;
        let found = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        if !ids.is_empty() {
            changed += slice(conn, caller, origin, change, filter, &ids).await?;
            matched += found;
            before = ids.last().copied();
        }
        if found < SLICE {
            return Ok(BulkView { matched, changed, remaining: false, preview: false });
        }
        if matched >= MOST {
            return Ok(BulkView { matched, changed, remaining: true, preview: false });
        }
    }
}

async fn slice(
    conn: &mut Conn,
    caller: &Caller,
    origin: &Origin,
    change: Change,
    filter: &Filter,
    ids: &[Uuid],
) -> Result<i64, ApiError> {
    conn.transaction(async |conn| {
        let organization = caller.organization_id;
        let (action, done) = match change {
            Change::Cancel => {
                let error = called_off_by(caller);
                ("job.bulk_cancel", control::cancel_waiting(conn, organization, ids, &error).await?)
            }
            Change::Revive => ("job.bulk_revive", control::revive(conn, organization, ids).await?),
        };
        if !done.is_empty() {
            let after = json!({"filter": shown(filter), "changed": done.len(), "first_id": ids.first()});
            Note { action, target_kind: "job", after: Some(after), ..Note::default() }
                .write(conn, caller, origin)
                .await?;
        }
        Ok(i64::try_from(done.len()).unwrap_or(i64::MAX))
    })
    .await
}

fn filter(change: Change, asked: BulkFilter) -> Result<Filter, ApiError> {
    let state = match (change, asked.state) {
        (Change::Cancel, None) => None,
        (Change::Cancel, Some(state @ (JobState::Scheduled | JobState::Available | JobState::Retryable))) => {
            Some(State::from(state))
        }
        (Change::Revive, None | Some(JobState::Dead)) => Some(State::Dead),
        (Change::Cancel, Some(_)) => {
            let message =
                "must be scheduled, available or retryable: only waiting jobs are cancelled in bulk";
            return Err(ApiError::field("filter.state", "wrong_state", message));
        }
        (Change::Revive, Some(_)) => {
            return Err(ApiError::field(
                "filter.state",
                "wrong_state",
                "must be dead: only dead jobs are revived",
            ));
        }
    };
    Ok(Filter {
        state,
        kind: asked.kind.map(|Text(kind)| kind),
        lane_id: asked.lane.as_deref().map(lane_id).transpose()?,
        account_id: asked.account_id,
        created_from: asked.created_from.map(storable),
        created_to: asked.created_to.map(storable),
    })
}

fn shown(filter: &Filter) -> Value {
    json!({
        "state": filter.state.map(|state| format!("{state:?}").to_lowercase()),
        "kind": filter.kind,
        "lane": filter.lane_id,
        "account_id": filter.account_id,
        "created_from": filter.created_from,
        "created_to": filter.created_to,
    })
}
