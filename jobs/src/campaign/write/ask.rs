//! Before the model is called: may the step be sent, may a model be asked for it, can it be paid, and what is asked.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::ai_runs::{self, NewRun, Run};
use entropy_schema::campaigns::facts;
use entropy_schema::campaigns::steps::{self, Step as Row};
use entropy_schema::settings::{self, Workflow};
use entropy_schema::{Conn, Error, accounts, replies};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{AtHand, fallen_back, passed_by};
use crate::ai::breaker;
use crate::ai::history;
use crate::ai::port::{App, Ask};
use crate::ai::prepare::{Call, LATE, Prepared, SETTLED_WITHIN, cancel, open_key, snooze};
use crate::campaign::checks::{Asker, Verdict, may_send};
use crate::campaign::plan::Plan;
use crate::campaign::rules;
use crate::campaign::situation::Situation;
use crate::job::{Done, JobError};
use crate::kinds::ai_reply::done;
use crate::kinds::sop_write::SopWrite;
use crate::secret::Secret;
use crate::services::Context;
use crate::sop::config::step::{AiSend, Step};
use crate::sop::spread::order;
use crate::sop::template;
use crate::spending::{self, Reserved, Spender};
use crate::step;

/// What was said last, for the model: so many messages.
const RECENT: i64 = 10;

/// Of the calls that a key may make in a minute, the part that campaigns leave to answers: one of so many.
const LEFT_TO_ANSWERS: i32 = 4;

/// Paid runs for one step. A customer who writes again and again while a model writes gets the plan's own text.
const MOST_RUNS: i64 = 3;

/// Looks at the record, and writes the run down that it allows.
pub(crate) async fn prepare(ctx: &Context, job: &SopWrite) -> Result<Prepared, JobError> {
    let mut conn = ctx.conn().await?;
    let prepared = conn.transaction(async |conn| within(conn, ctx, job).await).await?;
    if let Prepared::Call(_) = prepared {
        step!("write.committed");
    }
    Ok(prepared)
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
    let step = plan.config.step(&job.step_id);
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
    api_key: Secret,
    ask: Ask,
    user_id: Option<Uuid>,
    written_at: DateTime<Utc>,
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
    let mut variables: Map<String, Value> = declared
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
    wait + Duration::from_millis(more)
}
