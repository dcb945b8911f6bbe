//! Removes the rows of workers that have been silent for days.

use serde::{Deserialize, Serialize};

use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// Removes workers without a heartbeat for `keep_days`. Safe to repeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReapWorkers {
    /// Silence after which a worker is forgotten.
    pub keep_days: i32,
}

impl Job for ReapWorkers {
    const KIND: &'static str = "reap_workers";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;

    fn unique_key(&self) -> Option<String> {
        Some("all".into())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let mut conn = ctx.conn().await?;
        let removed = entropy_schema::workers::forget_silent(&mut conn, self.keep_days).await?;
        Ok(Done { result: Some(serde_json::json!({ "removed": removed })), lane_wait: None })
    }
}
