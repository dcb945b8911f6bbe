//! Answers one turn of a conversation.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::job::{Done, Job, JobError, Scope, Snooze};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// One run of the model for a turn. Its lane is the conversation: one run at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AiReply {
    /// The account that answers.
    pub account_id: Uuid,
    /// The conversation; also the lane.
    pub conversation_id: Uuid,
    /// The turn.
    pub turn_id: Uuid,
    /// Which run of the turn, from 1.
    pub run: i16,
    /// The conversation's epoch when the turn was opened.
    pub epoch: i64,
}

impl Job for AiReply {
    const KIND: &'static str = "ai_reply";
    const QUEUE: &'static str = "ai";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 8;
    const TIMEOUT: Duration = Duration::from_secs(200);

    fn lane(&self) -> Option<Uuid> {
        Some(self.conversation_id)
    }

    fn account(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    async fn run(&self, _ctx: &Context) -> Result<Done, JobError> {
        Err(JobError::Snooze(Snooze {
            delay: Duration::from_secs(1),
            code: "not_ready",
            note: "the answer is not due yet".into(),
            scope: Scope::Job,
        }))
    }
}
