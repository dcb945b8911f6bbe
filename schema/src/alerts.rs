//! What a person should look at. The same matter raises one alert.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
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
