//! Looks whether plans that run will need a calendar that nobody has.

use entropy_schema::campaigns::facts;
use entropy_schema::settings;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::calendar::{day_of, zone};
use crate::campaign::{calendar, clock};
use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// Looks at every organisation whose campaigns run. Safe to repeat: a missing year raises one alert.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckCalendars {}

/// Organisations per statement.
const SLICE: i64 = 200;

impl Job for CheckCalendars {
    const KIND: &'static str = "check_calendars";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;

    fn unique_key(&self) -> Option<String> {
        Some("all".into())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let (mut after, mut raised) = (Uuid::nil(), 0);
        while !ctx.stop.is_cancelled() {
            let mut conn = ctx.conn().await?;
            let organizations = facts::organizations_running(&mut conn, after, SLICE).await?;
            let Some(last) = organizations.last() else { break };
            after = *last;
            for organization in &organizations {
                let now = clock::now(&mut conn).await?;
                let chosen = settings::organization(&mut conn, *organization).await?;
                let today = day_of(now, zone(Some(&chosen.timezone)));
                let plans = &ctx.services.plans;
                raised += i32::from(calendar::warn(&mut conn, plans, *organization, today).await?);
            }
        }
        Ok(Done { result: Some(json!({ "raised": raised })), lane_wait: None })
    }
}
