//! Records how attempts ended: one statement for any number of them.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, SmallInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::{Conn, Result};

/// The end of one attempt.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The job.
    pub job_id: Uuid,
    /// The attempt that ended; with the worker it is the fence.
    pub attempt: i16,
    /// The worker that held the lease.
    pub worker_id: Uuid,
    /// Word for the attempt's row: completed, retry, dead, cancelled, lost. None: the attempt was not spent, no row.
    pub outcome: Option<&'static str>,
    /// What the job becomes.
    pub becomes: Becomes,
    /// The job's result, if it has one.
    pub result: Option<Value>,
    /// What went wrong, for the attempt's row and the job.
    pub error: Option<Value>,
    /// The process died under the attempt.
    pub crashed: bool,
    /// What the lane waits for before its next job.
    pub lane_wait: Option<LaneWait>,
}

/// What a job becomes when its attempt is over.
#[derive(Debug, Clone)]
pub enum Becomes {
    /// It ends: completed, cancelled or dead.
    Final(&'static str),
    /// It may run again at once.
    Available,
    /// It waits.
    Waiting {
        /// How long, from now.
        delay_ms: i64,
        /// Why, as a code: `retry` or the code of a snooze.
        code: String,
        /// Why, as a sentence.
        note: String,
    },
}

/// A lane's pause before its next job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneWait {
    /// How long, from now.
    pub delay_ms: i64,
    /// Why: the code of a limit or of a hold.
    pub code: &'static str,
}

const FINISH: &str = "\
WITH input AS (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        AS t (job_id, attempt, worker_id, outcome, final_state, result, error, delay_ms, wait_code, wait_note,
            crashed, lane_delay_ms, lane_code)
), fenced AS (
    SELECT l.job_id AS id, i.outcome, i.result, i.error, i.delay_ms, i.wait_code, i.wait_note, i.crashed,
        i.lane_delay_ms, i.lane_code, i.final_state AS wanted
    FROM input i JOIN leases l ON l.job_id = i.job_id AND l.attempt = i.attempt AND l.worker_id = i.worker_id
    ORDER BY l.job_id FOR UPDATE OF l
), gone AS (
    DELETE FROM leases USING fenced WHERE leases.job_id = fenced.id
    RETURNING leases.job_id, leases.organization_id, leases.queue, leases.lane_id, leases.order_key, leases.class,
        leases.seq, leases.attempt, leases.crashes, leases.expires_at, leases.worker_id, leases.claimed_at,
        fenced.outcome, fenced.result, fenced.error, fenced.delay_ms, fenced.wait_code, fenced.wait_note,
        fenced.crashed, fenced.lane_delay_ms, fenced.lane_code,
        -- Somebody asked for it to be cancelled while it ran: it does not go round again.
        COALESCE(fenced.wanted, CASE WHEN leases.cancel_requested_at IS NOT NULL THEN 'cancelled' END) AS final_state
), ended AS (
    UPDATE jobs SET final_state = g.final_state, attempt = g.attempt, result = g.result, error = g.error,
        started_at = g.claimed_at, finalized_at = clock_timestamp()
    FROM gone g WHERE jobs.id = g.job_id AND g.final_state IS NOT NULL
    RETURNING jobs.id, jobs.organization_id, jobs.final_state, jobs.unique_key
), endings AS (
    INSERT INTO job_endings (job_id, organization_id, state)
    SELECT id, organization_id, final_state FROM ended WHERE final_state <> 'completed'
), released AS (
    DELETE FROM unique_keys USING ended
    WHERE unique_keys.organization_id = ended.organization_id AND unique_keys.key = ended.unique_key
      AND unique_keys.job_id = ended.id
), logged AS (
    INSERT INTO attempts (job_id, attempt, worker_id, started_at, finished_at, outcome, error)
    SELECT job_id, attempt, worker_id, claimed_at, clock_timestamp(), outcome, error FROM gone
    WHERE outcome IS NOT NULL
    ON CONFLICT DO NOTHING
), back AS (
    INSERT INTO pending (job_id, organization_id, queue, lane_id, order_key, class, seq, attempt, crashes, due_at,
        wait_code, wait_note, expires_at)
    SELECT job_id, organization_id, queue, lane_id, order_key, class, seq,
        CASE WHEN outcome IS NULL THEN attempt - 1 ELSE attempt END, crashes + crashed::int::smallint,
        clock_timestamp() + delay_ms * interval '1 millisecond', wait_code, wait_note, expires_at
    FROM gone WHERE final_state IS NULL
), freed AS (
    UPDATE lanes SET busy_job_id = NULL,
        runnable_at = clock_timestamp() + COALESCE(g.lane_delay_ms, 0) * interval '1 millisecond',
        wait_code = g.lane_code
    FROM (SELECT job_id, lane_id, lane_delay_ms, lane_code FROM gone WHERE lane_id IS NOT NULL ORDER BY lane_id) g
    WHERE lanes.id = g.lane_id AND lanes.busy_job_id = g.job_id
)
SELECT job_id FROM gone";

#[derive(QueryableByName)]
struct Gone {
    #[diesel(sql_type = SqlUuid)]
    job_id: Uuid,
}

/// Records the ends of attempts and returns the jobs for which that was still ours to do.
///
/// A job that is missing from the answer had been taken away (its lease expired and was rescued): nothing of it was
/// changed. Frees the lanes of those that are in the answer.
pub async fn finish(conn: &mut Conn, ends: &[Finish]) -> Result<Vec<Uuid>> {
    let waiting = |end: &Finish| match &end.becomes {
        Becomes::Waiting { delay_ms, code, note } => Some((*delay_ms, code.clone(), note.clone())),
        _ => None,
    };
    let rows = sql_query(FINISH)
        .bind::<Array<SqlUuid>, _>(ends.iter().map(|end| end.job_id).collect::<Vec<_>>())
        .bind::<Array<SmallInt>, _>(ends.iter().map(|end| end.attempt).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(ends.iter().map(|end| end.worker_id).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(ends.iter().map(|end| end.outcome).collect::<Vec<_>>())
        .bind::<Array<Nullable<Text>>, _>(
            ends.iter()
                .map(|end| match end.becomes {
                    Becomes::Final(state) => Some(state),
                    _ => None,
                })
                .collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<Jsonb>>, _>(ends.iter().map(|end| end.result.as_ref()).collect::<Vec<_>>())
        .bind::<Array<Nullable<Jsonb>>, _>(ends.iter().map(|end| end.error.as_ref()).collect::<Vec<_>>())
        .bind::<Array<Nullable<BigInt>>, _>(
            ends.iter().map(|end| waiting(end).map(|w| w.0)).collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<Text>>, _>(
            ends.iter().map(|end| waiting(end).map(|w| w.1)).collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<Text>>, _>(
            ends.iter().map(|end| waiting(end).map(|w| w.2)).collect::<Vec<_>>(),
        )
        .bind::<Array<Bool>, _>(ends.iter().map(|end| end.crashed).collect::<Vec<_>>())
        .bind::<Array<Nullable<BigInt>>, _>(
            ends.iter().map(|end| end.lane_wait.as_ref().map(|wait| wait.delay_ms)).collect::<Vec<_>>(),
        )
        .bind::<Array<Nullable<Text>>, _>(
            ends.iter().map(|end| end.lane_wait.as_ref().map(|wait| wait.code)).collect::<Vec<_>>(),
        )
        .cached()
        .load::<Gone>(conn)
        .await?;
    Ok(rows.into_iter().map(|row| row.job_id).collect())
}
