//! Gives a delivery to one worker, and keeps the lease while the worker lives.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, SmallInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::{Conn, Result};

/// A job in a worker's hands, with all that an attempt needs.
#[derive(Debug, Clone, QueryableByName)]
pub struct Claimed {
    /// The job.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// The attempt, counted from 1; fences what the attempt writes.
    #[diesel(sql_type = SmallInt)]
    pub attempt: i16,
    /// The tenant.
    #[diesel(sql_type = SqlUuid)]
    pub organization_id: Uuid,
    /// Name of the job's type.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// The lane it holds.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub lane_id: Option<Uuid>,
    /// Account that the job concerns.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub account_id: Option<Uuid>,
    /// 0 interactive, 1 reply, 2 campaign.
    #[diesel(sql_type = SmallInt)]
    pub class: i16,
    /// Serialised input.
    #[diesel(sql_type = Jsonb)]
    pub args: Value,
    /// Version of the input's form.
    #[diesel(sql_type = SmallInt)]
    pub args_version: i16,
    /// Attempts before the job is dead.
    #[diesel(sql_type = SmallInt)]
    pub max_attempts: i16,
    /// Ties the job to the request that made it.
    #[diesel(sql_type = Text)]
    pub trace_id: String,
    /// The person who asked.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub created_by: Option<Uuid>,
    /// Seconds from when the job was handed out to this claim.
    #[diesel(sql_type = diesel::sql_types::Double)]
    pub pickup_s: f64,
}

const CLAIM: &str = "\
WITH wanted AS (
    SELECT l.job_id FROM unnest($1, $2) AS d (job_id, attempt)
    JOIN leases l ON l.job_id = d.job_id AND l.attempt = d.attempt
    WHERE l.worker_id IS NULL ORDER BY l.job_id FOR UPDATE OF l SKIP LOCKED
), claimed AS (
    UPDATE leases SET worker_id = $3, claimed_at = clock_timestamp(),
        lease_until = clock_timestamp() + $4 * interval '1 millisecond'
    FROM wanted WHERE leases.job_id = wanted.job_id AND leases.worker_id IS NULL
    RETURNING leases.job_id, leases.attempt, leases.claimed_at, leases.dispatched_at
)
SELECT c.job_id, c.attempt, j.organization_id, j.kind, j.lane_id, j.account_id, j.class, j.args, j.args_version,
    j.max_attempts, j.trace_id, j.created_by,
    EXTRACT(EPOCH FROM c.claimed_at - c.dispatched_at)::float8 AS pickup_s
FROM claimed c JOIN jobs j ON j.id = c.job_id";

/// Claims deliveries (job and attempt) for `worker`. A delivery that is missing from the answer was not for us: it is
/// a second one, or its attempt is over.
pub async fn claim(
    conn: &mut Conn,
    deliveries: &[(Uuid, i16)],
    worker: Uuid,
    lease_ms: i64,
) -> Result<Vec<Claimed>> {
    Ok(sql_query(CLAIM)
        .bind::<Array<SqlUuid>, _>(deliveries.iter().map(|d| d.0).collect::<Vec<_>>())
        .bind::<Array<SmallInt>, _>(deliveries.iter().map(|d| d.1).collect::<Vec<_>>())
        .bind::<SqlUuid, _>(worker)
        .bind::<BigInt, _>(lease_ms)
        .cached()
        .load(conn)
        .await?)
}

/// A lease that is still ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Kept {
    /// The job.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// Somebody asked for the running job to be cancelled.
    #[diesel(sql_type = Bool)]
    pub cancel_requested: bool,
}

const KEEP: &str = "\
WITH ours AS (
    SELECT job_id FROM leases WHERE job_id = ANY($1) AND worker_id = $2 ORDER BY job_id FOR UPDATE SKIP LOCKED
), kept AS (
    UPDATE leases SET lease_until = clock_timestamp() + $3 * interval '1 millisecond'
    FROM ours WHERE leases.job_id = ours.job_id RETURNING leases.job_id
)
SELECT l.job_id, l.cancel_requested_at IS NOT NULL AS cancel_requested
FROM leases l WHERE l.job_id = ANY($1) AND l.worker_id = $2";

/// Extends the leases of all that `worker` runs, in one statement.
///
/// A job that is missing from the answer is not ours any more: its attempt must stop.
pub async fn keep(conn: &mut Conn, jobs: &[Uuid], worker: Uuid, lease_ms: i64) -> Result<Vec<Kept>> {
    Ok(sql_query(KEEP)
        .bind::<Array<SqlUuid>, _>(jobs)
        .bind::<SqlUuid, _>(worker)
        .bind::<BigInt, _>(lease_ms)
        .cached()
        .load(conn)
        .await?)
}
