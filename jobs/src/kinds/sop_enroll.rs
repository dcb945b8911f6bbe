//! Brings those into a plan for whom one of its runs is.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::campaign::run::{self, Went};
use crate::job::{Done, Job, JobError, Scope, Snooze};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// One run of a plan. Safe to repeat, and beside another of the same run: each page of people is brought in once.
///
/// It has no unique key: one that ends because its plan is paused must not stand in the way of the one that resumes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SopEnroll {
    /// The run.
    pub run_id: Uuid,
}

/// How soon the next attempt goes on.
const SOON: Duration = Duration::from_millis(100);

impl Job for SopEnroll {
    const KIND: &'static str = "sop_enroll";
    const QUEUE: &'static str = "sop";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 20;
    // A long run lives through many processes, and what it has done stays done: what kills them is hardly its page.
    const QUARANTINE_AFTER: i16 = 10;
    const TIMEOUT: Duration = Duration::from_secs(120);

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        match run::carry_on(ctx, self.run_id).await? {
            Went::Further => Err(JobError::Snooze(Snooze {
                delay: SOON,
                code: "enrolling",
                note: "more people are to be brought in".to_owned(),
                scope: Scope::Job,
            })),
            Went::Rests(Some(run)) => Ok(Done {
                result: Some(json!({
                    "sop_id": run.sop_id,
                    "state": run.state,
                    "audience": run.audience,
                    "enrolled": run.enrolled,
                    "refused": run.refused,
                })),
                lane_wait: None,
            }),
            Went::Rests(None) => {
                Ok(Done { result: Some(json!({ "note": "there is no such run" })), lane_wait: None })
            }
        }
    }
}
