//! Emergency stops: of an organisation's campaigns, of an account's, of one plan, of the AI.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::Conn;
use entropy_schema::accounts;
use entropy_schema::campaigns::plans;
use entropy_schema::campaigns::stops::{self, Stop};
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::account_ai::has_controls;
use super::audit::Note;
use super::sop_tasks::plan_not_found;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::ApiError;

/// The most stops that are listed: there is one per account and plan at most.
const MAX_LISTED: i64 = 10_000;

/// What is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum StopScope {
    /// Every campaign of the organisation.
    Organization,
    /// Every campaign, through one account.
    Account,
    /// One plan.
    Sop,
    /// Whatever a model writes, answers to customers too.
    Ai,
}

impl StopScope {
    fn as_str(self) -> &'static str {
        match self {
            StopScope::Organization => "organization",
            StopScope::Account => "account",
            StopScope::Sop => "sop",
            StopScope::Ai => "ai",
        }
    }

    fn of(stored: &str) -> StopScope {
        match stored {
            "account" => StopScope::Account,
            "sop" => StopScope::Sop,
            "ai" => StopScope::Ai,
            _ => StopScope::Organization,
        }
    }
}

/// What to stop.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct PutStop {
    scope: StopScope,
    /// The account or plan. May be left out for `organization` and `ai`.
    scope_id: Option<Uuid>,
    /// Why: 1 to 500 characters. `jobs` that wait repeat it.
    reason: Text,
}

/// What to let go on.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct LiftStop {
    scope: StopScope,
    /// The account or plan. May be left out for `organization` and `ai`.
    scope_id: Option<Uuid>,
    /// Why: up to 500 characters, for the audit log.
    reason: Option<Text>,
}

/// A stop in force.
#[derive(Debug, Object)]
struct StopView {
    scope: StopScope,
    /// What is stopped; the organisation itself for `organization` and `ai`.
    scope_id: Uuid,
    reason: String,
    stopped_by: Option<Uuid>,
    stopped_at: DateTime<Utc>,
}

/// The stops in force.
#[derive(Debug, Object)]
struct StopsView {
    items: Vec<StopView>,
}

#[derive(ApiResponse)]
enum Lifted {
    /// Nothing stops it any more, or nothing did.
    #[oai(status = 204)]
    Gone,
}

/// Emergency stops.
pub(super) struct Stops;

#[OpenApi(tag = "Tag::Campaigns")]
impl Stops {
    /// Stops something at once
    ///
    /// Needs the role manager. When this is answered, nothing of it is sent any more, until the stop is lifted. Stopping it again
    /// changes nothing: the answer is the stop in force.
    #[oai(path = "/stop", method = "post", operation_id = "create_stop")]
    async fn create(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<PutStop>,
    ) -> Result<Json<StopView>, ApiError> {
        caller.require(Role::Manager)?;
        let (scope, reason) = (body.0.scope, read_reason(&body.0.reason)?);
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let stop = conn
            .transaction(async |conn| {
                let scope_id = target(conn, &caller, scope, body.0.scope_id).await?;
                let stop = Stop {
                    organization_id: caller.organization_id,
                    scope: scope.as_str().to_owned(),
                    scope_id,
                    reason: reason.clone(),
                    stopped_by: Some(caller.id),
                    stopped_at: now,
                };
                if let Some(new) = stops::insert(conn, &stop).await? {
                    Note::new("stop.create", scope.as_str(), scope_id)
                        .after(json!({"reason": reason}))
                        .write(conn, &caller, &origin)
                        .await?;
                    return Ok(new);
                }
                // It stood there already; or somebody lifts it at this moment, and comes after us.
                let there = stops::get(conn, caller.organization_id, scope.as_str(), scope_id).await?;
                Ok::<_, ApiError>(there.unwrap_or(stop))
            })
            .await?;
        let account = (scope == StopScope::Account).then_some(stop.scope_id);
        conn.transaction(async |conn| stops::wait_for_gates(conn, caller.organization_id, account).await)
            .await?;
        Ok(Json(view(stop)))
    }

    /// Lifts a stop
    ///
    /// Needs the role manager. What was due meanwhile is sent within windows, caps and limits, as it comes. Lifting what is not
    /// stopped changes nothing.
    #[oai(path = "/stop", method = "delete", operation_id = "lift_stop")]
    async fn lift(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<LiftStop>,
    ) -> Result<Lifted, ApiError> {
        caller.require(Role::Manager)?;
        let reason = body.0.reason.as_ref().map(read_reason).transpose()?;
        let scope = body.0.scope;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let scope_id = target(conn, &caller, scope, body.0.scope_id).await?;
            let lifted = stops::lift(conn, caller.organization_id, scope.as_str(), scope_id).await?;
            if let Some(stop) = lifted {
                Note::new("stop.lift", scope.as_str(), scope_id)
                    .before(json!({"reason": stop.reason, "stopped_by": stop.stopped_by, "stopped_at": stop.stopped_at}))
                    .after(reason.map_or(Value::Null, |reason| json!({"reason": reason})))
                    .write(conn, &caller, &origin)
                    .await?;
            }
            Ok::<_, ApiError>(())
        })
        .await?;
        Ok(Lifted::Gone)
    }

    /// Lists the stops in force
    ///
    /// The latest first.
    #[oai(path = "/stop", method = "get", operation_id = "list_stops")]
    async fn list(&self, state: Data<&AppState>, caller: Caller) -> Result<Json<StopsView>, ApiError> {
        let mut conn = state.db.conn().await?;
        let rows = stops::list(&mut conn, caller.organization_id, MAX_LISTED).await?;
        Ok(Json(StopsView { items: rows.into_iter().map(view).collect() }))
    }
}

/// Returns what a stop is about, if the organisation has it.
async fn target(
    conn: &mut Conn,
    caller: &Caller,
    scope: StopScope,
    id: Option<Uuid>,
) -> Result<Uuid, ApiError> {
    match (scope, id) {
        (StopScope::Organization | StopScope::Ai, None) => Ok(caller.organization_id),
        (StopScope::Organization | StopScope::Ai, Some(id)) if id == caller.organization_id => Ok(id),
        (StopScope::Organization | StopScope::Ai, Some(_)) => {
            Err(ApiError::field("scope_id", "not_yours", "must be your organisation's own id, or left out"))
        }
        (StopScope::Account | StopScope::Sop, None) => {
            Err(ApiError::field("scope_id", "missing", "must name the account or plan"))
        }
        (StopScope::Account, Some(id)) => match accounts::exists(conn, caller.organization_id, id).await? {
            true => Ok(id),
            false => {
                Err(ApiError::not_found("account_not_found", "Your organisation has no such WeChat account."))
            }
        },
        (StopScope::Sop, Some(id)) => {
            plans::get(conn, caller.organization_id, id).await?.map(|plan| plan.id).ok_or_else(plan_not_found)
        }
    }
}

fn read_reason(reason: &Text) -> Result<String, ApiError> {
    let reason = reason.trim();
    if !(1..=500).contains(&reason.chars().count()) || has_controls(reason) {
        let message = "must have 1 to 500 characters, and no control characters but line breaks";
        return Err(ApiError::field("reason", "bad_text", message));
    }
    Ok(reason.to_owned())
}

fn view(stop: Stop) -> StopView {
    StopView {
        scope: StopScope::of(&stop.scope),
        scope_id: stop.scope_id,
        reason: stop.reason,
        stopped_by: stop.stopped_by,
        stopped_at: stop.stopped_at,
    }
}
