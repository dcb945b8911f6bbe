//! People on their way through plans: brought in, listed, taken out.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::campaign::audience;
use entropy_jobs::campaign::enroll::{self, Cause};
use entropy_schema::campaigns::enrollments::{self, Enrollment, Whose};
use entropy_schema::campaigns::facts;
use entropy_schema::campaigns::steps;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::page::{Ask, Page};
use crate::problem::{ApiError, FieldProblem};

/// Contacts of one request.
const MAX_CONTACTS: usize = 1000;

/// How an enrollment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum EnrollmentState {
    /// Its first step is not due yet.
    Pending,
    /// A step is due or under way.
    Active,
    /// It waits.
    Waiting,
    /// It is held.
    Paused,
    /// It is at its end.
    Completed,
    /// It was ended.
    Exited,
    /// It could not go on.
    Failed,
}

impl EnrollmentState {
    fn as_str(self) -> &'static str {
        match self {
            EnrollmentState::Pending => "pending",
            EnrollmentState::Active => "active",
            EnrollmentState::Waiting => "waiting",
            EnrollmentState::Paused => "paused",
            EnrollmentState::Completed => "completed",
            EnrollmentState::Exited => "exited",
            EnrollmentState::Failed => "failed",
        }
    }
}

/// Contacts to be brought in.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields)]
struct Enroll {
    /// 1 to 1000 contacts.
    contact_ids: Vec<Uuid>,
}

/// Somebody who was brought in.
#[derive(Debug, Object)]
struct EnrolledView {
    contact_id: Uuid,
    enrollment_id: Uuid,
}

/// Somebody who was not, and why.
#[derive(Debug, Object)]
struct RefusedView {
    contact_id: Uuid,
    /// `contact_not_found`, `other_kind`, `other_account`, `account_removed`, `contact_removed`, `contact_suppressed`,
    /// `opted_out`, `consent_missing`, `in_plan`, `other_sop`, `filtered`, `entered_before`, `cooldown` or
    /// `window_never_opens`.
    reason: String,
}

/// What became of them.
#[derive(Debug, Object)]
struct Enrollments {
    enrolled: Vec<EnrolledView>,
    refused: Vec<RefusedView>,
}

#[derive(ApiResponse)]
enum Taken {
    /// Those who are enrolled go their way when their first step is due.
    #[oai(status = 202)]
    Taken(Json<Enrollments>),
}

/// One person's or group's way through a plan.
#[derive(Debug, Object)]
struct EnrollmentView {
    id: Uuid,
    sop_id: Uuid,
    /// The version of the plan, for good.
    version: i32,
    account_id: Uuid,
    contact_id: Uuid,
    /// `pending`, `active`, `waiting`, `paused`, `completed`, `exited` or `failed`.
    state: String,
    /// Why it ended, is held, or waits.
    reason: Option<String>,
    /// How it came out, in the plan's own words.
    outcome: Option<String>,
    /// The step at which it stands.
    step_id: Option<String>,
    /// When it is carried on, unless something happens before.
    next_try_at: Option<DateTime<Utc>>,
    /// What brought the person in.
    source: String,
    /// Messages sent.
    sent: i32,
    /// When the other side answered last.
    replied_at: Option<DateTime<Utc>>,
    /// When the goal was reached.
    goal_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

/// A step of it.
#[derive(Debug, Object)]
struct StepView {
    step_id: String,
    /// The type of the step.
    kind: String,
    /// `planned`, `due`, `deferred`, `held_for_review`, `sending`, `sent`, `unknown`, `skipped`, `failed`, `done` or
    /// `canceled`.
    state: String,
    /// Why.
    reason: Option<String>,
    planned_at: DateTime<Utc>,
    next_try_at: Option<DateTime<Utc>>,
    job_id: Option<Uuid>,
    /// What was sent. Viewers see none.
    text: Option<String>,
    sent_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

/// An enrollment with its steps.
#[derive(Debug, Object)]
struct EnrollmentDetail {
    enrollment: EnrollmentView,
    /// In the order in which they were due.
    steps: Vec<StepView>,
}

/// Enrollments.
pub(super) struct SopEnrollments;

#[OpenApi(tag = "Tag::Campaigns")]
impl SopEnrollments {
    /// Brings contacts into a plan
    ///
    /// Needs the role agent. The plan must run (409 `plan_not_running`). Who cannot be brought in is named with the reason; the others
    /// are in it. The same contact is in a plan once at a time.
    #[oai(path = "/sop-tasks/:id/enrollments", method = "post", operation_id = "enroll_contacts")]
    async fn enroll(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<Enroll>,
    ) -> Result<Taken, ApiError> {
        caller.require(Role::Agent)?;
        let contacts = body.0.contact_ids;
        if !(1..=MAX_CONTACTS).contains(&contacts.len()) {
            let message = format!("must have 1 to {MAX_CONTACTS} contacts");
            return Err(ApiError::unprocessable(vec![FieldProblem::new(
                "contact_ids",
                "out_of_range",
                message,
            )]));
        }
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        facts::plan_status(&mut conn, organization, id.0).await?.ok_or_else(plan_not_found)?;
        let done = conn
            .transaction(async |conn| {
                let cause = Cause::manual(caller.id);
                let done = enroll::enroll(conn, &state.plans, organization, id.0, &contacts, cause).await?;
                let done = done.ok_or_else(not_running)?;
                if !done.enrolled.is_empty() {
                    let refused = audience::add_up(&Value::Null, &done.refused);
                    Note::new("sop.enroll", "sop_task", id.0)
                        .after(json!({"enrolled": done.enrolled.len(), "refused": refused}))
                        .write(conn, &caller, &origin)
                        .await?;
                }
                Ok::<_, ApiError>(done)
            })
            .await?;
        let enrolled = done.enrolled.into_iter();
        let enrolled =
            enrolled.map(|(contact_id, enrollment_id)| EnrolledView { contact_id, enrollment_id }).collect();
        let refused = done.refused.into_iter();
        let refused =
            refused.map(|(contact_id, code)| RefusedView { contact_id, reason: code.to_owned() }).collect();
        Ok(Taken::Taken(Json(Enrollments { enrolled, refused })))
    }

