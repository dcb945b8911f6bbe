//! A job as callers see it.

use chrono::{DateTime, Utc};
use entropy_jobs::class::Class;
use entropy_jobs::enqueue::NewJob;
use entropy_jobs::why;
use entropy_schema::Conn;
use entropy_schema::jobs::{self as record, Attempt};
use entropy_schema::lanes::background_of;
use entropy_schema::views::jobs::Job;
use entropy_schema::views::{self, sends::Send, waiting};
use poem_openapi::Object;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::problem::ApiError;

/// What went wrong.
#[derive(Debug, Object)]
pub(super) struct JobErrorView {
    /// Stable name of the problem.
    code: String,
    /// For people.
    message: String,
}

/// Why a job is not running.
#[derive(Debug, Object)]
pub(super) struct WhyView {
    /// Stable name of the reason, such as `messages_per_minute`.
    code: String,
    /// The reason, for people.
    message: String,
    /// The earliest moment at which it can go on; null: only a person can let it go on, or it runs already.
    next_try_at: Option<DateTime<Utc>>,
    /// Jobs that go before it in its lane, the one that runs there included.
    jobs_ahead: i64,
}

/// One attempt that is over.
#[derive(Debug, Object)]
pub(super) struct AttemptView {
    /// Counted from 1.
    attempt: i16,
    /// The process that ran it.
    worker_id: Uuid,
    started_at: DateTime<Utc>,
    finished_at: DateTime<Utc>,
    /// `completed`, `retry`, `dead`, `cancelled` or `lost`.
    outcome: String,
    error: Option<JobErrorView>,
}

/// A job.
#[derive(Debug, Object)]
pub(super) struct JobView {
    id: Uuid,
    kind: String,
    /// `scheduled`, `available`, `running`, `retryable`, `completed`, `cancelled` or `dead`.
    state: String,
    queue: String,
    /// What runs one job at a time, such as `account:<id>`.
    lane: Option<String>,
    account_id: Option<Uuid>,
    /// `interactive`, `reply` or `campaign`.
    priority: String,
    /// Attempts spent, or the one under way.
    attempt: i16,
    max_attempts: i16,
    /// What was asked for; a viewer does not see what a message says.
    args: Value,
    /// What came of it, once it has ended. Of a send: `send_status` and the provider's ids, as strings.
    result: Option<Value>,
    error: Option<JobErrorView>,
    /// Why it is not running; null once it has ended, and in lists.
    why: Option<WhyView>,
    /// The attempts that are over; only where one job is shown.
    #[oai(skip_serializing_if_is_none)]
    attempts: Option<Vec<AttemptView>>,
    /// Somebody asked for the running job to be cancelled.
    cancel_requested: bool,
    /// Ties the job to the request that made it, and to our logs.
    trace_id: String,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    /// Not before.
    scheduled_at: Option<DateTime<Utc>>,
    /// Not after.
    expires_at: Option<DateTime<Utc>>,
    /// When the attempt that runs, or the one that ended it, was claimed.
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    finalized_at: Option<DateTime<Utc>>,
}

