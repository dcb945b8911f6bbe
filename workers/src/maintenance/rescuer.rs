//! The rescuer: sends lost deliveries again and takes back the jobs of dead workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use diesel_async::AsyncConnection;
use entropy_jobs::registry::Registry;
use entropy_jobs::services::Services;
use entropy_jobs::step;
use entropy_schema::record::finish::{self, Becomes};
use entropy_schema::record::rescue;
use entropy_schema::{PooledConn, budgets, lanes};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::attempt::LEASE;
use crate::broker::Broker;
use crate::loss::{self, Cause};
use crate::relay::REDELIVER_AFTER_MS;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// An answer that takes longer says that nobody could keep a lease meanwhile: a third of [`LEASE`], since the heartbeat
/// before may have been a while ago.
const PROMPT: Duration = Duration::from_secs(5);

/// How often it looks for lanes whose mark was lost.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Jobs per statement.
const BATCH: i64 = 500;

/// Rescues jobs.
pub struct Rescuer {
    /// What attempts share.
    pub services: Arc<Services>,
    /// The kinds.
    pub registry: Registry,
    /// The conveyor.
    pub broker: Broker,
    /// Queues that it serves.
    pub queues: Vec<&'static str>,
    /// Called when something became available.
    pub ended: Arc<Notify>,
}

impl Rescuer {
    /// Runs until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut healthy_since = Instant::now();
        let mut swept = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            // After an outage of the database every lease looks expired, because nobody could keep it. Living workers
            // get one lease's time to say so.
            let leases_count = healthy_since.elapsed() > LEASE;
            if let Err(error) = self.pass(leases_count).await {
                tracing::warn!(error = format!("{error:#}"), "rescue failed");
                healthy_since = Instant::now();
            }
            if let Err(error) = self.expire_reservations().await {
                tracing::warn!(%error, "expired reservations not given back yet");
            }
            if swept.elapsed() > SWEEP_EVERY {
                swept = Instant::now();
                if let Err(error) = self.sweep().await {
                    tracing::warn!(%error, "sweep failed");
                }
            }
        }
    }

    /// Gives back what runs had reserved in budgets whose process died.
    async fn expire_reservations(&self) -> entropy_schema::Result<()> {
        let mut conn = self.services.db.conn().await?;
        let expired = budgets::expire(&mut conn, BATCH).await?;
        if expired > 0 {
            tracing::info!(
                reservations = expired,
                "reservations of runs that nobody settled were given back"
            );
        }
        Ok(())
    }

    async fn sweep(&self) -> entropy_schema::Result<()> {
        let mut conn = self.services.db.conn().await?;
        let marked = lanes::sweep(&mut conn).await?;
        if marked > 0 {
            tracing::warn!(lanes = marked, "lanes were not marked as runnable; marked now");
            self.ended.notify_one();
        }
        Ok(())
    }

    /// Looks once. `leases_count`: expired leases may be taken as deaths.
    pub async fn pass(&self, leases_count: bool) -> anyhow::Result<()> {
        let asked = Instant::now();
        let mut conn = self.services.db.conn().await?;
        let any = rescue::any(&mut conn).await?;
        let took = asked.elapsed();
        ensure!(took < PROMPT, "the database took {took:.1?} to answer, so leases say nothing");
        if !any {
            return Ok(());
        }
        // Redis may be away without that saying anything about workers.
        if let Err(error) = self.redeliver(&mut conn).await {
            tracing::warn!(error = format!("{error:#}"), "lost deliveries not sent again yet");
        }
        if leases_count {
            self.take_back(&mut conn).await?;
        }
        Ok(())
    }

    async fn redeliver(&self, conn: &mut PooledConn) -> anyhow::Result<()> {
        if !self.broker.is_open() {
            // Each try would count, and put the next one off.
            return Ok(());
        }
        let lengths = self.broker.lengths(&self.queues).await?;
        let empty: Vec<&str> = self
            .queues
            .iter()
            .zip(lengths)
            .filter(|(_, waiting)| *waiting == 0)
            .map(|(queue, _)| *queue)
            .collect();
        let again = rescue::undelivered(conn, BATCH, &empty, REDELIVER_AFTER_MS).await?;
        if !again.is_empty() {
            tracing::info!(deliveries = again.len(), "deliveries were not claimed; sending them again");
            step!("rescuer.redelivering");
            self.broker.push(&again).await?;
            step!("rescuer.redelivered");
        }
        Ok(())
    }

    async fn take_back(&self, conn: &mut PooledConn) -> anyhow::Result<()> {
        let ends = conn
            .transaction(async |conn| {
                let expired = rescue::expired(conn, BATCH).await?;
                let mut ends = Vec::with_capacity(expired.len());
                for lease in &expired {
                    step!("rescuer.found");
                    let cause = if lease.worker_alive { Cause::ClaimLost } else { Cause::ProcessDied };
                    ends.push(loss::settle(conn, &self.registry, lease, cause).await?);
                }
                if !ends.is_empty() {
                    finish::finish(conn, &ends).await?;
                    step!("rescuer.settled");
                }
                Ok::<_, entropy_schema::Error>(ends)
            })
            .await?;
        for end in &ends {
            let became = match &end.becomes {
                Becomes::Final(state) => state,
                Becomes::Available | Becomes::Waiting { .. } => "again",
            };
            self.services.metrics.rescued.with_label_values(&[became]).inc();
            tracing::warn!(job_id = %end.job_id, worker_id = %end.worker_id, attempt = end.attempt, became, "rescued from a dead worker");
        }
        if !ends.is_empty() {
            step!("rescuer.committed");
            self.ended.notify_one();
        }
        Ok(())
    }
}
