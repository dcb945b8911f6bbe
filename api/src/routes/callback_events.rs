//! The provider's events as they came, for finding out what was made of them.

use chrono::{DateTime, Utc};
use entropy_schema::callbacks::{self, Row};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::Value;
use uuid::Uuid;

use super::Tag;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::page::{Ask, Page};
use crate::problem::ApiError;

/// What was made of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum EventOutcome {
    /// Its job has not run yet.
    Waiting,
    /// The record knows it.
    Applied,
    /// It is of no consequence.
    Ignored,
    /// Nobody knows what it means.
    Unknown,
}

impl EventOutcome {
    fn as_str(self) -> &'static str {
        match self {
            EventOutcome::Waiting => "waiting",
            EventOutcome::Applied => "applied",
            EventOutcome::Ignored => "ignored",
            EventOutcome::Unknown => "unknown",
        }
    }
}

/// An event of the provider.
#[derive(Debug, Object)]
struct CallbackEventView {
    id: Uuid,
    account_id: Uuid,
    /// The provider's word for it.
    event_type: String,
    /// `waiting`, `applied`, `ignored` or `unknown`.
    outcome: String,
    /// As it came, without pictures.
    body: Value,
    received_at: DateTime<Utc>,
    processed_at: Option<DateTime<Utc>>,
}

/// The events.
pub(super) struct CallbackEvents;

#[OpenApi(tag = "Tag::Operations")]
impl CallbackEvents {
    /// Lists the provider's events
    ///
    /// Newest first, as they came. Needs the role manager: they hold what customers wrote. Kept for 30 days.
    #[oai(path = "/callback-events", method = "get", operation_id = "list_callback_events")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only those of which this was made.
        outcome: Query<Option<EventOutcome>>,
        /// Only of this account.
        account_id: Query<Option<Uuid>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<CallbackEventView>>, ApiError> {
        caller.require(Role::Manager)?;
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let outcome = outcome.0.map(EventOutcome::as_str);
        let mut conn = state.db.conn().await?;
        let organization = caller.organization_id;
        let rows =
            callbacks::list(&mut conn, organization, outcome, account_id.0, ask.before, ask.fetch()).await?;
        Ok(Json(ask.page(rows, |row| row.id, view)))
    }
}

fn view(row: Row) -> CallbackEventView {
    CallbackEventView {
        id: row.id,
        account_id: row.account_id,
        event_type: row.event_type,
        outcome: row.outcome.unwrap_or_else(|| EventOutcome::Waiting.as_str().to_owned()),
        body: row.body,
        received_at: row.received_at,
        processed_at: row.processed_at,
    }
}
