//! Tells the search engine of new messages.

use std::time::Duration;

use entropy_schema::search::moved;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::search::follow;
use crate::services::Context;

/// Puts what is newer than the newest message of the index into it. Safe to repeat.
///
/// The index itself knows how far it is, so nothing else has to be kept. Messages of the last two minutes before that are
/// put again: a transaction may commit later than one whose ids are greater.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IndexMessages {}

/// How much is put again, in milliseconds.
const OVERLAP_MS: i64 = 120_000;

impl Job for IndexMessages {
    const KIND: &'static str = "index_messages";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const TIMEOUT: Duration = Duration::from_secs(600);

    fn unique_key(&self) -> Option<String> {
        Some("all".into())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let Some(index) = &ctx.services.index else {
            return Ok(Done { result: Some(json!({"note": "no search engine is set up"})), lane_wait: None });
        };
        index.prepare().await?;
        let after = index.newest().await?.map_or(Uuid::nil(), |newest| moved(newest, -OVERLAP_MS));
        let put = follow(&ctx.services.db, index.as_ref(), after, &ctx.stop, |_, _| ()).await?;
        Ok(Done { result: Some(json!({"messages": put})), lane_wait: None })
    }
}
