//! A call whose answer was lost: its process died, or the connection broke. It may have run, and may still be running.
//!
//! The provider's records are asked for it under the run's own id, until they know it or the time has passed in which it
//! can have been running. Only then is it given up.

use std::time::Duration;

use chrono::TimeDelta;
use entropy_schema::ai_runs::Run;
use entropy_schema::{clock, settings};

use super::port::{Answer, App, Found};
use super::prepare::{open_key, snooze};
use crate::job::JobError;
use crate::services::Context;
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
    let app_id = workflow.app_id.clone();
    if let (Some(api_key), Some(_)) = (open_key(ctx, &workflow), &app_id) {
        let app = App { endpoint: workflow.endpoint.clone(), api_key, app_id };
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
