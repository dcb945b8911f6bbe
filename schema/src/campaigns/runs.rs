//! Runs: the times at which plans took people in, and who is still to be looked at.
//!
//! A run is changed by whoever holds its row ([`lock`]). In the order of locks it comes before contacts.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::sop_runs;
use crate::{Conn, Result};

/// Contacts that one statement writes down.
const PAGE: usize = 20_000;

/// A time at which a plan took people in.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = sop_runs, treat_none_as_null = true)]
pub struct Run {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The plan.
    pub sop_id: Uuid,
    /// The version that was in force when it began.
    pub version: i32,
    /// `manual`, `once` or `cron`.
    pub source: String,
    /// The moment for which it is, by the clock of campaigns.
    pub fire_at: DateTime<Utc>,
    /// `waiting`, `enrolling`, `finished`, `stopped`, `missed` or `refused`.
    pub state: String,
    /// Whom it concerned, when that was written down.
    pub audience: Option<i32>,
    /// When that was.
    pub frozen_at: Option<DateTime<Utc>>,
    /// How many were brought in.
    pub enrolled: i32,
    /// How many were not, by the reason.
    pub refused: Value,
    /// The person of ours who began it.
    pub created_by: Option<Uuid>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Adds a run. False: the plan has one of this very moment.
pub async fn insert(conn: &mut Conn, run: &Run) -> Result<bool> {
    let added =
        diesel::insert_into(sop_runs::table).values(run).on_conflict_do_nothing().execute(conn).await?;
    Ok(added == 1)
}

/// Locks a run.
pub async fn lock(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Run>> {
    Ok(sop_runs::table
        .find(id)
        .filter(sop_runs::organization_id.eq(organization))
        .for_update()
        .select(Run::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Writes a run that the caller has locked.
pub async fn save(conn: &mut Conn, run: &Run) -> Result<()> {
    diesel::update(sop_runs::table.find(run.id)).set(run).execute(conn).await?;
    Ok(())
}

/// Lists a plan's runs, newest first.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    sop: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Run>> {
    let mut query = sop_runs::table
        .filter(sop_runs::organization_id.eq(organization).and(sop_runs::sop_id.eq(sop)))
        .order(sop_runs::id.desc())
        .limit(limit)
        .select(Run::as_select())
        .into_boxed();
    if let Some(before) = before {
        query = query.filter(sop_runs::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Returns the runs of a plan that are not over, oldest first.
pub async fn open(conn: &mut Conn, organization: Uuid, sop: Uuid) -> Result<Vec<Uuid>> {
    Ok(sop_runs::table
        .filter(sop_runs::organization_id.eq(organization).and(sop_runs::sop_id.eq(sop)))
        .filter(sop_runs::finished_at.is_null())
        .order(sop_runs::id)
        .select(sop_runs::id)
        .load(conn)
        .await?)
}

/// Writes down whom a run concerns.
pub async fn add_contacts(conn: &mut Conn, run: Uuid, contacts: &[Uuid]) -> Result<()> {
    for page in contacts.chunks(PAGE) {
        sql_query(
            "INSERT INTO sop_run_contacts (run_id, contact_id) SELECT $1, id FROM unnest($2) AS t (id) ON CONFLICT DO NOTHING",
        )
        .bind::<SqlUuid, _>(run)
        .bind::<Array<SqlUuid>, _>(page)
        .execute(conn)
        .await?;
    }
    Ok(())
}

#[derive(QueryableByName)]
struct Taken {
    #[diesel(sql_type = SqlUuid)]
    contact_id: Uuid,
}

/// Takes the next contacts of a run that the caller has locked: they are looked at if the caller commits.
pub async fn take_contacts(conn: &mut Conn, run: Uuid, limit: i64) -> Result<Vec<Uuid>> {
    let rows: Vec<Taken> = sql_query(
        "WITH next AS MATERIALIZED ( \
             SELECT contact_id FROM sop_run_contacts WHERE run_id = $1 ORDER BY contact_id LIMIT $2 \
         ) \
         DELETE FROM sop_run_contacts USING next \
         WHERE sop_run_contacts.run_id = $1 AND sop_run_contacts.contact_id = next.contact_id \
         RETURNING sop_run_contacts.contact_id",
    )
    .bind::<SqlUuid, _>(run)
    .bind::<BigInt, _>(limit)
    .cached()
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.contact_id).collect())
}
