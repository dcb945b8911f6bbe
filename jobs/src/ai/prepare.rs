//! Before the model is called: is an answer wanted, may it be asked for now, can it be paid, and what is asked.
//!
//! One transaction, which ends with a run at `calling`. Everything that speaks against it is looked at here, and once more
//! when the answer has come ([`conclude`](super::conclude)), and by the gate before each message.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use diesel_async::AsyncConnection;
use entropy_schema::ai_runs::{self, NewRun, Run};
use entropy_schema::replies::{self, Chat, Facts, Said, Turn};
use entropy_schema::settings::{self, AccountAi, Workflow};
use entropy_schema::{Conn, Error};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use uuid::Uuid;

use super::attachments::{self, Attached};
use super::breaker;
use super::history::{Question, question};
use super::port::{AiError, Answer, App, Ask, Part};
use crate::conversation::mode;
use crate::job::{Done, Failure, JobError, Scope, Snooze};
use crate::kinds::ai_reply::{AiReply, Asked, done};
use crate::services::Context;
use crate::spending::{self, Reserved, Spender};
use crate::step;

/// How long a customer waits for a model that is not to be asked now, before a person is asked instead.
const PATIENCE_CLOSED: TimeDelta = TimeDelta::seconds(60);

/// The same for a key whose limit is reached.
const PATIENCE_BUSY: TimeDelta = TimeDelta::minutes(2);

/// A chat that was quiet for so long begins a new history at the provider.
const ERA: TimeDelta = TimeDelta::days(7);

/// The longest name of a chat that the provider takes.
const MAX_CHAT_ID: usize = 240;

/// Runs of one run of a turn that may go wrong, before a person is asked.
pub(super) const MAX_MISSES: usize = 2;

/// What became of an answer that was found after its run had been given up: nothing, and the run counts as one that went
/// wrong.
pub(crate) const LATE: &str = "late";

/// How long until it is looked again whether a picture has come.
const LOOK_FOR_MEDIA: Duration = Duration::from_secs(1);

/// What is kept of a reservation beside the time that a call may take: for what becomes of it.
pub(crate) const SETTLED_WITHIN: Duration = Duration::from_secs(300);

/// What the look at the record came to.
pub(crate) enum Prepared {
    /// Nothing is asked.
    Over(Result<Done, JobError>),
    /// Everything is written down: call.
    Call(Box<Call>),
    /// A call was made before, and nobody knows what became of it.
    LookUp(Box<Run>),
}

/// A call that may be made, once.
pub(crate) struct Call {
    /// Its row.
    pub(crate) run: Run,
    /// Which app is asked.
    pub(crate) app: App,
    /// What.
    pub(crate) ask: Ask,
}

impl Call {
    /// Makes it. Nothing of the record is held meanwhile.
    pub(crate) async fn make(&self, ctx: &Context) -> Result<Answer, AiError> {
        let called = Instant::now();
        let outcome = ctx.services.ai.ask(&self.app, &self.ask).await;
        step!("ask.read");
        tracing::info!(
            run_id = %self.run.id,
            campaign = self.run.sop_id.is_some(),
            elapsed_ms = called.elapsed().as_millis() as u64,
            outcome = outcome.as_ref().map_or_else(|error| error.class.as_str(), |_| "answered"),
            "model called"
        );
        if let Err(error) = &outcome {
            ctx.services.metrics.provider_errors.with_label_values(&["fastgpt", error.class.as_str()]).inc();
        }
        outcome
    }
}

/// Looks at the record, and writes the run down that it allows.
pub(crate) async fn prepare(ctx: &Context, job: &AiReply) -> Result<Prepared, JobError> {
    let mut conn = ctx.conn().await?;
    let prepared = conn
        .transaction(async |conn| {
            let prepared = within(conn, ctx, job).await?;
            if let Prepared::Call(_) = prepared {
                step!("reply.reserved");
            }
            Ok::<_, Error>(prepared)
        })
        .await?;
    if let Prepared::Call(_) = prepared {
        step!("reply.committed");
    }
    Ok(prepared)
}

