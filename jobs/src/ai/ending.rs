//! How a run of a model ends on record, whoever had it asked for: its row, the breakers that learn of it, and what it cost.
//!
//! Answers to customers and texts of campaigns end alike here. What is made of the words is theirs. Whoever is second to end a run
//! changes nothing.

use std::time::Duration;

use diesel_async::AsyncConnection;
use entropy_schema::ai_runs::{self, Run, RunEnd};
use entropy_schema::{Conn, Error, settings};

use super::breaker::{self, Opened};
use super::port::{AiError, Answer, ErrorClass};
use super::prepare::snooze;
use super::usage;
use crate::job::{Done, JobError};
use crate::services::Context;
use crate::spending;

/// The longest wait between two calls that do not get through.
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// Of what a node said when it failed, as many characters are kept.
const MESSAGE_CHARS: usize = 1000;

/// The code of a run of which a node failed.
const NODE_FAILED: &str = "node_failed";

/// What follows for the job.
pub(crate) enum Ended {
    /// It is over, or waits.
    Over(Result<Done, JobError>),
    /// The record is looked at once more: one more call may be allowed.
    Again,
}

/// Returns the end of a run that brought an answer. A node that failed makes it a failed one, whatever it wrote in spite of that.
pub(super) fn of_answer<'a>(answer: &'a Answer, outcome: Option<&'a str>) -> RunEnd<'a> {
    let failed = answer.node_error.is_some();
    RunEnd {
        state: if failed { "failed" } else { "answered" },
        error_class: failed.then_some(ErrorClass::Failed.as_str()),
        error_code: failed.then_some(NODE_FAILED),
        error_message: answer.node_error.as_deref().map(|said| head(said, MESSAGE_CHARS)),
        answer: Some(&answer.text),
        outcome,
        points: usage::points(&answer.nodes),
    }
}

