//! A text that a model writes for a step: asked for, paid, and written into the step's row.
//!
//! Around the call there are two short transactions, both under the enrollment's lock. [`prepare`] looks at everything that speaks
//! against the message once more, reserves in the budgets, and writes the run as `calling`. [`answered`], [`failed`] and [`lost`]
//! write what became of it, book its cost whatever that is, and have the enrollment looked at, which then says the text or the
//! plan's own. A customer who has written meanwhile is answered with nothing that was asked for before.

use std::time::Duration;

use chrono::TimeDelta;
use diesel_async::AsyncConnection;
use entropy_schema::ai_runs::{self, NewRun, Run, RunEnd};
use entropy_schema::campaigns::enrollments::{self, Enrollment};
use entropy_schema::campaigns::facts::{self, Facts};
use entropy_schema::campaigns::steps::{self, Step as Row};
use entropy_schema::record::enqueue::NewJob;
use entropy_schema::settings::{self, AccountAi, Workflow};
use entropy_schema::{Conn, Error, accounts, replies};
use serde_json::{Value, json};
use uuid::Uuid;

use super::checks::{Asker, Verdict, may_send};
use super::plan::Plan;
use super::rules;
use super::say::{forget, is_outdated, is_writing};
use super::situation::Situation;
use crate::ai::breaker;
use crate::ai::conclude::{estimate, spent};
use crate::ai::history;
use crate::ai::port::{AiError, Answer, App, Ask, ErrorClass};
use crate::ai::prepare::{Call, LATE, Prepared, SETTLED_WITHIN, cancel, open_key, snooze};
use crate::ai::text;
use crate::ai::usage;
use crate::ai::words::Action;
use crate::class::Class;
use crate::enqueue::{Options, new_job};
use crate::job::{Done, JobError};
use crate::kinds::ai_reply::done;
use crate::kinds::sop_write::SopWrite;
use crate::services::Context;
use crate::sop::config::step::{AiSend, Step};
use crate::sop::spread::order;
use crate::sop::template;
use crate::spending::{self, Reserved, Spender};

/// Paid runs for one step. A customer who writes again and again while a model writes gets the plan's own text.
const MOST_RUNS: i64 = 3;

/// Calls of one job that do not get through.
const MOST_TRIES: usize = 3;

/// The longest wait between two of them.
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// Of the calls that a key may make in a minute, the part that campaigns leave to answers: one of so many.
const LEFT_TO_ANSWERS: i32 = 4;

/// What was said last, for the model: so many messages.
const RECENT: i64 = 10;

/// What follows for the job.
pub(crate) enum Ended {
    /// It is over, or waits.
    Over(Result<Done, JobError>),
    /// The record is looked at once more.
    Again,
}

/// Makes the job that has the text of a step written at which an enrollment stands. There is one at a time per step.
pub(super) fn job(ctx: &Context, enrollment: &Enrollment) -> NewJob {
    let args = SopWrite {
        enrollment_id: enrollment.id,
        step_id: enrollment.step_id.clone().unwrap_or_default(),
        account_id: enrollment.account_id,
    };
    let options = Options {
        organization_id: enrollment.organization_id,
        class: Class::Campaign,
        scheduled_at: None,
        expires_at: None,
        idempotency: None,
        trace_id: ctx.trace_id.clone(),
        created_by: enrollment.created_by,
    };
    new_job(&args, options)
}

/// A step that a job is to write, under the lock of its enrollment.
struct AtHand {
    enrollment: Enrollment,
    row: Row,
}

impl AtHand {
    /// Locks it. None: it waits for this job no more.
    async fn lock(conn: &mut Conn, ctx: &Context, job: &SopWrite) -> Result<Option<AtHand>, Error> {
        let locked = enrollments::lock(conn, job.enrollment_id).await?;
        let Some(enrollment) = locked.filter(|one| one.organization_id == ctx.organization_id) else {
            return Ok(None);
        };
        let stands =
            enrollment.finished_at.is_none() && enrollment.step_id.as_deref() == Some(job.step_id.as_str());
        let row = steps::get(conn, enrollment.id, &job.step_id).await?;
        let row = row.filter(|row| stands && is_writing(row) && row.job_id == Some(ctx.job_id));
        Ok(row.map(|row| AtHand { enrollment, row }))
    }

