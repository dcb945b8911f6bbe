//! Lanes: what runs one job at a time.

use std::sync::LazyLock;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
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

/// Returns the lane of an account's calls for which nobody waits.
///
/// The account's id with its last byte turned over: the two lanes stand side by side in lists, and each names the other.
/// `ACCOUNT_OF_BACKGROUND` is the same in SQL.
pub fn background_of(account: Uuid) -> Uuid {
    Uuid::from_u128(account.as_u128() ^ 0xff)
}

/// The other half of a pair of lanes, of an `l.id`: see [`background_of`].
pub(crate) const ACCOUNT_OF_BACKGROUND: &str =
    "encode(set_byte(uuid_send(l.id), 15, get_byte(uuid_send(l.id), 15) # 255), 'hex')::uuid";

/// Makes the background lanes of accounts, given with their organisations; those that are there stay as they are.
pub async fn ensure_background(conn: &mut Conn, accounts: &[(Uuid, Uuid)]) -> Result<()> {
    sql_query(
        "INSERT INTO lanes (id, organization_id, kind) \
         SELECT id, organization_id, 'background' FROM unnest($1, $2) AS t (id, organization_id) ORDER BY id \
         ON CONFLICT DO NOTHING",
    )
    .bind::<Array<SqlUuid>, _>(
        accounts.iter().map(|(account, _)| background_of(*account)).collect::<Vec<_>>(),
    )
    .bind::<Array<SqlUuid>, _>(accounts.iter().map(|(_, organization)| *organization).collect::<Vec<_>>())
    .cached()
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

/// Lanes that one statement of the sweep looks at.
const SLICE: i64 = 1000;

/// Walks the lanes in which something may run, one index probe each, after the lane `$1`.
///
/// A suspect is looked at again with its row locked: whoever was faster has set it right.
static SWEEP: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH RECURSIVE waiting AS ( \
             (SELECT p.lane_id, 1::bigint AS n FROM pending p WHERE p.lane_id > $1 AND p.due_at IS NULL \
                 ORDER BY p.lane_id LIMIT 1) \
             UNION ALL \
             SELECT (SELECT p.lane_id FROM pending p WHERE p.lane_id > w.lane_id AND p.due_at IS NULL \
                 ORDER BY p.lane_id LIMIT 1), w.n + 1 \
             FROM waiting w WHERE w.lane_id IS NOT NULL AND w.n < $2 \
         ), suspect AS MATERIALIZED ( \
             SELECT l.id, l.busy_job_id FROM waiting w JOIN lanes l ON l.id = w.lane_id LEFT JOIN LATERAL ( \
                 SELECT p.job_id FROM pending p WHERE l.busy_job_id IS NULL AND p.lane_id = l.id AND {ELIGIBLE} \
                 ORDER BY p.class, p.seq LIMIT 1) AS next ON true \
             WHERE l.runnable_at IS NULL AND CASE WHEN l.busy_job_id IS NULL THEN next.job_id IS NOT NULL \
                 ELSE NOT EXISTS (SELECT FROM leases x WHERE x.job_id = l.busy_job_id) END \
         ), locked AS ( \
             SELECT l.id FROM suspect s JOIN lanes l ON l.id = s.id \
             WHERE l.runnable_at IS NULL AND l.busy_job_id IS NOT DISTINCT FROM s.busy_job_id \
             ORDER BY l.id FOR UPDATE OF l SKIP LOCKED \
         ), marked AS ( \
             UPDATE lanes SET runnable_at = clock_timestamp(), busy_job_id = NULL, wait_code = NULL \
             FROM locked WHERE lanes.id = locked.id RETURNING lanes.id \
         ) \
         SELECT (SELECT count(*) FROM marked) AS marked, (SELECT w.lane_id FROM waiting w WHERE w.n = $2) AS last"
    )
});

#[derive(QueryableByName)]
struct Swept {
    #[diesel(sql_type = BigInt)]
    marked: i64,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    last: Option<Uuid>,
}

/// Marks lanes that should be runnable but are not known to be, and returns how many: the safety net under the marks
/// that enqueueing, finishing and promoting leave.
///
/// What the relay would not hand out, because an earlier message of its conversation waits for its retry or its queue is
/// paused, is no reason to mark a lane. Costs a few index probes for each lane in which something may run, and nothing for
/// any other: a lane that is busy with a job of nobody's is found once something waits in it, and harms nobody before.
pub async fn sweep(conn: &mut Conn) -> Result<usize> {
    let (mut marked, mut after) = (0, Uuid::nil());
    loop {
        // Each slice commits on its own: however long the backlog, no statement runs into its timeout.
        let swept: Swept = sql_query(&*SWEEP)
            .bind::<SqlUuid, _>(after)
            .bind::<BigInt, _>(SLICE)
            // Planned anew each time: what was planned while nothing waited need not suit a backlog.
            .get_result(conn)
            .await?;
        marked += usize::try_from(swept.marked).unwrap_or(0);
        match swept.last {
            Some(last) => after = last,
            None => return Ok(marked),
        }
    }
}

static HOLD_TOKEN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH accounts AS (SELECT l.id FROM wechat_accounts l WHERE l.token_key IS NOT DISTINCT FROM $1), \
         held AS (SELECT id FROM accounts UNION ALL SELECT {ACCOUNT_OF_BACKGROUND} FROM accounts l), \
         locked AS (SELECT lanes.id FROM lanes WHERE lanes.id IN (SELECT id FROM held) \
             AND lanes.busy_job_id IS NULL AND lanes.runnable_at IS NOT NULL ORDER BY lanes.id FOR UPDATE) \
         UPDATE lanes SET runnable_at = clock_timestamp() + $2 * interval '1 millisecond', wait_code = $3 \
         FROM locked WHERE lanes.id = locked.id"
    )
});

/// Makes every lane of `token_key`'s accounts wait, their background lanes too, but for the busy ones: their token was refused.
pub async fn hold_token(
    conn: &mut Conn,
    token_key: Option<&str>,
    delay_ms: i64,
    code: &str,
) -> Result<usize> {
    Ok(sql_query(&*HOLD_TOKEN)
        .bind::<Nullable<Text>, _>(token_key)
        .bind::<BigInt, _>(delay_ms)
        .bind::<Text, _>(code)
        .execute(conn)
        .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_lanes_of_an_account_name_each_other_and_nobody_else() {
        let account = Uuid::now_v7();
        let lane = background_of(account);
        assert_ne!(lane, account);
        assert_eq!(background_of(lane), account);
        assert_eq!(lane.as_bytes()[..15], account.as_bytes()[..15]);
    }
}
