//! Lanes: what runs one job at a time.

use std::sync::LazyLock;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::record::dispatch::ELIGIBLE;
use crate::tables::lanes;
use crate::{Conn, Result};

/// Makes the lane of a new account, conversation or enrollment.
pub async fn create(conn: &mut Conn, id: Uuid, organization: Uuid, kind: &str) -> Result<()> {
    diesel::insert_into(lanes::table)
        .values((lanes::id.eq(id), lanes::organization_id.eq(organization), lanes::kind.eq(kind)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Stops handing out the lane's jobs. Returns false if the organisation has no such lane.
///
/// In force for every send whose gate has not been passed when this commits.
pub async fn pause(conn: &mut Conn, organization: Uuid, id: Uuid, reason: &str) -> Result<bool> {
    let changed = diesel::update(lanes::table.find(id).filter(lanes::organization_id.eq(organization)))
        .set((lanes::paused_at.eq(diesel::dsl::now), lanes::paused_reason.eq(reason)))
        .execute(conn)
        .await?;
    Ok(changed == 1)
}

/// Lets the lane run again. Returns false if the organisation has no such lane.
pub async fn resume(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<bool> {
    let changed = sql_query(
        "UPDATE lanes SET paused_at = NULL, paused_reason = NULL, wait_code = NULL, \
         runnable_at = CASE WHEN busy_job_id IS NULL THEN clock_timestamp() END \
         WHERE id = $1 AND organization_id = $2",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(organization)
    .execute(conn)
    .await?;
    Ok(changed == 1)
}

/// Makes a lane that waits for a limit look again at once: its limits were changed.
pub async fn reconsider(conn: &mut Conn, id: Uuid) -> Result<()> {
    sql_query(
        "UPDATE lanes SET runnable_at = clock_timestamp(), wait_code = NULL \
         WHERE id = $1 AND busy_job_id IS NULL AND runnable_at IS NOT NULL",
    )
    .bind::<SqlUuid, _>(id)
    .execute(conn)
    .await?;
    Ok(())
}

static SWEEP: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH unmarked AS ( \
             SELECT l.id FROM lanes l CROSS JOIN LATERAL (SELECT FROM pending p \
                 WHERE p.lane_id = l.id AND {ELIGIBLE} LIMIT 1) AS waiting \
             WHERE l.runnable_at IS NULL AND l.busy_job_id IS NULL ORDER BY l.id FOR UPDATE OF l SKIP LOCKED \
         ), freed AS ( \
             SELECT l.id FROM lanes l WHERE l.busy_job_id IS NOT NULL \
                 AND NOT EXISTS (SELECT FROM leases x WHERE x.job_id = l.busy_job_id) \
             ORDER BY l.id FOR UPDATE OF l SKIP LOCKED \
         ) \
         UPDATE lanes SET runnable_at = clock_timestamp(), busy_job_id = NULL, wait_code = NULL \
         WHERE id IN (SELECT id FROM unmarked UNION ALL SELECT id FROM freed)"
    )
});

/// Marks lanes that should be runnable but are not known to be, and returns how many: the safety net under the marks
/// that enqueueing, finishing and promoting leave.
///
/// What the relay would not hand out, because an earlier message of its conversation waits for its retry or its queue is
/// paused, is no reason to mark a lane. Reads the lanes from end to end, which is cheaper than any way in by an index, and
/// probes once for each lane that is neither marked nor busy.
pub async fn sweep(conn: &mut Conn) -> Result<usize> {
    Ok(sql_query(&*SWEEP).execute(conn).await?)
}

/// Makes every lane of `token_key`'s accounts wait, but for the busy ones: their token was refused.
pub async fn hold_token(
    conn: &mut Conn,
    token_key: Option<&str>,
    delay_ms: i64,
    code: &str,
) -> Result<usize> {
    Ok(sql_query(
        "UPDATE lanes SET runnable_at = clock_timestamp() + $2 * interval '1 millisecond', wait_code = $3 \
         FROM (SELECT a.id FROM wechat_accounts a WHERE a.token_key IS NOT DISTINCT FROM $1 ORDER BY a.id) a \
         WHERE lanes.id = a.id AND lanes.busy_job_id IS NULL AND lanes.runnable_at IS NOT NULL",
    )
    .bind::<Nullable<Text>, _>(token_key)
    .bind::<BigInt, _>(delay_ms)
    .bind::<Text, _>(code)
    .execute(conn)
    .await?)
}
