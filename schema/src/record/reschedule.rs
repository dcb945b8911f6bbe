//! Moves the time of a job that waits for its time.

use chrono::{DateTime, Utc};
use diesel::sql_query;
use diesel::sql_types::{Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
use crate::{Conn, Result};

/// Only what waits for its own time: neither a retry's backoff nor a limit is shortened.
///
/// `SKIP LOCKED`, because the caller may hold lanes, which come after `pending` in the order of locks: a row that
/// somebody holds is being made available, or cancelled, at this moment.
const RESCHEDULE: &str = "\
WITH waiting AS (
    SELECT job_id FROM pending WHERE job_id = $1 AND due_at IS NOT NULL AND wait_code = 'scheduled'
    FOR UPDATE SKIP LOCKED
)
UPDATE pending SET due_at = $2 FROM waiting WHERE pending.job_id = waiting.job_id";

/// Makes a scheduled job due at `at`. Returns false if it does not wait for its time any more.
///
/// Wake the relay after the commit if the time is earlier than it was: it sleeps until the earliest time that it knows.
pub async fn reschedule(conn: &mut Conn, job: Uuid, at: DateTime<Utc>) -> Result<bool> {
    let moved = sql_query(RESCHEDULE)
        .bind::<SqlUuid, _>(job)
        .bind::<Timestamptz, _>(at)
        .cached()
        .execute(conn)
        .await?;
    Ok(moved == 1)
}
