//! The rescuer: sends lost deliveries again and takes back the jobs of dead workers.
//!
//! A worker is dead when its lease runs out, or, sooner, when its process is seen to be gone: [`presence`](crate::presence).
//! What follows is the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use diesel_async::AsyncConnection;
use entropy_jobs::registry::Registry;
use entropy_jobs::services::Services;
use entropy_jobs::step;
use entropy_schema::campaigns::steps;
use entropy_schema::record::finish::{self, Becomes, Finish};
use entropy_schema::record::rescue::{self, Expired};
use entropy_schema::{Conn, PooledConn, budgets, lanes, presence};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::{LEASE, millis};
use crate::broker::Broker;
use crate::loss::{self, Cause};
use crate::presence::{SETTLED, SILENT};
use crate::relay::REDELIVER_AFTER_MS;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// An answer that takes longer says that nobody could keep a lease meanwhile: a third of [`LEASE`], since the heartbeat
/// before may have been a while ago.
const PROMPT: Duration = Duration::from_secs(5);

/// How often it looks for lanes whose mark was lost.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Jobs per statement.
const BATCH: i64 = 500;

/// What a look may take for a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Nothing: the database was away or stood still, so nobody could keep anything.
    Nothing,
    /// A process that is gone, but no lease: the rescuer is too young to know whether leases could be kept.
    Sessions,
    /// Also a lease that ran out.
    Leases,
}

/// Rescues jobs.
pub struct Rescuer {
    /// The worker whose rescuer it is.
    pub worker: Uuid,
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
        let started = Instant::now();
        let mut failed: Option<Instant> = None;
        let mut swept = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            // After an outage of the database every lease looks expired, because nobody could keep it. Living workers
            // get one lease's time to say so.
            let trust = match failed {
                Some(failed) if failed.elapsed() <= LEASE => Trust::Nothing,
                _ if started.elapsed() <= LEASE => Trust::Sessions,
                _ => Trust::Leases,
            };
            if let Err(error) = self.pass(trust).await {
                tracing::warn!(error = format!("{error:#}"), "rescue failed");
                failed = Some(Instant::now());
            }
            if let Err(error) = self.expire_reservations().await {
                tracing::warn!(%error, "expired reservations not given back yet");
            }
            if swept.elapsed() > SWEEP_EVERY {
                swept = Instant::now();
                if let Err(error) = self.sweep().await {
                    tracing::warn!(%error, "sweep failed");
                }
                if let Err(error) = entropy_jobs::ai::overdue::pass(&self.services.db).await {
                    tracing::warn!(%error, "overdue answers not handed off yet");
                }
                if let Err(error) = entropy_jobs::campaign::overdue::pass(&self.services.db).await {
                    tracing::warn!(%error, "people of campaigns whose job has ended are not looked at yet");
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

    /// Looks once.
    pub async fn pass(&self, trust: Trust) -> anyhow::Result<()> {
        let asked = Instant::now();
        let mut conn = self.services.db.conn().await?;
        let signs = rescue::signs(&mut conn, millis(SILENT)).await?;
        let took = asked.elapsed();
        ensure!(took < PROMPT, "the database took {took:.1?} to answer, so leases say nothing");
        if signs.silent && trust >= Trust::Sessions {
            self.take_from_the_dead(&mut conn).await?;
        }
        if !signs.expired {
            return Ok(());
        }
        // Redis may be away without that saying anything about workers.
        if let Err(error) = self.redeliver(&mut conn).await {
            tracing::warn!(error = format!("{error:#}"), "lost deliveries not sent again yet");
        }
        if trust >= Trust::Leases {
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

    /// Takes back what processes held that are gone.
    async fn take_from_the_dead(&self, conn: &mut PooledConn) -> anyhow::Result<()> {
        let (dead, ends) = conn
            .transaction(async |conn| {
                let dead = presence::dead(conn, self.worker, millis(SILENT), millis(SETTLED)).await?;
                if dead.is_empty() {
                    return Ok((dead, Vec::new()));
                }
                let leases = rescue::of_the_dead(conn, &dead, BATCH).await?;
                let ends = self.settle(conn, &leases).await?;
                if leases.is_empty() {
                    // Only now: what somebody had locked, or what was one too many, is for the next look.
                    presence::bury(conn, &dead).await?;
                }
                Ok::<_, entropy_schema::Error>((dead, ends))
            })
            .await?;
        if !ends.is_empty() {
            tracing::warn!(workers = ?dead, jobs = ends.len(), "workers are gone without their leases having run out");
        }
        self.tell(&ends);
        Ok(())
    }

    /// Takes back what ran out.
    async fn take_back(&self, conn: &mut PooledConn) -> anyhow::Result<()> {
        let ends = conn
            .transaction(async |conn| {
                let expired = rescue::expired(conn, BATCH).await?;
                self.settle(conn, &expired).await
            })
            .await?;
        self.tell(&ends);
        Ok(())
    }

    /// Decides what becomes of lost attempts, whose leases the caller's transaction has locked.
    async fn settle(&self, conn: &mut Conn, lost: &[Expired]) -> entropy_schema::Result<Vec<Finish>> {
        let mut ends = Vec::with_capacity(lost.len());
        for lease in lost {
            step!("rescuer.found");
            let cause = if lease.worker_alive { Cause::ClaimLost } else { Cause::ProcessDied };
            ends.push(loss::settle(conn, &self.registry, lease, cause).await?);
        }
        if !ends.is_empty() {
            finish::finish(conn, &ends).await?;
            // Behind it: whoever carries an enrollment on locks lanes first.
            let jobs: Vec<Uuid> = ends.iter().map(|end| end.job_id).collect();
            steps::settle_lost(conn, &jobs).await?;
            step!("rescuer.settled");
        }
        Ok(ends)
    }

    /// Says what was settled, once it is committed.
    fn tell(&self, ends: &[Finish]) {
        for end in ends {
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
    }
}
