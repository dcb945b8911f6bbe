//! Hands out what may run now: from `pending` to `leases`, at most one job per lane.
//!
//! Any number of relays may run these statements at once; rows that another one is busy with are skipped.

use std::sync::LazyLock;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, SmallInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
use crate::{Conn, Result};

/// A job that was handed out and is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Dispatched {
    /// The job.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// The attempt, counted from 1.
    #[diesel(sql_type = SmallInt)]
    pub attempt: i16,
    /// The queue to deliver to.
    #[diesel(sql_type = Text)]
    pub queue: String,
    /// 0 interactive, 1 reply, 2 campaign.
    #[diesel(sql_type = SmallInt)]
    pub class: i16,
}

/// What a relay finds when it looks for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Outlook {
    /// Jobs have come due or expired.
    #[diesel(sql_type = Bool)]
    pub due: bool,
    /// Lanes may run.
    #[diesel(sql_type = Bool)]
    pub lanes: bool,
    /// Jobs without a lane may run.
    #[diesel(sql_type = Bool)]
    pub plain: bool,
    /// Milliseconds until something known comes due; null when nothing is known.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub next_in_ms: Option<i64>,
}

// In the whole order of the queues' index, here and where tenants are walked, so that none but that one will do: with statistics
// of a backlog of lanes, any other looks as good.
const OUTLOOK: &str = "\
SELECT
    COALESCE((SELECT due_at FROM pending WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1) <= clock_timestamp(), false)
        OR COALESCE((SELECT expires_at FROM pending WHERE expires_at IS NOT NULL ORDER BY expires_at LIMIT 1)
            <= clock_timestamp(), false) AS due,
    COALESCE((SELECT runnable_at FROM lanes WHERE runnable_at IS NOT NULL AND paused_at IS NULL
        ORDER BY runnable_at LIMIT 1) <= clock_timestamp(), false) AS lanes,
    EXISTS (SELECT FROM unnest($1) AS q (queue) CROSS JOIN LATERAL (
        SELECT FROM pending p WHERE p.queue = q.queue AND p.lane_id IS NULL AND p.due_at IS NULL
        ORDER BY p.organization_id, p.class, p.seq LIMIT 1) AS first)
        AS plain,
    CEIL(EXTRACT(EPOCH FROM LEAST(
        (SELECT due_at FROM pending WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1),
        (SELECT expires_at FROM pending WHERE expires_at IS NOT NULL ORDER BY expires_at LIMIT 1),
        (SELECT runnable_at FROM lanes WHERE runnable_at IS NOT NULL AND paused_at IS NULL
            ORDER BY runnable_at LIMIT 1)
    ) - clock_timestamp()) * 1000)::bigint AS next_in_ms";

/// Looks once, cheaply, whether there is anything to do and when there will be.
pub async fn outlook(conn: &mut Conn, queues: &[&str]) -> Result<Outlook> {
    Ok(sql_query(OUTLOOK).bind::<Array<Text>, _>(queues).cached().get_result(conn).await?)
}

/// Retries keep their place; a job that was scheduled takes its place when it becomes available.
const PROMOTE: &str = "\
WITH due AS (
    SELECT job_id FROM pending WHERE due_at <= (SELECT clock_timestamp()) ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE pending SET due_at = NULL, wait_code = NULL, wait_note = NULL,
        seq = CASE WHEN wait_code = 'scheduled' THEN nextval(pg_get_serial_sequence('pending', 'seq')) ELSE seq END
    FROM due WHERE pending.job_id = due.job_id
    RETURNING pending.lane_id
), locked AS (
    SELECT id, runnable_at, busy_job_id FROM lanes WHERE id IN (SELECT lane_id FROM moved) ORDER BY id FOR UPDATE
), marked AS (
    UPDATE lanes SET runnable_at = now(), wait_code = NULL, busy_job_id = NULL FROM locked
    WHERE lanes.id = locked.id AND locked.busy_job_id IS NULL AND locked.runnable_at IS NULL
)
SELECT count(*) AS n FROM moved";

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Makes jobs available whose time has come. Returns how many.
pub async fn promote(conn: &mut Conn, limit: i64) -> Result<i64> {
    Ok(sql_query(PROMOTE).bind::<BigInt, _>(limit).cached().get_result::<Count>(conn).await?.n)
}

