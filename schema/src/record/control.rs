//! What people do to jobs: cancel, revive, resolve; and what time does to them: expire.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// What a cancel found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The job was waiting and is cancelled.
    Now,
    /// The job is running; its attempt is told to stop and decides.
    Requested,
    /// Its message is on the way to the provider and cannot be called back.
    TooLate,
    /// The job had ended before.
    Ended,
}

/// Ends the jobs in `gone` (rows of `pending` or `leases`, with `job_id`) without an attempt.
const END: &str = "\
ended AS (
    UPDATE jobs SET final_state = 'cancelled', finalized_at = clock_timestamp(), attempt = gone.attempt, error = $2
    FROM gone WHERE jobs.id = gone.job_id
    RETURNING jobs.id, jobs.organization_id, jobs.unique_key
), endings AS (
    INSERT INTO job_endings (job_id, organization_id, state) SELECT id, organization_id, 'cancelled' FROM ended
), released AS (
    DELETE FROM unique_keys USING ended
    WHERE unique_keys.organization_id = ended.organization_id AND unique_keys.key = ended.unique_key
      AND unique_keys.job_id = ended.id
)";

/// Marks the lanes of jobs in `gone` that have held back their conversation (`held`): what stood behind them may run.
///
/// A lane that somebody else is busy with is skipped: its holder may wait for a row of `pending` that is ours. The sweep
/// of lanes finds it later.
const MARK: &str = "\
locked AS (
    SELECT id FROM lanes WHERE id IN (SELECT lane_id FROM gone WHERE held)
      AND busy_job_id IS NULL AND runnable_at IS NULL ORDER BY id FOR UPDATE SKIP LOCKED
), marked AS (
    UPDATE lanes SET runnable_at = now(), wait_code = NULL, busy_job_id = NULL FROM locked WHERE lanes.id = locked.id
)";

/// What `gone` tells of a row of `pending`.
const GONE: &str = "pending.job_id, pending.attempt, pending.lane_id, \
    pending.due_at IS NOT NULL AND pending.wait_code <> 'scheduled' AS held";

#[derive(QueryableByName)]
struct Ended {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

#[derive(QueryableByName)]
struct Running {
    #[diesel(sql_type = Bool)]
    claimed: bool,
    #[diesel(sql_type = Bool)]
    sending: bool,
}

/// Cancels up to a few thousand waiting jobs of one organisation and returns those that were waiting.
pub async fn cancel_waiting(
    conn: &mut Conn,
    organization: Uuid,
    jobs: &[Uuid],
    error: &Value,
) -> Result<Vec<Uuid>> {
    let statement = format!(
        "WITH target AS (
            SELECT job_id FROM pending WHERE job_id = ANY($1) AND organization_id = $3 ORDER BY job_id FOR UPDATE
        ), gone AS (
            DELETE FROM pending USING target WHERE pending.job_id = target.job_id
            RETURNING {GONE}
        ), {END}, {MARK}
        SELECT id FROM ended"
    );
    let rows = sql_query(statement)
        .bind::<Array<SqlUuid>, _>(jobs)
        .bind::<Jsonb, _>(error)
        .bind::<SqlUuid, _>(organization)
        .load::<Ended>(conn)
        .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Cancels one job of `organization`, wherever it stands. Runs in the caller's transaction; none: there is no such job.
pub async fn cancel(
    conn: &mut Conn,
    organization: Uuid,
    job: Uuid,
    error: &Value,
) -> Result<Option<Cancelled>> {
    use crate::tables::jobs;
    // Twice: between the two statements of one pass a job may move from `pending` to `leases` or back.
    for _ in 0..2 {
        if !cancel_waiting(conn, organization, &[job], error).await?.is_empty() {
            return Ok(Some(Cancelled::Now));
        }
        if let Some(found) = cancel_leased(conn, organization, job, error).await? {
            return Ok(Some(found));
        }
    }
    let known = jobs::table
        .filter(jobs::id.eq(job).and(jobs::organization_id.eq(organization)))
        .select(jobs::id)
        .first::<Uuid>(conn)
        .await
        .optional()?;
    Ok(known.map(|_| Cancelled::Ended))
}

async fn cancel_leased(
    conn: &mut Conn,
    organization: Uuid,
    job: Uuid,
    error: &Value,
) -> Result<Option<Cancelled>> {
    let Some(lease) = sql_query(
        "SELECT l.worker_id IS NOT NULL AS claimed, EXISTS (SELECT FROM sends s WHERE s.job_id = l.job_id \
         AND s.started_at >= l.claimed_at AND s.state <> 'failed') AS sending FROM leases l WHERE l.job_id = $1 AND l.organization_id = $2 FOR UPDATE",
    )
    .bind::<SqlUuid, _>(job)
    .bind::<SqlUuid, _>(organization)
    .get_result::<Running>(conn)
    .await
    .optional()?
    else {
        return Ok(None);
    };
    if lease.sending {
        return Ok(Some(Cancelled::TooLate));
    }
    if lease.claimed {
        sql_query("UPDATE leases SET cancel_requested_at = COALESCE(cancel_requested_at, clock_timestamp()) WHERE job_id = $1")
            .bind::<SqlUuid, _>(job)
            .execute(conn)
            .await?;
        return Ok(Some(Cancelled::Requested));
    }
    // On its way through Redis: the delivery will find no lease.
    let statement = format!(
        "WITH gone AS (
            DELETE FROM leases WHERE job_id = $1 AND worker_id IS NULL
            RETURNING job_id, lane_id, (attempt - 1)::smallint AS attempt
        ), {END}, freed AS (
            UPDATE lanes SET busy_job_id = NULL, runnable_at = clock_timestamp()
            FROM gone WHERE lanes.id = gone.lane_id AND lanes.busy_job_id = gone.job_id
        )
        SELECT id FROM ended"
    );
    sql_query(statement).bind::<SqlUuid, _>(job).bind::<Jsonb, _>(error).load::<Ended>(conn).await?;
    Ok(Some(Cancelled::Now))
}

