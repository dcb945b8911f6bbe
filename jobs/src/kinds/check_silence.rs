//! The silence alarm: an account that is online, and from which nothing has come for too long.

use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::contact_syncs::silent;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// Looks at every account of every organisation. Safe to repeat: one silence raises one alert.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckSilence {}

/// Accounts per statement.
const SLICE: i64 = 500;

impl Job for CheckSilence {
    const KIND: &'static str = "check_silence";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;

    fn unique_key(&self) -> Option<String> {
        Some("all".into())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let (mut after, mut raised) = (Uuid::nil(), 0);
        while !ctx.stop.is_cancelled() {
            let mut conn = ctx.conn().await?;
            let accounts = silent(&mut conn, after, SLICE).await?;
            let Some(last) = accounts.last() else { break };
            after = last.id;
            for account in &accounts {
                // It is another silence once something has come.
                let since = account.last_seen_at.timestamp_millis();
                let alert = NewAlert {
                    organization_id: account.organization_id,
                    kind: "account_silent",
                    severity: Severity::Warning,
                    dedupe_key: &format!("account_silent:{}:{since}", account.id),
                    text: "Nothing has come from the account for longer than usual, though it counts as online. Look at \
                           its phone, and whether its callbacks arrive.",
                    account_id: Some(account.id),
                    conversation_id: None,
                    details: Some(json!({
                        "last_seen_at": account.last_seen_at, "silence_minutes": account.silence_minutes
                    })),
                };
                raised += i32::from(alerts::raise(&mut conn, &alert).await?);
            }
        }
        Ok(Done { result: Some(json!({ "raised": raised })), lane_wait: None })
    }
}