    /// The step is asked anew, at once.
    async fn give_back(self, conn: &mut Conn, reason: &str) -> Result<(), Error> {
        let AtHand { enrollment, row } = self;
        let (state, reason) = ("planned".to_owned(), Some(reason.to_owned()));
        steps::put(conn, &[Row { state, reason, job_id: None, ..row }]).await?;
        if enrollment.state != "paused" {
            enrollments::put_off(conn, &[enrollment.id], 0).await?;
        }
        Ok(())
    }

    /// The plan's own text takes the place of a model's.
    async fn fall_back(mut self, conn: &mut Conn, code: &str) -> Result<(), Error> {
        self.row.text = None;
        self.row.fallback_code = Some(code.to_owned());
        self.give_back(conn, "written").await
    }
}

/// Looks at the record, and writes the run down that it allows.
pub(crate) async fn prepare(ctx: &Context, job: &SopWrite) -> Result<Prepared, JobError> {
    let mut conn = ctx.conn().await?;
    Ok(conn.transaction(async |conn| within(conn, ctx, job).await).await?)
}

async fn within(conn: &mut Conn, ctx: &Context, job: &SopWrite) -> Result<Prepared, Error> {
    let over = |end: Result<Done, JobError>| Ok(Prepared::Over(end));
    let at_hand = AtHand::lock(conn, ctx, job).await?;
    let runs = ai_runs::of_job(conn, job.enrollment_id, ctx.job_id).await?;
    match runs.last() {
        Some(run) if run.state == "calling" => return Ok(Prepared::LookUp(Box::new(run.clone()))),
        // The process died between the second transaction and the end of its attempt.
        Some(Run { id, outcome: Some(outcome), .. }) if outcome != LATE => {
            return over(Ok(done(*id, outcome, Value::Null)));
        }
        _ => {}
    }
    let Some(at_hand) = at_hand else { return over(Err(passed_by())) };
    let enrollment = &at_hand.enrollment;
    let facts = facts::of(conn, enrollment.id).await?;
    let plan = ctx.services.plans.of(conn, enrollment.sop_id, enrollment.version).await?;
    let (Some(facts), Some(plan)) = (facts, plan) else { return over(Err(passed_by())) };
    let step = plan.config.steps.iter().find(|step| step.id().as_str() == job.step_id);
    let Some(Step::AiSend(ai)) = step else { return over(Err(passed_by())) };
    let mut situation = Situation::new(enrollment.clone(), &facts, &plan);
    situation.count(conn, false).await?;
    let stopped = rules::stopped(&situation, step, true).map(|stopped| stopped.reason);
    let code = match may_send(&situation, Asker::Step, true, at_hand.row.planned_at) {
        _ if enrollment.state == "paused" => Some("paused"),
        _ if stopped.is_some() => stopped,
        Verdict::Send => None,
        Verdict::NotYet { code, .. } | Verdict::Skip { code } | Verdict::Exit { code } => Some(code),
    };
    if let Some(code) = code {
        at_hand.give_back(conn, code).await?;
        return over(Err(cancel(
            code,
            "the campaign's message is not sent now, so it is not written either",
        )));
    }
    match ready(conn, ctx, ai, &at_hand, &situation).await? {
        Ready::Yes(question) => begin(conn, ctx, at_hand, *question).await,
        Ready::Wait(wait) => over(Err(wait)),
        Ready::Never(code) => {
            at_hand.fall_back(conn, code).await?;
            over(Ok(fallen_back(None, code)))
        }
    }
}

