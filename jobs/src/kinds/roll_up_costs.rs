//! Adds up the cost ledger by the hour, so that reports need not read it line by line.

use std::time::{Duration, Instant};

use entropy_schema::cost_rollups;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// Adds to every organisation's sums what was written since. Safe to repeat: each line is added once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RollUpCosts {}

/// Organisations that are taken with one statement.
const SLICE: i64 = 200;

/// How long one pass goes on at most. What is left over is added in the next.
const PASS: Duration = Duration::from_secs(300);

impl Job for RollUpCosts {
    const KIND: &'static str = "roll_up_costs";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const TIMEOUT: Duration = Duration::from_secs(600);

    fn unique_key(&self) -> Option<String> {
        Some("all".into())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let begun = Instant::now();
        let (mut after, mut organizations) = (Uuid::nil(), 0);
        'pass: loop {
            let mut conn = ctx.conn().await?;
            let slice = cost_rollups::organizations_after(&mut conn, after, SLICE).await?;
            let Some(last) = slice.last() else { break };
            after = *last;
            for organization in slice {
                organizations += 1;
                while cost_rollups::advance(&mut conn, organization).await? {
                    if ctx.stop.is_cancelled() || begun.elapsed() > PASS {
                        break 'pass;
                    }
                }
            }
            if ctx.stop.is_cancelled() || begun.elapsed() > PASS {
                break;
            }
        }
        Ok(Done { result: Some(json!({ "organizations": organizations })), lane_wait: None })
    }
}
