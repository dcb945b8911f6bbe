//! The audit log: written by every handler that changes something, read by admins.

use chrono::{DateTime, Utc};
use entropy_schema::{Conn, audit};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;
use uuid::Uuid;

use super::Tag;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::origin::Origin;
use crate::page::{Ask, Page};
use crate::problem::ApiError;

/// What was done to what. Never holds a secret or a message.
#[derive(Debug, Default)]
pub(super) struct Note {
    pub(super) action: &'static str,
    pub(super) target_kind: &'static str,
    pub(super) target_id: Option<String>,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

impl Note {
    pub(super) fn new(action: &'static str, target_kind: &'static str, target_id: impl ToString) -> Self {
        Note { action, target_kind, target_id: Some(target_id.to_string()), before: None, after: None }
    }

    pub(super) fn before(self, before: Value) -> Self {
        Note { before: Some(before), ..self }
    }

    pub(super) fn after(self, after: Value) -> Self {
        Note { after: Some(after), ..self }
    }

    /// Writes the note in the transaction of the change.
    pub(super) async fn write(
        self,
        conn: &mut Conn,
        caller: &Caller,
        origin: &Origin,
    ) -> Result<(), ApiError> {
        self.write_as(conn, caller.organization_id, Some(caller.id), origin).await
    }

    /// The same, for somebody who is not logged in yet.
    pub(super) async fn write_as(
        self,
        conn: &mut Conn,
        organization_id: Uuid,
        user_id: Option<Uuid>,
        origin: &Origin,
    ) -> Result<(), ApiError> {
        let entry = audit::Entry {
            id: Uuid::now_v7(),
            organization_id,
            user_id,
            action: self.action.to_owned(),
            target_kind: self.target_kind.to_owned(),
            target_id: self.target_id,
            before: self.before,
            after: self.after,
            address: origin.address.clone(),
            trace_id: origin.trace_id.clone(),
        };
        Ok(audit::write(conn, &entry).await?)
    }
}

/// One line of the audit log.
#[derive(Debug, Object)]
struct AuditLineView {
    id: Uuid,
    /// What was done, such as `account.update`.
    action: String,
    /// What it was done to, such as `account`.
    target_kind: String,
    target_id: Option<String>,
    /// Who did it.
    user_id: Option<Uuid>,
    /// Network address of the connection.
    address: Option<String>,
    /// What was changed, as it was.
    before: Option<Value>,
    /// What was changed, as it is.
    after: Option<Value>,
    /// Ties the line to our logs.
    trace_id: String,
    created_at: DateTime<Utc>,
}

/// Who did what.
pub(super) struct AuditLog;

#[OpenApi(tag = "Tag::Audit")]
impl AuditLog {
    /// Lists what was done
    ///
    /// Newest first. Needs the role admin. The log can only grow.
    #[oai(path = "/audit-log", method = "get", operation_id = "list_audit_log")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<AuditLineView>>, ApiError> {
        caller.require(Role::Admin)?;
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let mut conn = state.db.conn().await?;
        let lines = audit::list(&mut conn, caller.organization_id, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(lines, |line| line.entry.id, view)))
    }
}

fn view(line: audit::Line) -> AuditLineView {
    let audit::Line { entry, created_at } = line;
    AuditLineView {
        id: entry.id,
        action: entry.action,
        target_kind: entry.target_kind,
        target_id: entry.target_id,
        user_id: entry.user_id,
        address: entry.address,
        before: entry.before,
        after: entry.after,
        trace_id: entry.trace_id,
        created_at,
    }
}