/// Cancels up to `limit` waiting jobs whose `expires_at` has passed. Returns how many.
pub async fn expire(conn: &mut Conn, limit: i64, error: &Value) -> Result<usize> {
    let statement = format!(
        "WITH target AS (
            SELECT job_id FROM pending WHERE expires_at <= (SELECT clock_timestamp())
            ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM pending USING target WHERE pending.job_id = target.job_id
            RETURNING {GONE}
        ), {END}, {MARK}
        SELECT id FROM ended"
    );
    let rows =
        sql_query(statement).bind::<BigInt, _>(limit).bind::<Jsonb, _>(error).load::<Ended>(conn).await?;
    Ok(rows.len())
}

/// Puts jobs that have ended back among the waiting; `chosen` selects them and `$1` to `$3` are its parameters.
const REVIVE: &str = "\
target AS (
    SELECT e.job_id FROM job_endings e JOIN jobs j ON j.id = e.job_id
    WHERE e.job_id = ANY($1) AND e.organization_id = $2 AND e.state = 'dead'
      AND (j.expires_at IS NULL OR j.expires_at > clock_timestamp())
      AND ($3 OR NOT EXISTS (SELECT FROM sends s WHERE s.job_id = e.job_id AND s.state IN ('unknown', 'sending')
          AND s.resolved_at IS NULL))
      AND NOT EXISTS (SELECT FROM unique_keys u WHERE u.organization_id = j.organization_id AND u.key = j.unique_key)
    ORDER BY e.job_id FOR UPDATE OF e
), keyed AS (
    -- Two dead jobs may share a key: the first one gets it.
    INSERT INTO unique_keys (organization_id, key, job_id)
    SELECT j.organization_id, j.unique_key, j.id FROM target JOIN jobs j ON j.id = target.job_id
    WHERE j.unique_key IS NOT NULL ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING RETURNING job_id
), opened AS (
    DELETE FROM job_endings USING target JOIN jobs j ON j.id = target.job_id
    WHERE job_endings.job_id = target.job_id
      AND (j.unique_key IS NULL OR target.job_id IN (SELECT job_id FROM keyed))
    RETURNING job_endings.job_id
), revived AS (
    UPDATE jobs SET final_state = NULL, finalized_at = NULL, result = NULL, error = NULL,
        max_attempts = GREATEST(max_attempts, attempt + 1)
    FROM opened WHERE jobs.id = opened.job_id
    RETURNING jobs.id, jobs.organization_id, jobs.queue, jobs.lane_id, jobs.order_key, jobs.class, jobs.attempt,
        jobs.expires_at
), waiting AS (
    INSERT INTO pending (job_id, organization_id, queue, lane_id, order_key, class, attempt, expires_at)
    SELECT id, organization_id, queue, lane_id, order_key, class, attempt, expires_at FROM revived ORDER BY id
), locked AS (
    SELECT id, runnable_at, busy_job_id FROM lanes WHERE id IN (SELECT lane_id FROM revived) ORDER BY id FOR UPDATE
), marked AS (
    UPDATE lanes SET runnable_at = now(), wait_code = NULL, busy_job_id = NULL FROM locked
    WHERE lanes.id = locked.id AND locked.busy_job_id IS NULL AND locked.runnable_at IS NULL
)";

