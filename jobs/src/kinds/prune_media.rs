//! Deletes media past their time, and what was left on its way in.

use std::time::Duration;

use entropy_schema::clock;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::media::prune;
use crate::services::Context;

/// Deletes the files of media that are older than it says. Safe to repeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PruneMedia {
    /// Days for which media are kept after their message came in; at least one.
    pub keep_days: i32,
}

impl Job for PruneMedia {
    const KIND: &'static str = "prune_media";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const TIMEOUT: Duration = Duration::from_secs(600);

    fn unique_key(&self) -> Option<String> {
        Some("all".into())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let now = clock::now(&mut *ctx.conn().await?).await?;
        let services = &ctx.services;
        let pruned = prune::prune(&services.db, &services.store, self.keep_days, now, &ctx.stop).await?;
        let result = json!({ "media": pruned.media, "leftovers": pruned.leftovers });
        Ok(Done { result: Some(result), lane_wait: None })
    }
}
