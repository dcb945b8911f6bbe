//! After the call: what became of the run, what it cost, and whether its answer is still wanted.
//!
//! One transaction. The cost is booked whatever becomes of the answer. Whoever is second to conclude a run changes nothing.

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::ai_runs::{self, Run};
use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::drafts::{self, NewDraft};
use entropy_schema::replies::{self, Chat, Facts, Turn};
use entropy_schema::settings::{self, AccountAi};
use entropy_schema::{Conn, Error};
use serde_json::json;
use uuid::Uuid;

use super::deliver::{Delivery, deliver_at_once};
use super::ending::{self, Ended, estimate, not_got_through, spent, wait_after};
use super::port::{AiError, Answer, ErrorClass};
use super::prepare::{MAX_MISSES, cancel, hand_off, missed, newer_message, taken_over};
use super::text;
use super::usage;
use super::words::Action;
use crate::job::JobError;
use crate::kinds::ai_reply::done;
use crate::services::Context;
use crate::spending;
use crate::step;

/// How long a customer waits while calls do not get through, before a person is asked.
const PATIENCE: TimeDelta = TimeDelta::minutes(2);

/// How turn and chat stand when a run has come to its end.
struct Standing {
    chat: Chat,
    turn: Turn,
}

/// Why an answer is not said.
enum Unwanted {
    /// A newer message: the next run answers everything.
    Superseded,
    /// A person took over, or nobody may be answered any more.
    Dropped,
}

impl Standing {
    /// Locks what the answer concerns, in the order lane, chat, turn. None: it is not on record any more.
    async fn lock(conn: &mut Conn, run: &Run) -> Result<Option<Standing>, Error> {
        replies::lock_lane(conn, run.account_id).await?;
        let Some(chat) = replies::lock_chat(conn, run.organization_id, run.conversation_id).await? else {
            return Ok(None);
        };
        let turn = replies::lock_turn(conn, run.organization_id, run.conversation_id, run.turn_id).await?;
        Ok(turn.map(|turn| Standing { chat, turn }))
    }

    fn unwanted(&self, run: &Run) -> Option<Unwanted> {
        let Standing { chat, turn } = self;
        if turn.run != run.run || turn.job_id != run.job_id {
            return Some(Unwanted::Superseded);
        }
        let wanted = turn.state == "replying" && turn.epoch == chat.mode_epoch && chat.is_ai();
        (!wanted).then_some(Unwanted::Dropped)
    }
}

/// Concludes a run that brought an answer.
pub(crate) async fn answered(ctx: &Context, run: &Run, answer: Answer) -> Result<Ended, JobError> {
    let mut conn = ctx.conn().await?;
    let ended = conn
        .transaction(async |conn| {
            let ended = answered_within(conn, ctx, run, &answer).await?;
            step!("reply.enqueued");
            Ok::<_, Error>(ended)
        })
        .await?;
    step!("reply.concluded");
    Ok(ended)
}

async fn answered_within(conn: &mut Conn, ctx: &Context, run: &Run, answer: &Answer) -> Result<Ended, Error> {
    let standing = Standing::lock(conn, run).await?;
    let unwanted = standing.as_ref().map_or(Some(Unwanted::Dropped), |standing| standing.unwanted(run));
    let (settings, facts) = match (&standing, &unwanted) {
        (Some(standing), None) => (
            settings::account_ai(conn, run.organization_id, run.account_id).await?,
            replies::facts(conn, run.organization_id, run.conversation_id, &standing.turn.sender_wxid)
                .await?,
        ),
        _ => (None, None),
    };
    let verdict = match (unwanted, &settings, &facts) {
        (Some(Unwanted::Superseded), ..) => Verdict::Superseded,
        (Some(Unwanted::Dropped), ..) => Verdict::Dropped,
        (None, _, Some(facts)) if facts.ai_stopped => Verdict::Off("ai_stopped"),
        (None, Some(chosen), Some(facts)) if chosen.enabled && !facts.opted_out && !facts.suppressed => {
            let words = ctx.services.words.of(conn, run.organization_id).await?;
            judge(answer, chosen, &words)
        }
        (None, _, Some(facts)) if facts.opted_out => Verdict::Off("opted_out"),
        (None, _, Some(facts)) if facts.suppressed => Verdict::Off("suppressed"),
        (None, ..) => Verdict::Off("ai_disabled"),
    };
    let outcome = verdict.outcome();
    let opened = match ending::answered(conn, run, answer, outcome).await? {
        Ok(opened) => opened,
        Err(lost) => return Ok(Ended::Over(Err(lost))),
    };
    // The rows of budgets are shared by all conversations: after the breakers, before the alerts.
    spending::book_run(conn, &spent(run), &usage::lines(&answer.nodes)).await?;
    step!("reply.booked");
    let ended = match (verdict, standing, settings, facts) {
        (Verdict::Say { text, masked }, Some(standing), Some(_), Some(facts)) => {
            let Delivered { ids, cut } = {
                let answered_at = Utc::now() - answer.finished.elapsed();
                say(conn, ctx, run, &standing, &facts, (&text, answered_at)).await?
            };
            let details = json!({"messages": ids.len(), "job_ids": ids, "cut": cut, "masked": masked});
            Ended::Over(Ok(done(run.id, "sent", details)))
        }
        (Verdict::Draft { text, reason, word_ids }, Some(standing), Some(chosen), _) => {
            let minutes = chosen.draft_minutes;
            let draft = draft(conn, run, standing.turn.epoch, minutes, &text, (reason, &word_ids)).await?;
            Ended::Over(Ok(done(run.id, "drafted", json!({"draft_id": draft, "reason": reason}))))
        }
        (Verdict::HandOff { reason, note }, ..) => {
            Ended::Over(hand_off(conn, run.organization_id, run.conversation_id, reason, note).await?)
        }
        (Verdict::Failed, ..) => again_or_hand_off(conn, run).await?,
        (Verdict::Superseded, ..) => Ended::Over(Err(newer_message())),
        (Verdict::Off(code), ..) => {
            replies::set_turn(conn, run.turn_id, "dropped", Some(code)).await?;
            Ended::Over(Err(cancel(code, "no machine is to answer this customer any more")))
        }
        _ => Ended::Over(Err(taken_over())),
    };
    if let Some(opened) = opened {
        opened.tell(conn).await?;
    }
    ctx.services.metrics.ai_runs.with_label_values(&[outcome.unwrap_or("failed")]).inc();
    Ok(ended)
}

