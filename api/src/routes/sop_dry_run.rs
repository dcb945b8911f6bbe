//! A plan played before it runs: who would get what when, why somebody would not, when it ends, what it costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use entropy_jobs::campaign::dry_run::{self, Item, MOST, Played, Question};
use entropy_jobs::campaign::plan::Plan as Text;
use entropy_jobs::campaign::surroundings::Held;
use entropy_schema::Conn;
use entropy_schema::campaigns::plans::{self, Plan};
use poem::http::StatusCode;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use super::sop_tasks::plan_not_found;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::OptionalBody;
use crate::page::{bad_cursor, decode, encode, limit_of};
use crate::problem::{ApiError, FieldProblem};

/// Contacts that may be named.
const MAX_CONTACTS: usize = 1000;

/// How far ahead a start may be assumed.
const FURTHEST: TimeDelta = TimeDelta::days(366);

/// What is assumed of people.
#[derive(Debug, Default, Object)]
#[oai(deny_unknown_fields)]
struct Assume {
    /// The share of people who answer the first message at once, from 0 to 1; 0 if not given.
    reply_share: Option<f64>,
    /// As if the plan were started then; now if not given. At most a year ahead.
    starts_at: Option<DateTime<Utc>>,
}

/// What is played.
#[derive(Debug, Default, Object)]
#[oai(deny_unknown_fields)]
struct DryRun {
    /// For these contacts, 1 to 1000; if not given, for those whom the plan is meant for.
    contact_ids: Option<Vec<Uuid>>,
    /// In this version. If not given: the version in force, or the draft where there is none.
    version: Option<i32>,
    /// The draft, also where a version is in force.
    draft: Option<bool>,
    /// What is assumed.
    assume: Option<Assume>,
    /// Items on the page, 1 to 200; 50 if not given.
    limit: Option<i64>,
    /// `next_cursor` of the page before. Every page is played anew.
    cursor: Option<String>,
}

/// A message, or why there is none.
#[derive(Debug, Object)]
struct ItemView {
    contact_id: Uuid,
    /// The step; of whoever is not taken in, the plan's first.
    step_id: String,
    /// When it is sent; null: it is not.
    planned_at: Option<DateTime<Utc>>,
    /// What it says, as it would be rendered now, with stars in the place of masked words; of a model's message, the text that is sent
    /// in its place; of one that is left out for its words, what it would have said.
    text: Option<String>,
    /// Why it is not sent, or not at once: the codes of `why`, the weightiest first. `held_for_review`: a person must look at it first,
    /// because of its words if `sensitive_words` comes after it. Of a model's message also why the fallback text is sent: `budget`,
    /// `workflow_missing`, `missing_variable`.
    reasons: Vec<String>,
    /// `sent`; `skipped`: it is left out; `exited`: the way ends here; `blocked`: nothing is sent to this contact as things are.
    outcome: String,
}

/// What a model's message is taken to cost.
#[derive(Debug, Object)]
struct RateView {
    /// The alias.
    workflow: String,
    /// Yuan for one message, as a decimal.
    yuan_each: String,
    /// The runs of the last 30 days, 500 at most, of which that is the average; 0: it is what is reserved for a run.
    runs: i64,
}

/// What an account has to do.
#[derive(Debug, Object)]
struct LoadView {
    account_id: Uuid,
    messages: u32,
    /// When it sends its last.
    ends_at: Option<DateTime<Utc>>,
    /// The longest that a message waits for it, in seconds.
    longest_wait_s: i64,
}