fn head(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

/// Ends a run that brought an answer, and returns the breaker that opens for it, of which people are to be told. Its cost is the
/// caller's to book. The inner error: it has ended before.
pub(crate) async fn answered(
    conn: &mut Conn,
    run: &Run,
    answer: &Answer,
    outcome: Option<&str>,
) -> Result<Result<Option<Opened>, JobError>, Error> {
    if !ai_runs::end(conn, run.id, &of_answer(answer, outcome)).await? {
        return Ok(Err(JobError::Lost));
    }
    if answer.node_error.is_none() {
        breaker::succeeded(conn, run.account_id, &run.key_hash).await?;
        return Ok(Ok(None));
    }
    let message = "a node of the workflow failed".to_owned();
    let error = AiError { class: ErrorClass::Failed, code: NODE_FAILED, message, retry_after: None };
    Ok(Ok(breaker::failed(conn, run.organization_id, run.account_id, &run.key_hash, &error).await?))
}

/// The same for a run that brought none.
pub(crate) async fn failed(
    conn: &mut Conn,
    ctx: &Context,
    run: &Run,
    error: &AiError,
    outcome: Option<&str>,
) -> Result<Result<Option<Opened>, JobError>, Error> {
    let end = RunEnd {
        state: "failed",
        error_class: Some(error.class.as_str()),
        error_code: Some(error.code),
        error_message: Some(&error.message),
        outcome,
        ..RunEnd::default()
    };
    if !ai_runs::end(conn, run.id, &end).await? {
        return Ok(Err(JobError::Lost));
    }
    ctx.services.metrics.ai_runs.with_label_values(&["failed"]).inc();
    Ok(Ok(breaker::failed(conn, run.organization_id, run.account_id, &run.key_hash, error).await?))
}

/// Ends a run of which nobody will ever know whether it ran. Its cost is the caller's to book, as an estimate. The inner error: it
/// has ended before.
pub(crate) async fn unknown(
    conn: &mut Conn,
    ctx: &Context,
    run: &Run,
    outcome: Option<&str>,
) -> Result<Result<(), JobError>, Error> {
    let end = RunEnd { state: "unknown", outcome, ..RunEnd::default() };
    if !ai_runs::end(conn, run.id, &end).await? {
        return Ok(Err(JobError::Lost));
    }
    ctx.services.metrics.ai_runs.with_label_values(&["unknown"]).inc();
    Ok(Ok(()))
}

/// Notes of a run that it may be running still: it stays at `calling`, and the records are asked for it.
pub(crate) async fn unclear(ctx: &Context, run: &Run, error: &AiError) -> Result<Ended, JobError> {
    let mut conn = ctx.conn().await?;
    ai_runs::note(&mut conn, run.id, error.class.as_str(), error.code, &error.message).await?;
    conn.transaction(async |conn| {
        match breaker::failed(conn, run.organization_id, run.account_id, &run.key_hash, error).await? {
            Some(opened) => opened.tell(conn).await,
            None => Ok(()),
        }
    })
    .await?;
    Ok(Ended::Again)
}

/// Books what a run has cost that brought no answer, or gives back what was kept for it.
pub(crate) async fn pay_for_nothing(conn: &mut Conn, run: &Run, error: &AiError) -> Result<(), Error> {
    if error.class == ErrorClass::Failed {
        // It ran, and nobody says what that cost.
        estimate(conn, run).await
    } else {
        spending::release(conn, run.organization_id, run.id).await
    }
}

/// Writes the end of a run whose job has ended without one: it may have run, and nobody will look for its answer.
pub(super) async fn given_up(conn: &mut Conn, run: &Run) -> Result<(), Error> {
    let end = RunEnd { state: "unknown", outcome: Some("dropped"), ..RunEnd::default() };
    if ai_runs::end(conn, run.id, &end).await? {
        estimate(conn, run).await?;
    }
    Ok(())
}

/// Books what was reserved: nobody knows better.
pub(crate) async fn estimate(conn: &mut Conn, run: &Run) -> Result<(), Error> {
    let workflow = settings::workflow(conn, run.organization_id, run.workflow_id).await?;
    match workflow {
        Some(workflow) => spending::book_estimate(conn, &spent(run), &workflow.reserve_yuan).await,
        None => spending::release(conn, run.organization_id, run.id).await,
    }
}

/// Says whose run it was, for the ledger.
pub(crate) fn spent(run: &Run) -> spending::Run {
    spending::Run {
        run_id: run.id,
        organization_id: run.organization_id,
        account_id: run.account_id,
        user_id: run.user_id,
        conversation_id: run.conversation(),
        sop_id: run.sop_id,
        job_id: run.job_id,
        occurred_at: run.started_at,
    }
}

/// Returns how long to wait after a call that did not get through: as the provider asks, or twice as long each time.
pub(crate) fn wait_after(error: &AiError, doublings: u32) -> Duration {
    let backoff = Duration::from_secs(1 << doublings.min(4)).min(MAX_BACKOFF);
    error.retry_after.unwrap_or(backoff).max(Duration::from_millis(200))
}

/// Puts a job off whose call did not get through.
pub(crate) fn not_got_through(error: &AiError, wait: Duration) -> JobError {
    let (code, note) = match error.class {
        ErrorClass::Throttled => ("ai_rate_limited", "the AI provider asks for patience"),
        _ => ("ai_unreachable", "the AI provider could not be reached"),
    };
    snooze(wait, code, note)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_a_failed_node_said_is_cut_between_characters() {
        let answer = Answer {
            text: "半句".to_owned(),
            nodes: Vec::new(),
            node_error: Some("错".repeat(MESSAGE_CHARS + 1)),
            interactive: false,
            finished: Instant::now(),
        };
        let end = of_answer(&answer, None);
        assert_eq!((end.state, end.error_code), ("failed", Some(NODE_FAILED)));
        assert_eq!(end.error_message.map(|said| said.chars().count()), Some(MESSAGE_CHARS));
        assert_eq!(head("短", MESSAGE_CHARS), "短");
    }
}
