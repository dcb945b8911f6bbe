//! Takes events in: stores each once and makes its job, in one transaction that concurrent callers share.

use std::collections::HashSet;
use std::sync::Arc;

use diesel_async::AsyncConnection;
use entropy_schema::callbacks::{self, NewEvent};
use entropy_schema::{Db, record};
use futures::{StreamExt, stream};

use crate::batch::Batcher;
use crate::class::Class;
use crate::enqueue::{NewJob, Options, new_job};
use crate::kinds::handle_callback::HandleCallback;
use crate::step;
use crate::wake::Waker;

/// Events per statement. Each may be two megabytes large, and next to none is.
const EVENTS_PER_STATEMENT: usize = 64;

/// Statements at once after one for all has failed.
const AT_ONCE: usize = 4;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is new: it is stored, and its job will run.
    Stored,
    /// It was taken in before.
    Known,
}

/// Why an event was not taken in. Nothing of it is stored, or the answer to the commit was lost; the same event may be
/// offered again.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Error(Arc<entropy_schema::Error>);

impl Error {
    /// Tells whether the same call may succeed in a moment.
    pub fn is_unavailable(&self) -> bool {
        self.0.is_unavailable()
    }
}

#[derive(Debug, Clone)]
struct Call {
    event: NewEvent,
    trace_id: String,
}

/// Takes events in for concurrent callers: they share a statement and a commit. Wakes the relay after the commit.
#[derive(Clone)]
pub struct Intake {
    batcher: Batcher<Call, Result<Taken, Error>>,
}

impl Intake {
    /// Starts the task that stores.
    pub fn new(db: Db, waker: Waker) -> Intake {
        let batcher = Batcher::start(EVENTS_PER_STATEMENT, move |calls| {
            let (db, waker) = (db.clone(), waker.clone());
            async move {
                step!("intake.begun");
                let answers = commit(&db, calls).await;
                step!("intake.committed");
                if answers.iter().any(|answer| matches!(answer, Ok(Taken::Stored))) {
                    waker.wake();
                }
                answers
            }
        });
        Intake { batcher }
    }

    /// Takes an event in, and answers once it is committed.
    pub async fn take(&self, event: NewEvent, trace_id: String) -> Result<Taken, Error> {
        self.batcher.call(Call { event, trace_id }).await.unwrap_or_else(|| {
            Err(Error(Arc::new(entropy_schema::Error::Unavailable(
                "the task of the callbacks is gone".into(),
            ))))
        })
    }
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Intake")
    }
}

async fn commit(db: &Db, calls: Vec<Call>) -> Vec<Result<Taken, Error>> {
    match transaction(db, &calls).await {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) if calls.len() == 1 || (error.is_unavailable() && !error.is_contended()) => {
            let error = Error(Arc::new(error));
            calls.iter().map(|_| Err(error.clone())).collect()
        }
        // One event that Postgres refuses must not be everybody's failure.
        Err(_) => {
            let alone = calls.into_iter().map(|call| async move {
                let answers = transaction(db, &[call]).await.map_err(|error| Error(Arc::new(error)))?;
                Ok(answers.first().copied().unwrap_or(Taken::Known))
            });
            stream::iter(alone).buffered(AT_ONCE).collect().await
        }
    }
}

async fn transaction(db: &Db, calls: &[Call]) -> Result<Vec<Taken>, entropy_schema::Error> {
    let events: Vec<NewEvent> = calls.iter().map(|call| call.event.clone()).collect();
    let mut conn = db.conn().await?;
    let new = conn
        .transaction(async |conn| {
            let new: HashSet<_> = callbacks::store(conn, &events).await?.into_iter().collect();
            let jobs: Vec<NewJob> =
                calls.iter().filter(|call| new.contains(&call.event.id)).map(job_of).collect();
            record::enqueue::enqueue(conn, &jobs).await?;
            step!("intake.written");
            Ok::<_, entropy_schema::Error>(new)
        })
        .await?;
    let taken = |call: &Call| if new.contains(&call.event.id) { Taken::Stored } else { Taken::Known };
    Ok(calls.iter().map(taken).collect())
}

fn job_of(call: &Call) -> NewJob {
    let args = HandleCallback { event_id: call.event.id, account_id: call.event.account_id };
    let options = Options {
        organization_id: call.event.organization_id,
        class: Class::Reply,
        scheduled_at: None,
        expires_at: None,
        idempotency: None,
        trace_id: call.trace_id.clone(),
        created_by: None,
    };
    new_job(&args, options)
}
