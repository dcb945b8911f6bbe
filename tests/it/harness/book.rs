//! The record without any process: a database, and the statements over it.

use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use entropy_jobs::class::Class;
use entropy_jobs::enqueue::Options;
use entropy_schema::record::claim::{self, Claimed};
use entropy_schema::record::dispatch::{self, Dispatched};
use entropy_schema::record::enqueue::{self, Enqueued, NewJob};
use entropy_schema::record::finish::{self, Becomes, Finish};
use entropy_schema::{Db, PooledConn, Profile, lanes, users};
use serde_json::json;
use uuid::Uuid;

use super::invariants;
use super::servers::Database;
use super::turn::{self, Turn};

/// What a lease lasts, unless a test lets it expire.
const LEASE_MS: i64 = 60_000;

/// A database of one organisation, for tests of statements.
#[derive(Debug)]
pub(crate) struct Book {
    _turn: Turn,
    /// The database itself.
    pub(crate) database: Database,
    /// Connections with a worker's settings.
    pub(crate) db: Db,
    /// The organisation that the book's jobs belong to.
    pub(crate) organization: Uuid,
}

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(diesel::QueryableByName)]
struct Word {
    #[diesel(sql_type = Nullable<Text>)]
    word: Option<String>,
}

impl Book {
    /// Opens an empty book.
    pub(crate) async fn open() -> Book {
        let turn = turn::shared().await;
        Self::open_in(turn).await
    }

    /// Opens an empty book and keeps other tests away.
    pub(crate) async fn open_alone() -> Book {
        let turn = turn::alone().await;
        Self::open_in(turn).await
    }

    async fn open_in(turn: Turn) -> Book {
        let database = Database::create().await;
        let db = Db::new(database.url(), 16, Profile::Worker).expect("a pool");
        let organization = Uuid::now_v7();
        let mut conn = db.conn().await.expect("a connection");
        users::create_organization(&mut conn, organization, "熵变测试").await.expect("an organisation");
        drop(conn);
        Book { _turn: turn, database, db, organization }
    }

    /// Lends a connection.
    pub(crate) async fn conn(&self) -> PooledConn {
        self.db.conn().await.expect("a connection")
    }

