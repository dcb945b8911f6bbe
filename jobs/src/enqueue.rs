//! The only way a job is created.
//!
//! [`record::enqueue`](entropy_schema::record::enqueue::enqueue) does it inside a caller's transaction, so that a job
//! exists exactly when its cause does. Callers whose cause is the request itself use an [`Enqueuer`].

use std::sync::Arc;

use chrono::{DateTime, Utc};
pub use entropy_schema::record::enqueue::{Enqueued, Idempotency, NewJob};
use entropy_schema::{Db, record};
use futures::{StreamExt, stream};
use uuid::Uuid;

use crate::batch::Batcher;
use crate::class::Class;
use crate::job::Job;
use crate::step;
use crate::wake::Waker;

/// What is said of a job beside its args.
#[derive(Debug, Clone)]
pub struct Options {
    /// The tenant.
    pub organization_id: Uuid,
    /// Who waits for it.
    pub class: Class,
    /// Not before; the past means now.
    pub scheduled_at: Option<DateTime<Utc>>,
    /// Not after.
    pub expires_at: Option<DateTime<Utc>>,
    /// The caller's token.
    pub idempotency: Option<Idempotency>,
    /// Ties the job to its cause.
    pub trace_id: String,
    /// The person who asked.
    pub created_by: Option<Uuid>,
}

/// Prepares a job of kind `K`.
///
/// # Panics
///
/// If the args cannot be written as JSON, which no kind of ours can bring about.
pub fn new_job<K: Job>(args: &K, options: Options) -> NewJob {
    NewJob {
        id: Uuid::now_v7(),
        organization_id: options.organization_id,
        kind: K::KIND,
        queue: K::QUEUE,
        class: options.class.as_i16(),
        lane_id: args.lane(),
        order_key: args.order_key(),
        account_id: args.account(),
        args: serde_json::to_value(args).expect("args are plain data"),
        args_version: K::ARGS_VERSION,
        max_attempts: K::MAX_ATTEMPTS,
        scheduled_at: options.scheduled_at,
        expires_at: options.expires_at,
        unique_key: args.unique_key().map(|key| format!("{}:{key}", K::KIND)),
        idempotency: options.idempotency,
        trace_id: options.trace_id,
        created_by: options.created_by,
    }
}

/// Why nothing was enqueued.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Error(Arc<entropy_schema::Error>);

impl Error {
    /// Tells whether the same call may succeed in a moment.
    pub fn is_unavailable(&self) -> bool {
        self.0.is_unavailable()
    }
}

/// Enqueues for concurrent callers: they share a statement and a commit. Wakes the relay after the commit.
#[derive(Clone)]
pub struct Enqueuer {
    batcher: Batcher<Vec<NewJob>, Result<Vec<Enqueued>, Error>>,
}

/// Statements at once after one for all has failed: a few of them may wait for a lock.
const AT_ONCE: usize = 8;

/// Callers per statement. Each may bring up to a thousand jobs.
const CALLS_PER_STATEMENT: usize = 128;

impl Enqueuer {
    /// Starts the task that enqueues.
    pub fn new(db: Db, waker: Waker) -> Enqueuer {
        let batcher = Batcher::start(CALLS_PER_STATEMENT, move |calls| {
            let (db, waker) = (db.clone(), waker.clone());
            async move {
                step!("enqueue.begun");
                let answers = commit(&db, calls).await;
                step!("enqueue.committed");
                // Callers come back at once to a database that refuses them; the relays need not hear of each time.
                if answers.iter().any(Result::is_ok) {
                    waker.wake();
                }
                answers
            }
        });
        Enqueuer { batcher }
    }

    /// Creates `jobs`, all or none, and answers for each once they are committed.
    pub async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, Error> {
        self.batcher.call(jobs).await.unwrap_or_else(|| {
            Err(Error(Arc::new(entropy_schema::Error::Unavailable("the enqueueing task is gone".into()))))
        })
    }
}

impl std::fmt::Debug for Enqueuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Enqueuer")
    }
}

async fn commit(db: &Db, calls: Vec<Vec<NewJob>>) -> Vec<Result<Vec<Enqueued>, Error>> {
    let all: Vec<NewJob> = calls.iter().flatten().cloned().collect();
    match transaction(db, &all).await {
        Ok(answers) => {
            let mut answers = answers.into_iter();
            calls.iter().map(|jobs| Ok(answers.by_ref().take(jobs.len()).collect())).collect()
        }
        Err(error) if calls.len() == 1 || (error.is_unavailable() && !error.is_contended()) => {
            let error = Error(Arc::new(error));
            calls.iter().map(|_| Err(error.clone())).collect()
        }
        // One caller's row, or a lock on one caller's lane, must not be everybody's failure.
        Err(_) => {
            let alone = calls.into_iter().map(|jobs| async move {
                transaction(db, &jobs).await.map_err(|error| Error(Arc::new(error)))
            });
            stream::iter(alone).buffered(AT_ONCE).collect().await
        }
    }
}

async fn transaction(db: &Db, jobs: &[NewJob]) -> Result<Vec<Enqueued>, entropy_schema::Error> {
    use diesel_async::AsyncConnection;
    use entropy_schema::Error as DbError;
    let mut tries = 0;
    loop {
        let mut conn = db.conn().await?;
        let done = conn
            .transaction(async |conn| {
                let answers = record::enqueue::enqueue(conn, jobs).await;
                step!("enqueue.written");
                answers
            })
            .await;
        match done {
            // The holder of a unique key ended at this very moment: look again.
            Err(DbError::Query(diesel::result::Error::RollbackTransaction)) if tries < 3 => tries += 1,
            done => return done,
        }
    }
}
