//! What a person should look at. The same matter raises one alert.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::tables::alerts;
use crate::{Conn, Result};

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look today.
    Warning,
    /// Something stands still until somebody acts.
    Critical,
}

impl Severity {
    /// Returns the word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// An alert to raise.
#[derive(Debug, Clone)]
pub struct NewAlert<'a> {
    /// The tenant.
    pub organization_id: Uuid,
    /// Stable code: `account_offline`, `budget_reached`, `handed_off`.
    pub kind: &'a str,
    /// How much it matters.
    pub severity: Severity,
    /// The matter: the same key raises no second alert, for ever. Put the moment or the period into it.
    pub dedupe_key: &'a str,
    /// A sentence for the person who looks. No secret.
    pub text: &'a str,
    /// The account that it concerns.
    pub account_id: Option<Uuid>,
    /// The conversation that it concerns.
    pub conversation_id: Option<Uuid>,
    /// Facts for a program.
    pub details: Option<Value>,
}

/// Raises an alert in the caller's transaction. Returns false if the same matter has raised it before.
pub async fn raise(conn: &mut Conn, alert: &NewAlert<'_>) -> Result<bool> {
    let raised = diesel::insert_into(alerts::table)
        .values((
            alerts::id.eq(Uuid::now_v7()),
            alerts::organization_id.eq(alert.organization_id),
            alerts::kind.eq(alert.kind),
            alerts::severity.eq(alert.severity.as_str()),
            alerts::dedupe_key.eq(alert.dedupe_key),
            alerts::text.eq(alert.text),
            alerts::account_id.eq(alert.account_id),
            alerts::conversation_id.eq(alert.conversation_id),
            alerts::details.eq(&alert.details),
        ))
        .on_conflict((alerts::organization_id, alerts::dedupe_key))
        .do_nothing()
        .execute(conn)
        .await?;
    Ok(raised == 1)
}

/// An alert as it is read.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = alerts)]
pub struct Alert {
    /// UUIDv7.
    pub id: Uuid,
    /// Stable code.
    pub kind: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// A sentence.
    pub text: String,
    /// The account that it concerns.
    pub account_id: Option<Uuid>,
    /// The conversation that it concerns.
    pub conversation_id: Option<Uuid>,
    /// Facts for a program.
    pub details: Option<Value>,
    /// When it was raised.
    pub created_at: DateTime<Utc>,
    /// Who has seen it.
    pub acknowledged_by: Option<Uuid>,
    /// When.
    pub acknowledged_at: Option<DateTime<Utc>>,
}

/// Which alerts are meant. None: all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Only those that somebody has seen, or only those that nobody has.
    pub acknowledged: Option<bool>,
    /// Only of this kind.
    pub kind: Option<&'a str>,
    /// Only of this account.
    pub account_id: Option<Uuid>,
}

/// Returns the organisation's alerts, newest first, older than `before`.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    filter: Filter<'_>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Alert>> {
    let mut query = alerts::table
        .filter(alerts::organization_id.eq(organization))
        .order(alerts::id.desc())
        .limit(limit)
        .select(Alert::as_select())
        .into_boxed();
    query = match filter.acknowledged {
        Some(true) => query.filter(alerts::acknowledged_at.is_not_null()),
        Some(false) => query.filter(alerts::acknowledged_at.is_null()),
        None => query,
    };
    if let Some(kind) = filter.kind {
        query = query.filter(alerts::kind.eq(kind));
    }
    if let Some(account) = filter.account_id {
        query = query.filter(alerts::account_id.eq(account));
    }
    if let Some(before) = before {
        query = query.filter(alerts::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Returns one alert.
pub async fn get(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Alert>> {
    Ok(alerts::table
        .find(id)
        .filter(alerts::organization_id.eq(organization))
        .select(Alert::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Notes that somebody has seen an alert. None: there is no such alert, or somebody was first.
pub async fn acknowledge(
    conn: &mut Conn,
    organization: Uuid,
    id: Uuid,
    by: Uuid,
    at: DateTime<Utc>,
) -> Result<Option<Alert>> {
    let open = alerts::table
        .find(id)
        .filter(alerts::organization_id.eq(organization).and(alerts::acknowledged_at.is_null()));
    Ok(diesel::update(open)
        .set((alerts::acknowledged_by.eq(by), alerts::acknowledged_at.eq(at)))
        .returning(Alert::as_returning())
        .get_result(conn)
        .await
        .optional()?)
}

const ACKNOWLEDGE_OPEN: &str = "\
WITH open AS (
    SELECT id FROM alerts
    WHERE organization_id = $1 AND acknowledged_at IS NULL
      AND ($2 IS NULL OR kind = $2) AND ($3 IS NULL OR account_id = $3)
    ORDER BY id LIMIT $6 FOR UPDATE SKIP LOCKED
)
UPDATE alerts SET acknowledged_by = $4, acknowledged_at = $5 FROM open WHERE alerts.id = open.id";

/// Notes that somebody has seen up to `limit` alerts that nobody has seen before, the oldest first. Returns how many.
///
/// What another transaction holds is left out: it is being acknowledged at this moment.
pub async fn acknowledge_open(
    conn: &mut Conn,
    organization: Uuid,
    filter: Filter<'_>,
    by: Uuid,
    at: DateTime<Utc>,
    limit: i64,
) -> Result<usize> {
    Ok(sql_query(ACKNOWLEDGE_OPEN)
        .bind::<SqlUuid, _>(organization)
        .bind::<Nullable<Text>, _>(filter.kind)
        .bind::<Nullable<SqlUuid>, _>(filter.account_id)
        .bind::<SqlUuid, _>(by)
        .bind::<Timestamptz, _>(at)
        .bind::<BigInt, _>(limit)
        .execute(conn)
        .await?)
}
