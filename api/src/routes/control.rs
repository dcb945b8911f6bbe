//! Steps in: cancels, revives and resolves one job.

use diesel_async::AsyncConnection;
use entropy_jobs::step;
use entropy_schema::record::control::{self, Cancelled};
use entropy_schema::{Conn, jobs, views};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::job_view::{JobView, job_not_found, read};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::problem::ApiError;

/// What a person knows, or wants, of a send whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum Verdict {
    /// The recipient has it: the job is completed.
    Sent,
    /// The recipient does not have it: the job stays dead.
    Failed,
    /// Send it again, at the risk of sending it twice.
    Resend,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Verdict::Sent => "sent",
            Verdict::Failed => "failed",
            Verdict::Resend => "resend",
        }
    }
}

/// A person's word.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct ResolveRequest {
    #[oai(rename = "as")]
    verdict: Verdict,
}

#[derive(ApiResponse)]
enum CancelAnswer {
    /// The job was waiting and is cancelled.
    #[oai(status = 200)]
    Cancelled(Json<JobView>),
    /// The job is running and was told to stop; it ends as cancelled unless its message leaves first.
    #[oai(status = 202)]
    Requested(Json<JobView>),
}

/// Stepping in.
pub(super) struct Control;

#[OpenApi(tag = "Tag::Jobs")]
impl Control {
    /// Cancels a job
    ///
    /// Needs the role agent. Answers 409 with the code `too_late` if its message is on the way, or `already_ended`.
    #[oai(path = "/jobs/:id/cancel", method = "post", operation_id = "cancel_job")]
    async fn cancel(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<CancelAnswer, ApiError> {
        caller.require(Role::Agent)?;
        let mut conn = state.db.conn().await?;
        let found = conn
            .transaction(async |conn| {
                let error = called_off_by(&caller);
                let found = control::cancel(conn, caller.organization_id, id.0, &error).await?;
                let found = found.ok_or_else(job_not_found)?;
                match found {
                    Cancelled::Now | Cancelled::Requested => {
                        Note::new("job.cancel", "job", id.0)
                            .after(json!({"requested_only": found == Cancelled::Requested}))
                            .write(conn, &caller, &origin)
                            .await?;
                        Ok(found)
                    }
                    Cancelled::TooLate => {
                        let detail = "Its message is on the way to the provider and cannot be called back.";
                        Err(ApiError::conflict("too_late", detail))
                    }
                    Cancelled::Ended => {
                        Err(ApiError::conflict("already_ended", "The job has ended already."))
                    }
                }
            })
            .await?;
        step!("control.cancelled");
        state.waker.wake();
        let view = Json(read(&mut conn, &caller, id.0).await?);
        Ok(match found {
            Cancelled::Requested => CancelAnswer::Requested(view),
            _ => CancelAnswer::Cancelled(view),
        })
    }

    /// Revives a dead job
    ///
    /// Needs the role manager. It keeps its attempts and gets at least one more. Answers 409 with the code `not_dead`,
    /// so that a double click runs it once; `outcome_unknown` if its message may have been sent (resolve it instead);
    /// `expired`; or `unique_key_taken` if another living job does the same.
    #[oai(path = "/jobs/:id/revive", method = "post", operation_id = "revive_job")]
    async fn revive(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<JobView>, ApiError> {
        caller.require(Role::Manager)?;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            if control::revive(conn, caller.organization_id, &[id.0]).await?.is_empty() {
                return Err(not_revivable(conn, &caller, id.0).await?);
            }
            Note::new("job.revive", "job", id.0).write(conn, &caller, &origin).await
        })
        .await?;
        state.waker.wake();
        Ok(Json(read(&mut conn, &caller, id.0).await?))
    }

    /// Decides a send whose outcome is unknown
    ///
    /// Needs the role agent. `sent` completes the job, `failed` leaves it dead, `resend` sends it again. Answers 409 with
    /// the code `nothing_to_resolve` if no outcome is open.
    #[oai(path = "/jobs/:id/resolve", method = "post", operation_id = "resolve_job")]
    async fn resolve(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<ResolveRequest>,
    ) -> Result<Json<JobView>, ApiError> {
        caller.require(Role::Agent)?;
        let verdict = body.0.verdict;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let (organization, by) = (caller.organization_id, Some(caller.id));
            if !jobs::outcome_unknown(conn, organization, id.0).await? {
                let known = views::jobs::get(conn, organization, id.0).await?.is_some();
                let nothing = || {
                    let detail = "No send of this job waits for a decision.";
                    ApiError::conflict("nothing_to_resolve", detail)
                };
                return Err(if known { nothing() } else { job_not_found() });
            }
            let done = match verdict {
                Verdict::Resend => control::resolve_resend(conn, organization, id.0, by).await?,
                verdict => control::resolve_as(conn, organization, id.0, verdict.as_str(), by).await?,
            };
            // An error rolls back what a refused call has already changed.
            if !done {
                return Err(match verdict {
                    Verdict::Resend => not_resendable(conn, &caller, id.0).await?,
                    _ => ApiError::conflict(
                        "not_ended",
                        "The job is still running. Try again when it has ended.",
                    ),
                });
            }
            Note::new("job.resolve", "job", id.0)
                .after(json!({"as": verdict.as_str()}))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        state.waker.wake();
        Ok(Json(read(&mut conn, &caller, id.0).await?))
    }
}

/// What a cancelled job says of itself.
pub(super) fn called_off_by(caller: &Caller) -> Value {
    json!({"code": "cancelled", "message": format!("called off by {}", caller.username)})
}

async fn not_revivable(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<ApiError, ApiError> {
    if jobs::outcome_unknown(conn, caller.organization_id, id).await? {
        let detail =
            "Its message may have been sent. Find out and use /resolve; reviving could send it twice.";
        return Ok(ApiError::conflict("outcome_unknown", detail));
    }
    not_resendable(conn, caller, id).await
}

async fn not_resendable(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<ApiError, ApiError> {
    let Some(job) = views::jobs::get(conn, caller.organization_id, id).await? else {
        return Ok(job_not_found());
    };
    if job.state != "dead" {
        let detail = format!("The job is {}; only a dead job can be run again.", job.state);
        return Ok(ApiError::conflict("not_dead", detail));
    }
    let now = entropy_schema::clock::now(conn).await?;
    if job.expires_at.is_some_and(|at| at <= now) {
        return Ok(ApiError::conflict(
            "expired",
            "Its deadline has passed. Make a new job if it is still wanted.",
        ));
    }
    Ok(ApiError::conflict(
        "unique_key_taken",
        "Another living job does the same work. Wait until it has ended.",
    ))
}
