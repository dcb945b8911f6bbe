//! The cost ledger and the prices it is written with.
//!
//! A line of the ledger is never changed. What is wrong in it is taken back by a second line that names it
//! ([`Entry::corrects`]) and carries the same tokens and the negative amount; a line that no other line takes back
//! *stands*. The tokens of a line that takes back count negative in every sum, since the column itself cannot.

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Numeric, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde::Serialize;
use uuid::Uuid;

use crate::tables::{cost_ledgers, model_prices};
use crate::views::{lower_bound, upper_bound};
use crate::{Conn, Result};

/// The constraint that two prices run into that would hold at once.
pub const ONE_PRICE_AT_A_TIME: &str = "model_prices_one_at_a_time";

/// What a model cost at some time, in yuan per 1000 tokens.
#[derive(Debug, Clone, Serialize, Queryable, Selectable, Insertable)]
#[diesel(table_name = model_prices)]
pub struct Price {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The model's name as the provider reports it.
    pub model_name: String,
    /// Yuan per 1000 input tokens.
    pub input_price_per_1k: BigDecimal,
    /// Yuan per 1000 output tokens.
    pub output_price_per_1k: BigDecimal,
    /// Yuan per 1000 input tokens that came out of a cache; none: as other input.
    pub cached_input_price_per_1k: Option<BigDecimal>,
    /// For runs with at least so many input tokens.
    pub min_input: i64,
    /// For runs with fewer input tokens; none: any number.
    pub max_input: Option<i64>,
    /// `HH:MM-HH:MM` in the organisation's zone; empty: when no band of the model covers the time.
    pub band: String,
    /// From this moment on.
    pub valid_from: DateTime<Utc>,
    /// Up to this moment, exclusive; none: until further notice.
    pub valid_to: Option<DateTime<Utc>>,
    /// Who entered it.
    pub created_by: Option<Uuid>,
}

/// Returns the prices of some models that were valid at `at`: of every tier and band.
pub async fn prices_at(
    conn: &mut Conn,
    organization: Uuid,
    models: &[&str],
    at: DateTime<Utc>,
) -> Result<Vec<Price>> {
    Ok(model_prices::table
        .filter(model_prices::organization_id.eq(organization).and(model_prices::model_name.eq_any(models)))
        .filter(model_prices::valid_from.le(at))
        .filter(model_prices::valid_to.is_null().or(model_prices::valid_to.gt(at)))
        .select(Price::as_select())
        .load(conn)
        .await?)
}

/// Returns the prices of a model that hold for some of the time and some of the input of `price`.
pub async fn prices_beside(conn: &mut Conn, price: &Price) -> Result<Vec<Price>> {
    let mut beside = model_prices::table
        .filter(model_prices::organization_id.eq(price.organization_id))
        .filter(model_prices::model_name.eq(&price.model_name))
        .filter(model_prices::valid_to.is_null().or(model_prices::valid_to.gt(price.valid_from)))
        .filter(model_prices::max_input.is_null().or(model_prices::max_input.gt(price.min_input)))
        .select(Price::as_select())
        .into_boxed();
    if let Some(to) = price.valid_to {
        beside = beside.filter(model_prices::valid_from.lt(to));
    }
    if let Some(max) = price.max_input {
        beside = beside.filter(model_prices::min_input.lt(max));
    }
    Ok(beside.load(conn).await?)
}

/// Returns every price of a model.
pub async fn prices_of(conn: &mut Conn, organization: Uuid, model: &str) -> Result<Vec<Price>> {
    Ok(model_prices::table
        .filter(model_prices::organization_id.eq(organization).and(model_prices::model_name.eq(model)))
        .select(Price::as_select())
        .load(conn)
        .await?)
}

/// Serialises whoever adds prices to an organisation, until the caller's transaction ends.
pub async fn lock_prices(conn: &mut Conn, organization: Uuid) -> Result<()> {
    sql_query("SELECT pg_advisory_xact_lock(hashtextextended('prices:' || $1::text, 0))")
        .bind::<SqlUuid, _>(organization)
        .execute(conn)
        .await?;
    Ok(())
}

