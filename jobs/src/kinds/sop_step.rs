//! Carries one enrollment of a campaign on.

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::campaign::advance;
use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// One person's or group's way through a plan, from where it stands. Safe to repeat: who comes second finds it moved on.
///
/// One at a time per enrollment, by its unique key and the enrollment's own lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SopStep {
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// The account that writes, for lists.
    pub account_id: Uuid,
}

impl Job for SopStep {
    const KIND: &'static str = "sop_step";
    const QUEUE: &'static str = "sop";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 20;

    fn account(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    fn unique_key(&self) -> Option<String> {
        Some(self.enrollment_id.to_string())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let advanced = advance::advance(ctx, self.enrollment_id).await?;
        let result = match advanced {
            Some(advanced) => json!({
                "state": advanced.state,
                "step_id": advanced.step_id,
                "reason": advanced.reason,
            }),
            None => json!({ "note": "nothing of it was due" }),
        };
        Ok(Done { result: Some(result), lane_wait: None })
    }
}
