//! Budgets: what may be spent in a day or a month, and what was. Money is written as decimal strings.

use chrono::{DateTime, NaiveDate, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::{calendar, spending};
use entropy_schema::budgets::{self, Budget, Standing};
use entropy_schema::campaigns::plans;
use entropy_schema::{Conn, accounts, settings, users};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::prices::{bad_amount, money, yuan};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::ApiError;

/// Budgets of one organisation.
const MOST: i64 = 1000;

/// What a budget concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum BudgetScope {
    /// Every run.
    Organization,
    /// Runs that a person asked for.
    User,
    /// Runs for an account.
    Account,
    /// Runs for a plan of a campaign.
    Sop,
}

impl BudgetScope {
    fn as_str(self) -> &'static str {
        match self {
            BudgetScope::Organization => "organization",
            BudgetScope::User => "user",
            BudgetScope::Account => "account",
            BudgetScope::Sop => "sop",
        }
    }
}

/// How often a budget begins anew, in the organisation's zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum BudgetPeriod {
    /// At midnight.
    Day,
    /// At the first midnight of a month.
    Month,
}

impl BudgetPeriod {
    fn as_str(self) -> &'static str {
        match self {
            BudgetPeriod::Day => "day",
            BudgetPeriod::Month => "month",
        }
    }
}

/// A budget to set.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct PutBudget {
    scope: BudgetScope,
    /// The user's, account's or plan's id; not for the scope `organization`.
    scope_id: Option<Uuid>,
    period: BudgetPeriod,
    /// Yuan, such as `"12.50"`; `"0"`: nothing may be spent.
    limit_yuan: Text,
}

/// A budget, and how it stands in the present period.
#[derive(Debug, Object)]
struct BudgetView {
    id: Uuid,
    /// `organization`, `user`, `account` or `sop`.
    scope: String,
    scope_id: Uuid,
    /// `day` or `month`.
    period: String,
    limit_yuan: String,
    /// What the ledger says of the period's runs.
    spent_yuan: String,
    /// What runs under way may cost beside that.
    reserved_yuan: String,
    /// The period's first day.
    starts_on: NaiveDate,
    /// When the next period begins.
    resets_at: DateTime<Utc>,
    updated_by: Option<Uuid>,
    updated_at: DateTime<Utc>,
}

/// All budgets.
#[derive(Debug, Object)]
struct BudgetsView {
    items: Vec<BudgetView>,
}

#[derive(ApiResponse)]
enum Deleted {
    /// The budget holds nobody back any more.
    #[oai(status = 204)]
    Gone,
}

/// Budgets.
pub(super) struct Budgets;

#[OpenApi(tag = "Tag::Costs")]
impl Budgets {
    /// Lists the budgets
    ///
    /// With what was spent and is reserved in the present period.
    #[oai(path = "/budgets", method = "get", operation_id = "list_budgets")]
    async fn list(&self, state: Data<&AppState>, caller: Caller) -> Result<Json<BudgetsView>, ApiError> {
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let chosen = settings::organization(&mut conn, caller.organization_id).await?;
        let zone = calendar::zone(Some(&chosen.timezone));
        let periods = calendar::periods(now, zone);
        let standings = budgets::standings(&mut conn, caller.organization_id, periods, None).await?;
        Ok(Json(BudgetsView { items: standings.into_iter().map(|one| view(one, zone)).collect() }))
    }

