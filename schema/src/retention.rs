//! Deletes what nobody needs any more, in slices.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Nullable, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{Conn, Result};

/// What one slice of pruning did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Pruned {
    /// Jobs removed.
    #[diesel(sql_type = BigInt)]
    pub removed: i64,
    /// Where to go on; none: nothing old is left.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub last: Option<Uuid>,
}

/// The id below which all is that was made more than `$days` ago, and an hour of what was made after that: the clock of
/// the process that makes ids may be ahead of the database's.
///
/// Ids grow with time, so the oldest rows are the first of the primary key: no index on times is needed, and where
/// nothing is old nothing is read.
macro_rules! first_young_id {
    ($days:literal) => {
        concat!(
            "(SELECT (rpad(lpad(to_hex((EXTRACT(EPOCH FROM now() - make_interval(days => ",
            $days,
            ") + interval '1 hour') * 1000)::bigint), 12, '0'), 32, '0'))::uuid)"
        )
    };
}

const PRUNE_JOBS: &str = concat!(
    "\
WITH slice AS (
    SELECT id, final_state, finalized_at FROM jobs
    WHERE id > $1 AND id < ",
    first_young_id!("LEAST($2, $3)"),
    " AND created_at < now() - make_interval(days => LEAST($2, $3))
    ORDER BY id LIMIT $4
), old AS (
    SELECT id FROM slice
    WHERE finalized_at < now() - make_interval(days => CASE final_state WHEN 'dead' THEN $3 ELSE $2 END)
      -- An undecided send is decided through its job.
      AND NOT EXISTS (SELECT FROM sends WHERE sends.job_id = slice.id AND sends.state = 'unknown'
          AND sends.resolved_at IS NULL)
), a AS (
    DELETE FROM attempts USING old WHERE attempts.job_id = old.id
), e AS (
    DELETE FROM job_endings USING old WHERE job_endings.job_id = old.id
), j AS (
    DELETE FROM jobs USING old WHERE jobs.id = old.id RETURNING jobs.id
)
SELECT (SELECT count(*) FROM j) AS removed, (SELECT id FROM slice ORDER BY id DESC LIMIT 1) AS last"
);

/// Removes up to `limit` jobs after `after` that ended longer ago than the days given.
pub async fn prune_jobs(
    conn: &mut Conn,
    after: Uuid,
    keep_days: i32,
    keep_dead_days: i32,
    limit: i64,
) -> Result<Pruned> {
    Ok(sql_query(PRUNE_JOBS)
        .bind::<SqlUuid, _>(after)
        .bind::<Integer, _>(keep_days)
        .bind::<Integer, _>(keep_dead_days)
        .bind::<BigInt, _>(limit)
        .get_result(conn)
        .await?)
}

/// Removes up to `limit` settled send records that are older than `keep_days`. Returns how many.
///
/// The limits look back one day, so nothing younger than two days is ever removed.
pub async fn prune_sends(conn: &mut Conn, keep_days: i32, limit: i64) -> Result<i64> {
    let removed = sql_query(concat!(
        "DELETE FROM sends WHERE id IN (SELECT id FROM sends WHERE id < ",
        first_young_id!("GREATEST($1, 2)"),
        " AND started_at < now() - make_interval(days => GREATEST($1, 2)) \
         AND (state IN ('sent', 'failed') OR resolved_at IS NOT NULL) ORDER BY id LIMIT $2)"
    ))
    .bind::<Integer, _>(keep_days)
    .bind::<BigInt, _>(limit)
    .execute(conn)
    .await?;
    Ok(removed as i64)
}

/// Removes idempotency keys older than `keep_days` and login failures older than a day. Returns how many.
pub async fn expire_keys(conn: &mut Conn, keep_days: i32) -> Result<usize> {
    let keys = sql_query("DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(days => $1)")
        .bind::<Integer, _>(keep_days)
        .execute(conn)
        .await?;
    let failures = sql_query("DELETE FROM login_failures WHERE failed_at < now() - interval '1 day'")
        .execute(conn)
        .await?;
    Ok(keys + failures)
}

/// Removes up to `limit` callback events that were processed and are older than `keep_days`. Returns how many.
///
/// Their keys stay: an event that comes again is known for ever.
pub async fn prune_callbacks(conn: &mut Conn, keep_days: i32, limit: i64) -> Result<i64> {
    let removed = sql_query(concat!(
        "DELETE FROM callback_events WHERE id IN (SELECT id FROM callback_events WHERE id < ",
        first_young_id!("GREATEST($1, 1)"),
        " AND received_at < now() - make_interval(days => GREATEST($1, 1)) \
         AND processed_at IS NOT NULL ORDER BY id LIMIT $2)"
    ))
    .bind::<Integer, _>(keep_days)
    .bind::<BigInt, _>(limit)
    .execute(conn)
    .await?;
    Ok(removed as i64)
}
