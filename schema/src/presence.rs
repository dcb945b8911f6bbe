//! Which worker processes are there at all: each holds a database session that has a lock in the worker's name.
//!
//! The kernel closes the session of a process that dies, and Postgres frees its lock at once. So a lock that is free while
//! the heartbeat has stopped tells in seconds what a lease tells in its whole length. `entropy_workers::presence` says
//! why that is safe, and when it is believed.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use diesel_async::pooled_connection::PoolableConnection;
use uuid::Uuid;

use crate::cached::Cache;
use crate::{Conn, Db, Result};

/// A worker's own session, which holds the lock in its name for as long as it lasts.
pub struct Session {
    conn: Conn,
    worker: Uuid,
    since: DateTime<Utc>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("worker", &self.worker).field("since", &self.since).finish()
    }
}

#[derive(QueryableByName)]
struct Since {
    #[diesel(sql_type = Timestamptz)]
    since: DateTime<Utc>,
}

/// Shared, so that a session that nobody has closed yet does not keep the worker from taking another one.
const TAKE: &str = "\
SELECT clock_timestamp() AS since FROM (SELECT pg_advisory_lock_shared(hashtextextended('worker:' || $1::text, 0))) taken";

const BEAT: &str = "UPDATE workers SET heartbeat_at = clock_timestamp(), session_since = $2 WHERE id = $1";

const BEAT_WITHOUT: &str =
    "UPDATE workers SET heartbeat_at = clock_timestamp(), session_since = NULL WHERE id = $1";

impl Session {
    /// Opens a session for `worker`, beside the pool.
    pub async fn open(db: &Db, worker: Uuid) -> Result<Session> {
        let mut conn = db.apart().await?;
        let Since { since } = sql_query(TAKE).bind::<SqlUuid, _>(worker).get_result(&mut conn).await?;
        Ok(Session { conn, worker, since })
    }

    /// Writes the worker's heartbeat over this very session, so that a heartbeat proves the session.
    pub async fn beat(&mut self) -> Result<()> {
        sql_query(BEAT)
            .bind::<SqlUuid, _>(self.worker)
            .bind::<Timestamptz, _>(self.since)
            .cached()
            .execute(&mut self.conn)
            .await?;
        Ok(())
    }

    /// Tells whether the session is gone, and its lock with it. A statement may also fail without that.
    pub fn is_gone(&mut self) -> bool {
        self.conn.is_broken()
    }
}

/// Writes the heartbeat of a worker that has no session. Returns false if the worker has no row yet.
pub async fn beat_without(conn: &mut Conn, worker: Uuid) -> Result<bool> {
    Ok(sql_query(BEAT_WITHOUT).bind::<SqlUuid, _>(worker).cached().execute(conn).await? > 0)
}

#[derive(QueryableByName)]
struct Dead {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// `CASE` evaluates in its own order: nobody's lock is tried unless the judge may judge.
const DEAD: &str = "\
WITH silent AS MATERIALIZED (
    SELECT id FROM workers WHERE session_since IS NOT NULL AND id <> $1
        AND heartbeat_at < (SELECT clock_timestamp()) - $2 * interval '1 millisecond'
    ORDER BY id LIMIT 100
), judge AS MATERIALIZED (
    SELECT CASE WHEN session_since < clock_timestamp() - $3 * interval '1 millisecond'
        THEN NOT pg_try_advisory_xact_lock(hashtextextended('worker:' || id::text, 0)) ELSE false END AS settled
    FROM workers WHERE id = $1
)
SELECT id FROM silent WHERE CASE WHEN EXISTS (SELECT FROM judge WHERE settled)
    THEN pg_try_advisory_xact_lock(hashtextextended('worker:' || id::text, 0)) ELSE false END";

/// Returns the workers that are dead in the eyes of the worker `judge`: silent for `silent_ms`, and their session gone.
///
/// The judge sees nobody dead unless its own session is there and has lasted for `settled_ms`. Whatever ends all sessions
/// at once, a restart of Postgres above all, has ended that one too, and the others have had the same time to come back.
///
/// Never waits. Keeps the locks of the dead in the caller's transaction, so that no other judge comes to the same end.
pub async fn dead(conn: &mut Conn, judge: Uuid, silent_ms: i64, settled_ms: i64) -> Result<Vec<Uuid>> {
    let dead: Vec<Dead> = sql_query(DEAD)
        .bind::<SqlUuid, _>(judge)
        .bind::<BigInt, _>(silent_ms)
        .bind::<BigInt, _>(settled_ms)
        .load(conn)
        .await?;
    Ok(dead.into_iter().map(|dead| dead.id).collect())
}

/// Ends the search for dead workers that hold nothing any more. One that lives after all says so with its next session.
pub async fn bury(conn: &mut Conn, dead: &[Uuid]) -> Result<()> {
    sql_query(
        "UPDATE workers SET session_since = NULL WHERE id = ANY($1) \
         AND NOT EXISTS (SELECT FROM leases WHERE leases.worker_id = workers.id)",
    )
    .bind::<Array<SqlUuid>, _>(dead)
    .execute(conn)
    .await?;
    Ok(())
}