async fn within(conn: &mut Conn, ctx: &Context, job: &AiReply) -> Result<Prepared, Error> {
    let organization = ctx.organization_id;
    let over = |end: Result<Done, JobError>| Ok(Prepared::Over(end));
    let Some(chat) = replies::lock_chat(conn, organization, job.conversation_id).await? else {
        return over(Err(cancel("conversation_gone", "the conversation is not on record any more")));
    };
    let Some(turn) = the_turn(conn, ctx, job, &chat).await? else {
        return over(Err(cancel("turn_gone", "the turn is not on record any more")));
    };
    step!("reply.locked");
    let runs = ai_runs::of_job(conn, turn.id, ctx.job_id).await?;
    match runs.last() {
        Some(run) if run.state == "calling" => return Ok(Prepared::LookUp(Box::new(run.clone()))),
        // The process died between the second transaction and the end of its attempt.
        Some(Run { id, outcome: Some(outcome), .. }) if outcome != LATE => {
            return over(match outcome.as_str() {
                "superseded" => Err(newer_message()),
                "dropped" => Err(taken_over()),
                outcome => Ok(done(*id, outcome, Value::Null)),
            });
        }
        _ => {}
    }
    if let Err(refusal) = standing(ctx, &chat, &turn) {
        return over(Err(refusal));
    }
    let Some(facts) = replies::facts(conn, organization, job.conversation_id, &turn.sender_wxid).await?
    else {
        return over(Err(cancel("conversation_gone", "the conversation is not on record any more")));
    };
    let chosen = settings::account_ai(conn, organization, chat.account_id).await?;
    let workflow = match chosen.as_ref().and_then(|chosen| chosen.workflow_id) {
        Some(id) => settings::workflow(conn, organization, id).await?,
        None => None,
    };
    let workflow = match wanted(&chat, job.epoch, &turn, &facts, chosen, workflow) {
        Ok(found) => found,
        Err((code, message)) => {
            replies::set_turn(conn, turn.id, "dropped", Some(code)).await?;
            return over(Err(cancel(code, message)));
        }
    };
    if turn.flush_at > chat.now {
        let wait = (turn.flush_at - chat.now).to_std().unwrap_or_default();
        return over(Err(snooze(wait, "scheduled", "the customer may still be writing")));
    }
    // `outcome` is written with the decision; what is left are runs that may be repeated.
    if runs.iter().filter(|run| missed(run)).count() >= MAX_MISSES {
        let note = "the model failed twice; a person should answer this customer";
        return over(hand_off(conn, organization, job.conversation_id, "answer_failed", note).await?);
    }
    let messages = asked_about(conn, ctx, job, &turn).await?;
    let links = ctx.services.links.as_ref();
    let patient = chat.now < turn.last_message_at + attachments::PATIENCE;
    let attached = attachments::of(conn, organization, links, &messages, chat.now, patient).await?;
    let Attached::Parts(attached) = attached else {
        let note = "a picture or file of the customer is still being downloaded";
        return over(Err(snooze(LOOK_FOR_MEDIA, "ai_media_waiting", note)));
    };
    let closed = breaker::admit(conn, chat.account_id, &workflow.key_hash).await?;
    let busy = match closed {
        None => {
            let busy = ai_runs::admit(conn, &workflow.key_hash, workflow.requests_per_minute).await?;
            busy.map(|wait| wait.to_std().unwrap_or_default())
        }
        Some(_) => None,
    };
    let guarded = match (closed, busy) {
        (None, None) => {
            let per_minute = workflow.requests_per_minute.unsigned_abs();
            ctx.services.ask_guard.check(&workflow.key_hash, per_minute).err()
        }
        _ => None,
    };
    let waits = [
        (
            closed,
            PATIENCE_CLOSED,
            "ai_breaker_open",
            "the model is left alone for a while, after failures in a row",
        ),
        (
            busy,
            PATIENCE_BUSY,
            "ai_rate_limited",
            "the workflow's key has made as many calls as it may in a minute",
        ),
        (
            guarded,
            PATIENCE_BUSY,
            "ai_rate_limited",
            "this worker has made as many calls with the key as it may",
        ),
    ];
    for (wait, patience, code, note) in waits {
        let Some(wait) = wait else { continue };
        if chat.now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX) <= turn.last_message_at + patience {
            ctx.services.metrics.limiter_waits.with_label_values(&[code]).inc();
            return over(Err(snooze(wait.max(Duration::from_millis(100)), code, note)));
        }
        return over(hand_off(conn, organization, job.conversation_id, code, note).await?);
    }
    begin(conn, ctx, job, &Ready { chat, turn, facts, workflow, messages, attached }).await
}

