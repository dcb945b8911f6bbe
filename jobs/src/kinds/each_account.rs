//! Does something for every account: enqueues a job for each, spread over a while.

use chrono::TimeDelta;
use diesel_async::AsyncConnection;
use entropy_schema::contact_syncs::{Due, accounts_in};
use entropy_schema::lanes::ensure_background;
use entropy_schema::record::enqueue::{Enqueued, NewJob, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::check_online::CheckOnline;
use super::sync_contacts::SyncContacts;
use crate::class::Class;
use crate::enqueue::{Options, new_job};
use crate::job::{Done, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// What is to be done for each account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Its contacts are fetched, if it is online.
    SyncContacts,
    /// The provider is asked whether it is online.
    CheckOnline,
}

/// Enqueues one job per account. Safe to repeat: an account has one such job at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EachAccount {
    /// What.
    pub work: Work,
}

/// Accounts per transaction.
const SLICE: i64 = 200;

impl Job for EachAccount {
    const KIND: &'static str = "each_account";
    const QUEUE: &'static str = "maintenance";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;

    fn unique_key(&self) -> Option<String> {
        Some(format!("{:?}", self.work))
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let states: &[&str] = match self.work {
            Work::SyncContacts => &["ONLINE"],
            Work::CheckOnline => &["ONLINE", "OFFLINE"],
        };
        let (mut after, mut created) = (Uuid::nil(), 0);
        while !ctx.stop.is_cancelled() {
            let mut conn = ctx.conn().await?;
            let accounts = accounts_in(&mut conn, states, after, SLICE).await?;
            let Some(last) = accounts.last() else { break };
            after = last.id;
            let now = entropy_schema::clock::now(&mut conn).await?;
            let jobs: Vec<NewJob> = accounts.iter().map(|account| self.job(ctx, account, now)).collect();
            let lanes: Vec<(Uuid, Uuid)> =
                accounts.iter().map(|account| (account.id, account.organization_id)).collect();
            let enqueued = conn
                .transaction(async |conn| {
                    ensure_background(conn, &lanes).await?;
                    enqueue(conn, &jobs).await
                })
                .await?;
            created += enqueued.iter().filter(|one| matches!(one, Enqueued::Created(_))).count();
        }
        Ok(Done { result: Some(json!({ "created": created })), lane_wait: None })
    }
}

impl EachAccount {
    fn job(&self, ctx: &Context, account: &Due, now: chrono::DateTime<chrono::Utc>) -> NewJob {
        // Not all at once, and each account at its own time. The last bytes of an id are random.
        let window_s = match self.work {
            Work::SyncContacts => 3 * 3600,
            Work::CheckOnline => 8 * 60,
        };
        let at = i64::try_from(account.id.as_u128() % window_s).unwrap_or(0);
        let options = Options {
            organization_id: account.organization_id,
            class: Class::Campaign,
            scheduled_at: Some(now + TimeDelta::seconds(at)),
            expires_at: None,
            idempotency: None,
            trace_id: ctx.trace_id.clone(),
            created_by: None,
        };
        match self.work {
            Work::SyncContacts => new_job(&SyncContacts { account_id: account.id }, options),
            Work::CheckOnline => new_job(&CheckOnline { account_id: account.id }, options),
        }
    }
}
