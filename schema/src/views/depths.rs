//! How much work lies where, over all organisations: the gauges of the metrics page.
//!
//! Every count is capped, so that reading it costs the same with a backlog of a million as with ten.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Double, Text};
use diesel_async::RunQueryDsl;

use crate::{Conn, Result};

/// Counts stop here.
pub const COUNT_CAP: i64 = 1_000_000;

/// Work in one queue.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Depth {
    /// Name of the queue.
    #[diesel(sql_type = Text)]
    pub queue: String,
    /// Jobs that nothing holds back but those before them.
    #[diesel(sql_type = BigInt)]
    pub runnable: i64,
    /// Jobs that wait for a time, a retry, a limit or a person.
    #[diesel(sql_type = BigInt)]
    pub waiting: i64,
}

const DEPTHS: &str = "\
WITH grouped AS (
    SELECT queue, organization_id, lane_id, due_at IS NULL AS available, count(*) AS n
    FROM (SELECT queue, organization_id, lane_id, due_at FROM pending LIMIT $1) AS p GROUP BY 1, 2, 3, 4
), judged AS (
    SELECT g.queue, g.n, g.available
        AND NOT EXISTS (SELECT FROM queue_pauses s WHERE s.organization_id = g.organization_id AND s.queue = g.queue)
        AND (g.lane_id IS NULL OR (l.paused_at IS NULL
            AND (l.runnable_at IS NULL OR l.runnable_at <= clock_timestamp()))) AS runnable
    FROM grouped g LEFT JOIN lanes l ON l.id = g.lane_id
)
SELECT queue, COALESCE(sum(n) FILTER (WHERE runnable), 0)::bigint AS runnable,
    COALESCE(sum(n) FILTER (WHERE NOT runnable), 0)::bigint AS waiting
FROM judged GROUP BY queue ORDER BY queue";

/// Counts the jobs that are not handed out, by queue.
pub async fn by_queue(conn: &mut Conn) -> Result<Vec<Depth>> {
    Ok(sql_query(DEPTHS).bind::<BigInt, _>(COUNT_CAP).load(conn).await?)
}

/// What needs attention.
#[derive(Debug, Clone, Copy, PartialEq, QueryableByName)]
pub struct Attention {
    /// Seconds since the job that has waited longest for nothing but a relay and a worker could have started.
    #[diesel(sql_type = Double)]
    pub oldest_runnable_s: f64,
    /// Jobs that are handed out or running.
    #[diesel(sql_type = BigInt)]
    pub leased: i64,
    /// Jobs that cannot go on by themselves.
    #[diesel(sql_type = BigInt)]
    pub dead: i64,
    /// Sends whose outcome a person must decide.
    #[diesel(sql_type = BigInt)]
    pub unknown_sends: i64,
}

/// A lane is late from the moment it was due; a job without a lane from when it was enqueued or came due.
const ATTENTION: &str = "\
SELECT GREATEST(0,
        COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - (SELECT runnable_at FROM lanes
            WHERE runnable_at IS NOT NULL AND paused_at IS NULL ORDER BY runnable_at LIMIT 1)), 0),
        COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - (
            SELECT min(GREATEST(j.created_at, j.scheduled_at)) FROM (
                SELECT p.job_id FROM (SELECT job_id, queue, organization_id, seq FROM pending
                    WHERE lane_id IS NULL AND due_at IS NULL LIMIT $1) AS p
                WHERE NOT EXISTS (SELECT FROM queue_pauses s
                    WHERE s.organization_id = p.organization_id AND s.queue = p.queue)
                ORDER BY p.seq LIMIT 1) AS head
            JOIN jobs j ON j.id = head.job_id)), 0))::float8 AS oldest_runnable_s,
    (SELECT count(*) FROM (SELECT FROM leases LIMIT $1) AS x) AS leased,
    (SELECT count(*) FROM (SELECT FROM job_endings WHERE state = 'dead' LIMIT $1) AS x) AS dead,
    (SELECT count(*) FROM (SELECT FROM sends WHERE state = 'unknown' AND resolved_at IS NULL LIMIT $1) AS x)
        AS unknown_sends";

/// Reads what needs attention.
pub async fn attention(conn: &mut Conn) -> Result<Attention> {
    Ok(sql_query(ATTENTION).bind::<BigInt, _>(COUNT_CAP).get_result(conn).await?)
}
