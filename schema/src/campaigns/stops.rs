//! Emergency stops: what must not send until somebody lifts it.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Nullable, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::stops;
use crate::{Conn, Result};

/// An emergency stop.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = stops)]
pub struct Stop {
    /// The tenant.
    pub organization_id: Uuid,
    /// `organization`, `account`, `sop` or `ai`.
    pub scope: String,
    /// What is stopped; the organisation itself for the scopes `organization` and `ai`.
    pub scope_id: Uuid,
    /// Why.
    pub reason: String,
    /// Who stopped it.
    pub stopped_by: Option<Uuid>,
    /// Since when.
    pub stopped_at: DateTime<Utc>,
}

/// Stops something. None: it was stopped already, and the older stop stays as it is.
pub async fn insert(conn: &mut Conn, stop: &Stop) -> Result<Option<Stop>> {
    Ok(diesel::insert_into(stops::table)
        .values(stop)
        .on_conflict_do_nothing()
        .returning(Stop::as_returning())
        .get_result(conn)
        .await
        .optional()?)
}

/// Returns a stop. None: nothing stops it.
pub async fn get(conn: &mut Conn, organization: Uuid, scope: &str, scope_id: Uuid) -> Result<Option<Stop>> {
    Ok(stops::table
        .find((organization, scope, scope_id))
        .select(Stop::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Lifts a stop and returns it. None: there was none.
pub async fn lift(conn: &mut Conn, organization: Uuid, scope: &str, scope_id: Uuid) -> Result<Option<Stop>> {
    let stop = stops::table.find((organization, scope, scope_id));
    Ok(diesel::delete(stop).returning(Stop::as_returning()).get_result(conn).await.optional()?)
}

/// Returns the organisation's stops, newest first; at most `limit`.
pub async fn list(conn: &mut Conn, organization: Uuid, limit: i64) -> Result<Vec<Stop>> {
    Ok(stops::table
        .filter(stops::organization_id.eq(organization))
        .order((stops::stopped_at.desc(), stops::scope_id))
        .limit(limit)
        .select(Stop::as_select())
        .load(conn)
        .await?)
}

/// Waits for the gates that are open just now, of one account or of all of the organisation's, and lets them go again.
///
/// A gate holds its account's row while it looks for stops and until its send is written. So a gate that has not seen a stop
/// that was committed before this call has ended when it returns, and every later one sees the stop. Call it in a
/// transaction of its own.
pub async fn wait_for_gates(conn: &mut Conn, organization: Uuid, account: Option<Uuid>) -> Result<()> {
    sql_query(
        "SELECT id FROM wechat_accounts WHERE organization_id = $1 AND ($2 IS NULL OR id = $2) ORDER BY id FOR UPDATE",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Nullable<SqlUuid>, _>(account)
    .execute(conn)
    .await?;
    Ok(())
}
