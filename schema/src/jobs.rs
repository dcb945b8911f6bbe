//! Single facts about jobs that are not lists: their attempts, and how many wait.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::tables::{attempts, idempotency_keys, job_endings, sends};
use crate::{Conn, Result};

/// One attempt that is over.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = attempts)]
pub struct Attempt {
    /// Counted from 1.
    pub attempt: i16,
    /// The process that ran it.
    pub worker_id: Uuid,
    /// When it was claimed.
    pub started_at: DateTime<Utc>,
    /// When its end was recorded.
    pub finished_at: DateTime<Utc>,
    /// `completed`, `retry`, `dead`, `cancelled` or `lost`.
    pub outcome: String,
    /// What went wrong.
    pub error: Option<Value>,
}

/// Returns a job's attempts, the latest 100, in their order.
pub async fn attempts(conn: &mut Conn, job: Uuid) -> Result<Vec<Attempt>> {
    let mut latest: Vec<Attempt> = attempts::table
        .filter(attempts::job_id.eq(job))
        .order(attempts::attempt.desc())
        .limit(100)
        .select(Attempt::as_select())
        .load(conn)
        .await?;
    latest.reverse();
    Ok(latest)
}

/// Tells how a job ended, if it ended as `cancelled` or `dead`. For a caller whose change was refused.
pub async fn ending(conn: &mut Conn, organization: Uuid, job: Uuid) -> Result<Option<String>> {
    Ok(job_endings::table
        .find(job)
        .filter(job_endings::organization_id.eq(organization))
        .select(job_endings::state)
        .first(conn)
        .await
        .optional()?)
}

/// Tells whether a send of the job waits for a person's word on its outcome.
pub async fn outcome_unknown(conn: &mut Conn, organization: Uuid, job: Uuid) -> Result<bool> {
    let found: Option<Uuid> = sends::table
        .filter(sends::job_id.eq(job).and(sends::organization_id.eq(organization)))
        .filter(sends::state.eq("unknown").and(sends::resolved_at.is_null()))
        .select(sends::id)
        .first(conn)
        .await
        .optional()?;
    Ok(found.is_some())
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Counts what waits in a lane, up to `limit`: jobs that may run and jobs that wait for a retry, but not those that
/// were asked for a later time.
pub async fn waiting_in_lane(conn: &mut Conn, lane: Uuid, limit: i64) -> Result<i64> {
    Ok(sql_query(
        "SELECT (SELECT count(*) FROM (SELECT FROM pending \
             WHERE lane_id = $1 AND due_at IS NULL LIMIT $2) AS a) \
         + (SELECT count(*) FROM (SELECT FROM pending \
             WHERE lane_id = $1 AND due_at IS NOT NULL AND wait_code <> 'scheduled' LIMIT $2) AS b) AS n",
    )
    .bind::<SqlUuid, _>(lane)
    .bind::<BigInt, _>(limit)
    .get_result::<Count>(conn)
    .await?
    .n)
}

/// Counts what waits in an organisation, up to `limit`, whatever it waits for.
pub async fn waiting_in_organization(conn: &mut Conn, organization: Uuid, limit: i64) -> Result<i64> {
    Ok(sql_query(
        "SELECT count(*) AS n FROM (SELECT FROM pending WHERE organization_id = $1 LIMIT $2) AS waiting",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<BigInt, _>(limit)
    .get_result::<Count>(conn)
    .await?
    .n)
}

/// Returns the job that an idempotency key made, and the hash of the request that it was used with.
pub async fn by_idempotency_key(
    conn: &mut Conn,
    organization: Uuid,
    key: &str,
) -> Result<Option<(Uuid, Vec<u8>)>> {
    Ok(idempotency_keys::table
        .find((organization, key))
        .select((idempotency_keys::job_id, idempotency_keys::request_hash))
        .first(conn)
        .await
        .optional()?)
}