/// What makes a waiting job of a lane eligible, `p` being the job.
///
/// A job that waits for its retry holds back later jobs of the same lane, class and key, so that a conversation keeps
/// its order; a queue that its organisation has paused holds back all.
pub(crate) const ELIGIBLE: &str = "p.due_at IS NULL
      AND NOT EXISTS (SELECT FROM pending b WHERE b.lane_id = p.lane_id AND b.order_key = p.order_key
          AND b.class = p.class AND b.seq < p.seq AND b.due_at IS NOT NULL AND b.wait_code <> 'scheduled')
      AND NOT EXISTS (SELECT FROM queue_pauses s WHERE s.organization_id = p.organization_id AND s.queue = p.queue)";

const LEASE_COLUMNS: &str = "job_id, organization_id, queue, lane_id, order_key, class, seq, attempt, crashes, \
    expires_at, dispatched_at, lease_until";

/// Named one by one here and everywhere: a column that a newer version adds must not change what a statement means.
const PENDING_COLUMNS: &str = "pending.job_id, pending.organization_id, pending.queue, pending.lane_id, \
    pending.order_key, pending.class, pending.seq, pending.attempt, pending.crashes, pending.expires_at";

const LEASE_VALUES: &str = "job_id, organization_id, queue, lane_id, order_key, class, seq, attempt + 1, crashes, \
    expires_at, clock_timestamp(), clock_timestamp() + $2 * interval '1 millisecond'";

static PICK_LANES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "\
WITH due AS (
    SELECT id FROM lanes WHERE runnable_at <= (SELECT clock_timestamp()) AND paused_at IS NULL
    ORDER BY runnable_at LIMIT $1 FOR UPDATE SKIP LOCKED
), head AS (
    SELECT due.id, next.job_id FROM due CROSS JOIN LATERAL (
        SELECT p.job_id FROM pending p WHERE p.lane_id = due.id AND {ELIGIBLE}
        ORDER BY p.class, p.seq LIMIT 1) AS next
), taken AS (
    DELETE FROM pending USING head WHERE pending.job_id = head.job_id
    RETURNING {PENDING_COLUMNS}
), leased AS (
    INSERT INTO leases ({LEASE_COLUMNS}) SELECT {LEASE_VALUES} FROM taken
    RETURNING job_id, attempt, queue, class
), busy AS (
    UPDATE lanes SET busy_job_id = taken.job_id, runnable_at = NULL, wait_code = NULL
    FROM taken WHERE lanes.id = taken.lane_id
)
SELECT job_id, attempt, queue, class, NULL::uuid AS idle_lane FROM leased
UNION ALL
SELECT NULL, NULL, NULL, NULL, due.id FROM due WHERE due.id NOT IN (SELECT id FROM head)"
    )
});

#[derive(QueryableByName)]
struct Picked {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    job_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    attempt: Option<i16>,
    #[diesel(sql_type = Nullable<Text>)]
    queue: Option<String>,
    #[diesel(sql_type = Nullable<SmallInt>)]
    class: Option<i16>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    idle_lane: Option<Uuid>,
}

/// What [`pick_lanes`] found.
#[derive(Debug, Default)]
pub struct LanePicks {
    /// The next job of each lane that had one.
    pub dispatched: Vec<Dispatched>,
    /// Lanes in which nothing was seen; pass them to [`settle_idle_lanes`].
    pub idle: Vec<Uuid>,
}

/// Hands out the next job of up to `limit` due lanes.
///
/// A delivery that nobody has claimed after `redeliver_after_ms` is looked at by the rescuer.
pub async fn pick_lanes(conn: &mut Conn, limit: i64, redeliver_after_ms: i64) -> Result<LanePicks> {
    let rows = sql_query(&*PICK_LANES)
        .bind::<BigInt, _>(limit)
        .bind::<BigInt, _>(redeliver_after_ms)
        .cached()
        .load::<Picked>(conn)
        .await?;
    let mut picks = LanePicks::default();
    for row in rows {
        match row {
            Picked {
                job_id: Some(job_id),
                attempt: Some(attempt),
                queue: Some(queue),
                class: Some(class),
                ..
            } => {
                picks.dispatched.push(Dispatched { job_id, attempt, queue, class });
            }
            Picked { idle_lane: Some(lane), .. } => picks.idle.push(lane),
            _ => {}
        }
    }
    Ok(picks)
}

