//! People on an older version of a plan, who go on in a newer one.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{Conn, Result};

/// What became of enrollments that were to go on in another version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, QueryableByName)]
pub struct Moved {
    /// They go on in it.
    #[diesel(sql_type = BigInt)]
    pub moved: i64,
    /// A message of theirs is under way.
    #[diesel(sql_type = BigInt)]
    pub under_way: i64,
    /// The other version does not have their step.
    #[diesel(sql_type = BigInt)]
    pub staying: i64,
    /// The last of them; none: there was nobody.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub last: Option<Uuid>,
}

/// Has the enrollments of one version of a plan go on in another one, those at `steps` of which no message is under way: up to
/// `most` of them, beyond `after`.
pub async fn move_on(
    conn: &mut Conn,
    organization: Uuid,
    sop: Uuid,
    (from, to): (i32, i32),
    steps: &[String],
    after: Uuid,
    most: i64,
) -> Result<Moved> {
    Ok(sql_query(
        "WITH whose AS MATERIALIZED ( \
             SELECT e.id, e.step_id FROM sop_enrollments e \
             WHERE e.sop_id = $2 AND e.organization_id = $1 AND e.version = $3 AND e.finished_at IS NULL AND e.id > $6 \
             ORDER BY e.id LIMIT $7 FOR UPDATE \
         ), seen AS MATERIALIZED ( \
             SELECT whose.id, COALESCE(whose.step_id = ANY($5), false) AS fits, EXISTS (SELECT FROM sop_steps s \
                 WHERE s.enrollment_id = whose.id AND s.step_id = whose.step_id AND s.finished_at IS NULL \
                   AND (s.state IN ('due', 'sending', 'unknown', 'held_for_review') OR s.job_id IS NOT NULL \
                       OR s.run_id IS NOT NULL)) AS busy \
             FROM whose \
         ), moved AS ( \
             UPDATE sop_enrollments SET version = $4 FROM seen \
             WHERE sop_enrollments.id = seen.id AND seen.fits AND NOT seen.busy RETURNING sop_enrollments.id \
         ) \
         SELECT (SELECT count(*) FROM moved) AS moved, count(*) FILTER (WHERE fits AND busy) AS under_way, \
             count(*) FILTER (WHERE NOT fits) AS staying, \
             (SELECT id FROM whose ORDER BY id DESC LIMIT 1) AS last FROM seen",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(sop)
    .bind::<Integer, _>(from)
    .bind::<Integer, _>(to)
    .bind::<Array<Text>, _>(steps)
    .bind::<SqlUuid, _>(after)
    .bind::<BigInt, _>(most)
    .get_result(conn)
    .await?)
}
