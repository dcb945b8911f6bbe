//! After the call: what became of the run, what it cost, and what the step says now.

use diesel_async::AsyncConnection;
use entropy_schema::ai_runs::{self, Run};
use entropy_schema::campaigns::enrollments::Enrollment;
use entropy_schema::campaigns::facts::{self, Facts};
use entropy_schema::campaigns::steps;
use entropy_schema::settings::{self, AccountAi};
use entropy_schema::{Conn, Error};
use serde_json::json;

use super::{AtHand, fallen_back, passed_by};
use crate::ai::ending::{self, Ended, estimate, not_got_through, spent, wait_after};
use crate::ai::port::{AiError, Answer, ErrorClass};
use crate::ai::prepare::cancel;
use crate::ai::text;
use crate::ai::usage;
use crate::ai::words::Action;
use crate::campaign::say::{forget, is_outdated};
use crate::campaign::situation::Situation;
use crate::job::{Done, JobError};
use crate::kinds::ai_reply::done;
use crate::kinds::sop_write::SopWrite;
use crate::services::Context;
use crate::sop::config::step::Step;
use crate::spending;
use crate::step;

/// Calls of one job that do not get through.
const MOST_TRIES: usize = 3;

/// Concludes a run that brought an answer.
pub(crate) async fn answered(
    ctx: &Context,
    job: &SopWrite,
    run: &Run,
    answer: &Answer,
) -> Result<Ended, JobError> {
    let mut conn = ctx.conn().await?;
    let ended = conn
        .transaction(async |conn| {
            let ended = answered_within(conn, ctx, job, run, answer).await?;
            step!("write.written");
            Ok::<_, Error>(ended)
        })
        .await?;
    step!("write.concluded");
    Ok(ended)
}

async fn answered_within(
    conn: &mut Conn,
    ctx: &Context,
    job: &SopWrite,
    run: &Run,
    answer: &Answer,
) -> Result<Ended, Error> {
    let at_hand = AtHand::lock(conn, ctx, job).await?;
    let found = match at_hand {
        Some(at_hand) => judge(conn, ctx, at_hand, answer).await?,
        None => Found::PassedBy,
    };
    let outcome = found.outcome();
    let opened = match ending::answered(conn, run, answer, Some(outcome)).await? {
        Ok(opened) => opened,
        Err(lost) => return Ok(Ended::Over(Err(lost))),
    };
    let ended = found.write(conn, run).await?;
    // The rows of budgets are shared by the whole organisation: they come last but the alerts.
    spending::book_run(conn, &spent(run), &usage::lines(&answer.nodes)).await?;
    if let Some(opened) = opened {
        opened.tell(conn).await?;
    }
    ctx.services.metrics.ai_runs.with_label_values(&[outcome]).inc();
    Ok(Ended::Over(ended))
}

/// What is made of an answer.
enum Found {
    /// This is what the step says.
    Text(Box<AtHand>, String),
    /// The plan's own text is sent, for this reason.
    Fallback(Box<AtHand>, &'static str),
    /// The other side has written meanwhile.
    Outdated(Box<AtHand>),
    /// The campaign has gone on without it.
    PassedBy,
}

impl Found {
    /// Returns the word that is stored with the run.
    fn outcome(&self) -> &'static str {
        match self {
            Found::Text(..) => "written",
            Found::Fallback(..) => "fallback",
            Found::Outdated(_) => "superseded",
            Found::PassedBy => "dropped",
        }
    }

    async fn write(self, conn: &mut Conn, run: &Run) -> Result<Result<Done, JobError>, Error> {
        match self {
            Found::Text(mut at_hand, text) => {
                let chars = text.chars().count();
                at_hand.row.text = Some(text);
                at_hand.give_back(conn, "written").await?;
                Ok(Ok(done(run.id, "written", json!({ "characters": chars }))))
            }
            Found::Fallback(at_hand, code) => {
                at_hand.fall_back(conn, code).await?;
                Ok(Ok(fallen_back(Some(run.id), code)))
            }
            Found::Outdated(mut at_hand) => {
                forget(&mut at_hand.row);
                at_hand.give_back(conn, "newer_message").await?;
                Ok(Err(cancel("newer_message", "the customer has written since the model was asked")))
            }
            Found::PassedBy => Ok(Err(passed_by())),
        }
    }
}

