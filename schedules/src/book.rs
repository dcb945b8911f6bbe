//! Writes what is due: the jobs and the ticks, in one transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::class::Class;
use entropy_jobs::enqueue::{Enqueued, Idempotency, NewJob, Options};
use entropy_jobs::process::telemetry;
use entropy_jobs::step;
use entropy_jobs::wake::Waker;
use entropy_schema::schedules::{self, Brought, Schedule};
use entropy_schema::{Conn, Db, Error, Result, SYSTEM_ORGANIZATION, record, schedule_ticks};

use crate::due::{self, Due, Moment};
use crate::entries::Entry;
use crate::line::Line;

/// The record: what the lines say, and which ticks are settled.
#[derive(Debug, Clone)]
pub(crate) struct Book {
    db: Db,
    waker: Waker,
}

/// How long one try may take. The server gives up on a statement after ten seconds; this is for a server that has gone
/// without a word.
const TRY_TIMEOUT: Duration = Duration::from_secs(15);

/// What became of a moment.
enum Settled {
    /// Somebody has changed the line, or paused or removed it: it is no tick of what the line says now.
    Stale,
    /// It was written, with these jobs.
    Written(Due, Vec<Enqueued>),
}

impl Book {
    pub(crate) fn new(db: Db, waker: Waker) -> Book {
        Book { db, waker }
    }

    /// Adds the lines of the program, or brings them up to date where nobody has changed them.
    pub(crate) async fn bring(&self, entries: &[Entry]) -> Result<()> {
        let lines: Vec<Brought<'_>> = entries
            .iter()
            .map(|entry| Brought {
                name: entry.name,
                cron: entry.timing.cron(),
                timezone: entry.timing.zone().name(),
                catch_up: entry.catch_up.as_str(),
            })
            .collect();
        in_time(async { schedules::bring(&mut *self.db.conn().await?, &lines).await }).await
    }

    /// Returns the lines that tick, as they stand.
    pub(crate) async fn lines(&self) -> Result<Vec<Schedule>> {
        in_time(async { schedules::ticking(&mut *self.db.conn().await?).await }).await
    }

    /// Settles a moment, however often and by however many schedulers it is called for.
    pub(crate) async fn settle(&self, line: &Line, moment: Moment) -> Result<()> {
        let settled = in_time(self.write(line, moment)).await?;
        let schedule = &line.name;
        match settled {
            Settled::Stale => tracing::info!(schedule, ?moment, "the line has changed: no tick of it"),
            Settled::Written(Due::Enqueue(ticks), jobs) => {
                let created = jobs.iter().any(|job| matches!(job, Enqueued::Created(_)));
                if created {
                    step!("schedule.committed");
                    self.waker.wake();
                }
                for (fire_at, job) in ticks.iter().zip(jobs) {
                    match job {
                        Enqueued::Created(job_id) => {
                            tracing::info!(schedule, %fire_at, %job_id, "tick: job created");
                        }
                        _ => tracing::info!(schedule, %fire_at, "tick: already there"),
                    }
                }
            }
            Settled::Written(Due::Remember(fire_at), _) => {
                tracing::info!(schedule, %fire_at, "ticks up to this one are let go");
            }
            Settled::Written(Due::Nothing, _) => {}
        }
        Ok(())
    }

    async fn write(&self, line: &Line, moment: Moment) -> Result<Settled> {
        let mut conn = self.db.conn().await?;
        conn.transaction(async |conn| {
            // Under its lock the line cannot change: whoever changes it comes before this tick or after it.
            let row = schedules::lock(conn, line.id).await?;
            if !row.is_some_and(|row| line.is_still(&row)) {
                return Ok(Settled::Stale);
            }
            let due = match moment {
                Moment::Tick(at) => Due::Enqueue(vec![at]),
                Moment::Start(at) => {
                    let last = schedule_ticks::last(conn, &line.name).await?;
                    due::missed(&line.timing, line.catch_up, last, at)
                }
            };
            let mut jobs = Vec::new();
            match &due {
                Due::Nothing => {}
                Due::Remember(at) => schedule_ticks::remember(conn, &line.name, *at).await?,
                Due::Enqueue(ticks) => {
                    step!("schedule.due");
                    jobs = enqueue(conn, line, ticks).await?;
                    step!("schedule.written");
                }
            }
            Ok(Settled::Written(due, jobs))
        })
        .await
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(TRY_TIMEOUT, work).await;
    done.map_err(|_| Error::Unavailable("no answer within 15 s".into()))?
}

/// Writes the jobs of ticks and that these are settled.
async fn enqueue(conn: &mut Conn, line: &Line, ticks: &[DateTime<Utc>]) -> Result<Vec<Enqueued>> {
    let jobs: Vec<NewJob> = ticks.iter().map(|fire_at| job(line, *fire_at)).collect();
    let enqueued = record::enqueue::enqueue(conn, &jobs).await?;
    for (fire_at, job) in ticks.iter().zip(&enqueued) {
        if let Enqueued::Created(id) = job {
            schedules::ran(conn, line.id, *id, *fire_at).await?;
        }
    }
    if let Some(latest) = ticks.last() {
        schedule_ticks::remember(conn, &line.name, *latest).await?;
    }
    Ok(enqueued)
}

fn job(line: &Line, fire_at: DateTime<Utc>) -> NewJob {
    line.task.job(Options {
        organization_id: SYSTEM_ORGANIZATION,
        class: Class::Campaign,
        // This machine's clock may be fast. By the database's clock nothing runs before its time.
        scheduled_at: Some(fire_at),
        expires_at: None,
        idempotency: Some(Idempotency {
            key: due::idempotency_key(&line.name, fire_at),
            // Schedulers of two versions may disagree about the args; it is one tick all the same.
            request_hash: line.name.clone().into(),
        }),
        trace_id: telemetry::new_trace_id(),
        created_by: None,
    })
}
