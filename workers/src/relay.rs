//! The relay: moves what may run now from Postgres to Redis.
//!
//! It decides before a job goes to Redis, so that a limited account fills no worker slot, and keeps only a bounded
//! window of deliveries there. Any number of relays may run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel_async::AsyncConnection;
use entropy_jobs::metrics::Metrics;
use entropy_jobs::step;
use entropy_schema::Db;
use entropy_schema::record::{control, dispatch, statistics};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::loss;

/// Deliveries that may wait in one queue. The backlog stays in Postgres.
const WINDOW: usize = 2000;

/// Jobs handed out by one statement, at most.
const BATCH: i64 = 500;

/// Lanes looked at by one statement, at most.
const LANES: i64 = 200;

/// How long an idle relay sleeps when nothing is known to come due: the net under lost wake-ups.
const IDLE: Duration = Duration::from_secs(2);

/// How soon a relay looks again that found all Redis takes there already, or the lanes that are due in somebody's hands.
const SOON: Duration = Duration::from_millis(20);

/// How long a relay sleeps that has found nothing but queues that are paused.
const PAUSED: Duration = Duration::from_millis(500);

/// How long a relay sleeps while Redis takes no deliveries.
const REDIS_REFUSES: Duration = Duration::from_millis(500);

/// How often a relay looks whether the tables have outgrown the plans of its statements.
const STATISTICS: Duration = Duration::from_secs(1);

/// When the rescuer looks at a delivery that nobody has claimed.
pub(crate) const REDELIVER_AFTER_MS: i64 = 3000;

/// Moves jobs to Redis.
pub struct Relay {
    /// The record.
    pub db: Db,
    /// The conveyor.
    pub broker: Broker,
    /// Queues that it serves.
    pub queues: Vec<&'static str>,
    /// Called when an attempt of this process has ended.
    pub ended: Arc<Notify>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Relay {
    /// Runs until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut wakes = self.broker.wakes();
        let mut looked: Option<Instant> = None;
        while !stop.is_cancelled() {
            // Whatever is announced from here on leads to another pass.
            wakes.mark_unchanged();
            if looked.is_none_or(|looked| looked.elapsed() >= STATISTICS) {
                self.refresh_statistics().await;
                looked = Some(Instant::now());
            }
            let rest = match self.pass().await {
                Ok(rest) => rest,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "relay pass failed");
                    Duration::from_millis(500)
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(rest) => {}
                () = self.ended.notified() => {}
                changed = wakes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Before a pass: one that was planned over an empty table may take seconds over a full one.
    async fn refresh_statistics(&self) {
        let refreshed = async { statistics::refresh(&mut *self.db.conn().await?).await };
        match refreshed.await {
            Ok(tables) if tables.is_empty() => {}
            Ok(tables) => tracing::info!(?tables, "tables have grown; their statements are planned anew"),
            Err(error) => tracing::warn!(%error, "the sizes of the tables could not be looked at"),
        }
    }

    /// Does what there is to do now and returns how long there will be nothing known to do.
    pub async fn pass(&self) -> anyhow::Result<Duration> {
        let mut conn = self.db.conn().await?;
        let outlook = dispatch::outlook(&mut conn, &self.queues).await?;
        let mut more = false;
        if outlook.due {
            let promoted = dispatch::promote(&mut conn, BATCH).await?;
            let expired = control::expire(&mut conn, BATCH, &loss::expired()).await?;
            if expired > 0 {
                tracing::info!(expired, "jobs expired while they waited");
            }
            more |= promoted + expired as i64 > 0;
        }
        if (outlook.lanes || outlook.plain) && !self.broker.is_open() {
            return Ok(REDIS_REFUSES);
        }
        if outlook.lanes || outlook.plain {
            let waiting = self.broker.lengths(&self.queues).await?;
            let fullest = waiting.iter().copied().max().unwrap_or(0);
            let mut in_hands = false;
            if outlook.lanes && fullest < WINDOW {
                let found = self.lanes(&mut conn).await?;
                in_hands = !found;
                more |= found;
            }
            if outlook.plain {
                for (queue, waiting) in self.queues.iter().zip(waiting) {
                    let room = i64::try_from(WINDOW.saturating_sub(waiting)).unwrap_or(0).min(BATCH);
                    if room > 0 {
                        more |= self.plain(&mut conn, queue, room).await?;
                    }
                }
            }
            if !more {
                // No use in looking again at once.
                return Ok(if fullest >= WINDOW || in_hands { SOON } else { PAUSED });
            }
        }
        if more {
            return Ok(Duration::ZERO);
        }
        let next = outlook.next_in_ms.map_or(IDLE, |ms| Duration::from_millis(ms.max(0).unsigned_abs()));
        Ok(next.min(IDLE))
    }

    /// Hands out the heads of lanes that are due. False: whoever enqueues, ends or decides something of them just now holds each.
    async fn lanes(&self, conn: &mut entropy_schema::PooledConn) -> anyhow::Result<bool> {
        let picks = dispatch::pick_lanes(conn, LANES, REDELIVER_AFTER_MS).await?;
        self.deliver(&picks.dispatched).await?;
        if !picks.idle.is_empty() {
            conn.transaction(async |conn| dispatch::settle_idle_lanes(conn, &picks.idle).await).await?;
        }
        Ok(!picks.dispatched.is_empty() || !picks.idle.is_empty())
    }

    async fn plain(
        &self,
        conn: &mut entropy_schema::PooledConn,
        queue: &str,
        room: i64,
    ) -> anyhow::Result<bool> {
        let dispatched = dispatch::pick_plain(conn, queue, room, REDELIVER_AFTER_MS).await?;
        self.deliver(&dispatched).await?;
        Ok(!dispatched.is_empty())
    }

    /// Sends what the record says was handed out. If Redis is away now, the rescuer sends it later.
    async fn deliver(&self, dispatched: &[dispatch::Dispatched]) -> anyhow::Result<()> {
        if dispatched.is_empty() {
            return Ok(());
        }
        for one in dispatched {
            self.metrics.dispatched.with_label_values(&[one.queue.as_str()]).inc();
        }
        step!("relay.picked");
        self.broker.push(dispatched).await?;
        step!("relay.pushed");
        Ok(())
    }
}
