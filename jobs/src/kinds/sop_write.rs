//! Has a model write the text of one step of a campaign.
//!
//! The order is that of an answer to a customer: the run is written down as `calling` before the model is called, nothing is held
//! meanwhile, and what it wrote stands in the step's row before there is any job that sends it. Whoever finds a run at `calling`
//! looks for its answer, and never simply asks again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ai::ending::Ended;
use crate::ai::prepare::{Prepared, snooze};
use crate::ai::reconcile;
use crate::campaign::write;
use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// One text for one step of an enrollment. Safe to repeat: the runs on record say what may be done again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SopWrite {
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// The step.
    pub step_id: String,
    /// The account that will say it, for lists.
    pub account_id: Uuid,
}

/// Looks at the record that one attempt may take: a call, and one for its answer if it was lost.
const MOST_LOOKS: usize = 4;

impl Job for SopWrite {
    const KIND: &'static str = "sop_write";
    // Not the slots of answers to customers, for which somebody waits.
    const QUEUE: &'static str = "sop_write";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 8;
    const TIMEOUT: Duration = Duration::from_secs(200);

    fn account(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    fn unique_key(&self) -> Option<String> {
        Some(format!("{}:{}", self.enrollment_id, self.step_id))
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        for _ in 0..MOST_LOOKS {
            let ended = match write::prepare(ctx, self).await? {
                Prepared::Over(end) => return end,
                Prepared::Call(call) => match call.make(ctx).await {
                    Ok(answer) => write::answered(ctx, self, &call.run, &answer).await?,
                    Err(error) => write::failed(ctx, self, &call.run, &error).await?,
                },
                Prepared::LookUp(run) => match reconcile::look_up(ctx, &run).await? {
                    reconcile::Looked::Found(answer) => write::answered(ctx, self, &run, &answer).await?,
                    reconcile::Looked::Wait(snooze) => return Err(snooze),
                    reconcile::Looked::Lost => write::lost(ctx, self, &run).await?,
                },
            };
            match ended {
                Ended::Over(end) => return end,
                Ended::Again => {}
            }
        }
        Err(snooze(Duration::from_secs(5), "not_ready", "the model is asked again in a moment"))
    }
}
