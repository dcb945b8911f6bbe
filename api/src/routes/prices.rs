//! What models cost. Money is written as decimal strings.

use std::collections::BTreeMap;
use std::str::FromStr;

use bigdecimal::{BigDecimal, Signed};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::calendar;
use entropy_jobs::pricing::{self, Band, Tokens};
use entropy_schema::costs::{self, Price};
use entropy_schema::settings;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::{Value, json};
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
use crate::problem::{ApiError, FieldProblem};

/// How far back a preview looks.
const PREVIEW: TimeDelta = TimeDelta::days(7);

/// Lines that a preview reads at once, and in all.
const PREVIEW_PAGE: i64 = 1000;
const PREVIEW_MOST: usize = 50_000;

/// A price to add.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct CreatePrice {
    /// The model's name as the provider reports it. 1 to 200 characters.
    model: Text,
    /// From this moment on.
    effective_from: DateTime<Utc>,
    /// Up to this moment, exclusive; without it, until further notice.
    effective_to: Option<DateTime<Utc>>,
    /// Yuan per 1000 input tokens, such as `"0.008"`; up to ten decimal places.
    input_per_1k: Text,
    /// Yuan per 1000 output tokens.
    output_per_1k: Text,
    /// Yuan per 1000 input tokens that came out of a cache; without it, as other input.
    cached_input_per_1k: Option<Text>,
    /// For runs with at least so many input tokens; without it, from none on.
    min_input: Option<i64>,
    /// For runs with fewer input tokens; without it, any number.
    max_input: Option<i64>,
    /// Hours of the organisation's day, `"22:00-08:00"`, from the first minute to before the last, over midnight if the
    /// last is earlier. Without it the price holds whenever no band covers the time.
    band: Option<Text>,
}

/// When a price ends.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct EndPrice {
    /// Up to this moment, exclusive.
    effective_to: DateTime<Utc>,
}

/// What a model costs, or has cost, in yuan per 1000 tokens.
#[derive(Debug, Object)]
struct PriceView {
    id: Uuid,
    model: String,
    effective_from: DateTime<Utc>,
    effective_to: Option<DateTime<Utc>>,
    input_per_1k: String,
    output_per_1k: String,
    /// Null: as other input.
    cached_input_per_1k: Option<String>,
    /// For runs with at least so many input tokens.
    min_input: i64,
    /// For runs with fewer input tokens; null: any number.
    max_input: Option<i64>,
    /// Hours of the organisation's day; null: whenever no band covers the time.
    band: Option<String>,
    /// Always `CNY`.
    currency: String,
    created_by: Option<Uuid>,
}

/// All prices.
#[derive(Debug, Object)]
struct PricesView {
    items: Vec<PriceView>,
}

/// What runs did cost and would have cost.
#[derive(Debug, Object)]
struct PriceComparedView {
    /// The day, in the organisation's zone; null for the total.
    day: Option<NaiveDate>,
    /// Lines of the model.
    lines: i64,
    /// Of those, lines for which the price would have held.
    covered: i64,
    /// What they did cost, in yuan; lines without a price cost nothing.
    cost: String,
    /// What they would have cost. Lines that the price does not cover count as they are.
    cost_with_price: String,
}

/// What a price would have made of the last seven days.
#[derive(Debug, Object)]
struct PricePreviewView {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// False: there are more lines than were looked at, the oldest 50,000.
    complete: bool,
    days: Vec<PriceComparedView>,
    total: PriceComparedView,
}

#[derive(ApiResponse)]
enum Created {
    /// The price is valid as given.
    #[oai(status = 201)]
    Created(Json<PriceView>),
}

/// Prices.
pub(super) struct Prices;

