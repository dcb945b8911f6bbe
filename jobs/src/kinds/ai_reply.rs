//! Answers one turn of a customer with the model.
//!
//! The order is what makes it safe. `prepare` looks in one transaction whether an answer is wanted, reserves what it may
//! cost and writes the run as `calling`; then the model is called, with no lock and no connection held; `conclude` writes
//! in a second transaction what became of the run, books its cost, and enqueues the messages if they are still wanted.
//! Whoever finds a run at `calling` later knows that it may have run, looks for its answer, and never simply asks again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::ai::conclude;
use crate::ai::ending::Ended;
use crate::ai::prepare::{self, Prepared};
use crate::ai::reconcile;
use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// One turn to be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AiReply {
    /// The account that answers.
    pub account_id: Uuid,
    /// The chat; also the lane.
    pub conversation_id: Uuid,
    /// The turn.
    pub turn_id: Uuid,
    /// Which run of the turn.
    pub run: i16,
    /// The epoch under which it was asked for.
    pub epoch: i64,
    /// A person asked for it: the turn is opened by this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
}

/// What a person asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What the answer should say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
}

/// Calls that one attempt may make. Each follows a look at the record; the bound is there for what nobody thought of.
const MAX_CALLS: usize = 4;

impl Job for AiReply {
    const KIND: &'static str = "ai_reply";
    const QUEUE: &'static str = "ai";
    // Repeated freely: the runs on record say what may be done again.
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 8;
    const TIMEOUT: Duration = Duration::from_secs(200);

    fn lane(&self) -> Option<Uuid> {
        Some(self.conversation_id)
    }

    fn account(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        for _ in 0..MAX_CALLS {
            let ended = match prepare::prepare(ctx, self).await? {
                Prepared::Over(end) => return end,
                Prepared::Call(call) => match call.make(ctx).await {
                    Ok(answer) => conclude::answered(ctx, &call.run, answer).await?,
                    Err(error) => conclude::failed(ctx, &call.run, &error).await?,
                },
                Prepared::LookUp(run) => match reconcile::look_up(ctx, &run).await? {
                    reconcile::Looked::Found(answer) => conclude::answered(ctx, &run, *answer).await?,
                    reconcile::Looked::Wait(snooze) => return Err(snooze),
                    reconcile::Looked::Lost => conclude::lost(ctx, &run).await?,
                },
            };
            match ended {
                Ended::Over(end) => return end,
                Ended::Again => {}
            }
        }
        Err(prepare::snooze(Duration::from_secs(5), "not_ready", "the model is asked again in a moment"))
    }
}

/// The result of a job whose run has ended.
pub(crate) fn done(run: Uuid, outcome: &str, details: serde_json::Value) -> Done {
    Done { result: Some(json!({"run_id": run, "outcome": outcome, "details": details})), lane_wait: None }
}