    /// Sets a budget
    ///
    /// Needs the role manager. A scope has one budget per day and one per month; the same scope and period again changes its
    /// limit. In force for the next run: a run reserves the most it may cost in every budget that concerns it, and without
    /// room in each of them a person answers, or the plan's own text is sent. What was spent in the present period before counts.
    #[oai(path = "/budgets", method = "put", operation_id = "put_budget")]
    async fn put(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<PutBudget>,
    ) -> Result<Json<BudgetView>, ApiError> {
        caller.require(Role::Manager)?;
        let asked = body.0;
        let limit_yuan =
            yuan(&asked.limit_yuan).ok_or_else(|| ApiError::unprocessable(vec![bad_amount("limit_yuan")]))?;
        let mut conn = state.db.conn().await?;
        let scope_id = scope_id(&mut conn, &caller, asked.scope, asked.scope_id).await?;
        let budget = Budget {
            id: Uuid::now_v7(),
            organization_id: caller.organization_id,
            scope: asked.scope.as_str().to_owned(),
            scope_id,
            period: asked.period.as_str().to_owned(),
            limit_yuan,
            updated_by: Some(caller.id),
            updated_at: state.now().await,
        };
        let chosen = settings::organization(&mut conn, caller.organization_id).await?;
        let standing = conn
            .transaction(async |conn| {
                let (before, standing) = spending::set_budget(conn, &budget).await?;
                if before.is_none() && budgets::count(conn, caller.organization_id).await? > MOST {
                    let detail =
                        "Your organisation has a thousand budgets. Delete some that nobody needs first.";
                    return Err(ApiError::conflict("too_many_budgets", detail));
                }
                let note =
                    Note::new("budget.put", "budget", standing.budget.id).after(facts(&standing.budget));
                let note = match &before {
                    Some(before) => note.before(facts(before)),
                    None => note,
                };
                note.write(conn, &caller, &origin).await?;
                Ok(standing)
            })
            .await?;
        Ok(Json(view(standing, calendar::zone(Some(&chosen.timezone)))))
    }

    /// Deletes a budget
    ///
    /// Needs the role manager.
    #[oai(path = "/budgets/:id", method = "delete", operation_id = "delete_budget")]
    async fn delete(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Deleted, ApiError> {
        caller.require(Role::Manager)?;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            budgets::alone(conn, caller.organization_id).await?;
            let budget = budgets::remove(conn, caller.organization_id, id.0).await?;
            let budget = budget.ok_or_else(budget_not_found)?;
            Note::new("budget.delete", "budget", id.0)
                .before(facts(&budget))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Deleted::Gone)
    }
}

/// Returns whom a budget concerns, if the organisation has them.
async fn scope_id(
    conn: &mut Conn,
    caller: &Caller,
    scope: BudgetScope,
    asked: Option<Uuid>,
) -> Result<Uuid, ApiError> {
    let missing = || ApiError::field("scope_id", "missing", format!("must name the {}", scope.as_str()));
    match (scope, asked) {
        (BudgetScope::Organization, None) => Ok(caller.organization_id),
        (BudgetScope::Organization, Some(id)) if id == caller.organization_id => Ok(id),
        (BudgetScope::Organization, Some(_)) => {
            let message = "must be left out: a budget of the scope organization is that of your own";
            Err(ApiError::field("scope_id", "not_yours", message))
        }
        (BudgetScope::Account, id) => {
            let id = id.ok_or_else(missing)?;
            if accounts::exists(conn, caller.organization_id, id).await? {
                return Ok(id);
            }
            Err(super::accounts::account_not_found())
        }
        (BudgetScope::Sop, id) => {
            let id = id.ok_or_else(missing)?;
            let plan = plans::get(conn, caller.organization_id, id).await?;
            plan.map(|plan| plan.id).ok_or_else(super::sop_tasks::plan_not_found)
        }
        (BudgetScope::User, id) => {
            let id = id.ok_or_else(missing)?;
            let user = users::by_id(conn, id).await?;
            if user.is_some_and(|user| user.organization_id == caller.organization_id) {
                return Ok(id);
            }
            Err(ApiError::not_found("user_not_found", "Your organisation has no such user."))
        }
    }
}

fn budget_not_found() -> ApiError {
    ApiError::not_found("budget_not_found", "Your organisation has no such budget.")
}

fn facts(budget: &Budget) -> Value {
    json!({
        "scope": budget.scope, "scope_id": budget.scope_id, "period": budget.period,
        "limit_yuan": money(&budget.limit_yuan),
    })
}

fn view(standing: Standing, zone: calendar::Zone) -> BudgetView {
    let Standing { budget, starts_on, spent_yuan, reserved_yuan } = standing;
    BudgetView {
        id: budget.id,
        resets_at: calendar::ends(&budget.period, starts_on, zone),
        scope: budget.scope,
        scope_id: budget.scope_id,
        period: budget.period,
        limit_yuan: money(&budget.limit_yuan),
        spent_yuan: money(&spent_yuan),
        reserved_yuan: money(&reserved_yuan),
        starts_on,
        updated_by: budget.updated_by,
        updated_at: budget.updated_at,
    }
}
