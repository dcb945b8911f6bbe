//! Why somebody was not written to, and everything that campaigns did with a contact.

use chrono::{DateTime, Utc};
use entropy_jobs::campaign::dry_run::{self, Question};
use entropy_jobs::campaign::{audience, why};
use entropy_jobs::why as job_why;
use entropy_schema::Conn;
use entropy_schema::campaigns::enrollments::{self, Enrollment};
use entropy_schema::campaigns::funnel;
use entropy_schema::campaigns::plans::{self, Plan};
use entropy_schema::campaigns::steps::{self, Step};
use entropy_schema::contacts::{self, Contact};
use entropy_schema::views::waiting;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use super::enrollments::enrollment_not_found;
use super::sop_dry_run::text_of;
use super::sop_tasks::plan_not_found;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::page::{Ask, Page, encode};
use crate::problem::ApiError;

/// A reason.
#[derive(Debug, Object)]
struct Reason {
    /// Stable name.
    code: String,
    /// The same in words.
    message: String,
}

/// What became of a step, and why.
#[derive(Debug, Object)]
struct StepWhy {
    step_id: String,
    /// The type of the step.
    kind: String,
    /// `planned`, `due`, `deferred`, `held_for_review`, `sending`, `sent`, `unknown`, `skipped`, `failed`, `done` or
    /// `canceled`.
    state: String,
    /// Why; null: there is nothing to be said.
    reason: Option<Reason>,
    planned_at: DateTime<Utc>,
    next_try_at: Option<DateTime<Utc>>,
    /// What its job waits for, while that lives.
    job: Option<Reason>,
    /// What was sent. Viewers see none.
    text: Option<String>,
    sent_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

/// Why somebody's way stands as it does.
#[derive(Debug, Object)]
struct EnrollmentWhy {
    enrollment_id: Uuid,
    sop_id: Uuid,
    /// What the plan is called.
    sop_name: Option<String>,
    version: i32,
    account_id: Uuid,
    contact_id: Uuid,
    /// `pending`, `active`, `waiting`, `paused`, `completed`, `exited` or `failed`.
    state: String,
    /// The step at which it stands, or ended.
    step_id: Option<String>,
    /// Why it ended, is held, or waits.
    reason: Option<Reason>,
    /// How it came out, in the plan's own words.
    outcome: Option<String>,
    /// When it is carried on, unless something happens before.
    next_try_at: Option<DateTime<Utc>>,
    /// Everything that would speak against its next message at this moment. Not in timelines.
    now: Option<Vec<Reason>>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    /// In the order in which they were due.
    steps: Vec<StepWhy>,
}

/// Why a contact is not in a plan, or how it stands there.
#[derive(Debug, Object)]
struct ContactWhy {
    contact_id: Uuid,
    /// The contact's newest way through the plan; null: it was never taken in.
    enrollment: Option<EnrollmentWhy>,
    /// Why it would not be taken in, or not be written to, now; the weightiest first. Never empty.
    reasons: Vec<Reason>,
}

fn reason(code: &str) -> Reason {
    Reason { code: code.to_owned(), message: why::told(code) }
}

/// Reasons.
pub(super) struct SopWhy;

#[OpenApi(tag = "Tag::Campaigns")]
impl SopWhy {
    /// Says why an enrollment stands as it does
    ///
    /// Each step with its state, the reason in words and the next try; and what would speak against the next message now.
    #[oai(
        path = "/sop-tasks/:id/enrollments/:enrollment_id/why",
        method = "get",
        operation_id = "get_enrollment_why"
    )]
    async fn enrollment(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        enrollment_id: Path<Uuid>,
    ) -> Result<Json<EnrollmentWhy>, ApiError> {
        let mut conn = state.db.conn().await?;
        let plan = plans::get(&mut conn, caller.organization_id, id.0).await?;
        let row = enrollments::get(&mut conn, caller.organization_id, enrollment_id.0).await?;
        let row = row.filter(|row| row.sop_id == id.0).ok_or_else(enrollment_not_found)?;
        let now = why::now(&mut conn, &state.plans, &row).await?;
        let mut shown = view(&mut conn, &caller, row, plan.map(|plan| plan.name)).await?;
        shown.now = Some(now.into_iter().map(reason).collect());
        Ok(Json(shown))
    }

    /// Says why a contact is not in a plan
    ///
    /// Asks what enrolling would ask now, and what the gate would. A contact that is or was in the plan is shown with its newest
    /// way through it.
    #[oai(
        path = "/sop-tasks/:id/contacts/:contact_id/why",
        method = "get",
        operation_id = "get_sop_contact_why"
    )]
    async fn contact(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        contact_id: Path<Uuid>,
    ) -> Result<Json<ContactWhy>, ApiError> {
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        let plan = plans::get(&mut conn, organization, id.0).await?.ok_or_else(plan_not_found)?;
        let contact = known(&mut conn, &caller, contact_id.0).await?;
        let newest =
            enrollments::list(&mut conn, organization, id.0, None, Some(contact_id.0), None, 1).await?;
        let enrollment = match newest.into_iter().next() {
            Some(row) => Some(view(&mut conn, &caller, row, Some(plan.name.clone())).await?),
            None => None,
        };
        let codes = reasons(&mut conn, &state, &plan, &contact).await?;
        let reasons = codes.into_iter().map(reason).collect();
        Ok(Json(ContactWhy { contact_id: contact_id.0, enrollment, reasons }))
    }

    /// Lists what campaigns did with a contact
    ///
    /// Every way through a plan with its steps, newest first.
    #[oai(path = "/contacts/:id/enrollments", method = "get", operation_id = "list_contact_enrollments")]
    async fn timeline(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<EnrollmentWhy>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        known(&mut conn, &caller, id.0).await?;
        let mut rows = funnel::of_contact(&mut conn, organization, id.0, ask.before, ask.fetch()).await?;
        let most = usize::try_from(ask.limit).unwrap_or(usize::MAX);
        let more = rows.len() > most;
        rows.truncate(most);
        let next_cursor = rows.last().filter(|_| more).map(|last| encode(&last.id.to_string()));
        let mut items = Vec::with_capacity(rows.len());
        for of_contact in rows {
            if let Some(row) = enrollments::get(&mut conn, organization, of_contact.id).await? {
                items.push(view(&mut conn, &caller, row, Some(of_contact.sop_name)).await?);
            }
        }
        Ok(Json(Page { items, next_cursor }))
    }
}

