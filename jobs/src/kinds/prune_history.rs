//! The pruner: deletes finished jobs, old send records and old callback events.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// Deletes what is older than it says, in small slices. Safe to repeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PruneHistory {
    /// Days for which completed and cancelled jobs are kept.
    pub keep_jobs_days: i32,
    /// Days for which dead jobs are kept: they wait for a person.
    pub keep_dead_days: i32,
    /// Days for which send records are kept.
    pub keep_sends_days: i32,
    /// Days for which the provider's events are kept as they came; their keys are kept for ever.
    #[serde(default = "keep_callbacks_days")]
    pub keep_callbacks_days: i32,
}

/// What jobs mean that were made before there were callbacks.
fn keep_callbacks_days() -> i32 {
    30
}

/// Rows per statement: small enough that no lock is held for long.
const SLICE: i64 = 2000;

impl Job for PruneHistory {
    const KIND: &'static str = "prune_history";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const TIMEOUT: Duration = Duration::from_secs(600);

    fn unique_key(&self) -> Option<String> {
        Some("all".into())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        use entropy_schema::retention;
        let (mut jobs, mut sends, mut callbacks) = (0, 0, 0);
        let mut after = Uuid::nil();
        while !ctx.stop.is_cancelled() {
            let mut conn = ctx.conn().await?;
            let slice =
                retention::prune_jobs(&mut conn, after, self.keep_jobs_days, self.keep_dead_days, SLICE)
                    .await?;
            jobs += slice.removed;
            match slice.last {
                Some(last) => after = last,
                None => break,
            }
        }
        while !ctx.stop.is_cancelled() {
            let mut conn = ctx.conn().await?;
            let removed = retention::prune_sends(&mut conn, self.keep_sends_days, SLICE).await?;
            sends += removed;
            if removed < SLICE {
                break;
            }
        }
        while !ctx.stop.is_cancelled() {
            let mut conn = ctx.conn().await?;
            let removed = retention::prune_callbacks(&mut conn, self.keep_callbacks_days, SLICE).await?;
            callbacks += removed;
            if removed < SLICE {
                break;
            }
        }
        let result = serde_json::json!({ "jobs": jobs, "sends": sends, "callbacks": callbacks });
        Ok(Done { result: Some(result), lane_wait: None })
    }
}