/// Returns what the question is about: the turn's messages, or else what the customer wrote last.
async fn asked_about(conn: &mut Conn, ctx: &Context, job: &AiReply, turn: &Turn) -> Result<Vec<Said>, Error> {
    let organization = ctx.organization_id;
    let messages = replies::turn_messages(conn, organization, turn.id).await?;
    if messages.is_empty() {
        // Asked for by a person: what the customer wrote last is what is answered.
        return replies::unanswered(conn, organization, job.conversation_id, &turn.sender_wxid).await;
    }
    Ok(messages)
}

/// What a call is made with.
struct Ready {
    chat: Chat,
    turn: Turn,
    facts: Facts,
    workflow: Workflow,
    messages: Vec<Said>,
    /// The messages whose picture or file the provider can fetch.
    attached: HashMap<Uuid, Part>,
}

/// Reserves, writes the run down, and puts the question together.
async fn begin(conn: &mut Conn, ctx: &Context, job: &AiReply, ready: &Ready) -> Result<Prepared, Error> {
    let Ready { chat, turn, facts, workflow, messages, attached } = ready;
    let organization = ctx.organization_id;
    let Some(api_key) = open_key(ctx, workflow) else {
        let note =
            "the key of the workflow cannot be read by this worker: is ENCRYPTION_KEY that of the API?";
        return Ok(Prepared::Over(
            hand_off(conn, organization, job.conversation_id, "ai_key_unreadable", note).await?,
        ));
    };
    let meanwhile = replies::meanwhile(conn, organization, job.conversation_id, turn.id).await?;
    let asker = (chat.kind == "group").then_some(facts.name.as_str());
    let asked = Question { messages, meanwhile: &meanwhile, asker, instruction: turn.instruction.as_deref() };
    let Some(parts) = question(asked, |said| attached.get(&said.id).cloned()) else {
        replies::set_turn(conn, turn.id, "dropped", Some("nothing_to_answer")).await?;
        return Ok(Prepared::Over(Err(cancel("nothing_to_answer", "what was written was taken back"))));
    };
    let run_id = Uuid::now_v7();
    let user_id = ctx.created_by.or(Some(facts.owner_id));
    let timeout = Duration::from_millis(u64::from(workflow.timeout_ms.unsigned_abs()));
    let era = match chat.era_used_at {
        Some(used) if used + ERA < chat.now => chat.era.saturating_add(1),
        _ => chat.era,
    };
    replies::use_era(conn, job.conversation_id, era).await?;
    let chat_id = chat_id(organization, chat.account_id, &chat.peer_wxid, era);
    let new = NewRun {
        id: run_id,
        organization_id: organization,
        account_id: chat.account_id,
        conversation_id: job.conversation_id,
        turn_id: turn.id,
        run: turn.run,
        workflow_id: workflow.id,
        key_hash: &workflow.key_hash,
        job_id: ctx.job_id,
        chat_id: &chat_id,
        user_id,
        campaign: None,
    };
    // Budgets come last: their rows are the ones that all conversations of an organisation share.
    replies::set_turn(conn, turn.id, "replying", None).await?;
    let run = ai_runs::begin(conn, &new).await?;
    let spender =
        Spender { organization_id: organization, account_id: chat.account_id, user_id, sop_id: None };
    let reserved =
        spending::reserve(conn, &spender, run_id, &workflow.reserve_yuan, timeout + SETTLED_WITHIN).await?;
    if let Reserved::Exhausted { scope, period, resets_at } = reserved {
        ai_runs::withdraw(conn, run_id).await?;
        let note = format!(
            "the AI budget ({scope}, per {period}) is used up until {}; a person should answer this customer",
            resets_at.to_rfc3339()
        );
        let end = hand_off(conn, organization, job.conversation_id, "budget_exhausted", &note).await?;
        return Ok(Prepared::Over(end));
    }
    let ask = Ask {
        run_id,
        chat_id,
        customer: turn.sender_wxid.clone(),
        parts,
        variables: workflow.variables.clone(),
        stream: workflow.stream,
        timeout,
        trace_id: ctx.trace_id.clone(),
    };
    let app = App { endpoint: workflow.endpoint.clone(), api_key, app_id: workflow.app_id.clone() };
    Ok(Prepared::Call(Box::new(Call { run, app, ask })))
}