/// Revives dead jobs of `organization`: each keeps its attempts and gets at least one more. Returns those it revived.
///
/// A job whose send has an unknown outcome is not among them, since running it again could send twice (see
/// [`resolve_resend`]); nor is one that has expired, or whose unique key another live job holds.
pub async fn revive(conn: &mut Conn, organization: Uuid, jobs: &[Uuid]) -> Result<Vec<Uuid>> {
    revive_where(conn, organization, jobs, false).await
}

async fn revive_where(
    conn: &mut Conn,
    organization: Uuid,
    jobs: &[Uuid],
    even_if_unknown: bool,
) -> Result<Vec<Uuid>> {
    let rows = sql_query(format!("WITH {REVIVE} SELECT id FROM revived"))
        .bind::<Array<SqlUuid>, _>(jobs)
        .bind::<SqlUuid, _>(organization)
        .bind::<Bool, _>(even_if_unknown)
        .load::<Ended>(conn)
        .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Ends a send of unknown outcome by a person's word (`sent` or `failed`). Returns false if there is none to resolve.
///
/// Runs in the caller's transaction.
pub async fn resolve_as(
    conn: &mut Conn,
    organization: Uuid,
    job: Uuid,
    verdict: &str,
    by: Option<Uuid>,
) -> Result<bool> {
    let statement = "\
WITH settled AS (
    UPDATE sends SET state = $3, resolved_as = $3, resolved_by = $4, resolved_at = clock_timestamp()
    WHERE job_id = $1 AND organization_id = $2 AND state = 'unknown' AND resolved_at IS NULL
    RETURNING job_id, new_msg_id
), ended AS (
    UPDATE jobs SET
        final_state = CASE WHEN $3 = 'sent' THEN 'completed' ELSE 'dead' END,
        error = CASE WHEN $3 = 'sent' THEN NULL ELSE jobs.error END,
        result = COALESCE(jobs.result, '{}') || jsonb_build_object('send_status', $3)
    FROM settled WHERE jobs.id = settled.job_id AND jobs.final_state IS NOT NULL
    RETURNING jobs.id
), closed AS (
    DELETE FROM job_endings USING ended WHERE job_endings.job_id = ended.id AND $3 = 'sent'
)
SELECT id FROM ended";
    let rows = sql_query(statement)
        .bind::<SqlUuid, _>(job)
        .bind::<SqlUuid, _>(organization)
        .bind::<Text, _>(verdict)
        .bind::<Nullable<SqlUuid>, _>(by)
        .load::<Ended>(conn)
        .await?;
    Ok(!rows.is_empty())
}

/// Sends again what a person decided to send again. Returns false if there is nothing to resolve.
///
/// The uncertain send keeps its record and is marked as resolved. Runs in the caller's transaction.
pub async fn resolve_resend(
    conn: &mut Conn,
    organization: Uuid,
    job: Uuid,
    by: Option<Uuid>,
) -> Result<bool> {
    use crate::tables::sends;
    let settled = diesel::update(sends::table)
        .filter(sends::job_id.eq(job).and(sends::organization_id.eq(organization)))
        .filter(sends::state.eq("unknown").and(sends::resolved_at.is_null()))
        .set((
            sends::resolved_as.eq("resend"),
            sends::resolved_by.eq(by),
            sends::resolved_at.eq(diesel::dsl::now),
        ))
        .execute(conn)
        .await?;
    if settled == 0 {
        return Ok(false);
    }
    Ok(!revive_where(conn, organization, &[job], true).await?.is_empty())
}