/// Whether a model may be asked.
enum Ready {
    Yes(Box<Question>),
    /// In a moment.
    Wait(JobError),
    /// No: the plan's own text is sent.
    Never(&'static str),
}

/// What is asked, and of whom.
struct Question {
    workflow: Workflow,
    api_key: crate::secret::Secret,
    ask: Ask,
    user_id: Option<Uuid>,
    written_at: chrono::DateTime<chrono::Utc>,
    conversation_id: Uuid,
}

async fn ready(
    conn: &mut Conn,
    ctx: &Context,
    ai: &AiSend,
    at_hand: &AtHand,
    situation: &Situation<'_>,
) -> Result<Ready, Error> {
    let AtHand { enrollment, row } = at_hand;
    let organization = enrollment.organization_id;
    let Some(workflow) = settings::workflow_named(conn, organization, &ai.workflow).await? else {
        return Ok(Ready::Never("workflow_missing"));
    };
    if ai_runs::of_step(conn, enrollment.id, &row.step_id).await? >= MOST_RUNS {
        return Ok(Ready::Never("written_too_often"));
    }
    let Some(instruction) = instruction(ai, situation) else { return Ok(Ready::Never("missing_variable")) };
    if let Some(most) = &situation.plan.config.caps.ai_budget_yuan_per_enrollment {
        let spent = ai_runs::spent_for(conn, organization, enrollment.id).await?;
        if spent + &workflow.reserve_yuan > *most.amount() {
            return Ok(Ready::Never("budget_exhausted"));
        }
    }
    let Some(api_key) = open_key(ctx, &workflow) else { return Ok(Ready::Never("ai_key_unreadable")) };
    if breaker::admit(conn, enrollment.account_id, &workflow.key_hash).await?.is_some() {
        return Ok(Ready::Never("ai_breaker_open"));
    }
    let most = workflow.requests_per_minute;
    let ours = (most - most / LEFT_TO_ANSWERS).max(1);
    let busy = ai_runs::admit(conn, &workflow.key_hash, ours).await?;
    let guarded = || ctx.services.ask_guard.check(&workflow.key_hash, most.unsigned_abs()).err();
    let busy = busy.map(|wait| wait.to_std().unwrap_or_default()).or_else(guarded);
    if let Some(wait) = busy {
        ctx.services.metrics.limiter_waits.with_label_values(&["ai_rate_limited"]).inc();
        let note = "the workflow's key has made as many calls as campaigns may make in a minute";
        return Ok(Ready::Wait(snooze(apart(wait, enrollment.id), "ai_rate_limited", note)));
    }
    let facts = situation.facts;
    let said = match facts.conversation_id {
        Some(chat) => replies::recent(conn, organization, chat, RECENT).await?,
        None => Vec::new(),
    };
    let account = accounts::get(conn, organization, enrollment.account_id).await?;
    let user_id = ctx.created_by.or(account.map(|found| found.account.user_id));
    let run_id = Uuid::now_v7();
    let ask = Ask {
        run_id,
        // A chat of its own: what a model has written is not said yet, and may never be.
        chat_id: format!(
            "{}:{}:sop:{}",
            organization.simple(),
            enrollment.account_id.simple(),
            run_id.simple()
        ),
        customer: facts.wxid.clone(),
        parts: history::request(&instruction, ai.max_chars, &said),
        variables: variables(&workflow, situation.plan, situation),
        stream: workflow.stream,
        timeout: Duration::from_millis(u64::from(workflow.timeout_ms.unsigned_abs())),
        trace_id: ctx.trace_id.clone(),
    };
    let conversation_id = facts.conversation_id.unwrap_or_default();
    let question = Question { workflow, api_key, ask, user_id, written_at: situation.now, conversation_id };
    Ok(Ready::Yes(Box::new(question)))
}

/// Reserves, and writes the run down.
async fn begin(
    conn: &mut Conn,
    ctx: &Context,
    at_hand: AtHand,
    question: Question,
) -> Result<Prepared, Error> {
    let Question { workflow, api_key, ask, user_id, written_at, conversation_id } = question;
    let AtHand { enrollment, row } = &at_hand;
    let new = NewRun {
        id: ask.run_id,
        organization_id: enrollment.organization_id,
        account_id: enrollment.account_id,
        conversation_id,
        turn_id: enrollment.id,
        run: 1,
        workflow_id: workflow.id,
        key_hash: &workflow.key_hash,
        job_id: ctx.job_id,
        chat_id: &ask.chat_id,
        user_id,
        campaign: Some((enrollment.sop_id, &row.step_id)),
    };
    let run = ai_runs::begin(conn, &new).await?;
    let asked = Row { run_id: Some(run.id), written_at: Some(written_at), ..row.clone() };
    steps::put(conn, &[asked]).await?;
    let spender = Spender {
        organization_id: enrollment.organization_id,
        account_id: enrollment.account_id,
        user_id,
        sop_id: Some(enrollment.sop_id),
    };
    let keep = ask.timeout + SETTLED_WITHIN;
    let reserved = spending::reserve(conn, &spender, run.id, &workflow.reserve_yuan, keep).await?;
    if let Reserved::Exhausted { .. } = reserved {
        ai_runs::withdraw(conn, run.id).await?;
        let code = "budget_exhausted";
        at_hand.fall_back(conn, code).await?;
        return Ok(Prepared::Over(Ok(fallen_back(None, code))));
    }
    let app = App { endpoint: workflow.endpoint.clone(), api_key, app_id: workflow.app_id.clone() };
    Ok(Prepared::Call(Box::new(Call { run, app, ask })))
}

/// Concludes a run that brought an answer.
pub(crate) async fn answered(
    ctx: &Context,
    job: &SopWrite,
    run: &Run,
    answer: &Answer,
) -> Result<Ended, JobError> {
    let mut conn = ctx.conn().await?;
    Ok(conn.transaction(async |conn| answered_within(conn, ctx, job, run, answer).await).await?)
}

async fn answered_within(
    conn: &mut Conn,
    ctx: &Context,
    job: &SopWrite,
    run: &Run,
    answer: &Answer,
) -> Result<Ended, Error> {
    let at_hand = AtHand::lock(conn, ctx, job).await?;
    let failed = answer.node_error.is_some();
    let found = match at_hand {
        Some(at_hand) => judge(conn, ctx, at_hand, answer).await?,
        None => Found::PassedBy,
    };
    let node_error = answer.node_error.as_deref().map(|error| error.chars().take(1000).collect::<String>());
    let end = RunEnd {
        state: if failed { "failed" } else { "answered" },
        error_class: failed.then_some(ErrorClass::Failed.as_str()),
        error_code: failed.then_some("node_failed"),
        error_message: node_error.as_deref(),
        answer: Some(&answer.text),
        outcome: Some(found.outcome()),
        points: usage::points(&answer.nodes),
    };
    if !ai_runs::end(conn, run.id, &end).await? {
        return Ok(Ended::Over(Err(JobError::Lost)));
    }
    let opened = if failed {
        let message = "a node of the workflow failed".to_owned();
        let error = AiError { class: ErrorClass::Failed, code: "node_failed", message, retry_after: None };
        breaker::failed(conn, run.organization_id, run.account_id, &run.key_hash, &error).await?
    } else {
        breaker::succeeded(conn, run.account_id, &run.key_hash).await?;
        None
    };
    let ended = found.write(conn, run).await?;
    // The rows of budgets are shared by the whole organisation: they come last but the alerts.
    spending::book_run(conn, &spent(run), &usage::lines(&answer.nodes)).await?;
    if let Some(opened) = opened {
        opened.tell(conn).await?;
    }
    if let Some(outcome) = end.outcome {
        ctx.services.metrics.ai_runs.with_label_values(&[outcome]).inc();
    }
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
    let step = plan.config.steps.iter().find(|step| step.id().as_str() == at_hand.row.step_id);
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
    let organization = run.organization_id;
    let at_hand = AtHand::lock(conn, ctx, job).await?;
    if error.class == ErrorClass::Ambiguous {
        // It stays at `calling`: the records are asked for it.
        ai_runs::note(conn, run.id, error.class.as_str(), error.code, &error.message).await?;
        let opened = breaker::failed(conn, organization, run.account_id, &run.key_hash, error).await?;
        if let Some(opened) = opened {
            opened.tell(conn).await?;
        }
        return Ok(Ended::Again);
    }
    let tries = ai_runs::of_job(conn, run.turn_id, run.job_id).await?.len();
    let retries = matches!(error.class, ErrorClass::NotRun | ErrorClass::Throttled) && tries < MOST_TRIES;
    let outcome = match (&at_hand, retries) {
        (None, _) => Some("dropped"),
        (Some(_), true) => None,
        (Some(_), false) => Some("fallback"),
    };
    let end = RunEnd {
        state: "failed",
        error_class: Some(error.class.as_str()),
        error_code: Some(error.code),
        error_message: Some(&error.message),
        outcome,
        ..RunEnd::default()
    };
    if !ai_runs::end(conn, run.id, &end).await? {
        return Ok(Ended::Over(Err(JobError::Lost)));
    }
    ctx.services.metrics.ai_runs.with_label_values(&["failed"]).inc();
    let opened = breaker::failed(conn, organization, run.account_id, &run.key_hash, error).await?;
    let ended = match at_hand {
        None => Err(passed_by()),
        Some(_) if retries => {
            let backoff = Duration::from_secs(1 << tries.min(4)).min(MAX_BACKOFF);
            let wait = error.retry_after.unwrap_or(backoff).max(Duration::from_millis(200));
            let (code, note) = match error.class {
                ErrorClass::Throttled => ("ai_rate_limited", "the AI provider asks for patience"),
                _ => ("ai_unreachable", "the AI provider could not be reached"),
            };
            Err(snooze(wait, code, note))
        }
        Some(at_hand) => {
            at_hand.fall_back(conn, error.code).await?;
            Ok(fallen_back(Some(run.id), error.code))
        }
    };
    if error.class == ErrorClass::Failed {
        // It ran, and nobody says what that cost.
        estimate(conn, run).await?;
    } else {
        spending::release(conn, organization, run.id).await?;
    }
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
            let end = RunEnd { state: "unknown", outcome: Some(outcome), ..RunEnd::default() };
            if !ai_runs::end(conn, run.id, &end).await? {
                return Ok(Ended::Over(Err(JobError::Lost)));
            }
            ctx.services.metrics.ai_runs.with_label_values(&["unknown"]).inc();
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

/// Renders what the model is asked for. None: a value is missing.
fn instruction(ai: &AiSend, situation: &Situation<'_>) -> Option<String> {
    let declared = &situation.plan.config.variables;
    match template::render(&ai.instruction, declared, &situation.for_texts()) {
        template::Rendered::Text(text) => Some(text),
        template::Rendered::Missing(_) => None,
    }
}

/// Returns the workflow's variables and those that the plan declares. The workflow's own come first.
fn variables(workflow: &Workflow, plan: &Plan, situation: &Situation<'_>) -> Value {
    let given = situation.for_texts();
    let declared = &plan.config.variables;
    let mut variables: serde_json::Map<String, Value> = declared
        .keys()
        .filter_map(|name| Some((name.clone(), Value::String(template::value(name, declared, &given)?))))
        .collect();
    variables
        .extend(workflow.variables.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
    Value::Object(variables)
}

/// Lengthens a wait by up to as much again, always the same for an enrollment: not all who wait come back at once.
fn apart(wait: Duration, enrollment: Uuid) -> Duration {
    let wait = wait.max(Duration::from_millis(200));
    let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let more = order(enrollment) % millis.max(1);
    wait + TimeDelta::milliseconds(i64::try_from(more).unwrap_or_default()).to_std().unwrap_or_default()
}

fn fallen_back(run: Option<Uuid>, code: &str) -> Done {
    let result = json!({"run_id": run, "outcome": "fallback", "details": {"reason": code}});
    Done { result: Some(result), lane_wait: None }
}

fn passed_by() -> JobError {
    cancel("step_passed", "the campaign has gone on without this text")
}
