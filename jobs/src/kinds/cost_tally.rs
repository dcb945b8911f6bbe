//! Enters what one AI run cost into the ledger, once per request, and into the budgets.

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::pricing::Tokens;
use crate::services::Context;
use crate::spending::{self, Tally};
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
    /// Of the tokens read, those out of a cache. Not written where there are none, so that a request that was made before
    /// there was this field is still the same request.
    #[serde(default, skip_serializing_if = "is_none")]
    pub cached_input_tokens: i64,
    /// When it was run; the price of that moment counts. None: when the job runs.
    #[serde(default)]
    pub occurred_at: Option<DateTime<Utc>>,
}

fn is_none(tokens: &i64) -> bool {
    *tokens == 0
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
        let tally = Tally {
            organization_id: ctx.organization_id,
            request_id: &self.request_id,
            account_id: self.account_id,
            user_id: self.user_id.or(ctx.created_by),
            job_id: ctx.job_id,
            model: &self.model,
            tokens: Tokens {
                input: self.input_tokens,
                cached: self.cached_input_tokens,
                output: self.output_tokens,
            },
            occurred_at: self.occurred_at,
        };
        let (entry, written) = conn
            .transaction(async |conn| {
                let booked = spending::book_tally(conn, &tally).await?;
                step!("cost.written");
                Ok::<_, entropy_schema::Error>(booked)
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
