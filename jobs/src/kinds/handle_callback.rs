//! Applies an event of the provider to the record.

use entropy_schema::callbacks;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::conversation::apply::{Applied, apply};
use crate::incoming::decode::{Setting, event_in};
use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;
use crate::step;

/// An event that was stored. Safe to repeat: what an event does to the record it does once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HandleCallback {
    /// The event.
    pub event_id: Uuid,
    /// The account that it belongs to.
    pub account_id: Uuid,
}

impl Job for HandleCallback {
    const KIND: &'static str = "handle_callback";
    const QUEUE: &'static str = "callback";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 10;
    // One of hundreds under way in a process, and reading them is bounded: that two processes died proves nothing, and what a
    // customer wrote must not wait for a person.
    const QUARANTINE_AFTER: i16 = 10;

    fn account(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let mut conn = ctx.conn().await?;
        let found = callbacks::waiting(&mut conn, ctx.organization_id, self.event_id).await?;
        // What it leads to needs connections of its own.
        drop(conn);
        let Some(waiting) = found else {
            return Ok(said(json!({"outcome": null, "note": "the event was pruned"})));
        };
        if let Some(outcome) = waiting.outcome {
            return Ok(said(json!({"outcome": outcome})));
        }
        let setting = Setting { own_wxid: waiting.own_wxid.as_deref(), received_at: waiting.received_at };
        let event = event_in(&waiting.body, &setting);
        let outcome = match apply(ctx, self.account_id, self.event_id, &event).await? {
            Applied::Applied => "applied",
            Applied::Ignored => "ignored",
            Applied::Unknown => "unknown",
        };
        let mut conn = ctx.conn().await?;
        callbacks::processed(&mut conn, ctx.organization_id, self.event_id, outcome).await?;
        step!("event.noted");
        Ok(said(json!({"outcome": outcome, "event_type": event.type_name})))
    }
}

fn said(result: serde_json::Value) -> Done {
    Done { result: Some(result), lane_wait: None }
}
