//! The cost ledger and the prices it is written with.

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde::Serialize;
use uuid::Uuid;

use crate::tables::{cost_ledgers, model_prices};
use crate::{Conn, Result};

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
    /// From this moment on.
    pub valid_from: DateTime<Utc>,
    /// Up to this moment, exclusive; none: until further notice.
    pub valid_to: Option<DateTime<Utc>>,
    /// Who entered it.
    pub created_by: Option<Uuid>,
}

/// Returns the price that was valid at `at`, if there was one.
pub async fn price_at(
    conn: &mut Conn,
    organization: Uuid,
    model: &str,
    at: DateTime<Utc>,
) -> Result<Option<Price>> {
    Ok(model_prices::table
        .filter(model_prices::organization_id.eq(organization).and(model_prices::model_name.eq(model)))
        .filter(model_prices::valid_from.le(at))
        .filter(model_prices::valid_to.is_null().or(model_prices::valid_to.gt(at)))
        .select(Price::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Adds a price. Fails on the exclusion constraint when another one is valid at the same time.
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
        .order((model_prices::model_name, model_prices::valid_from.desc()))
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
    /// Tokens read.
    pub input_tokens: i64,
    /// Tokens written.
    pub output_tokens: i64,
    /// False: no price was valid; the tokens are kept.
    pub priced: bool,
    /// The price row.
    pub price_id: Option<Uuid>,
    /// Yuan per 1000 input tokens, as it was then.
    pub input_price_per_1k: Option<BigDecimal>,
    /// Yuan per 1000 output tokens, as it was then.
    pub output_price_per_1k: Option<BigDecimal>,
    /// Yuan.
    pub calculated_cost: Option<BigDecimal>,
}

/// Writes a line once per request. Returns false if the request has its line already; that one stays.
pub async fn record(conn: &mut Conn, entry: &Entry) -> Result<bool> {
    let written = diesel::insert_into(cost_ledgers::table)
        .values(entry)
        .on_conflict((cost_ledgers::organization_id, cost_ledgers::request_id))
        .do_nothing()
        .execute(conn)
        .await?;
    Ok(written == 1)
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

/// Returns the organisation's lines, newest first, older than `before`.
pub async fn entries(
    conn: &mut Conn,
    organization: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Entry>> {
    let mut query = cost_ledgers::table
        .filter(cost_ledgers::organization_id.eq(organization))
        .order(cost_ledgers::id.desc())
        .limit(limit)
        .select(Entry::as_select())
        .into_boxed();
    if let Some(before) = before {
        query = query.filter(cost_ledgers::id.lt(before));
    }
    Ok(query.load(conn).await?)
}
