//! Texts of campaigns that wait for a person, who lets them be sent, changes them first, or rejects them.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::ai::words::normalize;
use entropy_jobs::campaign::clock;
use entropy_jobs::campaign::review::{self, Decision, Undecided};
use entropy_schema::campaigns::steps::{self, Step};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::account_ai::has_controls;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::{Body, OptionalBody};
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page};
use crate::problem::ApiError;

/// The longest text that a person writes instead.
const LONGEST: usize = 2000;

/// What to say instead.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct EditText {
    /// 1 to 2000 characters.
    text: Text,
}

/// Why a text is not sent.
#[derive(Default, Object)]
#[oai(deny_unknown_fields)]
struct RejectText {
    /// For people, in the audit log; up to 200 characters.
    reason: Option<Text>,
}

/// A text of a campaign that waits for a person, or was decided just now.
#[derive(Debug, Object)]
struct CampaignTextView {
    enrollment_id: Uuid,
    step_id: String,
    sop_id: Uuid,
    version: i32,
    account_id: Uuid,
    contact_id: Uuid,
    /// `ai_send` or `send`.
    kind: String,
    /// As it would be sent.
    text: String,
    /// `held_for_review`, `planned` (approved) or `skipped` (rejected).
    state: String,
    /// `asked`: the plan wants a person to look. `sensitive_words`: it holds words that ask for that. Then `approved` or `rejected`.
    reason: Option<String>,
    /// When the step was due by the plan.
    planned_at: DateTime<Utc>,
    /// Nobody can decide after this moment.
    review_until: Option<DateTime<Utc>>,
    /// The run of the model that wrote it.
    run_id: Option<Uuid>,
    decided_by: Option<Uuid>,
}

/// Texts of campaigns that wait.
pub(super) struct SopReviews;

#[OpenApi(tag = "Tag::Campaigns")]
impl SopReviews {
    /// Lists the texts of campaigns that wait for a person
    ///
    /// The latest enrollments first. Needs the role agent.
    #[oai(path = "/sop-reviews", method = "get", operation_id = "list_sop_reviews")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only of this plan.
        sop_id: Query<Option<Uuid>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<CampaignTextView>>, ApiError> {
        caller.require(Role::Agent)?;
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let mut conn = state.db.conn().await?;
        let organization = caller.organization_id;
        let rows = steps::held(&mut conn, organization, sop_id.0, ask.before, ask.fetch()).await?;
        let now = clock::now(&mut conn).await?;
        let waits = |row: &CampaignTextView| row.review_until.is_none_or(|until| until > now);
        let mut page = ask.page(rows, |row| row.enrollment_id, view);
        page.items.retain(waits);
        Ok(Json(page))
    }