/// Locks the turn that the job answers; opens it, if a person asked for it.
async fn the_turn(conn: &mut Conn, ctx: &Context, job: &AiReply, chat: &Chat) -> Result<Option<Turn>, Error> {
    let Some(Asked { instruction }) = &job.asked else {
        return replies::lock_turn(conn, ctx.organization_id, job.conversation_id, job.turn_id).await;
    };
    let opened = replies::turn_of_job(conn, ctx.organization_id, job.conversation_id, ctx.job_id).await?;
    if let Some(id) = opened {
        return replies::lock_turn(conn, ctx.organization_id, job.conversation_id, id).await;
    }
    let asked = Turn {
        id: job.turn_id,
        organization_id: ctx.organization_id,
        account_id: chat.account_id,
        conversation_id: job.conversation_id,
        sender_wxid: chat.peer_wxid.clone(),
        state: "open".to_owned(),
        epoch: chat.mode_epoch,
        run: job.run,
        messages: 0,
        job_id: ctx.job_id,
        opened_at: chat.now,
        last_message_at: chat.now,
        flush_at: chat.now,
        instruction: instruction.clone(),
    };
    replies::open_asked(conn, &asked).await.map(Some)
}

/// Tells whether the turn still waits for this very job.
fn standing(ctx: &Context, chat: &Chat, turn: &Turn) -> Result<(), JobError> {
    if turn.job_id != ctx.job_id {
        return Err(newer_message());
    }
    match turn.state.as_str() {
        "open" | "replying" => Ok(()),
        _ if turn.epoch != chat.mode_epoch => Err(taken_over()),
        "dropped" | "handed_off" => Err(cancel("turn_closed", "nobody waits for this answer any more")),
        _ => Err(cancel("already_answered", "the turn has its answer")),
    }
}

/// Tells whether an answer by machine is wanted; else says why not, as a code and a sentence.
fn wanted(
    chat: &Chat,
    epoch: i64,
    turn: &Turn,
    facts: &Facts,
    chosen: Option<AccountAi>,
    workflow: Option<Workflow>,
) -> Result<Workflow, (&'static str, &'static str)> {
    if epoch != chat.mode_epoch || turn.epoch != chat.mode_epoch || !chat.is_ai() {
        return Err(TAKEN_OVER);
    }
    if facts.account_removed {
        return Err(("account_deleted", "the account was removed"));
    }
    if facts.account_held {
        return Err(("account_risk", "the account is on hold; people answer by hand"));
    }
    if facts.opted_out {
        return Err(("opted_out", "the customer wants no more messages"));
    }
    if facts.suppressed {
        return Err(("suppressed", "a person said that no machine writes to this contact"));
    }
    if facts.removed {
        return Err(("contact_removed", "the contact is none any more"));
    }
    if facts.ai_stopped {
        return Err(("ai_stopped", "an emergency stop of the AI is in force"));
    }
    match (chosen, workflow) {
        (Some(chosen), Some(workflow)) if chosen.enabled => Ok(workflow),
        _ => Err(("ai_disabled", "nobody answers by machine for this account")),
    }
}

