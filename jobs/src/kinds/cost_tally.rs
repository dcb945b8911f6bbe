//! Enters what one AI run cost into the ledger, once per request.

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::clock;
use entropy_schema::costs::{self, Entry, Price};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;
use crate::step;

/// The tokens of one run. Safe to repeat: the ledger has one line per request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CostTally {
    /// Names the run; the same name is the same line.
    pub request_id: String,
    /// The account it was run for.
    pub account_id: Option<Uuid>,
    /// Who caused it.
    pub user_id: Option<Uuid>,
    /// The model's name as the provider reports it.
    pub model: String,
    /// Tokens read.
    pub input_tokens: i64,
    /// Tokens written.
    pub output_tokens: i64,
    /// When it was run; the price of that moment counts. None: when the job runs.
    #[serde(default)]
    pub occurred_at: Option<DateTime<Utc>>,
}

impl Job for CostTally {
    const KIND: &'static str = "cost_tally";
    const QUEUE: &'static str = "cost";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 20;

    fn account(&self) -> Option<Uuid> {
        self.account_id
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let mut conn = ctx.conn().await?;
        let (entry, written) = conn
            .transaction(async |conn| {
                let at = match self.occurred_at {
                    Some(at) => at,
                    None => clock::now(conn).await?,
                };
                let price = costs::price_at(conn, ctx.organization_id, &self.model, at).await?;
                let entry = self.entry(ctx, price.as_ref());
                let written = costs::record(conn, &entry).await?;
                step!("cost.written");
                // The line that stands is the truth, also when another job wrote it.
                let standing = costs::entry(conn, ctx.organization_id, &self.request_id).await?;
                Ok::<_, entropy_schema::Error>((standing.unwrap_or(entry), written))
            })
            .await?;
        step!("cost.committed");
        if !entry.priced {
            tracing::warn!(
                model = self.model,
                request_id = self.request_id,
                "no price is valid for the model; entered unpriced"
            );
        }
        Ok(Done {
            result: Some(json!({
                "ledger_id": entry.id,
                "written": written,
                "priced": entry.priced,
                "calculated_cost": entry.calculated_cost.as_ref().map(BigDecimal::to_plain_string),
                "currency": "CNY",
                "warning": (!entry.priced).then_some("no price is valid for this model at that time; add one, the tokens are kept"),
            })),
            lane_wait: None,
        })
    }
}

impl CostTally {
    fn entry(&self, ctx: &Context, price: Option<&Price>) -> Entry {
        Entry {
            id: Uuid::now_v7(),
            organization_id: ctx.organization_id,
            request_id: self.request_id.clone(),
            user_id: self.user_id.or(ctx.created_by),
            wechat_account_id: self.account_id,
            job_id: ctx.job_id,
            model_name: self.model.clone(),
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            priced: price.is_some(),
            price_id: price.map(|price| price.id),
            input_price_per_1k: price.map(|price| price.input_price_per_1k.clone()),
            output_price_per_1k: price.map(|price| price.output_price_per_1k.clone()),
            calculated_cost: price.map(|price| cost(self.input_tokens, self.output_tokens, price)),
        }
    }
}

/// Returns the cost in yuan, to ten places, rounded half to even.
fn cost(input_tokens: i64, output_tokens: i64, price: &Price) -> BigDecimal {
    let exact = BigDecimal::from(input_tokens) * &price.input_price_per_1k
        + BigDecimal::from(output_tokens) * &price.output_price_per_1k;
    (exact / BigDecimal::from(1000)).with_scale_round(10, bigdecimal::RoundingMode::HalfEven)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn price(input: &str, output: &str) -> Price {
        Price {
            id: Uuid::nil(),
            organization_id: Uuid::nil(),
            model_name: "模型".into(),
            input_price_per_1k: BigDecimal::from_str(input).expect("a number"),
            output_price_per_1k: BigDecimal::from_str(output).expect("a number"),
            valid_from: DateTime::UNIX_EPOCH,
            valid_to: None,
            created_by: None,
        }
    }

    #[test]
    fn small_amounts_are_not_rounded_away() {
        let cost = cost(100, 0, &price("0.0008", "0.002"));
        assert_eq!(cost, BigDecimal::from_str("0.00008").expect("a number"));
    }

    #[test]
    fn both_directions_are_priced_per_thousand() {
        let cost = cost(1500, 500, &price("0.008", "0.024"));
        assert_eq!(cost, BigDecimal::from_str("0.024").expect("a number"));
    }
}