#[OpenApi(tag = "Tag::Costs")]
impl Prices {
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
    /// Needs the role admin. For any moment and number of input tokens a model has one price for the whole day, and one for
    /// every hour that a band covers: one that overlaps another is answered with 409. Lines that are in the ledger keep the
    /// price they were written with; see `/cost-ledgers/reprice`.
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
            // The constraint compares bands as texts; whether two of them overlap is looked at under this lock.
            costs::lock_prices(conn, caller.organization_id).await?;
            if let Ok(band) = price.band.parse::<Band>() {
                let beside = costs::prices_beside(conn, &price).await?;
                let mut bands = beside.iter().filter_map(|other| other.band.parse::<Band>().ok());
                if bands.any(|other| other.overlaps(band)) {
                    return Err(overlapping());
                }
            }
            costs::add_price(conn, &price).await.map_err(overlaps)?;
            Note::new("model_price.create", "model_price", price.id)
                .after(facts(&price))
                .write(conn, &caller, &origin)
                .await
        })
        .await?;
        Ok(Created::Created(Json(price_view(price))))
    }

    /// Shows what a price would have made of the last seven days
    ///
    /// Needs the role admin. Saves nothing. Compares what the model's lines did cost with what they would have cost at this
    /// price, by day, as if it had been valid all the time; its tier and its band count.
    #[oai(path = "/model-prices/preview", method = "post", operation_id = "preview_model_price")]
    async fn preview(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        body: Body<CreatePrice>,
    ) -> Result<Json<PricePreviewView>, ApiError> {
        caller.require(Role::Admin)?;
        let price = price(&caller, body.0)?;
        let to = state.now().await;
        let from = to - PREVIEW;
        let mut conn = state.db.conn().await?;
        let chosen = settings::organization(&mut conn, caller.organization_id).await?;
        let zone = calendar::zone(Some(&chosen.timezone));
        // As if it had always been valid.
        let always = [Price { valid_from: DateTime::UNIX_EPOCH, valid_to: None, ..price }];
        let model = &always[0].model_name;
        let (mut days, mut total) = (BTreeMap::<NaiveDate, Compared>::new(), Compared::default());
        let (mut after, mut looked_at, mut complete) = (None, 0, false);
        while !complete && looked_at < PREVIEW_MOST {
            let page =
                costs::standing(&mut conn, caller.organization_id, model, from, to, after, PREVIEW_PAGE)
                    .await?;
            complete = i64::try_from(page.len()).is_ok_and(|read| read < PREVIEW_PAGE);
            looked_at += page.len();
            after = page.last().map(|line| line.id);
            for line in page {
                let at = line.occurred_at.unwrap_or(from);
                let tokens = Tokens {
                    input: line.input_tokens,
                    cached: line.cached_input_tokens,
                    output: line.output_tokens,
                };
                let would = pricing::choose(&always, model, tokens.input, at, zone)
                    .and_then(|price| pricing::cost(tokens, price));
                let day = days.entry(calendar::day_of(at, zone)).or_default();
                for sum in [day, &mut total] {
                    sum.lines += 1;
                    sum.covered += i64::from(would.is_some());
                    sum.cost += line.amount();
                    sum.with_price += would.clone().unwrap_or_else(|| line.amount());
                }
            }
        }
        Ok(Json(PricePreviewView {
            from,
            to,
            complete,
            days: days.into_iter().map(|(day, sum)| sum.view(Some(day))).collect(),
            total: total.view(None),
        }))
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
        let at = storable(body.0.effective_to);
        let mut conn = state.db.conn().await?;
        let price = conn
            .transaction(async |conn| {
                let ended = costs::end_price(conn, caller.organization_id, id.0, at).await?;
                let price = ended.ok_or_else(price_not_found)?;
                Note::new("model_price.end", "model_price", price.id)
                    .after(json!({"effective_to": price.valid_to}))
                    .write(conn, &caller, &origin)
                    .await?;
                Ok::<_, ApiError>(price)
            })
            .await?;
        Ok(Json(price_view(price)))
    }
}

#[derive(Debug, Default)]
struct Compared {
    lines: i64,
    covered: i64,
    cost: BigDecimal,
    with_price: BigDecimal,
}

impl Compared {
    fn view(&self, day: Option<NaiveDate>) -> PriceComparedView {
        PriceComparedView {
            day,
            lines: self.lines,
            covered: self.covered,
            cost: money(&self.cost),
            cost_with_price: money(&self.with_price),
        }
    }
}