/// Adds a price. Fails on [`ONE_PRICE_AT_A_TIME`] when another one of the same band holds at the same time.
pub async fn add_price(conn: &mut Conn, price: &Price) -> Result<()> {
    diesel::insert_into(model_prices::table).values(price).execute(conn).await?;
    Ok(())
}

/// Lets a price end at `at`. None: the organisation has no such price, or it begins later or has ended before.
pub async fn end_price(
    conn: &mut Conn,
    organization: Uuid,
    id: Uuid,
    at: DateTime<Utc>,
) -> Result<Option<Price>> {
    let price = model_prices::table
        .find(id)
        .filter(model_prices::organization_id.eq(organization).and(model_prices::valid_from.lt(at)))
        .filter(model_prices::valid_to.is_null().or(model_prices::valid_to.gt(at)));
    Ok(diesel::update(price)
        .set(model_prices::valid_to.eq(at))
        .returning(Price::as_returning())
        .get_result(conn)
        .await
        .optional()?)
}

/// Returns the organisation's prices, by model and newest first.
pub async fn prices(conn: &mut Conn, organization: Uuid) -> Result<Vec<Price>> {
    Ok(model_prices::table
        .filter(model_prices::organization_id.eq(organization))
        .order((
            model_prices::model_name,
            model_prices::valid_from.desc(),
            model_prices::min_input,
            model_prices::band,
        ))
        .limit(1000)
        .select(Price::as_select())
        .load(conn)
        .await?)
}

/// One line of the ledger.
#[derive(Debug, Clone, Serialize, Queryable, Selectable, Insertable)]
#[diesel(table_name = cost_ledgers)]
pub struct Entry {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// What was run; one line per request.
    pub request_id: String,
    /// Who caused it.
    pub user_id: Option<Uuid>,
    /// The account it was run for.
    pub wechat_account_id: Option<Uuid>,
    /// The job that wrote this line.
    pub job_id: Uuid,
    /// The model's name as the provider reports it.
    pub model_name: String,
    /// Tokens read, those out of a cache included.
    pub input_tokens: i64,
    /// Tokens written.
    pub output_tokens: i64,
    /// Of the tokens read, those out of a cache.
    pub cached_input_tokens: i64,
    /// False: no price was valid; the tokens are kept.
    pub priced: bool,
    /// The price row.
    pub price_id: Option<Uuid>,
    /// Yuan per 1000 input tokens, as it was then.
    pub input_price_per_1k: Option<BigDecimal>,
    /// Yuan per 1000 output tokens, as it was then.
    pub output_price_per_1k: Option<BigDecimal>,
    /// Yuan per 1000 cached input tokens, as it was then.
    pub cached_input_price_per_1k: Option<BigDecimal>,
    /// Yuan.
    pub calculated_cost: Option<BigDecimal>,
    /// The run of a workflow that it belongs to.
    pub run_id: Option<Uuid>,
    /// The node's place in the run.
    pub node_index: Option<i32>,
    /// The node's name.
    pub node_name: Option<String>,
    /// The conversation it was run for.
    pub conversation_id: Option<Uuid>,
    /// The provider's own measure of the cost.
    pub points: Option<BigDecimal>,
    /// The call may have been charged, and nobody knows how much.
    pub estimated: bool,
    /// The line that this one takes back.
    pub corrects: Option<Uuid>,
    /// When it was run.
    pub occurred_at: Option<DateTime<Utc>>,
    /// The campaign it was run for.
    pub sop_id: Option<Uuid>,
}

impl Entry {
    /// Returns the line that takes this one back. Its name follows from this one's id, so there is at most one.
    pub fn reversal(&self, job_id: Uuid) -> Entry {
        Entry {
            id: Uuid::now_v7(),
            request_id: format!("reversal:{}", self.id),
            job_id,
            // A line without a price is taken back at no cost: what it did not say cannot be owed.
            priced: true,
            calculated_cost: Some(self.calculated_cost.as_ref().map(|cost| -cost).unwrap_or_default()),
            corrects: Some(self.id),
            ..self.clone()
        }
    }

    /// Returns what the line adds to what was spent.
    pub fn amount(&self) -> BigDecimal {
        self.calculated_cost.clone().unwrap_or_default()
    }
}

