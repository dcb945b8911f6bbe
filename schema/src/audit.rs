//! The audit log: who did what, to which thing, from where. Append only.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::tables::audit_log;
use crate::{Conn, Result};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = audit_log)]
pub struct Entry {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// Who did it; none: the platform, or somebody who was not let in.
    pub user_id: Option<Uuid>,
    /// What was done: `account.update`, `job.cancel`.
    pub action: String,
    /// What it was done to: `account`, `job`.
    pub target_kind: String,
    /// Its id.
    pub target_id: Option<String>,
    /// What was changed, as it was. Never a secret.
    pub before: Option<Value>,
    /// What was changed, as it is. Never a secret.
    pub after: Option<Value>,
    /// Network address of the caller.
    pub address: Option<String>,
    /// Ties the line to the request.
    pub trace_id: String,
}

/// A line as it is read: with its time.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = audit_log)]
pub struct Line {
    /// The line.
    #[diesel(embed)]
    pub entry: Entry,
    /// When it was written.
    pub created_at: DateTime<Utc>,
}

/// Writes a line in the caller's transaction, so that it exists exactly when the change does.
pub async fn write(conn: &mut Conn, entry: &Entry) -> Result<()> {
    diesel::insert_into(audit_log::table).values(entry).execute(conn).await?;
    Ok(())
}

/// Returns the organisation's lines, newest first, older than `before`.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Line>> {
    let mut query = audit_log::table
        .filter(audit_log::organization_id.eq(organization))
        .order(audit_log::id.desc())
        .limit(limit)
        .select(Line::as_select())
        .into_boxed();
    if let Some(before) = before {
        query = query.filter(audit_log::id.lt(before));
    }
    Ok(query.load(conn).await?)
}