fn price(caller: &Caller, asked: CreatePrice) -> Result<Price, ApiError> {
    let mut problems = Vec::new();
    if let Some(problem) = model_problem(&asked.model) {
        problems.push(problem);
    }
    let mut amount = |path: &str, text: &str| match yuan(text) {
        Some(amount) => amount,
        None => {
            problems.push(bad_amount(path));
            BigDecimal::default()
        }
    };
    let input_price_per_1k = amount("input_per_1k", &asked.input_per_1k);
    let output_price_per_1k = amount("output_per_1k", &asked.output_per_1k);
    let cached_input_price_per_1k =
        asked.cached_input_per_1k.as_ref().map(|text| amount("cached_input_per_1k", text));
    let (valid_from, valid_to) = (storable(asked.effective_from), asked.effective_to.map(storable));
    if valid_to.is_some_and(|to| to <= valid_from) {
        problems.push(FieldProblem::new("effective_to", "not_after", "must lie after effective_from"));
    }
    let min_input = asked.min_input.unwrap_or_default();
    if min_input < 0 {
        problems.push(FieldProblem::new("min_input", "out_of_range", "must not be negative"));
    }
    if asked.max_input.is_some_and(|max| max <= min_input) {
        problems.push(FieldProblem::new("max_input", "out_of_range", "must be greater than min_input"));
    }
    let band = asked.band.map(|band| band.0).unwrap_or_default();
    if !band.is_empty()
        && let Err(error) = band.parse::<Band>()
    {
        problems.push(FieldProblem::new("band", "bad_band", error.to_string()));
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
        cached_input_price_per_1k,
        min_input,
        max_input: asked.max_input,
        band,
        valid_from,
        valid_to,
        created_by: Some(caller.id),
    })
}

/// Says what is wrong with the name of a model.
pub(super) fn model_problem(model: &str) -> Option<FieldProblem> {
    let fits = (1..=200).contains(&model.chars().count()) && !model.chars().any(char::is_control);
    let message = "must have 1 to 200 characters and no control characters";
    (!fits).then(|| FieldProblem::new("model", "bad_text", message))
}

/// Says that a field is no amount of money.
pub(super) fn bad_amount(path: &str) -> FieldProblem {
    let message = "must be a decimal number such as \"0.008\", not negative, below a million, with at most ten decimal \
        places";
    FieldProblem::new(path, "bad_amount", message)
}

/// Reads an amount of money.
pub(super) fn yuan(text: &str) -> Option<BigDecimal> {
    // Plain digits only: an exponent makes a short text a number of any size.
    if text.len() > 32 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let amount = BigDecimal::from_str(text).ok()?;
    let fits = !amount.is_negative() && amount < 1_000_000 && amount.fractional_digit_count() <= 10;
    fits.then_some(amount)
}

/// Writes money as a decimal number without an exponent and without zeros that say nothing.
pub(super) fn money(amount: &BigDecimal) -> String {
    amount.normalized().to_plain_string()
}

fn overlaps(error: entropy_schema::Error) -> ApiError {
    if error.violated_constraint() == Some(costs::ONE_PRICE_AT_A_TIME) { overlapping() } else { error.into() }
}

fn overlapping() -> ApiError {
    let detail = "Another price of this model holds at the same time, for some of the same input tokens and hours. End \
        that one first, or choose other dates, tokens or hours.";
    ApiError::conflict("price_overlaps", detail)
}

fn price_not_found() -> ApiError {
    let detail = "Your organisation has no such price, or it is not valid at that moment.";
    ApiError::not_found("price_not_found", detail)
}

fn facts(price: &Price) -> Value {
    json!({
        "model": price.model_name,
        "effective_from": price.valid_from,
        "effective_to": price.valid_to,
        "input_per_1k": money(&price.input_price_per_1k),
        "output_per_1k": money(&price.output_price_per_1k),
        "cached_input_per_1k": price.cached_input_price_per_1k.as_ref().map(money),
        "min_input": price.min_input,
        "max_input": price.max_input,
        "band": price.band,
    })
}

fn price_view(price: Price) -> PriceView {
    PriceView {
        id: price.id,
        effective_from: price.valid_from,
        effective_to: price.valid_to,
        input_per_1k: money(&price.input_price_per_1k),
        output_per_1k: money(&price.output_price_per_1k),
        cached_input_per_1k: price.cached_input_price_per_1k.as_ref().map(money),
        min_input: price.min_input,
        max_input: price.max_input,
        band: Some(price.band).filter(|band| !band.is_empty()),
        model: price.model_name,
        currency: "CNY".to_owned(),
        created_by: price.created_by,
    }
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