async fn judge(conn: &mut Conn, ctx: &Context, at_hand: AtHand, answer: &Answer) -> Result<Found, Error> {
    let at_hand = Box::new(at_hand);
    let enrollment = &at_hand.enrollment;
    let facts = facts::of(conn, enrollment.id).await?;
    let plan = ctx.services.plans.of(conn, enrollment.sop_id, enrollment.version).await?;
    let (Some(facts), Some(plan)) = (facts, plan) else { return Ok(Found::PassedBy) };
    let step = plan.config.step(&at_hand.row.step_id);
    let Some(Step::AiSend(ai)) = step else { return Ok(Found::PassedBy) };
    let situation = Situation::new(enrollment.clone(), &facts, &plan);
    if is_outdated(&at_hand.row, &situation) {
        return Ok(Found::Outdated(at_hand));
    }
    if answer.node_error.is_some() {
        // What it wrote in spite of that may be half a text, or the error itself.
        return Ok(Found::Fallback(at_hand, "answer_failed"));
    }
    let text = text::plain(&answer.text);
    let most = ai.max_chars.map_or(text::PART_CHARS, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let text = text::shorten(&text, most);
    if text.is_empty() {
        return Ok(Found::Fallback(at_hand, "empty_answer"));
    }
    if text::is_fault(text) {
        return Ok(Found::Fallback(at_hand, "answer_failed"));
    }
    let words = ctx.services.words.of(conn, enrollment.organization_id).await?;
    if words.check(text).action == Some(Action::Block) {
        return Ok(Found::Fallback(at_hand, "sensitive_words"));
    }
    let text = match disclosure(conn, enrollment, &facts).await? {
        Some(disclosure) => format!("{disclosure}\n{text}"),
        None => text.to_owned(),
    };
    Ok(Found::Text(at_hand, text))
}

/// Returns what tells a person that a machine writes; none: they were told before, or the account says nothing of it.
async fn disclosure(
    conn: &mut Conn,
    enrollment: &Enrollment,
    facts: &Facts,
) -> Result<Option<String>, Error> {
    let (organization, account) = (enrollment.organization_id, enrollment.account_id);
    if steps::disclosed(conn, organization, enrollment.contact_id, facts.conversation_id).await? {
        return Ok(None);
    }
    let chosen = settings::account_ai(conn, organization, account).await?;
    let chosen = chosen.unwrap_or_else(|| AccountAi::default_of(organization, account));
    let disclosure = chosen.disclosure.trim();
    Ok((!disclosure.is_empty()).then(|| disclosure.to_owned()))
}

/// Concludes a run that brought no answer.
pub(crate) async fn failed(
    ctx: &Context,
    job: &SopWrite,
    run: &Run,
    error: &AiError,
) -> Result<Ended, JobError> {
    if error.class == ErrorClass::Ambiguous {
        return ending::unclear(ctx, run, error).await;
    }
    let mut conn = ctx.conn().await?;
    let ended = conn.transaction(async |conn| failed_within(conn, ctx, job, run, error).await).await?;
    Ok(ended)
}

async fn failed_within(
    conn: &mut Conn,
    ctx: &Context,
    job: &SopWrite,
    run: &Run,
    error: &AiError,
) -> Result<Ended, Error> {
    let at_hand = AtHand::lock(conn, ctx, job).await?;
    let tries = ai_runs::of_job(conn, run.turn_id, run.job_id).await?.len();
    let retries = matches!(error.class, ErrorClass::NotRun | ErrorClass::Throttled) && tries < MOST_TRIES;
    let outcome = match (&at_hand, retries) {
        (None, _) => Some("dropped"),
        (Some(_), true) => None,
        (Some(_), false) => Some("fallback"),
    };
    let opened = match ending::failed(conn, ctx, run, error, outcome).await? {
        Ok(opened) => opened,
        Err(lost) => return Ok(Ended::Over(Err(lost))),
    };
    let ended = match at_hand {
        None => Err(passed_by()),
        Some(_) if retries => {
            let doublings = u32::try_from(tries).unwrap_or(u32::MAX);
            Err(not_got_through(error, wait_after(error, doublings)))
        }
        Some(at_hand) => {
            at_hand.fall_back(conn, error.code).await?;
            Ok(fallen_back(Some(run.id), error.code))
        }
    };
    ending::pay_for_nothing(conn, run, error).await?;
    if let Some(opened) = opened {
        opened.tell(conn).await?;
    }
    Ok(Ended::Over(ended))
}

/// Concludes a run of which nobody will ever know whether it ran. It is not paid for twice.
pub(crate) async fn lost(ctx: &Context, job: &SopWrite, run: &Run) -> Result<Ended, JobError> {
    let mut conn = ctx.conn().await?;
    let ended = conn
        .transaction(async |conn| {
            let at_hand = AtHand::lock(conn, ctx, job).await?;
            let outcome = if at_hand.is_some() { "fallback" } else { "dropped" };
            if let Err(lost) = ending::unknown(conn, ctx, run, Some(outcome)).await? {
                return Ok(Ended::Over(Err(lost)));
            }
            let ended = match at_hand {
                Some(at_hand) => {
                    at_hand.fall_back(conn, "answer_lost").await?;
                    Ok(fallen_back(Some(run.id), "answer_lost"))
                }
                None => Err(passed_by()),
            };
            estimate(conn, run).await?;
            Ok::<_, Error>(Ended::Over(ended))
        })
        .await?;
    Ok(ended)
}