/// A plan as it would run.
#[derive(Debug, Object)]
struct DryRunView {
    /// The version that was played; null: the draft.
    version: Option<i32>,
    /// People whom the plan is meant for.
    targets: usize,
    /// Those to whom something would be sent.
    recipients: usize,
    /// How many of the others for which reason, each counted once, with the weightiest.
    blocked: BTreeMap<String, usize>,
    /// Messages that would be sent.
    messages: usize,
    /// Those of them that a person must look at first. They are planned as if that took no time.
    to_review: usize,
    /// When the last is sent; null: none is.
    ends_at: Option<DateTime<Utc>>,
    /// When the last way ends, waits behind the last message included.
    finishes_at: Option<DateTime<Utc>>,
    /// What models would cost, in yuan, as a decimal.
    cost_yuan: String,
    /// What that was made of.
    cost_rates: Vec<RateView>,
    /// When a budget has no more room and fallback texts are sent; null: never.
    budget_ends_at: Option<DateTime<Utc>>,
    /// The account that holds up the end; null: the plan's own waits last longer than any account's work.
    bottleneck_account_id: Option<Uuid>,
    accounts: Vec<LoadView>,
    /// By contact, and of one contact in the order of time.
    items: Vec<ItemView>,
    next_cursor: Option<String>,
}

/// Plans, played.
pub(super) struct SopDryRun;

#[OpenApi(tag = "Tag::Campaigns")]
impl SopDryRun {
    /// Plays a plan before it runs
    ///
    /// Needs the role agent. Asks of every person what the gate would ask, with the caps, windows, limits and budgets as they
    /// are, and plays the whole plan to its end. Nothing is stored or sent. A draft with errors is 422 `invalid_plan` with all of
    /// them; more than 50,000 people are 422 `too_many_recipients`; one dry run at a time, else 429 `dry_run_busy`.
    #[oai(path = "/sop-tasks/:id/dry-run", method = "post", operation_id = "dry_run_sop_task")]
    async fn dry_run(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        body: OptionalBody<DryRun>,
    ) -> Result<Json<DryRunView>, ApiError> {
        caller.require(Role::Agent)?;
        let asked = body.0;
        let limit = usize::try_from(limit_of(asked.limit)?).unwrap_or_default();
        let from = asked.cursor.as_deref().map(|cursor| decode(cursor)?.parse().map_err(|_| bad_cursor()));
        let from: usize = from.transpose()?.unwrap_or(0);
        let now = state.now().await;
        let by = Some(caller.id);
        let question = question(&state, by, asked.contact_ids, asked.assume.unwrap_or_default(), now)?;
        let turn = state.dry_runs.take(caller.organization_id).ok_or_else(|| {
            let detail = "A dry run of your organisation is under way. Wait for its answer, and ask again.";
            ApiError::too_many("dry_run_busy", detail, 2)
        })?;
        let mut conn = state.db.conn().await?;
        let plan = plans::get(&mut conn, caller.organization_id, id.0).await?.ok_or_else(plan_not_found)?;
        let (version, text) =
            text_of(&mut conn, &state, &plan, asked.version, asked.draft == Some(true), now).await?;
        let gathered = dry_run::gather(&mut conn, &plan, text, question).await?;
        let gathered = gathered.map_err(|dry_run::TooMany| {
            let detail = format!(
                "The plan is meant for more than {MOST} people, more than a dry run looks at. Narrow its targets or accounts, \
                 or name contacts."
            );
            ApiError::unfit(StatusCode::UNPROCESSABLE_ENTITY, "too_many_recipients", detail)
        })?;
        drop(conn);
        // A thousand people take milliseconds, fifty thousand some seconds: not on a thread that others wait for.
        let shown = tokio::task::spawn_blocking(move || {
            let shown = view(&gathered.play(), version, from, limit);
            drop(turn);
            shown
        });
        Ok(Json(shown.await.map_err(ApiError::internal)?))
    }
}