    /// Lets a text be sent as it is
    ///
    /// Needs the role agent. It is sent once everything else permits it: windows, caps, limits. 409 if it waits no more
    /// (`review_moved_on`: somebody has decided, the customer has answered, the campaign went on) or its time has passed
    /// (`review_expired`).
    #[oai(
        path = "/sop-reviews/:enrollment_id/:step_id/approve",
        method = "post",
        operation_id = "approve_sop_review"
    )]
    async fn approve(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        enrollment_id: Path<Uuid>,
        step_id: Path<String>,
    ) -> Result<Json<CampaignTextView>, ApiError> {
        caller.require(Role::Agent)?;
        let at = (enrollment_id.0, step_id.0.as_str());
        let after = json!({ "step_id": step_id.0 });
        decide(&state, &caller, &origin, at, Decision::Approve(None), ("sop_review.approve", after)).await
    }

    /// Lets a text be sent with other words
    ///
    /// Needs the role agent. The words are checked for those that must not be said. 409 as when approving.
    #[oai(
        path = "/sop-reviews/:enrollment_id/:step_id/edit",
        method = "post",
        operation_id = "edit_sop_review"
    )]
    async fn edit(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        enrollment_id: Path<Uuid>,
        step_id: Path<String>,
        body: Body<EditText>,
    ) -> Result<Json<CampaignTextView>, ApiError> {
        caller.require(Role::Agent)?;
        let text = body.0.text.trim();
        let says_nothing = normalize(text).is_empty();
        if says_nothing || text.chars().count() > LONGEST || has_controls(text) {
            let message =
                "must say something in up to 2000 characters, without control characters but line breaks";
            return Err(ApiError::field("text", "bad_text", message));
        }
        let at = (enrollment_id.0, step_id.0.as_str());
        // Not what it says: the log holds no messages.
        let after = json!({ "step_id": step_id.0, "edited": true });
        decide(&state, &caller, &origin, at, Decision::Approve(Some(text)), ("sop_review.edit", after)).await
    }

    /// Rejects a text
    ///
    /// Needs the role agent. It is not sent, and the campaign goes on without it. 409 as when approving.
    #[oai(
        path = "/sop-reviews/:enrollment_id/:step_id/reject",
        method = "post",
        operation_id = "reject_sop_review"
    )]
    async fn reject(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        enrollment_id: Path<Uuid>,
        step_id: Path<String>,
        body: OptionalBody<RejectText>,
    ) -> Result<Json<CampaignTextView>, ApiError> {
        caller.require(Role::Agent)?;
        let reason = body.0.reason.as_deref().map(str::trim);
        if reason.is_some_and(|reason| reason.chars().count() > 200 || reason.chars().any(char::is_control)) {
            let message = "must have at most 200 characters and no control characters";
            return Err(ApiError::field("reason", "too_long", message));
        }
        let at = (enrollment_id.0, step_id.0.as_str());
        let after = json!({ "step_id": step_id.0, "reason": reason });
        decide(&state, &caller, &origin, at, Decision::Reject, ("sop_review.reject", after)).await
    }
}

async fn decide(
    state: &AppState,
    caller: &Caller,
    origin: &Origin,
    (enrollment, step): (Uuid, &str),
    decision: Decision<'_>,
    (action, after): (&'static str, serde_json::Value),
) -> Result<Json<CampaignTextView>, ApiError> {
    // No plan has a step of such a name, and Postgres takes no zero character.
    if step.contains('\0') {
        return Err(review_not_found());
    }
    let mut conn = state.db.conn().await?;
    conn.transaction(async |conn| {
        let organization = caller.organization_id;
        let row = review::decide(conn, organization, enrollment, step, caller.id, decision).await?;
        let row = row.map_err(undecided)?;
        Note::new(action, "sop_enrollment", enrollment).after(after).write(conn, caller, origin).await?;
        Ok(Json(view(row)))
    })
    .await
}

fn undecided(why: Undecided) -> ApiError {
    match why {
        Undecided::Unknown => review_not_found(),
        Undecided::MovedOn => {
            let detail = "This text does not wait for anybody any more: somebody has decided, the customer has answered, or the \
                campaign went on without it.";
            ApiError::conflict("review_moved_on", detail)
        }
        Undecided::Expired => {
            let detail = "The time of this text has passed. The campaign goes on without it.";
            ApiError::conflict("review_expired", detail)
        }
        Undecided::BlockedWord => {
            let message =
                "holds a word that your organisation does not let be said; change it, or reject the text";
            ApiError::field("text", "blocked_word", message)
        }
        Undecided::TooLong => ApiError::field("text", "too_long", "must fit into one message"),
    }
}

fn review_not_found() -> ApiError {
    ApiError::not_found("review_not_found", "Your organisation has no such text.")
}

fn view(row: Step) -> CampaignTextView {
    CampaignTextView {
        enrollment_id: row.enrollment_id,
        step_id: row.step_id,
        sop_id: row.sop_id,
        version: row.version,
        account_id: row.account_id,
        contact_id: row.contact_id,
        kind: row.kind,
        text: row.text.unwrap_or_default(),
        state: row.state,
        reason: row.reason,
        planned_at: row.planned_at,
        review_until: row.review_until,
        run_id: row.run_id,
        decided_by: row.decided_by,
    }
}