    /// Runs a statement for its effect.
    pub(crate) async fn run(&self, statement: &str) {
        let mut conn = self.conn().await;
        conn.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Returns the number `n` that a statement selects.
    pub(crate) async fn number(&self, statement: &str) -> i64 {
        number(&self.db, statement).await
    }

    /// Makes a lane.
    pub(crate) async fn lane(&self) -> Uuid {
        let id = Uuid::now_v7();
        lanes::create(&mut *self.conn().await, id, self.organization, "conversation").await.expect("a lane");
        id
    }

    /// Prepares a job without a lane.
    pub(crate) fn job(&self) -> NewJob {
        NewJob {
            id: Uuid::now_v7(),
            organization_id: self.organization,
            kind: "cost_tally",
            queue: "cost",
            class: 2,
            lane_id: None,
            order_key: None,
            account_id: None,
            args: json!({}),
            args_version: 1,
            max_attempts: 5,
            scheduled_at: None,
            expires_at: None,
            unique_key: None,
            idempotency: None,
            trace_id: "0123456789abcdef0123456789abcdef".into(),
            created_by: None,
        }
    }

    /// Prepares a job of a lane.
    pub(crate) fn job_in(&self, lane: Uuid, conversation: &str, class: i16) -> NewJob {
        NewJob { lane_id: Some(lane), order_key: Some(conversation.into()), class, ..self.job() }
    }

    /// Enqueues in one transaction.
    pub(crate) async fn enqueue(&self, jobs: &[NewJob]) -> Vec<Enqueued> {
        let mut conn = self.conn().await;
        conn.transaction(async |conn| enqueue::enqueue(conn, jobs).await).await.expect("enqueued")
    }

    /// Hands out what may run now, as a relay's pass does.
    pub(crate) async fn dispatch(&self) -> Vec<Dispatched> {
        let mut conn = self.conn().await;
        dispatch::promote(&mut conn, 500).await.expect("promoted");
        let mut picks = dispatch::pick_lanes(&mut conn, 200, 3000).await.expect("picked from lanes");
        let idle = std::mem::take(&mut picks.idle);
        conn.transaction(async |conn| dispatch::settle_idle_lanes(conn, &idle).await).await.expect("settled");
        let plain = dispatch::pick_plain(&mut conn, "cost", 500, 3000).await.expect("picked");
        picks.dispatched.into_iter().chain(plain).collect()
    }

    /// Hands out exactly one job.
    pub(crate) async fn dispatch_one(&self) -> Dispatched {
        let mut dispatched = self.dispatch().await;
        assert_eq!(dispatched.len(), 1, "one job is handed out: {dispatched:?}");
        dispatched.remove(0)
    }

    /// Claims deliveries for a worker.
    pub(crate) async fn claim(&self, deliveries: &[Dispatched], worker: Uuid) -> Vec<Claimed> {
        let deliveries: Vec<_> = deliveries.iter().map(|one| (one.job_id, one.attempt)).collect();
        claim::claim(&mut *self.conn().await, &deliveries, worker, LEASE_MS).await.expect("claimed")
    }

    /// Hands out one job and claims it.
    pub(crate) async fn take(&self, worker: Uuid) -> Claimed {
        let delivery = self.dispatch_one().await;
        let mut claimed = self.claim(&[delivery], worker).await;
        assert_eq!(claimed.len(), 1);
        claimed.remove(0)
    }

    /// Records the end of an attempt and tells whether that was still to do.
    pub(crate) async fn finish(&self, end: Finish) -> bool {
        let ended = finish::finish(&mut *self.conn().await, &[end]).await.expect("recorded");
        !ended.is_empty()
    }

    /// Returns the state that the API would show.
    pub(crate) async fn state(&self, job: Uuid) -> String {
        let mut conn = self.conn().await;
        let found = entropy_schema::views::jobs::get(&mut conn, self.organization, job).await.expect("a job");
        found.expect("the job exists").state
    }

    /// Returns the texts that a statement selects as `word`.
    pub(crate) async fn words(&self, statement: &str) -> Vec<String> {
        let rows: Vec<Word> = sql_query(statement).load(&mut *self.conn().await).await.expect("texts");
        rows.into_iter().map(|row| row.word.expect("a text")).collect()
    }

    /// Returns the code of a job's error.
    pub(crate) async fn error_code(&self, job: Uuid) -> Option<String> {
        let mut conn = self.conn().await;
        sql_query("SELECT error ->> 'code' AS word FROM jobs WHERE id = $1")
            .bind::<SqlUuid, _>(job)
            .get_result::<Word>(&mut conn)
            .await
            .expect("a job")
            .word
    }

    /// Panics if the record contradicts itself.
    pub(crate) async fn assert_sound(&self) {
        invariants::assert_hold(&self.db).await;
    }
}

/// Returns the number `n` that a statement selects.
pub(crate) async fn number(db: &Db, statement: &str) -> i64 {
    let mut conn = db.conn().await.expect("a connection");
    let row: Number = sql_query(statement)
        .get_result(&mut conn)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
    row.n
}

/// The end of an attempt: completed, unless a test says otherwise.
pub(crate) fn end_of(claimed: &Claimed, worker: Uuid) -> Finish {
    Finish {
        job_id: claimed.job_id,
        attempt: claimed.attempt,
        worker_id: worker,
        outcome: Some("completed"),
        becomes: Becomes::Final("completed"),
        result: None,
        error: None,
        crashed: false,
        lane_wait: None,
    }
}

/// The end of an attempt that is tried again after `delay_ms`.
pub(crate) fn retry_of(claimed: &Claimed, worker: Uuid, delay_ms: i64) -> Finish {
    Finish {
        outcome: Some("retry"),
        becomes: Becomes::Waiting { delay_ms, code: "retry".into(), note: "no answer".into() },
        error: Some(json!({ "code": "no_answer", "message": "no answer" })),
        ..end_of(claimed, worker)
    }
}

/// What is said of a job for which nobody waits, and that came from nowhere.
pub(crate) fn unhurried(organization: Uuid) -> Options {
    Options {
        organization_id: organization,
        class: Class::Campaign,
        scheduled_at: None,
        expires_at: None,
        idempotency: None,
        trace_id: "0123456789abcdef0123456789abcdef".into(),
        created_by: None,
    }
}
