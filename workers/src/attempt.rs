//! One attempt: claim, run, record.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use diesel_async::AsyncConnection;
use entropy_jobs::backoff::backoff;
use entropy_jobs::batch::Batcher;
use entropy_jobs::job::{Done, Failure, JobError, Scope};
use entropy_jobs::lifecycle::Delivery as Semantics;
use entropy_jobs::registry::Registry;
use entropy_jobs::services::{Context, Services};
use entropy_jobs::step;
use entropy_schema::Db;
use entropy_schema::campaigns::steps;
use entropy_schema::record::claim::{self, Claimed};
use entropy_schema::record::finish::{self, Becomes, Finish, LaneWait};
use entropy_schema::record::rescue;
use futures::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::broker::Delivery;
use crate::loss::{self, Cause};

/// How long a lease lasts without a heartbeat.
pub const LEASE: Duration = Duration::from_secs(15);

/// Claims and ends that share one statement, at most.
const BATCH: usize = 200;

/// Ends that wait for somebody's lock, each on a connection of its own.
const ALONE: usize = 2;

/// How long the end of an attempt is offered to a database that is away, before the rescuer is left to decide.
const RECORD_FOR: Duration = Duration::from_secs(60);

/// Carries out attempts and knows which are under way.
#[derive(Clone)]
pub struct Runner {
    inner: Arc<Inner>,
}

struct Inner {
    services: Arc<Services>,
    registry: Registry,
    worker_id: Uuid,
    claims: Batcher<Delivery, Option<Claimed>>,
    finishes: Batcher<Finish, Result<bool, Unrecorded>>,
    /// For ends that somebody's lock has kept from being recorded: they wait beside the others, and take few connections.
    alone: Semaphore,
    running: Mutex<HashMap<Uuid, Running>>,
    /// Called when an attempt has ended: its lane may go on.
    ended: Arc<Notify>,
    /// Cancelled when the process cannot wait any longer.
    cut_off: CancellationToken,
}

struct Running {
    stop: CancellationToken,
    reason: Arc<OnceLock<Stop>>,
}

/// Why a running attempt is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A person called the job off.
    Cancelled,
    /// The lease is not ours any more.
    LeaseLost,
}

/// Why an end was not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unrecorded {
    /// The database is away: try again.
    Away,
    /// Somebody holds a lock that it needs: try again, but not together with others, which would wait with it.
    Contended,
    /// It was refused and would be again.
    Refused,
}

impl From<&entropy_schema::Error> for Unrecorded {
    fn from(error: &entropy_schema::Error) -> Self {
        if error.is_contended() {
            Unrecorded::Contended
        } else if error.is_unavailable() {
            Unrecorded::Away
        } else {
            Unrecorded::Refused
        }
    }
}

/// How the attempt's future came to its end.
enum Ran {
    Returned(Result<Done, JobError>),
    Lost(Cause),
    Stopped(Stop),
}

impl Runner {
    /// Makes a runner for the worker `worker_id`. `ended` is notified after each attempt.
    pub fn new(services: Arc<Services>, registry: Registry, worker_id: Uuid, ended: Arc<Notify>) -> Runner {
        let claims = Batcher::start(BATCH, {
            let db = services.db.clone();
            move |deliveries| claim_batch(db.clone(), worker_id, deliveries)
        });
        let finishes = Batcher::start(BATCH, {
            let db = services.db.clone();
            move |ends| finish_batch(db.clone(), ends)
        });
        let inner = Inner {
            services,
            registry,
            worker_id,
            claims,
            finishes,
            alone: Semaphore::new(ALONE),
            running: Mutex::default(),
            ended,
            cut_off: CancellationToken::new(),
        };
        Runner { inner: Arc::new(inner) }
    }

    /// Cuts off what still runs. What may be repeated is put back unspent.
    pub fn cut_off(&self) {
        self.inner.cut_off.cancel();
    }

    /// Returns the jobs under way.
    pub(crate) fn running(&self) -> Vec<Uuid> {
        self.lock().keys().copied().collect()
    }

