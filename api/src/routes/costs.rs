//! What models cost, and what was spent. Money is written as decimal strings.

use std::str::FromStr;

use bigdecimal::{BigDecimal, Signed};
use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::costs::{self, Entry, Price};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::jobs::storable;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page};
use crate::problem::{ApiError, FieldProblem};

/// A price to add.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct CreatePrice {
    /// The model's name as the provider reports it. 1 to 200 characters.
    model: Text,
    /// Yuan per 1000 input tokens, such as `"0.008"`; up to ten decimal places.
    input_price_per_1k: Text,
    /// Yuan per 1000 output tokens.
    output_price_per_1k: Text,
    /// From this moment on.
    valid_from: DateTime<Utc>,
    /// Up to this moment, exclusive; without it, until further notice.
    valid_to: Option<DateTime<Utc>>,
}

/// When a price ends.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct EndPrice {
    /// Up to this moment, exclusive.
    valid_to: DateTime<Utc>,
}

/// What a model costs, or has cost, in yuan per 1000 tokens.
#[derive(Debug, Object)]
struct PriceView {
    id: Uuid,
    model: String,
    input_price_per_1k: String,
    output_price_per_1k: String,
    /// Always `CNY`.
    currency: String,
    valid_from: DateTime<Utc>,
    valid_to: Option<DateTime<Utc>>,
    created_by: Option<Uuid>,
}

/// All prices.
#[derive(Debug, Object)]
struct PricesView {
    items: Vec<PriceView>,
}

/// One line of the ledger: what one run cost.
#[derive(Debug, Object)]
struct LedgerView {
    id: Uuid,
    request_id: String,
    user_id: Option<Uuid>,
    wechat_account_id: Option<Uuid>,
    /// The job that wrote this line.
    job_id: Uuid,
    model_name: String,
    input_tokens: i64,
    output_tokens: i64,
    /// False: no price was valid then; the tokens are kept.
    priced: bool,
    price_id: Option<Uuid>,
    /// As it was then.
    input_price_per_1k: Option<String>,
    /// As it was then.
    output_price_per_1k: Option<String>,
    /// Yuan; null if unpriced.
    calculated_cost: Option<String>,
}

#[derive(ApiResponse)]
enum Created {
    /// The price is valid as given.
    #[oai(status = 201)]
    Created(Json<PriceView>),
}

/// Prices and the ledger.
pub(super) struct Costs;

#[OpenApi(tag = "Tag::Costs")]
impl Costs {
    /// Lists the prices
    ///
    /// By model, the newest first; at most 1000.
    #[oai(path = "/model-prices", method = "get", operation_id = "list_model_prices")]
    async fn prices(&self, state: Data<&AppState>, caller: Caller) -> Result<Json<PricesView>, ApiError> {
        let mut conn = state.db.conn().await?;
        let prices = costs::prices(&mut conn, caller.organization_id).await?;
        Ok(Json(PricesView { items: prices.into_iter().map(price_view).collect() }))
    }

    /// Adds a price
    ///
    /// Needs the role admin. A model has one price at any moment: one that overlaps another is answered with 409. Lines
    /// that are in the ledger keep the price they were written with.
    #[oai(path = "/model-prices", method = "post", operation_id = "create_model_price")]
    async fn create_price(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<CreatePrice>,
    ) -> Result<Created, ApiError> {
        caller.require(Role::Admin)?;
        let price = price(&caller, body.0)?;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            costs::add_price(conn, &price).await.map_err(overlaps)?;
            let after = json!({
                "model": price.model_name,
                "input_price_per_1k": price.input_price_per_1k.to_plain_string(),
                "output_price_per_1k": price.output_price_per_1k.to_plain_string(),
                "valid_from": price.valid_from,
                "valid_to": price.valid_to,
            });
            Note::new("model_price.create", "model_price", price.id)
                .after(after)
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Created::Created(Json(price_view(price))))
    }

    /// Ends a price
    ///
    /// Needs the role admin. The next price of the model can begin at that moment. 404 if there is no such price, or if it
    /// begins later or has ended before.
    #[oai(path = "/model-prices/:id/end", method = "post", operation_id = "end_model_price")]
    async fn end_price(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<EndPrice>,
    ) -> Result<Json<PriceView>, ApiError> {
        caller.require(Role::Admin)?;
        let mut conn = state.db.conn().await?;
        let price = conn
            .transaction(async |conn| {
                let ended = costs::end_price(conn, caller.organization_id, id.0, body.0.valid_to).await?;
                let price = ended.ok_or_else(price_not_found)?;
                Note::new("model_price.end", "model_price", price.id)
                    .after(json!({"valid_to": price.valid_to}))
                    .write(conn, &caller, &origin)
                    .await?;
                Ok::<_, ApiError>(price)
            })
            .await?;
        Ok(Json(price_view(price)))
    }

    /// Lists the ledger
    ///
    /// Newest first. One line per run.
    #[oai(path = "/cost-ledgers", method = "get", operation_id = "list_cost_ledgers")]
    async fn ledger(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<LedgerView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let mut conn = state.db.conn().await?;
        let rows = costs::entries(&mut conn, caller.organization_id, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(rows, |entry| entry.id, ledger_view)))
    }
}

