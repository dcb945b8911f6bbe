//! The calls of the model: when, for which turn, with which outcome.

use chrono::{DateTime, Utc};
use entropy_schema::ai_runs::{self, Filter, Run};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::page::{Ask, Page};
use crate::problem::ApiError;

/// One call of the model.
#[derive(Debug, Object)]
struct RunView {
    id: Uuid,
    account_id: Uuid,
    /// Null: a campaign writes to somebody with whom there is none yet.
    conversation_id: Option<Uuid>,
    /// Null for a text of a campaign.
    turn_id: Option<Uuid>,
    /// The campaign for which it wrote.
    sop_id: Option<Uuid>,
    /// Of a campaign: whose way through it.
    enrollment_id: Option<Uuid>,
    /// Of a campaign: the step.
    step_id: Option<String>,
    /// Which run of the turn; the second is for what the customer wrote during the first.
    run: i16,
    workflow_id: Uuid,
    job_id: Uuid,
    /// The chat's name at the provider.
    chat_id: String,
    /// `calling`, `answered`, `failed` or `unknown`.
    state: String,
    /// What became of the answer: `sent`, `drafted`, `superseded`, `dropped` or `handed_off`; of a campaign's text
    /// `written`, `held_for_review`, `fallback` or `dropped`.
    outcome: Option<String>,
    /// What the model wrote. Null for viewers.
    answer: Option<String>,
    error_class: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    /// The provider's points, a decimal number.
    points: Option<String>,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

/// Calls of the model.
pub(super) struct AiRuns;

#[OpenApi(tag = "Tag::Jobs")]
impl AiRuns {
    /// Lists the calls of the model
    ///
    /// Newest first. The text of the answer is shown from the role agent on.
    #[oai(path = "/ai-runs", method = "get", operation_id = "list_ai_runs")]
    #[expect(clippy::too_many_arguments, reason = "one per query parameter")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only of this account.
        account_id: Query<Option<Uuid>>,
        /// Only of this conversation.
        conversation_id: Query<Option<Uuid>>,
        /// Only of this turn.
        turn_id: Query<Option<Uuid>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<RunView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let filter = Filter {
            account_id: account_id.0,
            conversation_id: conversation_id.0,
            turn_id: turn_id.0,
            before: ask.before,
        };
        let mut conn = state.db.conn().await?;
        let rows = ai_runs::list(&mut conn, caller.organization_id, filter, ask.fetch()).await?;
        let texts = caller.role >= Role::Agent;
        Ok(Json(ask.page(rows, |run| run.id, |run| view(run, texts))))
    }
}

fn view(run: Run, texts: bool) -> RunView {
    RunView {
        id: run.id,
        account_id: run.account_id,
        conversation_id: run.conversation(),
        turn_id: run.sop_id.is_none().then_some(run.turn_id),
        enrollment_id: run.sop_id.map(|_| run.turn_id),
        sop_id: run.sop_id,
        step_id: run.step_id,
        run: run.run,
        workflow_id: run.workflow_id,
        job_id: run.job_id,
        chat_id: run.chat_id,
        state: run.state,
        outcome: run.outcome,
        answer: run.answer.filter(|_| texts),
        error_class: run.error_class,
        error_code: run.error_code,
        // What a node said may quote the customer.
        error_message: run.error_message.filter(|_| texts),
        points: run.points.map(|points| points.normalized().to_plain_string()),
        started_at: run.started_at,
        finished_at: run.finished_at,
    }
}
