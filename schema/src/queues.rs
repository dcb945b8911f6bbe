//! Queues that an organisation has paused for itself.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::queue_pauses;
use crate::{Conn, Result};

/// Stops handing out the organisation's jobs of a queue. Returns false if it was paused already.
///
/// In force for every send whose gate has not been passed when this commits.
pub async fn pause(conn: &mut Conn, organization: Uuid, queue: &str) -> Result<bool> {
    let changed = diesel::insert_into(queue_pauses::table)
        .values((queue_pauses::organization_id.eq(organization), queue_pauses::queue.eq(queue)))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    Ok(changed == 1)
}

/// Lets a queue run again. Returns false if it was not paused.
///
/// Marks every lane of the organisation in which something waits: while the queue was paused the relay has found
/// nothing in them and has forgotten them.
pub async fn resume(conn: &mut Conn, organization: Uuid, queue: &str) -> Result<bool> {
    let changed = diesel::delete(queue_pauses::table.find((organization, queue))).execute(conn).await?;
    sql_query(
        "WITH waiting AS ( \
             SELECT l.id FROM lanes l WHERE l.organization_id = $1 AND l.busy_job_id IS NULL AND EXISTS ( \
                 SELECT FROM pending p WHERE p.lane_id = l.id AND p.due_at IS NULL AND p.queue = $2) \
             ORDER BY l.id FOR UPDATE \
         ) UPDATE lanes SET runnable_at = clock_timestamp(), wait_code = NULL \
         FROM waiting WHERE lanes.id = waiting.id AND lanes.busy_job_id IS NULL",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Text, _>(queue)
    .execute(conn)
    .await?;
    Ok(changed == 1)
}

/// Returns the queues that the organisation has paused, and since when.
pub async fn paused(conn: &mut Conn, organization: Uuid) -> Result<Vec<(String, DateTime<Utc>)>> {
    Ok(queue_pauses::table
        .filter(queue_pauses::organization_id.eq(organization))
        .order(queue_pauses::queue)
        .select((queue_pauses::queue, queue_pauses::paused_at))
        .load(conn)
        .await?)
}