/// A line, and when it was written.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = cost_ledgers)]
pub struct Line {
    /// What it says.
    #[diesel(embed)]
    pub entry: Entry,
    /// When it was written.
    pub created_at: DateTime<Utc>,
}

/// Writes lines, each once per request, and returns the ids of those that were written. A request that has its line
/// already keeps it.
pub async fn record(conn: &mut Conn, entries: &[Entry]) -> Result<Vec<Uuid>> {
    let mut written = Vec::with_capacity(entries.len());
    // A statement has at most 65535 values.
    for some in entries.chunks(1000) {
        written.extend(
            diesel::insert_into(cost_ledgers::table)
                .values(some)
                .on_conflict((cost_ledgers::organization_id, cost_ledgers::request_id))
                .do_nothing()
                .returning(cost_ledgers::id)
                .get_results::<Uuid>(conn)
                .await?,
        );
    }
    Ok(written)
}

/// Returns the line of a request.
pub async fn entry(conn: &mut Conn, organization: Uuid, request: &str) -> Result<Option<Entry>> {
    Ok(cost_ledgers::table
        .filter(cost_ledgers::organization_id.eq(organization).and(cost_ledgers::request_id.eq(request)))
        .select(Entry::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns the lines of a run, those that take back others among them.
pub async fn entries_of_run(conn: &mut Conn, organization: Uuid, run: Uuid) -> Result<Vec<Entry>> {
    Ok(cost_ledgers::table
        .filter(cost_ledgers::run_id.eq(run).and(cost_ledgers::organization_id.eq(organization)))
        .order(cost_ledgers::id)
        .select(Entry::as_select())
        .load(conn)
        .await?)
}

/// Which lines a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this account.
    pub account_id: Option<Uuid>,
    /// Of this conversation.
    pub conversation_id: Option<Uuid>,
    /// Of this run.
    pub run_id: Option<Uuid>,
    /// Of this model.
    pub model: Option<String>,
    /// Written at or after.
    pub from: Option<DateTime<Utc>>,
    /// Written before.
    pub to: Option<DateTime<Utc>>,
}

/// Returns the organisation's lines, newest first, older than `before`.
pub async fn entries(
    conn: &mut Conn,
    organization: Uuid,
    filter: &Filter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Line>> {
    let mut query = cost_ledgers::table
        .filter(cost_ledgers::organization_id.eq(organization))
        .order(cost_ledgers::id.desc())
        .limit(limit)
        .select(Line::as_select())
        .into_boxed();
    if let Some(before) = before {
        query = query.filter(cost_ledgers::id.lt(before));
    }
    if let Some(account) = filter.account_id {
        query = query.filter(cost_ledgers::wechat_account_id.eq(account));
    }
    if let Some(conversation) = filter.conversation_id {
        query = query.filter(cost_ledgers::conversation_id.eq(conversation));
    }
    if let Some(run) = filter.run_id {
        query = query.filter(cost_ledgers::run_id.eq(run));
    }
    if let Some(model) = &filter.model {
        query = query.filter(cost_ledgers::model_name.eq(model.clone()));
    }
    if let Some(from) = filter.from {
        query = query.filter(cost_ledgers::created_at.ge(from).and(cost_ledgers::id.ge(lower_bound(from))));
    }
    if let Some(to) = filter.to {
        query = query.filter(cost_ledgers::created_at.lt(to).and(cost_ledgers::id.lt(upper_bound(to))));
    }
    Ok(query.load(conn).await?)
}

/// Returns lines of a model that stand and no estimate made, run from `from` on and before `to`, in the order in which
/// they were written, after the line `after`.
pub async fn standing(
    conn: &mut Conn,
    organization: Uuid,
    model: &str,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Entry>> {
    let ids = sql_query(
        "SELECT l.id FROM cost_ledgers l
         WHERE l.organization_id = $1 AND l.id > $2 AND l.model_name = $3 AND NOT l.estimated AND l.corrects IS NULL
            AND coalesce(l.occurred_at, l.created_at) >= $4 AND coalesce(l.occurred_at, l.created_at) < $5
            AND NOT EXISTS (SELECT FROM cost_ledgers c WHERE c.organization_id = l.organization_id
                AND c.request_id = 'reversal:' || l.id::text AND c.corrects = l.id)
         ORDER BY l.id LIMIT $6",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(after.unwrap_or_else(|| first_written(from)))
    .bind::<Text, _>(model)
    .bind::<Timestamptz, _>(from)
    .bind::<Timestamptz, _>(to)
    .bind::<BigInt, _>(limit)
    .load::<Id>(conn)
    .await?;
    let ids: Vec<Uuid> = ids.into_iter().map(|row| row.id).collect();
    Ok(cost_ledgers::table
        .filter(cost_ledgers::id.eq_any(ids).and(cost_ledgers::organization_id.eq(organization)))
        .order(cost_ledgers::id)
        .select(Entry::as_select())
        .load(conn)
        .await?)
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// Returns an id below which no line stands that was run at or after `at`: a line is written after its run. A tally may
/// name a time that lies a day ahead.
pub(crate) fn first_written(at: DateTime<Utc>) -> Uuid {
    lower_bound(at - chrono::TimeDelta::days(1))
}

#[derive(QueryableByName)]
struct Sum {
    #[diesel(sql_type = Numeric)]
    spent: BigDecimal,
}

/// Returns what the ledger says was spent from `from` on, on runs before `to`; of all, or of an account or a user.
pub async fn spent(
    conn: &mut Conn,
    organization: Uuid,
    account: Option<Uuid>,
    user: Option<Uuid>,
    sop: Option<Uuid>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<BigDecimal> {
    let sum: Sum = sql_query(
        "SELECT coalesce(sum(l.calculated_cost), 0) AS spent FROM cost_ledgers l
         WHERE l.organization_id = $1 AND l.id >= $2
            AND coalesce(l.occurred_at, l.created_at) >= $3 AND coalesce(l.occurred_at, l.created_at) < $4
            AND ($5 IS NULL OR l.wechat_account_id = $5) AND ($6 IS NULL OR l.user_id = $6)
            AND ($7 IS NULL OR l.sop_id = $7)",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(first_written(from))
    .bind::<Timestamptz, _>(from)
    .bind::<Timestamptz, _>(to)
    .bind::<Nullable<SqlUuid>, _>(account)
    .bind::<Nullable<SqlUuid>, _>(user)
    .bind::<Nullable<SqlUuid>, _>(sop)
    .get_result(conn)
    .await?;
    Ok(sum.spent)
}

/// A run whose points in the ledger are not those that its record has.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The run.
    pub run_id: Uuid,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How it ended.
    pub state: String,
    /// Points of the run; none: the provider said none.
    pub run_points: Option<BigDecimal>,
    /// Points of the run's lines; none: it has no line with points.
    pub ledger_points: Option<BigDecimal>,
}

/// What a comparison of runs with the ledger found.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Runs that were looked at.
    pub runs: i64,
    /// Those that differ, oldest first.
    pub differences: Vec<Difference>,
}

#[derive(QueryableByName)]
struct Compared {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    started_at: DateTime<Utc>,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Nullable<Numeric>)]
    points: Option<BigDecimal>,
    #[diesel(sql_type = Nullable<Numeric>)]
    ledger: Option<BigDecimal>,
}

/// Compares the points of an organisation's runs, begun from `from` on and before `to`, with those of their lines.
pub async fn compare(
    conn: &mut Conn,
    organization: Uuid,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Comparison> {
    let mut found = Comparison { runs: 0, differences: Vec::new() };
    let mut after = lower_bound(from);
    loop {
        let rows: Vec<Compared> = sql_query(
            "SELECT r.id, r.started_at, r.state, r.points, (SELECT sum(CASE WHEN l.corrects IS NULL THEN l.points
                ELSE -l.points END) FROM cost_ledgers l WHERE l.run_id = r.id) AS ledger
             FROM ai_runs r WHERE r.organization_id = $1 AND r.id > $2 AND r.started_at >= $3 AND r.started_at < $4
             ORDER BY r.id LIMIT 1000",
        )
        .bind::<SqlUuid, _>(organization)
        .bind::<SqlUuid, _>(after)
        .bind::<Timestamptz, _>(from)
        .bind::<Timestamptz, _>(to)
        .load(conn)
        .await?;
        let Some(last) = rows.last() else { return Ok(found) };
        after = last.id;
        for row in rows {
            found.runs += 1;
            let zero = BigDecimal::default();
            if row.points.as_ref().unwrap_or(&zero) != row.ledger.as_ref().unwrap_or(&zero) {
                found.differences.push(Difference {
                    run_id: row.id,
                    started_at: row.started_at,
                    state: row.state,
                    run_points: row.points,
                    ledger_points: row.ledger,
                });
            }
        }
    }
}

/// What reports group costs by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    /// The days of the organisation's calendar.
    Day,
    /// The model's name.
    Model,
    /// Who caused it.
    User,
    /// The account.
    Account,
    /// The conversation.
    Conversation,
    /// The campaign.
    Sop,
}

/// What a group cost.
#[derive(Debug, Clone, QueryableByName)]
pub struct Group {
    /// What it is: a name, an id, or for days the number of the day in the range, from 1. None: lines that have none.
    #[diesel(sql_type = Nullable<Text>)]
    pub key: Option<String>,
    /// Yuan.
    #[diesel(sql_type = Numeric)]
    pub cost: BigDecimal,
    /// Tokens read.
    #[diesel(sql_type = Numeric)]
    pub input_tokens: BigDecimal,
    /// Tokens written.
    #[diesel(sql_type = Numeric)]
    pub output_tokens: BigDecimal,
    /// Lines that stand.
    #[diesel(sql_type = BigInt)]
    pub requests: i64,
    /// Of those, lines without a price.
    #[diesel(sql_type = BigInt)]
    pub unpriced: i64,
}

/// Returns what groups cost over `days`, whose bounds are given: each begins where the one before ends. The dearest group
/// comes first; days come in their order.
pub async fn grouped(
    conn: &mut Conn,
    organization: Uuid,
    bounds: &[DateTime<Utc>],
    group_by: GroupBy,
    limit: i64,
) -> Result<Vec<Group>> {
    let [from, .., to] = bounds else { return Ok(Vec::new()) };
    let key = match group_by {
        GroupBy::Day => "width_bucket(coalesce(l.occurred_at, l.created_at), $4)::text",
        GroupBy::Model => "l.model_name",
        GroupBy::User => "l.user_id::text",
        GroupBy::Account => "l.wechat_account_id::text",
        GroupBy::Conversation => "l.conversation_id::text",
        GroupBy::Sop => "l.sop_id::text",
    };
    // Of two lines that cancel each other, neither is a request; a line that took the place of another is one.
    let statement = format!(
        "SELECT {key} AS key, coalesce(sum(l.calculated_cost), 0) AS cost,
            coalesce(sum(CASE WHEN l.corrects IS NULL THEN l.input_tokens ELSE -l.input_tokens END), 0) AS input_tokens,
            coalesce(sum(CASE WHEN l.corrects IS NULL THEN l.output_tokens ELSE -l.output_tokens END), 0) AS output_tokens,
            count(*) FILTER (WHERE l.corrects IS NULL) - count(*) FILTER (WHERE l.corrects IS NOT NULL) AS requests,
            count(*) FILTER (WHERE NOT l.priced)
                - count(*) FILTER (WHERE l.corrects IS NOT NULL AND l.price_id IS NULL AND NOT l.estimated) AS unpriced
         FROM cost_ledgers l
         WHERE l.organization_id = $1 AND l.id >= $2
            AND coalesce(l.occurred_at, l.created_at) >= $3 AND coalesce(l.occurred_at, l.created_at) < $5
            AND $4 IS NOT NULL
         GROUP BY 1 ORDER BY cost DESC, key LIMIT $6"
    );
    Ok(sql_query(statement)
        .bind::<SqlUuid, _>(organization)
        .bind::<SqlUuid, _>(first_written(*from))
        .bind::<Timestamptz, _>(*from)
        .bind::<Array<Timestamptz>, _>(bounds)
        .bind::<Timestamptz, _>(*to)
        .bind::<BigInt, _>(limit)
        .load(conn)
        .await?)
}