/// What is made of an answer that is still wanted.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Say {
        text: String,
        masked: bool,
    },
    Draft {
        text: String,
        reason: &'static str,
        word_ids: Vec<Uuid>,
    },
    HandOff {
        reason: &'static str,
        note: &'static str,
    },
    Failed,
    Superseded,
    /// A person took over.
    Dropped,
    /// No machine answers any more, as this word says; the turn still waits.
    Off(&'static str),
}

impl Verdict {
    /// Returns the word that is stored; none: the run may be repeated.
    fn outcome(&self) -> Option<&'static str> {
        match self {
            Verdict::Say { .. } => Some("sent"),
            Verdict::Draft { .. } => Some("drafted"),
            Verdict::HandOff { .. } => Some("handed_off"),
            Verdict::Failed => None,
            Verdict::Superseded => Some("superseded"),
            Verdict::Dropped | Verdict::Off(_) => Some("dropped"),
        }
    }
}

fn judge(answer: &Answer, chosen: &AccountAi, words: &super::words::Words) -> Verdict {
    if answer.node_error.is_some() {
        // What it wrote in spite of that may be half an answer, or the error itself.
        return Verdict::Failed;
    }
    let text = text::plain(&answer.text);
    if text.is_empty() {
        return Verdict::HandOff {
            reason: "empty_answer",
            note: "the model had nothing to say; a person should answer this customer",
        };
    }
    if text::is_fault(&text) {
        return Verdict::HandOff {
            reason: "answer_failed",
            note: "the workflow answered with a fault instead of an answer; a person should answer this customer",
        };
    }
    let found = words.check(&text);
    match found.action {
        Some(Action::Block) => Verdict::HandOff {
            reason: "sensitive_words",
            note: "the answer held words that must not be said; a person should answer this customer",
        },
        Some(Action::Review) => {
            Verdict::Draft { text: found.text, reason: "sensitive_words", word_ids: found.word_ids }
        }
        _ if chosen.review == "human" => {
            Verdict::Draft { text: found.text, reason: "asked", word_ids: found.word_ids }
        }
        action => Verdict::Say { text: found.text, masked: action == Some(Action::Mask) },
    }
}

struct Delivered {
    ids: Vec<Uuid>,
    cut: bool,
}

async fn say(
    conn: &mut Conn,
    ctx: &Context,
    run: &Run,
    standing: &Standing,
    facts: &Facts,
    (text, answered_at): (&str, DateTime<Utc>),
) -> Result<Delivered, Error> {
    let Standing { chat, turn } = standing;
    let mention = (chat.kind == "group").then_some((turn.sender_wxid.as_str(), facts.name.as_str()));
    let delivered = deliver_at_once(
        conn,
        &Delivery {
            organization_id: run.organization_id,
            account_id: run.account_id,
            conversation_id: run.conversation_id,
            peer_wxid: &chat.peer_wxid,
            mention,
            turn_id: turn.id,
            run: turn.run,
            epoch: turn.epoch,
            text,
            disclosed: facts.disclosed,
            now: chat.now,
            trace_id: &ctx.trace_id,
            created_by: ctx.created_by,
        },
        Some(answered_at),
    )
    .await?;
    Ok(Delivered { ids: delivered.job_ids, cut: delivered.cut })
}

