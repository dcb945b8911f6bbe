//! Fetching an account's contacts: ask for it, see how far it is.

use chrono::{DateTime, Utc};
use entropy_jobs::class::Class;
use entropy_jobs::enqueue::{Enqueued, Options, new_job};
use entropy_jobs::kinds::sync_contacts::SyncContacts;
use entropy_schema::contact_syncs::{self, Sync};
use entropy_schema::{accounts, lanes};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use super::accounts::account_not_found;
use super::job_view::{JobView, fresh, read};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::origin::Origin;
use crate::problem::ApiError;

/// How far the fetching of an account's contacts is.
#[derive(Debug, Object)]
struct SyncView {
    account_id: Uuid,
    /// The job that does it.
    job_id: Option<Uuid>,
    /// `never`, `listing`: the list is being put together; `fetching`, `done` or `failed`.
    state: String,
    /// Contacts in the list.
    total: i32,
    /// Those that were fetched.
    fetched: i32,
    /// What went wrong last; it is tried again unless the state is `failed`.
    error: Option<String>,
    started_at: Option<DateTime<Utc>>,
    updated_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

#[derive(ApiResponse)]
enum Accepted {
    /// Stored; it will run.
    #[oai(status = 202)]
    New(Json<JobView>, #[oai(header = "Location")] String),
    /// It is being done already, by this job.
    #[oai(status = 200)]
    Existing(Json<JobView>, #[oai(header = "Location")] String),
}

/// Fetching of contacts.
pub(super) struct ContactSyncs;

#[OpenApi(tag = "Tag::Conversations")]
impl ContactSyncs {
    /// Fetches an account's contacts
    ///
    /// Needs the role agent. Friends, groups with their members, and labels are fetched from WeChat in the background,
    /// a few at a time; it takes minutes for a large address book. Tags, variables and opt-outs stay as they are. It also
    /// happens by itself every night.
    #[oai(path = "/wechat-accounts/:id/contacts/sync", method = "post", operation_id = "sync_contacts")]
    async fn begin(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Accepted, ApiError> {
        caller.require(Role::Agent)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        if !accounts::exists(&mut conn, caller.organization_id, id.0).await? {
            return Err(account_not_found());
        }
        lanes::ensure_background(&mut conn, &[(id.0, caller.organization_id)]).await?;
        drop(conn);
        let options = Options {
            organization_id: caller.organization_id,
            class: Class::Campaign,
            scheduled_at: None,
            expires_at: None,
            idempotency: None,
            trace_id: origin.trace_id.clone(),
            created_by: Some(caller.id),
        };
        let job = new_job(&SyncContacts { account_id: id.0 }, options);
        state.backlog.admit(&state.db, caller.organization_id, 1, &[]).await?;
        let view = fresh(&job, &caller, now);
        match state.enqueuer.enqueue(vec![job]).await?.pop() {
            Some(Enqueued::Created(job)) => Ok(Accepted::New(Json(view), location(job))),
            Some(Enqueued::Existing(job)) => {
                let mut conn = state.db.conn().await?;
                Ok(Accepted::Existing(Json(read(&mut conn, &caller, job).await?), location(job)))
            }
            _ => Err(ApiError::internal("the enqueuer gave no answer")),
        }
    }

    /// Shows how far the fetching of an account's contacts is
    ///
    /// Of the latest one, also after it has ended.
    #[oai(path = "/wechat-accounts/:id/contacts/sync", method = "get", operation_id = "get_contact_sync")]
    async fn progress(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<SyncView>, ApiError> {
        let mut conn = state.db.conn().await?;
        if !accounts::exists(&mut conn, caller.organization_id, id.0).await? {
            return Err(account_not_found());
        }
        let sync = contact_syncs::get(&mut conn, caller.organization_id, id.0).await?;
        Ok(Json(show(id.0, sync)))
    }
}

fn location(id: Uuid) -> String {
    format!("/api/v1/jobs/{id}")
}

fn show(account_id: Uuid, sync: Option<Sync>) -> SyncView {
    let Some(sync) = sync else {
        return SyncView {
            account_id,
            job_id: None,
            state: "never".into(),
            total: 0,
            fetched: 0,
            error: None,
            started_at: None,
            updated_at: None,
            finished_at: None,
        };
    };
    SyncView {
        account_id,
        job_id: sync.job_id,
        // Until there is a list, the column counts how often it was asked for.
        fetched: if sync.state == "listing" || sync.total == 0 { 0 } else { sync.fetched },
        state: sync.state,
        total: sync.total,
        error: sync.error,
        started_at: Some(sync.started_at),
        updated_at: Some(sync.updated_at),
        finished_at: sync.finished_at,
    }
}
