//! A campaign's part of the gate: the last look at the enrollment, under its lock, before its message leaves.

use entropy_schema::campaigns::enrollments::{self, Enrollment};
use entropy_schema::campaigns::facts;
use entropy_schema::campaigns::steps::{self, Step as Row};
use entropy_schema::{Conn, Result, conversations};

use super::checks::{Asker, Verdict, may_send};
use super::rules;
use super::say::forget;
use super::send::Campaign;
use super::situation::Situation;
use crate::job::{Failure, JobError};
use crate::services::Context;
use crate::sop::config::step::Step;

/// When a message that has passed its gate is looked at, should its end go unnoticed, in milliseconds.
const LOOK_AT_SENDING_MS: i64 = 20_000;

/// Asks everything once more. A "no" is written down with it: the step and its enrollment come due again when it may be otherwise.
///
/// The caller holds the account's lane. The conversation is locked as well, so of a takeover and this gate one comes first.
pub async fn ask(
    conn: &mut Conn,
    ctx: &Context,
    campaign: &Campaign,
    peer: &str,
) -> Result<Result<(), JobError>> {
    let organization = ctx.organization_id;
    let Some(before) = enrollments::get(conn, organization, campaign.enrollment_id).await? else {
        return Ok(Err(passed_by()));
    };
    if let Some(chat) = conversations::find(conn, organization, before.account_id, peer).await? {
        conversations::lock_row(conn, organization, chat).await?;
    }
    let Some(enrollment) = enrollments::lock(conn, campaign.enrollment_id).await? else {
        return Ok(Err(passed_by()));
    };
    let row = steps::get(conn, campaign.enrollment_id, &campaign.step_id).await?;
    let at_step =
        enrollment.finished_at.is_none() && enrollment.step_id.as_deref() == Some(campaign.step_id.as_str());
    let mine = |row: &Row| row.job_id == Some(ctx.job_id) && matches!(row.state.as_str(), "due" | "sending");
    let Some(row) = row.filter(|row| at_step && mine(row)) else { return Ok(Err(passed_by())) };
    if enrollment.state == "paused" {
        put_back(conn, row, enrollment, "paused").await?;
        return Ok(Err(cancel("paused", "the enrollment was paused")));
    }
    let facts = facts::of(conn, enrollment.id).await?;
    let plan = ctx.services.plans.of(conn, enrollment.sop_id, enrollment.version).await?;
    let (Some(facts), Some(plan)) = (facts, plan) else { return Ok(Err(passed_by())) };
    let newer = enrollment.replied_at.is_some_and(|replied| replied > campaign.written_at);
    if newer {
        let mut row = row;
        if row.written_at.is_some() {
            // What a model wrote answers nothing of that.
            forget(&mut row);
        }
        put_back(conn, row, enrollment, "newer_message").await?;
        return Ok(Err(cancel("newer_message", "the customer has written since the message was made")));
    }
    let mut situation = Situation::new(enrollment.clone(), &facts, &plan);
    situation.count(conn, false).await?;
    let step = plan.config.step(&campaign.step_id);
    if let Some(stopped) = rules::stopped(&situation, step, true) {
        put_back(conn, row, enrollment, stopped.reason).await?;
        return Ok(Err(cancel(stopped.reason, "a rule of the campaign has stopped it")));
    }
    let by_model = matches!(step, Some(Step::AiSend(_)));
    match may_send(&situation, Asker::Gate, by_model, row.planned_at) {
        Verdict::Send => Ok(Ok(())),
        Verdict::NotYet { until, code, moves } => {
            let due = enrollment.deadline_at.map_or(until, |deadline| until.min(deadline));
            let planned_at = if moves { until } else { row.planned_at };
            let first = enrollment.sent == 0 && campaign.step_id == plan.config.entry.as_str();
            let start_day = (moves && first).then(|| crate::sop::moment::start_day(until, situation.zone()));
            let row = Row {
                state: "deferred".to_owned(),
                reason: Some(code.to_owned()),
                planned_at,
                next_try_at: Some(until),
                job_id: None,
                sent_at: None,
                ..row
            };
            let enrollment = Enrollment {
                state: "waiting".to_owned(),
                wait_code: Some(code.to_owned()),
                due_at: Some(due),
                planned_at: Some(planned_at),
                start_day: start_day.or(enrollment.start_day),
                ..enrollment
            };
            steps::put(conn, &[row]).await?;
            enrollments::save(conn, &enrollment).await?;
            Ok(Err(cancel(code, "the campaign's message has to wait; it is made anew when it may be sent")))
        }
        Verdict::Skip { code } | Verdict::Exit { code } => {
            put_back(conn, row, enrollment, code).await?;
            Ok(Err(cancel(code, "the campaign's message is not sent any more")))
        }
    }
}

/// Writes that the message may leave now. False: somebody has stopped it in between.
pub async fn begin(conn: &mut Conn, ctx: &Context, campaign: &Campaign) -> Result<bool> {
    let begun = steps::begin(conn, campaign.enrollment_id, &campaign.step_id, ctx.job_id).await?;
    if begun {
        enrollments::put_off(conn, &[campaign.enrollment_id], LOOK_AT_SENDING_MS).await?;
    }
    Ok(begun)
}

/// Takes [`begin`] back: the gate was shut after all.
pub async fn withdraw(conn: &mut Conn, ctx: &Context, campaign: &Campaign) -> Result<()> {
    steps::withdraw(conn, campaign.enrollment_id, &campaign.step_id, ctx.job_id).await
}

/// The step is asked anew, at once.
async fn put_back(conn: &mut Conn, row: Row, enrollment: Enrollment, reason: &str) -> Result<()> {
    let row = Row {
        state: "planned".to_owned(),
        reason: Some(reason.to_owned()),
        job_id: None,
        sent_at: None,
        ..row
    };
    steps::put(conn, &[row]).await?;
    if enrollment.state != "paused" {
        enrollments::put_off(conn, &[enrollment.id], 0).await?;
    }
    Ok(())
}

fn passed_by() -> JobError {
    cancel("step_passed", "the campaign has gone on without this message")
}

fn cancel(code: &str, message: &str) -> JobError {
    JobError::Cancel(Failure::new(code, message))
}
