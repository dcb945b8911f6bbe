//! Alerts: what a person should look at.

use chrono::{DateTime, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::alerts::{self, Alert, Filter};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::OptionalBody;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page};
use crate::problem::ApiError;

/// How many alerts one request acknowledges.
const AT_ONCE: usize = 10_000;

/// What a person should look at.
#[derive(Debug, Object)]
struct AlertView {
    id: Uuid,
    /// Stable name, such as `account_offline`, `budget_reached` or `handed_off`.
    kind: String,
    /// `info`, `warning` or `critical`: something stands still until somebody acts.
    severity: String,
    /// What happened, for people.
    text: String,
    account_id: Option<Uuid>,
    conversation_id: Option<Uuid>,
    /// Facts for programs.
    details: Option<Value>,
    created_at: DateTime<Utc>,
    /// Who has seen it; null: nobody.
    acknowledged_by: Option<Uuid>,
    acknowledged_at: Option<DateTime<Utc>>,
}

/// Which alerts are meant; without any field, all.
#[derive(Default, Object)]
#[oai(deny_unknown_fields)]
struct AcknowledgeAll {
    /// Only of this kind.
    kind: Option<Text>,
    /// Only of this account.
    account_id: Option<Uuid>,
}

/// What was acknowledged.
#[derive(Debug, Object)]
struct AcknowledgedView {
    /// How many.
    acknowledged: u32,
    /// True: there were more than one request does. Send it again.
    remaining: bool,
}

/// Alerts.
pub(super) struct Alerts;

#[OpenApi(tag = "Tag::Alerts")]
impl Alerts {
    /// Lists the alerts
    ///
    /// Newest first. Needs the role agent. They are kept for 180 days.
    #[oai(path = "/alerts", method = "get", operation_id = "list_alerts")]
    #[expect(clippy::too_many_arguments, reason = "one per query parameter")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// False: only those that nobody has seen; true: only the others.
        acknowledged: Query<Option<bool>>,
        /// Only of this kind.
        kind: Query<Option<String>>,
        /// Only of this account.
        account_id: Query<Option<Uuid>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<AlertView>>, ApiError> {
        caller.require(Role::Agent)?;
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let filter =
            Filter { acknowledged: acknowledged.0, kind: kind.0.as_deref(), account_id: account_id.0 };
        let mut conn = state.db.conn().await?;
        let rows = alerts::list(&mut conn, caller.organization_id, filter, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(rows, |row| row.id, view)))
    }

    /// Acknowledges an alert
    ///
    /// Needs the role agent. Whoever was first stays named: once more changes nothing.
    #[oai(path = "/alerts/:id/acknowledge", method = "post", operation_id = "acknowledge_alert")]
    async fn acknowledge(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Json<AlertView>, ApiError> {
        caller.require(Role::Agent)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let alert = conn
            .transaction(async |conn| {
                let organization = caller.organization_id;
                if let Some(alert) = alerts::acknowledge(conn, organization, id.0, caller.id, now).await? {
                    Note::new("alert.acknowledge", "alert", alert.id)
                        .after(json!({"kind": alert.kind}))
                        .write(conn, &caller, &origin)
                        .await?;
                    return Ok(alert);
                }
                alerts::get(conn, organization, id.0).await?.ok_or_else(|| {
                    ApiError::not_found("alert_not_found", "Your organisation has no such alert.")
                })
            })
            .await?;
        Ok(Json(view(alert)))
    }

    /// Acknowledges all alerts
    ///
    /// Needs the role agent. All that nobody has seen, or those of a kind or an account; up to 10,000 at once.
    #[oai(path = "/alerts/acknowledge-all", method = "post", operation_id = "acknowledge_all_alerts")]
    async fn acknowledge_all(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: OptionalBody<AcknowledgeAll>,
    ) -> Result<Json<AcknowledgedView>, ApiError> {
        caller.require(Role::Agent)?;
        let AcknowledgeAll { kind, account_id } = body.0;
        let filter = Filter { acknowledged: None, kind: kind.as_deref(), account_id };
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let seen = conn
            .transaction(async |conn| {
                let organization = caller.organization_id;
                let limit = AT_ONCE as i64;
                let seen =
                    alerts::acknowledge_open(conn, organization, filter, caller.id, now, limit).await?;
                if seen > 0 {
                    let mut after = json!({"acknowledged": seen, "account_id": account_id});
                    after["kind"] = filter
                        .kind
                        .map(|kind| kind.chars().take(64).collect())
                        .map_or(Value::Null, |kind: String| Value::String(kind));
                    Note::new("alert.acknowledge_all", "organization", organization)
                        .after(after)
                        .write(conn, &caller, &origin)
                        .await?;
                }
                Ok::<_, ApiError>(seen)
            })
            .await?;
        let acknowledged = u32::try_from(seen).unwrap_or(u32::MAX);
        Ok(Json(AcknowledgedView { acknowledged, remaining: seen == AT_ONCE }))
    }
}

fn view(alert: Alert) -> AlertView {
    AlertView {
        id: alert.id,
        kind: alert.kind,
        severity: alert.severity,
        text: alert.text,
        account_id: alert.account_id,
        conversation_id: alert.conversation_id,
        details: alert.details,
        created_at: alert.created_at,
        acknowledged_by: alert.acknowledged_by,
        acknowledged_at: alert.acknowledged_at,
    }
}