/// Reads what is asked.
fn question(
    state: &AppState,
    by: Option<Uuid>,
    contacts: Option<Vec<Uuid>>,
    assume: Assume,
    now: DateTime<Utc>,
) -> Result<Question, ApiError> {
    let mut problems = Vec::new();
    if contacts.as_ref().is_some_and(|contacts| !(1..=MAX_CONTACTS).contains(&contacts.len())) {
        let message = format!(
            "must have 1 to {MAX_CONTACTS} contacts; leave it out for everybody whom the plan is meant for"
        );
        problems.push(FieldProblem::new("contact_ids", "out_of_range", message));
    }
    let share = assume.reply_share.unwrap_or_default();
    if !(0.0..=1.0).contains(&share) {
        problems.push(FieldProblem::new("assume.reply_share", "out_of_range", "must be from 0 to 1"));
    }
    if assume.starts_at.is_some_and(|at| at > now + FURTHEST) {
        problems.push(FieldProblem::new("assume.starts_at", "out_of_range", "must lie within a year"));
    }
    if !problems.is_empty() {
        return Err(ApiError::unprocessable(problems));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share was looked at to be from 0 to 1"
    )]
    let answering = (share * 1000.0).round() as u16;
    let links = Some(state.links.clone());
    Ok(Question { contacts, starts_at: assume.starts_at, by, answering, ceilings: state.ceilings, links })
}

/// Returns the text of a plan that is played, with its version; none: the draft, which must be sound.
pub(super) async fn text_of(
    conn: &mut Conn,
    state: &AppState,
    plan: &Plan,
    version: Option<i32>,
    draft: bool,
    now: DateTime<Utc>,
) -> Result<(Option<i32>, Arc<Text>), ApiError> {
    if let Some(number) = version.or(plan.version).filter(|_| !draft) {
        let text = state.plans.of(conn, plan.id, number).await?;
        let text = text.ok_or_else(|| {
            ApiError::not_found("version_not_found", "The plan has no such version, or it was not approved.")
        })?;
        return Ok((Some(number), text));
    }
    let held = Held::read(conn, plan.organization_id, now).await?;
    let (report, config) = held.check(&plan.workflow_config);
    match config {
        Some(config) if report.errors.is_empty() => {
            let text = dry_run::draft(conn, plan.organization_id, config).await?;
            Ok((None, Arc::new(text)))
        }
        _ => {
            let problems: Vec<FieldProblem> = report
                .errors
                .into_iter()
                .map(|finding| FieldProblem::new(finding.path, &finding.code.to_string(), finding.message))
                .collect();
            let detail = format!(
                "The draft has {} errors; `errors` says which, where and what to change. Change it, and ask again.",
                problems.len()
            );
            Err(ApiError::unfit(StatusCode::UNPROCESSABLE_ENTITY, "invalid_plan", detail)
                .with_errors(problems))
        }
    }
}

fn view(played: &Played, version: Option<i32>, from: usize, limit: usize) -> DryRunView {
    let (items, all) = played.page(from, limit);
    let next = from + items.len();
    let item = |item: &Item| ItemView {
        contact_id: item.contact_id,
        step_id: played.step_id(item).to_owned(),
        planned_at: item.at,
        text: played.text(item),
        reasons: item.reasons.iter().map(|code| (*code).to_owned()).collect(),
        outcome: item.outcome.to_owned(),
    };
    DryRunView {
        version,
        targets: played.targets,
        recipients: played.recipients,
        blocked: played.blocked.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect(),
        messages: played.messages,
        to_review: played.to_review,
        ends_at: played.ends_at,
        finishes_at: played.finishes_at,
        cost_yuan: played.bill.yuan.normalized().to_plain_string(),
        cost_rates: played
            .bill
            .rates
            .iter()
            .map(|rate| RateView {
                workflow: rate.workflow.clone(),
                yuan_each: rate.yuan_each.normalized().to_plain_string(),
                runs: rate.runs,
            })
            .collect(),
        budget_ends_at: played.bill.budget_ends_at,
        bottleneck_account_id: played.bottleneck,
        accounts: played
            .accounts
            .iter()
            .map(|one| LoadView {
                account_id: one.account_id,
                messages: one.load.sends,
                ends_at: one.load.ends_at,
                longest_wait_s: one.load.longest_wait.num_seconds(),
            })
            .collect(),
        items: items.iter().map(item).collect(),
        next_cursor: (next < all).then(|| encode(&next.to_string())),
    }
}
