//! Searching messages.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::search::{Filter, Found, messages};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use super::jobs::storable;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::page::{Ask, Page};
use crate::problem::{ApiError, FieldProblem};

/// The most characters of a search.
const MAX_CHARS: usize = 200;
/// Fewer characters have no index of their own, and are looked for among so many days if nothing else narrows them down.
const SHORT: usize = 3;
const RECENT: TimeDelta = TimeDelta::days(30);

/// A message that was found.
#[derive(Debug, Object)]
struct FoundMessageView {
    id: Uuid,
    account_id: Uuid,
    conversation_id: Uuid,
    /// `in` or `out`.
    direction: String,
    /// `customer`, `phone`, `person`, `ai` or `sop`.
    origin: String,
    kind: String,
    text: String,
    sender_wxid: String,
    /// `received`, `sending`, `sent`, `failed` or `unknown`, as in the conversation; null: its send is too old to be known.
    status: Option<String>,
    /// The provider's id, as a string.
    new_msg_id: Option<String>,
    created_at: DateTime<Utc>,
}

/// Searching.
pub(super) struct MessageSearch;

#[OpenApi(tag = "Tag::Operations")]
impl MessageSearch {
    /// Finds messages by what they say
    ///
    /// Newest first; upper and lower case are the same. Needs the role agent. One or two characters are looked for within
    /// the last 30 days, unless an account, contact, conversation or time narrows the search.
    #[oai(path = "/messages/search", method = "get", operation_id = "search_messages")]
    #[expect(clippy::too_many_arguments, reason = "one per query parameter")]
    async fn search(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// What the text holds, 1 to 200 characters.
        q: Query<String>,
        /// Only of this account.
        account_id: Query<Option<Uuid>>,
        /// Only of the chats with this contact.
        contact_id: Query<Option<Uuid>>,
        /// Only of this conversation.
        conversation_id: Query<Option<Uuid>>,
        /// Only from this time on.
        from: Query<Option<DateTime<Utc>>>,
        /// Only before this time.
        to: Query<Option<DateTime<Utc>>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<FoundMessageView>>, ApiError> {
        caller.require(Role::Agent)?;
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let text = text(&q.0)?;
        let narrowed = account_id.0.is_some()
            || contact_id.0.is_some()
            || conversation_id.0.is_some()
            || from.0.is_some();
        let from = match from.0 {
            None if !narrowed && text.chars().count() < SHORT => Some(state.now().await - RECENT),
            from => from.map(storable),
        };
        let filter = Filter {
            organization_id: caller.organization_id,
            text,
            account_id: account_id.0,
            contact_id: contact_id.0,
            conversation_id: conversation_id.0,
            from,
            to: to.0.map(storable),
            before: ask.before,
            limit: ask.fetch(),
        };
        let ids = state.search.find(&filter).await?;
        let mut conn = state.db.conn().await?;
        let found = messages(&mut conn, caller.organization_id, &ids).await?;
        Ok(Json(ask.page(found, |message| message.id, view)))
    }
}

fn text(q: &str) -> Result<String, ApiError> {
    let text = q.trim();
    if (1..=MAX_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    let message = format!("must have 1 to {MAX_CHARS} characters and no control characters");
    Err(ApiError::malformed(vec![FieldProblem::new("q", "bad_text", message)]))
}

fn view(found: Found) -> FoundMessageView {
    FoundMessageView {
        id: found.id,
        account_id: found.account_id,
        conversation_id: found.conversation_id,
        direction: found.direction,
        origin: found.origin,
        kind: found.kind,
        text: found.text,
        sender_wxid: found.sender_wxid,
        status: found.status,
        new_msg_id: found.new_msg_id,
        created_at: found.created_at,
    }
}
