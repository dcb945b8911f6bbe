//! What was spent: the ledger, line by line and in sums. Money is written as decimal strings.

use bigdecimal::{BigDecimal, ToPrimitive};
use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::repricing::{self, Span};
use entropy_schema::cost_rollups;
use entropy_schema::costs::{self, Filter, GroupBy, Line};
use entropy_schema::settings;
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::jobs::storable;
use super::prices::{model_problem, money};
use super::span::{self, Range};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{self, Ask, Page};
use crate::problem::{ApiError, FieldProblem};

/// Lines that are priced anew in one transaction, and in one request.
const REPRICE_BATCH: i64 = 200;
const REPRICE_MOST: usize = 2000;

/// Groups that a report shows.
const MOST_GROUPS: i64 = 1000;

/// One line of the ledger: what one model did in one node of one run.
#[derive(Debug, Object)]
struct LedgerView {
    id: Uuid,
    /// `<run>:<node>` of a run; what the caller chose of a tally.
    request_id: String,
    /// The run that it belongs to, unless it was tallied by itself.
    run_id: Option<Uuid>,
    node_index: Option<i32>,
    node_name: Option<String>,
    user_id: Option<Uuid>,
    wechat_account_id: Option<Uuid>,
    conversation_id: Option<Uuid>,
    /// The plan of the campaign that it was run for.
    sop_id: Option<Uuid>,
    /// The job that wrote this line.
    job_id: Uuid,
    model_name: String,
    /// Negative in a line that takes another one back, as is its cost: the sum over all lines is right.
    input_tokens: i64,
    output_tokens: i64,
    /// Of the input tokens, those out of a cache.
    cached_input_tokens: i64,
    /// False: no price was valid then; the tokens are kept.
    priced: bool,
    price_id: Option<Uuid>,
    /// As it was then.
    input_price_per_1k: Option<String>,
    /// As it was then.
    output_price_per_1k: Option<String>,
    /// As it was then.
    cached_input_price_per_1k: Option<String>,
    /// Yuan; null if unpriced.
    calculated_cost: Option<String>,
    /// The provider's own measure.
    points: Option<String>,
    /// True: the call may have been charged, and nobody knows how much.
    estimated: bool,
    /// The line that this one takes back.
    corrects: Option<Uuid>,
    /// When it was run.
    occurred_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

/// Which lines are priced anew.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct RepriceRequest {
    /// The model's name.
    model: Text,
    /// Run at or after.
    from: DateTime<Utc>,
    /// Run before.
    to: DateTime<Utc>,
    /// `next_cursor` of the answer before.
    cursor: Option<Text>,
}

/// What was priced anew.
#[derive(Debug, Object)]
struct RepricedView {
    /// Lines that were looked at.
    looked_at: i64,
    /// Lines that cost something else now: each was taken back, and another one took its place.
    corrected: i64,
    /// Yuan that this adds to what was spent; may be negative.
    difference: String,
    /// Send the request again with it as `cursor`: there are more lines. Null: these were all.
    next_cursor: Option<String>,
}

/// What costs are summed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum CostGrouping {
    Day,
    Model,
    User,
    Account,
    Conversation,
    /// The plan of a campaign.
    Sop,
}

impl From<CostGrouping> for GroupBy {
    fn from(grouping: CostGrouping) -> GroupBy {
        match grouping {
            CostGrouping::Day => GroupBy::Day,
            CostGrouping::Model => GroupBy::Model,
            CostGrouping::User => GroupBy::User,
            CostGrouping::Account => GroupBy::Account,
            CostGrouping::Conversation => GroupBy::Conversation,
            CostGrouping::Sop => GroupBy::Sop,
        }
    }
}

/// What one group cost.
#[derive(Debug, Object)]
struct CostView {
    /// The day, the model's name, or an id; null for lines that have none.
    key: Option<String>,
    /// Yuan.
    cost: String,
    input_tokens: i64,
    output_tokens: i64,
    /// Lines of the ledger that stand: models that ran.
    requests: i64,
    /// Of those, lines for which no price was valid; their cost is not counted.
    unpriced: i64,
}