    /// Lists the enrollments of a plan
    ///
    /// Newest first.
    #[oai(path = "/sop-tasks/:id/enrollments", method = "get", operation_id = "list_enrollments")]
    #[expect(clippy::too_many_arguments, reason = "one per query parameter")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        /// Only in this state.
        #[oai(name = "state")]
        only: Query<Option<EnrollmentState>>,
        /// Only of this contact.
        contact_id: Query<Option<Uuid>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<EnrollmentView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        facts::plan_status(&mut conn, organization, id.0).await?.ok_or_else(plan_not_found)?;
        let only = only.0.map(EnrollmentState::as_str);
        let rows =
            enrollments::list(&mut conn, organization, id.0, only, contact_id.0, ask.before, ask.fetch())
                .await?;
        Ok(Json(ask.page(rows, |row| row.id, view)))
    }

    /// Shows an enrollment
    ///
    /// With what was done at each step, or why not.
    #[oai(
        path = "/sop-tasks/:id/enrollments/:enrollment_id",
        method = "get",
        operation_id = "get_enrollment"
    )]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
        enrollment_id: Path<Uuid>,
    ) -> Result<Json<EnrollmentDetail>, ApiError> {
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        let row = enrollments::get(&mut conn, organization, enrollment_id.0).await?;
        let row = row.filter(|row| row.sop_id == id.0).ok_or_else(enrollment_not_found)?;
        let reads = caller.role >= Role::Agent;
        let rows = steps::of(&mut conn, organization, row.id).await?;
        let steps = rows
            .into_iter()
            .map(|step| StepView {
                step_id: step.step_id,
                kind: step.kind,
                state: step.state,
                reason: step.reason,
                planned_at: step.planned_at,
                next_try_at: step.next_try_at,
                job_id: step.job_id,
                text: step.text.filter(|_| reads),
                sent_at: step.sent_at,
                finished_at: step.finished_at,
            })
            .collect();
        Ok(Json(EnrollmentDetail { enrollment: view(row), steps }))
    }

    /// Takes somebody out of a plan
    ///
    /// Needs the role agent. In force for everything that has not left yet; somebody who is out of it already stays so.
    #[oai(
        path = "/sop-tasks/:id/enrollments/:enrollment_id",
        method = "delete",
        operation_id = "remove_enrollment"
    )]
    async fn remove(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        enrollment_id: Path<Uuid>,
    ) -> Result<Json<EnrollmentView>, ApiError> {
        caller.require(Role::Agent)?;
        let organization = caller.organization_id;
        let mut conn = state.db.conn().await?;
        let row = enrollments::get(&mut conn, organization, enrollment_id.0).await?;
        let row = row.filter(|row| row.sop_id == id.0).ok_or_else(enrollment_not_found)?;
        conn.transaction(async |conn| {
            if enrollments::end(conn, organization, Whose::Enrollment(row.id), "canceled").await?.ended > 0 {
                Note::new("sop.remove", "sop_enrollment", row.id)
                    .before(json!({"contact_id": row.contact_id, "step_id": row.step_id}))
                    .write(conn, &caller, &origin)
                    .await?;
            }
            Ok::<_, ApiError>(())
        })
        .await?;
        let row =
            enrollments::get(&mut conn, organization, row.id).await?.ok_or_else(enrollment_not_found)?;
        Ok(Json(view(row)))
    }
}

fn plan_not_found() -> ApiError {
    ApiError::not_found("plan_not_found", "Your organisation has no such plan.")
}

pub(super) fn enrollment_not_found() -> ApiError {
    ApiError::not_found("enrollment_not_found", "The plan has no such enrollment.")
}

fn not_running() -> ApiError {
    ApiError::conflict(
        "plan_not_running",
        "People are brought into plans that run. Start it, or resume it, first.",
    )
}

fn view(row: Enrollment) -> EnrollmentView {
    EnrollmentView {
        id: row.id,
        sop_id: row.sop_id,
        version: row.version,
        account_id: row.account_id,
        contact_id: row.contact_id,
        state: row.state,
        reason: row.reason.or(row.wait_code),
        outcome: row.outcome,
        step_id: row.step_id,
        next_try_at: row.due_at,
        source: row.source,
        sent: row.sent,
        replied_at: row.replied_at,
        goal_at: row.goal_at,
        created_at: row.created_at,
        finished_at: row.finished_at,
    }
}