async fn known(conn: &mut Conn, caller: &Caller, contact: Uuid) -> Result<Contact, ApiError> {
    contacts::get(conn, caller.organization_id, contact)
        .await?
        .ok_or_else(|| ApiError::not_found("contact_not_found", "Your organisation has no such contact."))
}

/// Returns why a contact would not be taken in, or not be written to.
async fn reasons(
    conn: &mut Conn,
    state: &AppState,
    plan: &Plan,
    contact: &Contact,
) -> Result<Vec<&'static str>, ApiError> {
    let mut codes = Vec::new();
    if plan.status != "RUNNING" {
        codes.push("plan_not_running");
    }
    let now = state.now().await;
    let (_, text) = text_of(conn, state, plan, None, false, now).await?;
    let question = Question {
        contacts: Some(vec![contact.id]),
        starts_at: None,
        by: None,
        answering: 0,
        ceilings: state.ceilings,
        links: Some(state.links.clone()),
    };
    let gathered = dry_run::gather(conn, plan, text, question).await?;
    let gathered = gathered.map_err(|dry_run::TooMany| ApiError::internal("one contact is too many"))?;
    codes.extend(gathered.objections(contact.id));
    if !audience::is_meant_for(plan, contact) {
        codes.push("not_targeted");
    }
    if codes.is_empty() {
        codes.push("not_brought_in");
    }
    Ok(codes)
}

async fn view(
    conn: &mut Conn,
    caller: &Caller,
    row: Enrollment,
    sop_name: Option<String>,
) -> Result<EnrollmentWhy, ApiError> {
    let reads = caller.role >= Role::Agent;
    let mut shown = Vec::new();
    for step in steps::of(conn, caller.organization_id, row.id).await? {
        let job = match step.job_id.filter(|_| matches!(step.state.as_str(), "due" | "sending")) {
            Some(job) => waiting::facts(conn, caller.organization_id, job).await?.map(|facts| {
                let job_why::Why { code, message, .. } = job_why::why(&facts);
                Reason { code, message }
            }),
            None => None,
        };
        shown.push(of_step(step, job, reads));
    }
    Ok(EnrollmentWhy {
        enrollment_id: row.id,
        sop_id: row.sop_id,
        sop_name,
        version: row.version,
        account_id: row.account_id,
        contact_id: row.contact_id,
        state: row.state,
        step_id: row.step_id,
        reason: row.reason.or(row.wait_code).as_deref().map(reason),
        outcome: row.outcome,
        next_try_at: row.due_at,
        now: None,
        created_at: row.created_at,
        finished_at: row.finished_at,
        steps: shown,
    })
}

fn of_step(step: Step, job: Option<Reason>, reads: bool) -> StepWhy {
    // Of a fork the reason is the way that was taken.
    let said = step.reason.as_deref().filter(|_| !matches!(step.kind.as_str(), "branch" | "split"));
    StepWhy {
        reason: said.map(reason),
        step_id: step.step_id,
        kind: step.kind,
        state: step.state,
        planned_at: step.planned_at,
        next_try_at: step.next_try_at,
        job,
        text: step.text.filter(|_| reads),
        sent_at: step.sent_at,
        finished_at: step.finished_at,
    }
}