/// Tells whether a run went wrong in a way that costs money, so that it is not repeated for long.
pub(super) fn missed(run: &Run) -> bool {
    match run.state.as_str() {
        _ if run.outcome.as_deref() == Some(LATE) => true,
        "unknown" => true,
        "failed" => matches!(run.error_class.as_deref(), Some("failed" | "ambiguous")),
        _ => false,
    }
}

/// Opens the workflow's key.
pub(crate) fn open_key(ctx: &Context, workflow: &Workflow) -> Option<crate::secret::Secret> {
    let context = settings::key_context(workflow.organization_id);
    let opened = ctx.services.vault.as_ref().map(|vault| vault.open(&workflow.api_key, &context));
    match opened {
        Some(Ok(key)) => Some(key),
        Some(Err(_)) | None => {
            tracing::error!(workflow_id = %workflow.id, "the key of a workflow cannot be opened");
            None
        }
    }
}

/// Returns the name of a chat at the provider: `org:account:chat:era`.
fn chat_id(organization: Uuid, account: Uuid, peer: &str, era: i32) -> String {
    let (organization, account) = (organization.simple(), account.simple());
    let plain = format!("{organization}:{account}:{peer}:{era}");
    if plain.len() <= MAX_CHAT_ID {
        return plain;
    }
    let hash: String =
        digest(&SHA256, peer.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{organization}:{account}:{hash}:{era}")
}

/// Gives the conversation to people, in the caller's transaction. The job has done what it could.
pub(super) async fn hand_off(
    conn: &mut Conn,
    organization: Uuid,
    conversation: Uuid,
    reason: &'static str,
    note: &str,
) -> Result<Result<Done, JobError>, Error> {
    mode::hand_off(conn, organization, conversation, reason, note).await?;
    tracing::info!(conversation_id = %conversation, reason, "handed off to people");
    let result = json!({"outcome": "handed_off", "details": {"reason": reason}});
    Ok(Ok(Done { result: Some(result), lane_wait: None }))
}

const TAKEN_OVER: (&str, &str) = ("taken_over", "a person has taken over the conversation");

pub(super) fn newer_message() -> JobError {
    cancel("newer_message", "the customer wrote more; the answer to all of it has a job of its own")
}

pub(super) fn taken_over() -> JobError {
    cancel(TAKEN_OVER.0, TAKEN_OVER.1)
}

pub(crate) fn cancel(code: &str, message: &str) -> JobError {
    JobError::Cancel(Failure::new(code, message))
}

/// Puts the job back; others of the conversation go on.
pub(crate) fn snooze(delay: Duration, code: &'static str, note: &str) -> JobError {
    JobError::Snooze(Snooze { delay, code, note: note.to_owned(), scope: Scope::Job })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_chat_is_short_enough_and_its_own() {
        let (organization, account) = (Uuid::now_v7(), Uuid::now_v7());
        let id = |peer: &str, era| chat_id(organization, account, peer, era);
        assert!(id("wxid_1", 3).ends_with(":wxid_1:3"));
        let long = "聊".repeat(200);
        assert!(id(&long, i32::MAX).len() < 250);
        assert_ne!(id(&long, 1), id(&long, 2));
        assert_ne!(id(&long, 1), id(&format!("{long}天"), 1));
    }
}
