//! Looks once more for runs of models that were given up, and corrects what was booked for them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use entropy_schema::ai_runs;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::ai::reconcile::{Late, look_again};
use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// Asks the providers' records for runs whose outcome is unknown. Safe to repeat: a run is settled once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SettleRuns {}

/// Younger runs are still looked for by the job that made them.
const YOUNGEST_SECONDS: i32 = 10 * 60;

/// What the records have not known for two days they will not know. Looks come when the age has doubled: some nine of them.
const OLDEST_SECONDS: i32 = 2 * 24 * 60 * 60;

/// Runs that are taken with one statement.
const SLICE: i64 = 20;

/// How long one pass goes on at most. What is left over is looked at in the next.
const PASS: Duration = Duration::from_secs(300);

impl Job for SettleRuns {
    const KIND: &'static str = "settle_runs";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const TIMEOUT: Duration = Duration::from_secs(600);

    fn unique_key(&self) -> Option<String> {
        Some("all".into())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let begun = Instant::now();
        let (mut looked_for, mut settled) = (0, 0);
        // A provider that does not answer is asked once per workflow and pass.
        let mut silent = HashSet::new();
        'pass: loop {
            let runs = {
                let mut conn = ctx.conn().await?;
                ai_runs::take_unknown(&mut conn, YOUNGEST_SECONDS, OLDEST_SECONDS, SLICE).await?
            };
            if runs.is_empty() {
                break;
            }
            for run in runs {
                if ctx.stop.is_cancelled() || begun.elapsed() > PASS {
                    break 'pass;
                }
                if silent.contains(&run.workflow_id) {
                    continue;
                }
                looked_for += 1;
                match look_again(ctx, &run).await? {
                    Late::Settled => settled += 1,
                    Late::Nothing => {}
                    Late::Silent => {
                        silent.insert(run.workflow_id);
                    }
                }
            }
        }
        let result = json!({ "looked_for": looked_for, "settled": settled });
        Ok(Done { result: Some(result), lane_wait: None })
    }
}
