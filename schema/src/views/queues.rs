//! Queues with what an organisation has in them.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{Conn, Result};

/// Counts of one organisation stop here, over all its queues.
pub const COUNT_CAP: i64 = 1_000_000;
/// The count of dead jobs stops here, over all queues.
pub const DEAD_CAP: i64 = 10_000;

/// What an organisation has in one queue. A queue in which it has nothing is missing.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Counts {
    /// Name of the queue.
    #[diesel(sql_type = Text)]
    pub queue: String,
    /// Jobs that wait for the time they were asked for.
    #[diesel(sql_type = BigInt)]
    pub scheduled: i64,
    /// Jobs that may run, and those handed out but not yet claimed.
    #[diesel(sql_type = BigInt)]
    pub available: i64,
    /// Jobs that a worker has.
    #[diesel(sql_type = BigInt)]
    pub running: i64,
    /// Jobs that wait for a retry.
    #[diesel(sql_type = BigInt)]
    pub retryable: i64,
    /// Jobs that cannot go on by themselves.
    #[diesel(sql_type = BigInt)]
    pub dead: i64,
    /// When the oldest available job was enqueued or came due.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub oldest_available_at: Option<DateTime<Utc>>,
}

const COUNTS: &str = "\
WITH waiting AS (
    SELECT queue, count(*) FILTER (WHERE wait_code = 'scheduled') AS scheduled,
        count(*) FILTER (WHERE due_at IS NULL) AS available,
        count(*) FILTER (WHERE due_at IS NOT NULL AND wait_code <> 'scheduled') AS retryable,
        min(seq) FILTER (WHERE due_at IS NULL) AS first_seq
    FROM (SELECT queue, due_at, wait_code, seq FROM pending WHERE organization_id = $1 LIMIT $2) AS p GROUP BY queue
), out AS (
    SELECT queue, count(*) FILTER (WHERE worker_id IS NULL) AS available,
        count(*) FILTER (WHERE worker_id IS NOT NULL) AS running
    FROM leases WHERE organization_id = $1 GROUP BY queue
), ended AS (
    SELECT j.queue, count(*) AS dead
    FROM (SELECT job_id FROM job_endings WHERE organization_id = $1 AND state = 'dead' LIMIT $3) AS e
    JOIN jobs j ON j.id = e.job_id GROUP BY j.queue
), oldest AS (
    SELECT w.queue, min(GREATEST(j.created_at, j.scheduled_at)) AS at
    FROM waiting w JOIN (SELECT job_id, queue, seq FROM pending WHERE organization_id = $1 LIMIT $2) AS p
        ON p.queue = w.queue AND p.seq = w.first_seq
    JOIN jobs j ON j.id = p.job_id GROUP BY w.queue
), names AS (
    SELECT queue FROM waiting UNION SELECT queue FROM out UNION SELECT queue FROM ended
)
SELECT n.queue, COALESCE(w.scheduled, 0) AS scheduled, COALESCE(w.available, 0) + COALESCE(o.available, 0) AS available,
    COALESCE(o.running, 0) AS running, COALESCE(w.retryable, 0) AS retryable, COALESCE(e.dead, 0) AS dead,
    a.at AS oldest_available_at
FROM names n LEFT JOIN waiting w USING (queue) LEFT JOIN out o USING (queue) LEFT JOIN ended e USING (queue)
    LEFT JOIN oldest a USING (queue)
ORDER BY n.queue";

/// Counts what the organisation has in its queues.
pub async fn counts(conn: &mut Conn, organization: Uuid) -> Result<Vec<Counts>> {
    Ok(sql_query(COUNTS)
        .bind::<SqlUuid, _>(organization)
        .bind::<BigInt, _>(COUNT_CAP)
        .bind::<BigInt, _>(DEAD_CAP)
        .load(conn)
        .await?)
}