/// Shows one job with its attempts and what it waits for. 404 if the caller's organisation has no such job.
///
/// All of it is read as of one moment: a job that moves on meanwhile must not be shown as running and waiting.
/// Must not be called inside a transaction.
pub(super) async fn read(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<JobView, ApiError> {
    conn.build_transaction()
        .repeatable_read()
        .read_only()
        .run(async |conn| read_parts(conn, caller, id).await)
        .await
}

async fn read_parts(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<JobView, ApiError> {
    let organization = caller.organization_id;
    let job = views::jobs::get(conn, organization, id).await?.ok_or_else(job_not_found)?;
    let ended = job.finalized_at.is_some();
    let attempts = record::attempts(conn, id).await?;
    let send = if ended { views::sends::latest_of(conn, organization, &[id]).await?.pop() } else { None };
    let facts = if ended { None } else { waiting::facts(conn, organization, id).await? };
    let mut view = listed(job, caller);
    view.result = with_send(view.result, send);
    view.attempts = Some(attempts.into_iter().map(attempt).collect());
    view.why = facts.map(|facts| {
        let why::Why { code, message, next_try_at, jobs_ahead } = why::why(&facts);
        WhyView { code, message, next_try_at, jobs_ahead }
    });
    Ok(view)
}

/// Shows a job as a list does: without attempts and without what it waits for.
pub(super) fn listed(job: Job, caller: &Caller) -> JobView {
    JobView {
        id: job.id,
        state: job.state,
        queue: job.queue,
        lane: job.lane_id.map(|id| lane(job.lane_kind.as_deref().unwrap_or("lane"), id)),
        account_id: job.account_id,
        priority: priority(job.class),
        attempt: job.attempt,
        max_attempts: job.max_attempts,
        args: shown_args(&job.kind, job.args, caller.role),
        kind: job.kind,
        result: job.result,
        error: job.error.and_then(error),
        why: None,
        attempts: None,
        cancel_requested: job.cancel_requested,
        trace_id: job.trace_id,
        created_by: job.created_by,
        created_at: job.created_at,
        scheduled_at: job.scheduled_at,
        expires_at: job.expires_at,
        started_at: job.started_at,
        finalized_at: job.finalized_at,
    }
}

/// Shows a job that is being made, without asking the database about it.
pub(super) fn fresh(job: &NewJob, caller: &Caller, now: DateTime<Utc>) -> JobView {
    JobView {
        id: job.id,
        kind: job.kind.to_owned(),
        state: if job.scheduled_at.is_some() { "scheduled" } else { "available" }.to_owned(),
        queue: job.queue.to_owned(),
        lane: job.lane_id.map(|id| lane(lane_kind(job, id), id)),
        account_id: job.account_id,
        priority: priority(job.class),
        attempt: 0,
        max_attempts: job.max_attempts,
        args: shown_args(job.kind, job.args.clone(), caller.role),
        result: None,
        error: None,
        why: None,
        attempts: None,
        cancel_requested: false,
        trace_id: job.trace_id.clone(),
        created_by: job.created_by,
        created_at: now,
        scheduled_at: job.scheduled_at,
        expires_at: job.expires_at,
        started_at: None,
        finalized_at: None,
    }
}

/// Tells what the lane of a new job stands for, by its account.
fn lane_kind(job: &NewJob, lane: Uuid) -> &'static str {
    match job.account_id {
        Some(account) if lane == background_of(account) => "background",
        Some(account) if lane != account => "conversation",
        _ => "account",
    }
}

/// The answer for a job that is not there, or not ours.
pub(super) fn job_not_found() -> ApiError {
    ApiError::not_found("job_not_found", "Your organisation has no such job.")
}

/// Writes a lane as `kind:id`.
pub(super) fn lane(kind: &str, id: Uuid) -> String {
    format!("{kind}:{id}")
}

/// The name of a stored class.
fn priority(class: i16) -> String {
    Class::from_i16(class).map_or("campaign", Class::as_str).to_owned()
}

/// Takes out of the args what a viewer must not read.
fn shown_args(kind: &str, mut args: Value, role: Role) -> Value {
    if role > Role::Viewer {
        return args;
    }
    match kind {
        "cost_tally" => args,
        "send_message" => {
            let kind = args["message"]["kind"].take();
            args["message"] = json!({"kind": kind});
            args
        }
        // A kind of later may hold anything.
        _ => json!({}),
    }
}

/// Only code and message: what the provider answered may repeat what the message said.
fn error(stored: Value) -> Option<JobErrorView> {
    let text = |name: &str| stored.get(name).and_then(Value::as_str).map(str::to_owned);
    let code = text("code")?;
    Some(JobErrorView { message: text("message").unwrap_or_else(|| code.clone()), code })
}

fn attempt(attempt: Attempt) -> AttemptView {
    AttemptView {
        attempt: attempt.attempt,
        worker_id: attempt.worker_id,
        started_at: attempt.started_at,
        finished_at: attempt.finished_at,
        outcome: attempt.outcome,
        error: attempt.error.and_then(error),
    }
}

/// Lays what the send record says over the result: it is the truth, and a person may have decided it later.
fn with_send(result: Option<Value>, send: Option<Send>) -> Option<Value> {
    let Some(send) = send else { return result };
    let mut result = match result {
        Some(result @ Value::Object(_)) => result,
        _ => json!({}),
    };
    result["send_id"] = json!(send.id);
    result["send_status"] = json!(send.state);
    if send.state == "sent" {
        result["sent_at"] = json!(send.finished_at);
    }
    let ids = [("new_msg_id", send.new_msg_id), ("msg_id", send.msg_id), ("resolved_as", send.resolved_as)];
    for (name, value) in ids {
        if let Some(value) = value {
            result[name] = json!(value);
        }
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_does_not_see_what_a_message_says() {
        let args = || json!({"to_wxid": "a", "message": {"kind": "text", "text": "secret"}});
        assert_eq!(
            shown_args("send_message", args(), Role::Viewer),
            json!({"to_wxid": "a", "message": {"kind": "text"}})
        );
        assert_eq!(shown_args("send_message", args(), Role::Agent), args());
        assert_eq!(shown_args("ai_reply", args(), Role::Viewer), json!({}));
    }

    #[test]
    fn an_error_shows_code_and_message_and_nothing_else() {
        let shown = error(json!({"code": "a", "message": "b", "detail": "secret"})).expect("an error");
        assert_eq!((shown.code.as_str(), shown.message.as_str()), ("a", "b"));
        assert!(error(json!("text")).is_none());
    }
}
