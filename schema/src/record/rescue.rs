//! Finds lost deliveries and the jobs of dead workers. What to do with them is policy and not decided here.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, SmallInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::dispatch::Dispatched;
use crate::cached::Cache;
use crate::{Conn, Result};

/// A lease whose worker stopped keeping it.
#[derive(Debug, Clone, QueryableByName)]
pub struct Expired {
    /// The job.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// The attempt that was under way.
    #[diesel(sql_type = SmallInt)]
    pub attempt: i16,
    /// The worker that held the lease.
    #[diesel(sql_type = SqlUuid)]
    pub worker_id: Uuid,
    /// Process deaths under this job before this one.
    #[diesel(sql_type = SmallInt)]
    pub crashes: i16,
    /// Name of the job's type.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// Attempts before the job is dead.
    #[diesel(sql_type = SmallInt)]
    pub max_attempts: i16,
    /// What the caller wants when a send's outcome cannot be known.
    #[diesel(sql_type = Nullable<Text>)]
    pub on_unknown: Option<String>,
    /// The worker is alive all the same: the answer to its claim was lost, and it knows nothing of the job.
    #[diesel(sql_type = diesel::sql_types::Bool)]
    pub worker_alive: bool,
    /// The send that the attempt recorded, if it got that far.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub send_id: Option<Uuid>,
    /// State of that send.
    #[diesel(sql_type = Nullable<Text>)]
    pub send_state: Option<String>,
}

/// The columns of a lease that [`LOST`] needs.
const HELD: &str = "job_id, attempt, worker_id, crashes, claimed_at";

/// What is read of a lease `l` whose attempt is over without an end.
const LOST: &str = "\
SELECT l.job_id, l.attempt, l.worker_id, l.crashes, j.kind, j.max_attempts, j.args ->> 'on_unknown' AS on_unknown,
    EXISTS (SELECT FROM workers w WHERE w.id = l.worker_id AND w.state <> 'stopped'
        AND w.heartbeat_at > clock_timestamp() - interval '10 seconds') AS worker_alive,
    s.id AS send_id, s.state AS send_state
FROM l JOIN jobs j ON j.id = l.job_id
LEFT JOIN LATERAL (SELECT id, state FROM sends WHERE sends.job_id = l.job_id AND sends.started_at >= l.claimed_at
    ORDER BY sends.id DESC LIMIT 1) s ON true
ORDER BY l.job_id";

/// Returns up to `limit` claimed leases that have expired. Locks them in the caller's transaction.
pub async fn expired(conn: &mut Conn, limit: i64) -> Result<Vec<Expired>> {
    let statement = format!(
        "WITH l AS (SELECT {HELD} FROM leases WHERE lease_until < (SELECT clock_timestamp()) AND worker_id IS NOT NULL \
         ORDER BY lease_until LIMIT $1 FOR UPDATE SKIP LOCKED) {LOST}"
    );
    Ok(sql_query(statement).bind::<BigInt, _>(limit).load(conn).await?)
}

/// Returns up to `limit` leases of workers that are known to be dead, run out or not. Locks them in the caller's
/// transaction.
pub async fn of_the_dead(conn: &mut Conn, dead: &[Uuid], limit: i64) -> Result<Vec<Expired>> {
    let statement = format!(
        "WITH l AS (SELECT {HELD} FROM leases WHERE worker_id = ANY($2) \
         ORDER BY job_id LIMIT $1 FOR UPDATE SKIP LOCKED) {LOST}"
    );
    let mut leases: Vec<Expired> =
        sql_query(statement).bind::<BigInt, _>(limit).bind::<Array<SqlUuid>, _>(dead).load(conn).await?;
    for lease in &mut leases {
        // Its last heartbeat is so fresh that the statement takes it for alive.
        lease.worker_alive = false;
    }
    Ok(leases)
}

/// Returns the lease of `job` if `worker` still holds it. Locks it in the caller's transaction.
pub async fn held(conn: &mut Conn, job: Uuid, worker: Uuid) -> Result<Option<Expired>> {
    let statement = format!(
        "WITH l AS (SELECT {HELD} FROM leases WHERE job_id = $1 AND worker_id = $2 FOR UPDATE) {LOST}"
    );
    Ok(sql_query(statement)
        .bind::<SqlUuid, _>(job)
        .bind::<SqlUuid, _>(worker)
        .get_result(conn)
        .await
        .optional()?)
}

/// What a look finds that may need somebody's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Signs {
    /// Some lease has run out.
    #[diesel(sql_type = diesel::sql_types::Bool)]
    pub expired: bool,
    /// Some worker that has a session has been silent.
    #[diesel(sql_type = diesel::sql_types::Bool)]
    pub silent: bool,
}

const SIGNS: &str = "\
SELECT EXISTS (SELECT FROM leases WHERE lease_until < (SELECT clock_timestamp())) AS expired,
    EXISTS (SELECT FROM workers WHERE session_since IS NOT NULL
        AND heartbeat_at < (SELECT clock_timestamp()) - $1 * interval '1 millisecond') AS silent";

/// Tells whether any lease has run out, or any worker has been silent for `silent_ms`. One index probe and a look at the
/// few rows of workers: what an idle rescuer costs.
pub async fn signs(conn: &mut Conn, silent_ms: i64) -> Result<Signs> {
    Ok(sql_query(SIGNS).bind::<BigInt, _>(silent_ms).cached().get_result(conn).await?)
}

const UNDELIVERED: &str = "\
WITH late AS (
    SELECT job_id, queue = ANY($2) OR clock_timestamp() - dispatched_at > deliveries * interval '15 seconds' AS again
    FROM leases WHERE lease_until < (SELECT clock_timestamp()) AND worker_id IS NULL
    ORDER BY lease_until LIMIT $1 FOR UPDATE SKIP LOCKED
), looked_at AS (
    UPDATE leases SET
        lease_until = clock_timestamp() + $3 * interval '1 millisecond' * LEAST(deliveries, 20),
        deliveries = LEAST(deliveries, 1000) + again::int::smallint
    FROM late WHERE leases.job_id = late.job_id
    RETURNING leases.job_id, leases.attempt, leases.queue, leases.class, late.again
)
SELECT job_id, attempt, queue, class FROM looked_at WHERE again";

/// Returns deliveries that nobody has claimed in time and that should be sent again.
///
/// A delivery counts as lost when its queue stands empty in Redis (`empty_queues`), or, so that nothing hangs on that
/// reading, 15 seconds after it was last sent. Others are looked at again after `recheck_ms`.
pub async fn undelivered(
    conn: &mut Conn,
    limit: i64,
    empty_queues: &[&str],
    recheck_ms: i64,
) -> Result<Vec<Dispatched>> {
    Ok(sql_query(UNDELIVERED)
        .bind::<BigInt, _>(limit)
        .bind::<Array<Text>, _>(empty_queues)
        .bind::<BigInt, _>(recheck_ms)
        .load(conn)
        .await?)
}