    /// Tells a running attempt to stop.
    pub(crate) fn stop(&self, job: Uuid, why: Stop) {
        if let Some(running) = self.lock().get(&job) {
            let _ = running.reason.set(why);
            running.stop.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Running>> {
        self.inner.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Carries out the attempt that a delivery names, if it still holds.
    pub async fn execute(&self, queue: &str, delivery: Delivery) {
        step!("worker.delivered");
        let metrics = &self.inner.services.metrics;
        let Some(Some(claimed)) = self.inner.claims.call(delivery).await else {
            metrics.refused_deliveries.with_label_values(&[queue]).inc();
            return;
        };
        step!("worker.claimed");
        metrics.pickup_seconds.observe(claimed.pickup_s);
        let span = tracing::info_span!(
            "attempt",
            trace_id = claimed.trace_id,
            job_id = %claimed.job_id,
            kind = claimed.kind,
            attempt = claimed.attempt,
        );
        self.attempt(claimed).instrument(span).await;
        self.inner.ended.notify_one();
    }

    async fn attempt(&self, claimed: Claimed) {
        let started = Instant::now();
        let (stop, reason) = (CancellationToken::new(), Arc::new(OnceLock::new()));
        self.lock().insert(claimed.job_id, Running { stop: stop.clone(), reason: reason.clone() });
        let ran = self.run(&claimed, &stop, &reason).await;
        let end = match ran {
            Ran::Returned(Ok(done)) => Some(self.done(&claimed, done)),
            Ran::Returned(Err(JobError::Unrecorded)) => self.lost(&claimed, Cause::Unrecorded).await,
            Ran::Returned(Err(error)) => self.failed(&claimed, error),
            Ran::Stopped(Stop::Cancelled) => {
                let failure = Failure::new("cancelled", "a person called the job off while it ran");
                self.failed(&claimed, JobError::Cancel(failure))
            }
            Ran::Stopped(Stop::LeaseLost) => None,
            Ran::Lost(cause) => self.lost(&claimed, cause).await,
        };
        let outcome = match &end {
            Some(end) => {
                step!("worker.ran");
                let recorded = self.record(end).await;
                step!("worker.ended");
                if recorded { end.outcome.unwrap_or("snoozed") } else { "unrecorded" }
            }
            None => "unrecorded",
        };
        self.lock().remove(&claimed.job_id);
        let metrics = &self.inner.services.metrics;
        metrics.attempts.with_label_values(&[claimed.kind.as_str(), outcome]).inc();
        metrics.attempt_seconds.with_label_values(&[&claimed.kind]).observe(started.elapsed().as_secs_f64());
        tracing::info!(outcome, elapsed_ms = started.elapsed().as_millis() as u64, "attempt ended");
    }

    async fn run(&self, claimed: &Claimed, stop: &CancellationToken, reason: &OnceLock<Stop>) -> Ran {
        let info = self.inner.registry.get(&claimed.kind).copied();
        let context = Context {
            services: self.inner.services.clone(),
            job_id: claimed.job_id,
            attempt: claimed.attempt,
            worker_id: self.inner.worker_id,
            organization_id: claimed.organization_id,
            created_by: claimed.created_by,
            trace_id: claimed.trace_id.clone(),
            stop: stop.clone(),
        };
        let work =
            self.inner.registry.run(&claimed.kind, claimed.args_version, claimed.args.clone(), context);
        let work = AssertUnwindSafe(work).catch_unwind();
        // A send is not torn from its call: its gate asks whether it is still wanted, and its outcome is worth having
        // even when somebody else has taken the job.
        let may_be_dropped = info.is_some_and(|info| info.delivery == Semantics::AtLeastOnce);
        let timeout = info.map_or(Duration::from_secs(60), |info| info.timeout);
        tokio::select! {
            biased;
            returned = work => match returned {
                Ok(returned) => Ran::Returned(returned),
                Err(_) => {
                    tracing::error!("the attempt panicked");
                    Ran::Lost(Cause::Panicked)
                }
            },
            () = stop.cancelled(), if may_be_dropped => {
                Ran::Stopped(reason.get().copied().unwrap_or(Stop::LeaseLost))
            }
            () = self.inner.cut_off.cancelled() => Ran::Lost(Cause::Drained),
            () = tokio::time::sleep(timeout) => Ran::Lost(Cause::TimedOut),
        }
    }

    fn done(&self, claimed: &Claimed, done: Done) -> Finish {
        Finish {
            result: done.result,
            lane_wait: done.lane_wait,
            ..self.end(claimed, Some("completed"), Becomes::Final("completed"))
        }
    }

    fn failed(&self, claimed: &Claimed, error: JobError) -> Option<Finish> {
        let dead = |failure: Failure| Finish {
            error: Some(failure.to_json()),
            result: failure.result,
            lane_wait: failure.lane_wait,
            ..self.end(claimed, Some("dead"), Becomes::Final("dead"))
        };
        Some(match error {
            JobError::Retry(failure) if claimed.attempt >= claimed.max_attempts => dead(failure),
            JobError::Retry(failure) => {
                let delay = backoff(u32::from(claimed.attempt.unsigned_abs()), fastrand::f64());
                let becomes = Becomes::Waiting {
                    delay_ms: millis(delay),
                    code: "retry".into(),
                    note: failure.message.clone(),
                };
                Finish {
                    error: Some(failure.to_json()),
                    lane_wait: failure.lane_wait,
                    ..self.end(claimed, Some("retry"), becomes)
                }
            }
            JobError::Discard(failure) => dead(failure),
            JobError::Cancel(failure) => Finish {
                error: Some(failure.to_json()),
                lane_wait: failure.lane_wait,
                ..self.end(claimed, Some("cancelled"), Becomes::Final("cancelled"))
            },
            JobError::Snooze(snooze) if snooze.scope == Scope::Lane && claimed.lane_id.is_some() => Finish {
                lane_wait: Some(LaneWait { delay_ms: millis(snooze.delay), code: snooze.code }),
                ..self.end(claimed, None, Becomes::Available)
            },
            JobError::Snooze(snooze) => {
                let becomes = Becomes::Waiting {
                    delay_ms: millis(snooze.delay),
                    code: snooze.code.to_owned(),
                    note: snooze.note,
                };
                self.end(claimed, None, becomes)
            }
            JobError::Lost | JobError::Unrecorded => return None,
        })
    }

    /// Decides, from the record, what becomes of an attempt that was cut short.
    async fn lost(&self, claimed: &Claimed, cause: Cause) -> Option<Finish> {
        let decided = async {
            let mut conn = self.inner.services.db.conn().await?;
            conn.transaction(async |conn| {
                match rescue::held(conn, claimed.job_id, self.inner.worker_id).await? {
                    Some(lease) => {
                        let end = loss::settle(conn, &self.inner.registry, &lease, cause).await?;
                        steps::settle_lost(conn, &[claimed.job_id]).await?;
                        Ok::<_, entropy_schema::Error>(Some(end))
                    }
                    None => Ok(None),
                }
            })
            .await
        };
        match decided.await {
            Ok(end) => end,
            Err(error) => {
                tracing::warn!(%error, "the rescuer will decide what becomes of this attempt");
                None
            }
        }
    }

    fn end(&self, claimed: &Claimed, outcome: Option<&'static str>, becomes: Becomes) -> Finish {
        Finish {
            job_id: claimed.job_id,
            attempt: claimed.attempt,
            worker_id: self.inner.worker_id,
            outcome,
            becomes,
            result: None,
            error: None,
            crashed: false,
            lane_wait: None,
        }
    }

    /// Records an end, for as long as it makes sense. Returns false if it was not ours to record, or could not be.
    async fn record(&self, end: &Finish) -> bool {
        let began = Instant::now();
        let mut pause = Duration::from_millis(20);
        let mut contended = false;
        loop {
            let answer = if contended {
                self.record_alone(end).await
            } else {
                self.inner.finishes.call(end.clone()).await
            };
            match answer {
                Some(Ok(ours)) => {
                    if !ours {
                        tracing::warn!("the attempt came too late: its job had been taken away");
                    }
                    return ours;
                }
                Some(Err(why)) if why != Unrecorded::Refused && began.elapsed() < RECORD_FOR => {
                    contended |= why == Unrecorded::Contended;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Some(Err(_)) | None => {
                    tracing::error!("the end of the attempt could not be recorded; the rescuer will decide");
                    return false;
                }
            }
        }
    }

    async fn record_alone(&self, end: &Finish) -> Option<Result<bool, Unrecorded>> {
        let _place = self.inner.alone.acquire().await.ok()?;
        finish_batch(self.inner.services.db.clone(), vec![end.clone()]).await.pop()
    }
}

/// Returns milliseconds as the record counts them.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

async fn claim_batch(db: Db, worker: Uuid, deliveries: Vec<Delivery>) -> Vec<Option<Claimed>> {
    let wanted: Vec<(Uuid, i16)> = deliveries.iter().map(|d| (d.job_id, d.attempt)).collect();
    let claimed = async {
        let mut conn = db.conn().await?;
        claim::claim(&mut conn, &wanted, worker, millis(LEASE)).await
    };
    let mut claimed: HashMap<Uuid, Claimed> = match claimed.await {
        Ok(claimed) => claimed.into_iter().map(|one| (one.job_id, one)).collect(),
        Err(error) => {
            // Unclaimed leases are delivered again.
            tracing::warn!(%error, "deliveries not claimed");
            HashMap::new()
        }
    };
    deliveries.iter().map(|delivery| claimed.remove(&delivery.job_id)).collect()
}

/// Answers for each end whether it was ours.
async fn finish_batch(db: Db, ends: Vec<Finish>) -> Vec<Result<bool, Unrecorded>> {
    match try_finish(&db, &ends).await {
        Ok(ours) => ends.iter().map(|end| Ok(ours.contains(&end.job_id))).collect(),
        Err(error) if error.is_unavailable() || ends.len() == 1 => {
            tracing::warn!(%error, ends = ends.len(), "ends of attempts not recorded");
            let why = Unrecorded::from(&error);
            ends.iter().map(|_| Err(why)).collect()
        }
        // One end that Postgres refuses must not hold back the others.
        Err(error) => {
            tracing::warn!(%error, "a batch of ends was refused; recording them one by one");
            let mut answers = Vec::with_capacity(ends.len());
            for end in &ends {
                answers.push(match try_finish(&db, std::slice::from_ref(end)).await {
                    Ok(ours) => Ok(!ours.is_empty()),
                    Err(error) => {
                        tracing::error!(%error, job_id = %end.job_id, "the end of an attempt was refused");
                        Err(Unrecorded::from(&error))
                    }
                });
            }
            answers
        }
    }
}

async fn try_finish(db: &Db, ends: &[Finish]) -> entropy_schema::Result<Vec<Uuid>> {
    let mut conn = db.conn().await?;
    finish::finish(&mut conn, ends).await
}