async fn draft(
    conn: &mut Conn,
    run: &Run,
    epoch: i64,
    minutes: i32,
    text: &str,
    (reason, word_ids): (&str, &[Uuid]),
) -> Result<Uuid, Error> {
    let id = Uuid::now_v7();
    let parts = text::split(text).parts;
    let draft = NewDraft {
        id,
        organization_id: run.organization_id,
        account_id: run.account_id,
        conversation_id: run.conversation_id,
        turn_id: run.turn_id,
        run: run.run,
        epoch,
        parts: &parts,
        reason,
        word_ids,
        minutes,
    };
    drafts::create(conn, &draft).await?;
    replies::set_turn(conn, run.turn_id, "review", None).await?;
    alerts::raise(
        conn,
        &NewAlert {
            organization_id: run.organization_id,
            kind: "draft_waiting",
            severity: Severity::Info,
            dedupe_key: &format!("draft:{id}"),
            text: "an answer of the AI waits for a person to look at it",
            account_id: Some(run.account_id),
            conversation_id: Some(run.conversation_id),
            details: Some(json!({"draft_id": id, "reason": reason})),
        },
    )
    .await?;
    Ok(id)
}

/// Concludes a run that brought no answer.
pub(crate) async fn failed(ctx: &Context, run: &Run, error: &AiError) -> Result<Ended, JobError> {
    if error.class == ErrorClass::Ambiguous {
        return ending::unclear(ctx, run, error).await;
    }
    let mut conn = ctx.conn().await?;
    let ended = conn.transaction(async |conn| failed_within(conn, ctx, run, error).await).await?;
    Ok(ended)
}

async fn failed_within(conn: &mut Conn, ctx: &Context, run: &Run, error: &AiError) -> Result<Ended, Error> {
    let standing = Standing::lock(conn, run).await?;
    let opened = match ending::failed(conn, ctx, run, error, None).await? {
        Ok(opened) => opened,
        Err(lost) => return Ok(Ended::Over(Err(lost))),
    };
    ending::pay_for_nothing(conn, run, error).await?;
    let ended = match &standing {
        Some(standing) if standing.unwanted(run).is_none() => match error.class {
            ErrorClass::Refused | ErrorClass::Quota => {
                let note =
                    "the AI provider refuses the workflow's key or app; a person should answer this customer";
                Ended::Over(
                    hand_off(conn, run.organization_id, run.conversation_id, "ai_refused", note).await?,
                )
            }
            ErrorClass::Failed | ErrorClass::Ambiguous => again_or_hand_off(conn, run).await?,
            ErrorClass::NotRun | ErrorClass::Throttled => {
                wait_or_hand_off(conn, run, standing, error).await?
            }
        },
        Some(standing) => match standing.unwanted(run) {
            Some(Unwanted::Superseded) => Ended::Over(Err(newer_message())),
            _ => Ended::Over(Err(taken_over())),
        },
        None => Ended::Over(Err(taken_over())),
    };
    if let Some(opened) = opened {
        opened.tell(conn).await?;
    }
    Ok(ended)
}

/// Concludes a run of which nobody will ever know whether it ran.
pub(crate) async fn lost(ctx: &Context, run: &Run) -> Result<Ended, JobError> {
    let mut conn = ctx.conn().await?;
    let ended = conn
        .transaction(async |conn| {
            let standing = Standing::lock(conn, run).await?;
            if let Err(lost) = ending::unknown(conn, ctx, run, None).await? {
                return Ok(Ended::Over(Err(lost)));
            }
            estimate(conn, run).await?;
            let ended = match &standing {
                Some(standing) if standing.unwanted(run).is_none() => again_or_hand_off(conn, run).await?,
                _ => Ended::Over(Err(taken_over())),
            };
            Ok::<_, Error>(ended)
        })
        .await?;
    Ok(ended)
}

/// Allows one more run, or asks a person. The end of this one is written already.
async fn again_or_hand_off(conn: &mut Conn, run: &Run) -> Result<Ended, Error> {
    let runs = ai_runs::of_job(conn, run.turn_id, run.job_id).await?;
    if runs.iter().filter(|run| missed(run)).count() < MAX_MISSES {
        return Ok(Ended::Again);
    }
    let note = "the model failed twice; a person should answer this customer";
    Ok(Ended::Over(hand_off(conn, run.organization_id, run.conversation_id, "answer_failed", note).await?))
}

/// Nothing ran: waits a little, unless the customer has waited long enough.
async fn wait_or_hand_off(
    conn: &mut Conn,
    run: &Run,
    standing: &Standing,
    error: &AiError,
) -> Result<Ended, Error> {
    let runs = ai_runs::of_job(conn, run.turn_id, run.job_id).await?;
    let tries = u32::try_from(runs.iter().filter(|run| run.state == "failed").count()).unwrap_or(u32::MAX);
    let wait = wait_after(error, tries.saturating_sub(1));
    let until = standing.chat.now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX);
    if until <= standing.turn.last_message_at + PATIENCE {
        return Ok(Ended::Over(Err(not_got_through(error, wait))));
    }
    let note = "the AI provider could not be reached for two minutes; a person should answer this customer";
    Ok(Ended::Over(hand_off(conn, run.organization_id, run.conversation_id, "ai_unreachable", note).await?))
}