// In the order of the lane's index, so that none but that one is chosen, also by a session that plans while nothing waits.
static SETTLE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "UPDATE lanes SET runnable_at = NULL, wait_code = NULL WHERE id = ANY($1) AND (\
             SELECT p.job_id FROM pending p WHERE p.lane_id = lanes.id AND {ELIGIBLE} \
             ORDER BY p.class, p.seq LIMIT 1) IS NULL"
    )
});

#[derive(QueryableByName)]
struct Locked {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// Clears the mark of lanes in which nothing waits. Runs in the caller's transaction.
///
/// Two statements on purpose. Whoever enqueues locks the lane before it looks at the mark, so once the lock is ours
/// every committed job is visible to the *next* statement; the one that took the lock still has the older snapshot.
pub async fn settle_idle_lanes(conn: &mut Conn, lanes: &[Uuid]) -> Result<()> {
    let locked: Vec<Uuid> = sql_query(
        "SELECT id FROM lanes WHERE id = ANY($1) AND busy_job_id IS NULL AND runnable_at <= clock_timestamp() \
         ORDER BY id FOR UPDATE SKIP LOCKED",
    )
    .bind::<Array<SqlUuid>, _>(lanes)
    .cached()
        .load::<Locked>(conn)
    .await?
    .into_iter()
    .map(|row| row.id)
    .collect();
    if !locked.is_empty() {
        sql_query(&*SETTLE).bind::<Array<SqlUuid>, _>(locked).cached().execute(conn).await?;
    }
    Ok(())
}

/// Walks the organisations that have something available in a queue, one index probe each, and takes a fair share from
/// each: a tenant with a million jobs does not hold up a tenant with one.
static PICK_PLAIN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "\
WITH RECURSIVE tenants AS (
    (SELECT organization_id, 1 AS n FROM pending
        WHERE queue = $3 AND lane_id IS NULL AND due_at IS NULL ORDER BY organization_id, class, seq LIMIT 1)
    UNION ALL
    SELECT (SELECT p.organization_id FROM pending p WHERE p.queue = $3 AND p.lane_id IS NULL AND p.due_at IS NULL
        AND p.organization_id > t.organization_id ORDER BY p.organization_id, p.class, p.seq LIMIT 1), t.n + 1
    FROM tenants t WHERE t.organization_id IS NOT NULL
), active AS (
    SELECT t.organization_id FROM tenants t WHERE t.organization_id IS NOT NULL
        AND NOT EXISTS (SELECT FROM queue_pauses s WHERE s.organization_id = t.organization_id AND s.queue = $3)
), head AS (
    SELECT next.job_id FROM active CROSS JOIN LATERAL (
        SELECT p.job_id, p.class, p.seq FROM pending p
        WHERE p.queue = $3 AND p.organization_id = active.organization_id AND p.lane_id IS NULL AND p.due_at IS NULL
        ORDER BY p.class, p.seq
        LIMIT GREATEST(1, $1 / GREATEST(1, (SELECT count(*) FROM active)))
        FOR UPDATE SKIP LOCKED) AS next
    LIMIT $1
), taken AS (
    DELETE FROM pending USING head WHERE pending.job_id = head.job_id
    RETURNING {PENDING_COLUMNS}
)
INSERT INTO leases ({LEASE_COLUMNS}) SELECT {LEASE_VALUES} FROM taken ORDER BY class, seq
RETURNING job_id, attempt, queue, class"
    )
});

/// Hands out up to `limit` jobs of `queue` that have no lane.
pub async fn pick_plain(
    conn: &mut Conn,
    queue: &str,
    limit: i64,
    redeliver_after_ms: i64,
) -> Result<Vec<Dispatched>> {
    Ok(sql_query(&*PICK_PLAIN)
        .bind::<BigInt, _>(limit)
        .bind::<BigInt, _>(redeliver_after_ms)
        .bind::<Text, _>(queue)
        .cached()
        .load(conn)
        .await?)
}