/// What was spent.
#[derive(Debug, Object)]
struct CostsView {
    /// Days in their order; other groups with the dearest first, at most 1000.
    items: Vec<CostView>,
    /// Yuan, over all groups.
    total: String,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// The zone of the days.
    timezone: String,
}

/// The ledger.
pub(super) struct Costs;

#[OpenApi(tag = "Tag::Costs")]
impl Costs {
    /// Lists the ledger
    ///
    /// Newest first. One line per model and node of a run, and one per tally. Lines are never changed: a correction is a line
    /// that takes another one back, and one that takes its place.
    #[oai(path = "/cost-ledgers", method = "get", operation_id = "list_cost_ledgers")]
    #[allow(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn ledger(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Of this account.
        account_id: Query<Option<Uuid>>,
        /// Of this conversation.
        conversation_id: Query<Option<Uuid>>,
        /// Of this run.
        run_id: Query<Option<Uuid>>,
        /// Of this model.
        model: Query<Option<String>>,
        /// Written at or after.
        from: Query<Option<DateTime<Utc>>>,
        /// Written before.
        to: Query<Option<DateTime<Utc>>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<LedgerView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        if model.0.as_deref().is_some_and(|model| model.contains('\0')) {
            return Err(ApiError::malformed(vec![FieldProblem::new(
                "model",
                "bad_text",
                "must have no zero character",
            )]));
        }
        let filter = Filter {
            account_id: account_id.0,
            conversation_id: conversation_id.0,
            run_id: run_id.0,
            model: model.0,
            from: from.0.map(storable),
            to: to.0.map(storable),
        };
        let mut conn = state.db.conn().await?;
        let rows =
            costs::entries(&mut conn, caller.organization_id, &filter, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(rows, |line| line.entry.id, ledger_view)))
    }

    /// Prices lines of the ledger anew
    ///
    /// Needs the role admin. For prices that came late: takes the model's lines of the time, chooses the price that holds by
    /// now for the moment of each, and corrects those that cost something else. A correction is two lines: one takes the old
    /// one back, one takes its place. Budgets move along. Lines for which no price holds stay as they are. Safe to repeat; at
    /// most 2000 lines at a time, send `next_cursor` for more.
    #[oai(path = "/cost-ledgers/reprice", method = "post", operation_id = "reprice_cost_ledgers")]
    async fn reprice(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<RepriceRequest>,
    ) -> Result<Json<RepricedView>, ApiError> {
        caller.require(Role::Admin)?;
        let asked = body.0;
        let mut problems: Vec<FieldProblem> = model_problem(&asked.model).into_iter().collect();
        let (from, to) = (storable(asked.from), storable(asked.to));
        if to <= from {
            problems.push(FieldProblem::new("to", "not_after", "must lie after from"));
        }
        if !problems.is_empty() {
            return Err(ApiError::unprocessable(problems));
        }
        let mut after = match &asked.cursor {
            Some(cursor) => Some(page::decode(cursor)?.parse().map_err(|_| page::bad_cursor())?),
            None => None,
        };
        let span = Span { organization_id: caller.organization_id, model: &asked.model, from, to };
        let (mut looked_at, mut corrected, mut difference) = (0, 0, BigDecimal::default());
        let mut conn = state.db.conn().await?;
        loop {
            let batch = conn
                .transaction(async |conn| {
                    let batch = repricing::reprice(conn, &span, after, REPRICE_BATCH).await?;
                    if batch.corrected > 0 {
                        Note::new("cost_ledger.reprice", "model", &asked.model.0)
                            .after(json!({
                                "from": from, "to": to, "corrected": batch.corrected,
                                "difference": money(&batch.difference),
                            }))
                            .write(conn, &caller, &origin)
                            .await?;
                    }
                    Ok::<_, ApiError>(batch)
                })
                .await?;
            looked_at += batch.looked_at;
            corrected += batch.corrected;
            difference += batch.difference;
            after = batch.last;
            if after.is_none() || looked_at >= REPRICE_MOST {
                break;
            }
        }
        Ok(Json(RepricedView {
            looked_at: i64::try_from(looked_at).unwrap_or(i64::MAX),
            corrected: i64::try_from(corrected).unwrap_or(i64::MAX),
            difference: money(&difference),
            next_cursor: after.map(|id: Uuid| page::encode(&id.to_string())),
        }))
    }

    /// Sums what was spent
    ///
    /// Over the runs of a time, by day, model, user, account or conversation. Days are those of the organisation's zone.
    #[oai(path = "/costs", method = "get", operation_id = "sum_costs")]
    async fn costs(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// A day, `2026-11-01`, which begins in the organisation's zone, or a moment; 29 days before today if not given.
        from: Query<Option<String>>,
        /// A day, which counts to its end, or a moment, exclusive; today if not given. At most 366 days after `from`.
        to: Query<Option<String>>,
        /// By day if not given.
        group_by: Query<Option<CostGrouping>>,
    ) -> Result<Json<CostsView>, ApiError> {
        let group_by = group_by.0.unwrap_or(CostGrouping::Day);
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let chosen = settings::organization(&mut conn, caller.organization_id).await?;
        let range = Range::read(from.0.as_deref(), to.0.as_deref(), now, &chosen.timezone, span::YEAR)?;
        let (bounds, days) = match group_by {
            CostGrouping::Day => range.days(),
            _ => (vec![range.from, range.to], Vec::new()),
        };
        let groups =
            cost_rollups::grouped(&mut conn, caller.organization_id, &bounds, group_by.into(), MOST_GROUPS)
                .await?;
        // One group of everything: there may be more groups than are shown.
        let all = [range.from, range.to];
        let all = cost_rollups::grouped(&mut conn, caller.organization_id, &all, GroupBy::Day, 1).await?;
        let total = all.into_iter().next().map(|all| all.cost).unwrap_or_default();
        let mut items: Vec<CostView> = groups
            .into_iter()
            .map(|group| CostView {
                key: match group_by {
                    CostGrouping::Day => {
                        let n = group.key.and_then(|n| n.parse::<usize>().ok());
                        n.and_then(|n| days.get(n.checked_sub(1)?)).map(ToString::to_string)
                    }
                    _ => group.key,
                },
                cost: money(&group.cost),
                input_tokens: group.input_tokens.to_i64().unwrap_or(i64::MAX),
                output_tokens: group.output_tokens.to_i64().unwrap_or(i64::MAX),
                requests: group.requests,
                unpriced: group.unpriced,
            })
            .collect();
        if group_by == CostGrouping::Day {
            items.sort_by(|a, b| a.key.cmp(&b.key));
        }
        Ok(Json(CostsView {
            items,
            total: money(&total),
            from: range.from,
            to: range.to,
            timezone: range.zone.to_string(),
        }))
    }
}