fn price(caller: &Caller, asked: CreatePrice) -> Result<Price, ApiError> {
    let mut problems = Vec::new();
    if !(1..=200).contains(&asked.model.chars().count()) || asked.model.chars().any(char::is_control) {
        let message = "must have 1 to 200 characters and no control characters";
        problems.push(FieldProblem::new("model", "bad_text", message));
    }
    let mut amount = |path: &str, text: &str| match yuan(text) {
        Some(amount) => amount,
        None => {
            let message = "must be a decimal number such as \"0.008\", not negative, below a million, with at most \
                ten decimal places";
            problems.push(FieldProblem::new(path, "bad_amount", message));
            BigDecimal::default()
        }
    };
    let input_price_per_1k = amount("input_price_per_1k", &asked.input_price_per_1k);
    let output_price_per_1k = amount("output_price_per_1k", &asked.output_price_per_1k);
    let (valid_from, valid_to) = (storable(asked.valid_from), asked.valid_to.map(storable));
    if valid_to.is_some_and(|to| to <= valid_from) {
        problems.push(FieldProblem::new("valid_to", "not_after", "must lie after valid_from"));
    }
    if !problems.is_empty() {
        return Err(ApiError::unprocessable(problems));
    }
    Ok(Price {
        id: Uuid::now_v7(),
        organization_id: caller.organization_id,
        model_name: asked.model.0,
        input_price_per_1k,
        output_price_per_1k,
        valid_from,
        valid_to,
        created_by: Some(caller.id),
    })
}

pub(super) fn yuan(text: &str) -> Option<BigDecimal> {
    // Plain digits only: an exponent makes a short text a number of any size.
    if text.len() > 32 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let amount = BigDecimal::from_str(text).ok()?;
    let fits = !amount.is_negative() && amount < 1_000_000 && amount.fractional_digit_count() <= 10;
    fits.then_some(amount)
}

fn overlaps(error: entropy_schema::Error) -> ApiError {
    let excluded = error
        .violated_constraint()
        .is_some_and(|name| name.starts_with("model_prices") && name.ends_with("excl"));
    if excluded {
        let detail = "Another price of this model is valid at the same time. End that one first, or choose other dates.";
        return ApiError::conflict("price_overlaps", detail);
    }
    error.into()
}

fn price_not_found() -> ApiError {
    let detail = "Your organisation has no such price, or it is not valid at that moment.";
    ApiError::not_found("price_not_found", detail)
}

fn price_view(price: Price) -> PriceView {
    PriceView {
        id: price.id,
        model: price.model_name,
        input_price_per_1k: money(&price.input_price_per_1k),
        output_price_per_1k: money(&price.output_price_per_1k),
        currency: "CNY".to_owned(),
        valid_from: price.valid_from,
        valid_to: price.valid_to,
        created_by: price.created_by,
    }
}

fn ledger_view(entry: Entry) -> LedgerView {
    LedgerView {
        id: entry.id,
        request_id: entry.request_id,
        user_id: entry.user_id,
        wechat_account_id: entry.wechat_account_id,
        job_id: entry.job_id,
        model_name: entry.model_name,
        input_tokens: entry.input_tokens,
        output_tokens: entry.output_tokens,
        priced: entry.priced,
        price_id: entry.price_id,
        input_price_per_1k: entry.input_price_per_1k.as_ref().map(money),
        output_price_per_1k: entry.output_price_per_1k.as_ref().map(money),
        calculated_cost: entry.calculated_cost.as_ref().map(money),
    }
}

/// Writes money as a decimal number without an exponent and without zeros that say nothing.
pub(super) fn money(amount: &BigDecimal) -> String {
    amount.normalized().to_plain_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_plain_decimal_numbers() {
        for good in ["0", "0.008", "999999.9999999999", "12"] {
            assert_eq!(yuan(good).as_ref().map(money).as_deref(), Some(good));
        }
        for bad in ["", "-1", "1e9", "1000000", "0.00000000001", "1,5", "NaN", ".", "٣"] {
            assert!(yuan(bad).is_none(), "{bad}");
        }
        assert_eq!(money(&BigDecimal::from_str("100.5000000000").expect("a number")), "100.5");
        assert_eq!(money(&BigDecimal::from_str("1e3").expect("a number")), "1000");
    }
}
