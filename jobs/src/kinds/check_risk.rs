//! Looks for accounts whose echoes have stopped: what they send may not arrive any more.

use entropy_schema::risk;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::risk::hold::hold;
use crate::risk::{Seen, signal};
use crate::services::Context;

/// Looks at every account that had echoes within a week. Safe to repeat: an account that is on hold is left alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckRisk {}

/// Accounts per statement.
const SLICE: i64 = 200;

impl Job for CheckRisk {
    const KIND: &'static str = "check_risk";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;

    fn unique_key(&self) -> Option<String> {
        Some("all".into())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let (mut after, mut held) = (Uuid::nil(), 0);
        while !ctx.stop.is_cancelled() {
            let mut conn = ctx.conn().await?;
            let accounts = risk::echoes(&mut conn, after, SLICE).await?;
            let Some(last) = accounts.last() else { break };
            after = last.account_id;
            for found in &accounts {
                let seen = Seen::Echoes { minutes: found.minutes, silent: found.silent };
                let Some(signal) = signal(seen) else { continue };
                let details = json!({ "messages_without_echo": found.silent });
                let (organization, account) = (found.organization_id, found.account_id);
                let new = hold(&mut conn, organization, account, signal, details, &ctx.trace_id).await?;
                held += i32::from(new);
            }
        }
        Ok(Done { result: Some(json!({ "held": held })), lane_wait: None })
    }
}
