//! Asks the provider whether an account is still logged in: the callback that says so may be lost.

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use entropy_schema::sends;

use crate::background::{self, background_lane, lane_wait};
use crate::conversation::events::went_offline;
use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::provider::ErrorClass;
use crate::services::Context;

/// One question about one account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckOnline {
    /// The account.
    pub account_id: Uuid,
}

impl Job for CheckOnline {
    const KIND: &'static str = "check_online";
    const QUEUE: &'static str = background::QUEUE;
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 2;

    fn lane(&self) -> Option<Uuid> {
        Some(background_lane(self.account_id))
    }

    fn account(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    fn unique_key(&self) -> Option<String> {
        Some(self.account_id.to_string())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let target = background::target(ctx, self.account_id, &["ONLINE", "OFFLINE"]).await?;
        let answer = match ctx.services.sender.check_online(&target.device, &ctx.trace_id).await {
            Ok(online) => Some(online),
            Err(error) => match error.class {
                ErrorClass::AccountOffline => Some(false),
                // It is asked again in ten minutes, and a send would notice.
                ErrorClass::NotSent | ErrorClass::Refused | ErrorClass::Ambiguous => None,
                _ => return Err(background::failed(ctx, self.account_id, &target, error).await),
            },
        };
        let mut conn = ctx.conn().await?;
        let (organization, account) = (ctx.organization_id, self.account_id);
        match answer {
            Some(true) => {
                sends::report_account(&mut conn, organization, account, "ONLINE").await?;
            }
            Some(false) => went_offline(&mut conn, organization, account, ctx.job_id).await?,
            None => {}
        }
        let result = json!({ "online": answer });
        Ok(Done { result: Some(result), lane_wait: Some(lane_wait(background::gap(ctx))) })
    }
}
