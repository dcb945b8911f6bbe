//! What a job that is not running waits for: the facts behind the API's `why`.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{Conn, Result};

/// Everything that can hold a job back, read in one statement.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct Facts {
    /// The database's time.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
    /// The job's queue.
    #[diesel(sql_type = Text)]
    pub queue: String,
    /// A worker has claimed it.
    #[diesel(sql_type = Bool)]
    pub running: bool,
    /// It is on its way to a worker.
    #[diesel(sql_type = Bool)]
    pub handed_out: bool,
    /// When it may run; none: now.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub due_at: Option<DateTime<Utc>>,
    /// Why it may not run before.
    #[diesel(sql_type = Nullable<Text>)]
    pub wait_code: Option<String>,
    /// The same, as a sentence.
    #[diesel(sql_type = Nullable<Text>)]
    pub wait_note: Option<String>,
    /// The organisation has paused the queue.
    #[diesel(sql_type = Bool)]
    pub queue_paused: bool,
    /// It has a lane.
    #[diesel(sql_type = Bool)]
    pub has_lane: bool,
    /// The lane is paused.
    #[diesel(sql_type = Bool)]
    pub lane_paused: bool,
    /// Why the lane is paused.
    #[diesel(sql_type = Nullable<Text>)]
    pub lane_paused_reason: Option<String>,
    /// The lane runs another job.
    #[diesel(sql_type = Bool)]
    pub lane_busy: bool,
    /// When the lane looks for its next job.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub lane_runnable_at: Option<DateTime<Utc>>,
    /// Why it does not look before.
    #[diesel(sql_type = Nullable<Text>)]
    pub lane_wait_code: Option<String>,
    /// Jobs that go before it: in its lane or, without one, in the organisation's part of the queue. Capped.
    #[diesel(sql_type = BigInt)]
    pub ahead: i64,
    /// When an earlier message of the same conversation is tried again.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub blocked_until: Option<DateTime<Utc>>,
    /// A worker is alive.
    #[diesel(sql_type = Bool)]
    pub worker_alive: bool,
}

const FACTS: &str = "\
SELECT clock_timestamp() AS now, j.queue, l.worker_id IS NOT NULL AS running,
    l.job_id IS NOT NULL AND l.worker_id IS NULL AS handed_out,
    p.due_at, p.wait_code, p.wait_note,
    EXISTS (SELECT FROM queue_pauses s WHERE s.organization_id = j.organization_id AND s.queue = j.queue)
        AS queue_paused,
    n.id IS NOT NULL AS has_lane, n.paused_at IS NOT NULL AS lane_paused, n.paused_reason AS lane_paused_reason,
    COALESCE(n.busy_job_id <> j.id, false) AS lane_busy, n.runnable_at AS lane_runnable_at,
    n.wait_code AS lane_wait_code,
    CASE WHEN p.job_id IS NULL OR p.due_at IS NOT NULL THEN 0
        WHEN p.lane_id IS NOT NULL THEN (SELECT count(*) FROM (SELECT FROM pending q
            WHERE q.lane_id = p.lane_id AND q.due_at IS NULL AND (q.class, q.seq) < (p.class, p.seq)
            LIMIT 100000) AS a)
        ELSE (SELECT count(*) FROM (SELECT FROM pending q
            WHERE q.queue = p.queue AND q.organization_id = p.organization_id AND q.lane_id IS NULL
              AND q.due_at IS NULL AND (q.class, q.seq) < (p.class, p.seq) LIMIT 100000) AS a)
        END AS ahead,
    (SELECT max(b.due_at) FROM pending b WHERE b.lane_id = p.lane_id AND b.order_key = p.order_key
        AND b.class = p.class AND b.seq < p.seq AND b.due_at IS NOT NULL AND b.wait_code <> 'scheduled')
        AS blocked_until,
    EXISTS (SELECT FROM workers w WHERE w.heartbeat_at > now() - interval '30 seconds' AND w.state = 'running')
        AS worker_alive
FROM jobs j
    LEFT JOIN pending p ON p.job_id = j.id
    LEFT JOIN leases l ON l.job_id = j.id
    LEFT JOIN lanes n ON n.id = j.lane_id
WHERE j.id = $1 AND j.organization_id = $2 AND j.final_state IS NULL";

/// Reads what holds a job back. None: there is no such job, or it has ended.
pub async fn facts(conn: &mut Conn, organization: Uuid, job: Uuid) -> Result<Option<Facts>> {
    Ok(sql_query(FACTS)
        .bind::<SqlUuid, _>(job)
        .bind::<SqlUuid, _>(organization)
        .get_result(conn)
        .await
        .optional()?)
}
