//! Removes idempotency keys that nobody will repeat any more, and old login failures.

use serde::{Deserialize, Serialize};

use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// Removes keys older than `keep_days`. Safe to repeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpireKeys {
    /// Age at which a key is forgotten.
    pub keep_days: i32,
}

impl Job for ExpireKeys {
    const KIND: &'static str = "expire_keys";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;

    fn unique_key(&self) -> Option<String> {
        Some("all".into())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let mut conn = ctx.conn().await?;
        let removed = entropy_schema::retention::expire_keys(&mut conn, self.keep_days).await?;
        Ok(Done { result: Some(serde_json::json!({ "removed": removed })), lane_wait: None })
    }
}