fn ledger_view(line: Line) -> LedgerView {
    let Line { entry, created_at } = line;
    let sign = if entry.corrects.is_some() { -1 } else { 1 };
    LedgerView {
        id: entry.id,
        request_id: entry.request_id,
        run_id: entry.run_id,
        node_index: entry.node_index,
        node_name: entry.node_name,
        user_id: entry.user_id,
        wechat_account_id: entry.wechat_account_id,
        conversation_id: entry.conversation_id,
        sop_id: entry.sop_id,
        job_id: entry.job_id,
        model_name: entry.model_name,
        input_tokens: sign * entry.input_tokens,
        output_tokens: sign * entry.output_tokens,
        cached_input_tokens: sign * entry.cached_input_tokens,
        priced: entry.priced,
        price_id: entry.price_id,
        input_price_per_1k: entry.input_price_per_1k.as_ref().map(money),
        output_price_per_1k: entry.output_price_per_1k.as_ref().map(money),
        cached_input_price_per_1k: entry.cached_input_price_per_1k.as_ref().map(money),
        calculated_cost: entry.calculated_cost.as_ref().map(money),
        points: entry.points.map(|points| money(&(points * BigDecimal::from(sign)))),
        estimated: entry.estimated,
        corrects: entry.corrects,
        occurred_at: entry.occurred_at,
        created_at,
    }
}
