//! Writes what is due: the job and the tick, in one transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::class::Class;
use entropy_jobs::enqueue::{Enqueued, Idempotency, Options};
use entropy_jobs::process::telemetry;
use entropy_jobs::step;
use entropy_jobs::wake::Waker;
use entropy_schema::{Conn, Db, Error, Result, SYSTEM_ORGANIZATION, record, schedule_ticks};

use crate::due::{self, Due, Moment};
use crate::entries::Entry;

/// Where ticks are recorded.
#[derive(Debug, Clone)]
pub(crate) struct Book {
    db: Db,
    waker: Waker,
}

/// How long one try may take. The server gives up on a statement after ten seconds; this is for a server that has gone
/// without a word.
const TRY_TIMEOUT: Duration = Duration::from_secs(15);

impl Book {
    pub(crate) fn new(db: Db, waker: Waker) -> Book {
        Book { db, waker }
    }

    /// Settles a moment, however often and by however many schedulers it is called for.
    pub(crate) async fn settle(&self, entry: &Entry, moment: Moment) -> Result<()> {
        let settled = tokio::time::timeout(TRY_TIMEOUT, self.write(entry, moment)).await;
        let (due, enqueued) = settled.map_err(|_| Error::Unavailable("no answer within 15 s".into()))??;
        let schedule = entry.name;
        match (due, enqueued) {
            (Due::Enqueue(fire_at), Some(Enqueued::Created(job_id))) => {
                step!("schedule.committed");
                self.waker.wake();
                tracing::info!(schedule, %fire_at, %job_id, "tick: job created");
            }
            (Due::Enqueue(fire_at), _) => tracing::info!(schedule, %fire_at, "tick: already there"),
            (Due::Remember(fire_at), _) => {
                tracing::info!(schedule, %fire_at, "ticks up to this one are let go");
            }
            (Due::Nothing, _) => {}
        }
        Ok(())
    }

    async fn write(&self, entry: &Entry, moment: Moment) -> Result<(Due, Option<Enqueued>)> {
        let mut conn = self.db.conn().await?;
        conn.transaction(async |conn| {
            let due = match moment {
                Moment::Tick(at) => Due::Enqueue(at),
                Moment::Start(at) => due::missed(entry, schedule_ticks::last(conn, entry.name).await?, at),
            };
            let enqueued = match due {
                Due::Nothing => None,
                Due::Remember(at) => {
                    schedule_ticks::remember(conn, entry.name, at).await?;
                    None
                }
                Due::Enqueue(at) => {
                    step!("schedule.due");
                    let enqueued = enqueue(conn, entry, at).await?;
                    schedule_ticks::remember(conn, entry.name, at).await?;
                    step!("schedule.written");
                    enqueued
                }
            };
            Ok((due, enqueued))
        })
        .await
    }
}

async fn enqueue(conn: &mut Conn, entry: &Entry, fire_at: DateTime<Utc>) -> Result<Option<Enqueued>> {
    let options = Options {
        organization_id: SYSTEM_ORGANIZATION,
        class: Class::Campaign,
        // This machine's clock may be fast. By the database's clock nothing runs before its time.
        scheduled_at: Some(fire_at),
        expires_at: None,
        idempotency: Some(Idempotency {
            key: due::idempotency_key(entry.name, fire_at),
            // Schedulers of two versions may disagree about the args; it is one tick all the same.
            request_hash: entry.name.into(),
        }),
        trace_id: telemetry::new_trace_id(),
        created_by: None,
    };
    let enqueued = record::enqueue::enqueue(conn, &[entry.job(options)]).await?;
    Ok(enqueued.into_iter().next())
}
