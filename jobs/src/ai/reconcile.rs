//! A call whose answer was lost: its process died, or the connection broke. It may have run, and may still be running.
//!
//! The provider's records are asked for it under the run's own id, until they know it or the time has passed in which it
//! can have been running. Only then is it given up, and booked as an estimate. Later looks, rarer and rarer, put what it
//! did cost in the estimate's place.

use std::time::Duration;

use chrono::TimeDelta;
use diesel_async::AsyncConnection;
use entropy_schema::ai_runs::{self, Run};
use entropy_schema::settings::Workflow;
use entropy_schema::{Error, clock, settings};

use super::ending::{self, spent};
use super::port::{Answer, App, Found};
use super::prepare::{LATE, open_key, snooze};
use super::usage;
use crate::job::JobError;
use crate::services::Context;
use crate::spending;
use crate::step;

/// What a run may take beyond its timeout: the provider does not notice at once that nobody listens.
const GRACE: TimeDelta = TimeDelta::seconds(30);

/// The waits between looks: the answer of a run that has just ended is there in a moment.
const LOOK_AGAIN: [(TimeDelta, Duration); 3] = [
    (TimeDelta::seconds(8), Duration::from_secs(2)),
    (TimeDelta::seconds(30), Duration::from_secs(5)),
    (TimeDelta::MAX, Duration::from_secs(10)),
];

/// What the look came to.
pub(crate) enum Looked {
    /// It ran, and this is its answer.
    Found(Box<Answer>),
    /// Look again later.
    Wait(JobError),
    /// Nobody will ever know.
    Lost,
}

/// Looks for the answer of a run at `calling`.
pub(crate) async fn look_up(ctx: &Context, run: &Run) -> Result<Looked, JobError> {
    let mut conn = ctx.conn().await?;
    let now = clock::now(&mut conn).await?;
    let workflow = settings::workflow(&mut conn, run.organization_id, run.workflow_id).await?;
    drop(conn);
    let Some(workflow) = workflow else {
        // Removed meanwhile, and its key with it.
        return Ok(Looked::Lost);
    };
    let running_until = run.started_at + TimeDelta::milliseconds(workflow.timeout_ms.into()) + GRACE;
    if let Some(app) = app_of(ctx, &workflow) {
        match ctx.services.ai.look_up(&app, &run.chat_id, run.id, &ctx.trace_id).await {
            Ok(Found::Ran(answer)) => {
                step!("ask.looked_up");
                tracing::info!(run_id = %run.id, "a lost answer was found in the provider's records");
                return Ok(Looked::Found(Box::new(answer)));
            }
            Ok(Found::Nothing) => {}
            Err(error) => {
                tracing::warn!(run_id = %run.id, %error, "the provider's records could not be read")
            }
        }
    }
    if now >= running_until {
        return Ok(Looked::Lost);
    }
    let since = now - run.started_at;
    let wait = LOOK_AGAIN
        .iter()
        .find(|(young, _)| since < *young)
        .map_or(Duration::from_secs(10), |(_, wait)| *wait);
    let left = (running_until - now).to_std().unwrap_or_default();
    let note = "an answer of the model was lost; its records are asked for it before it is asked again";
    Ok(Looked::Wait(snooze(wait.min(left).max(Duration::from_millis(100)), "ai_answer_lost", note)))
}

/// Returns the app whose records know the workflow's runs. None: they cannot be asked.
fn app_of(ctx: &Context, workflow: &Workflow) -> Option<App> {
    let app_id = Some(workflow.app_id.clone()?);
    Some(App { endpoint: workflow.endpoint.clone(), api_key: open_key(ctx, workflow)?, app_id })
}

/// What a look at a run came to that had been given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// It is known now what it cost.
    Settled,
    /// The records do not know it, or cannot be asked.
    Nothing,
    /// The records did not answer.
    Silent,
}

/// Looks once more for a run that was given up. If it is found, what it cost takes the place of the estimate; what it said
/// comes too late for the customer, and is only kept.
pub(crate) async fn look_again(ctx: &Context, run: &Run) -> Result<Late, JobError> {
    let workflow = settings::workflow(&mut *ctx.conn().await?, run.organization_id, run.workflow_id).await?;
    let Some(app) = workflow.as_ref().and_then(|workflow| app_of(ctx, workflow)) else {
        return Ok(Late::Nothing);
    };
    match ctx.services.ai.look_up(&app, &run.chat_id, run.id, &ctx.trace_id).await {
        Ok(Found::Ran(answer)) => settle(ctx, run, &answer).await,
        Ok(Found::Nothing) => Ok(Late::Nothing),
        Err(error) => {
            tracing::warn!(run_id = %run.id, %error, "the provider's records could not be read");
            Ok(Late::Silent)
        }
    }
}

async fn settle(ctx: &Context, run: &Run, answer: &Answer) -> Result<Late, JobError> {
    let end = ending::of_answer(answer, Some(LATE));
    let mut conn = ctx.conn().await?;
    let settled = conn
        .transaction(async |conn| {
            if !ai_runs::settle(conn, run.id, &end).await? {
                return Ok(false);
            }
            spending::book_run(conn, &spent(run), &usage::lines(&answer.nodes)).await?;
            Ok::<_, Error>(true)
        })
        .await?;
    if settled {
        tracing::info!(run_id = %run.id, "a run that had been given up was found; its estimate is corrected");
    }
    Ok(if settled { Late::Settled } else { Late::Nothing })
}
