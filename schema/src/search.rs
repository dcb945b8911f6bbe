//! Finding messages by what they say, and what a search engine is told of them.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde::Serialize;
use uuid::Uuid;

use crate::tables::{conversations, messages};
use crate::views::conversations::STATUS;
use crate::{Conn, Result};

/// How far the clock that made an id may be from the database's.
const CLOCKS_APART: TimeDelta = TimeDelta::hours(1);

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Filter {
    /// The tenant.
    pub organization_id: Uuid,
    /// What the text holds, as it was typed.
    pub text: String,
    /// Only of this account.
    pub account_id: Option<Uuid>,
    /// Only of the chats with this contact.
    pub contact_id: Option<Uuid>,
    /// Only of this conversation.
    pub conversation_id: Option<Uuid>,
    /// Only from this time on.
    pub from: Option<DateTime<Utc>>,
    /// Only before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only older than this message.
    pub before: Option<Uuid>,
    /// At most so many.
    pub limit: i64,
}

/// A message that was found.
#[derive(Debug, Clone, QueryableByName)]
pub struct Found {
    /// UUIDv7.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The account.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    /// The chat.
    #[diesel(sql_type = SqlUuid)]
    pub conversation_id: Uuid,
    /// `in` or `out`.
    #[diesel(sql_type = Text)]
    pub direction: String,
    /// Who it is from.
    #[diesel(sql_type = Text)]
    pub origin: String,
    /// Its kind.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// What a person reads.
    #[diesel(sql_type = Text)]
    pub text: String,
    /// Who wrote it.
    #[diesel(sql_type = Text)]
    pub sender_wxid: String,
    /// `received`, `sending`, `sent`, `failed` or `unknown`, as lists of messages say it; none: its send was pruned.
    #[diesel(sql_type = Nullable<Text>)]
    pub status: Option<String>,
    /// The provider's id.
    #[diesel(sql_type = Nullable<Text>)]
    pub new_msg_id: Option<String>,
    /// When it was stored.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
}

/// Returns the ids of the newest messages whose text holds what is looked for, newest first.
pub async fn find(conn: &mut Conn, filter: &Filter) -> Result<Vec<Uuid>> {
    let mut query = messages::table
        .filter(messages::organization_id.eq(filter.organization_id))
        .filter(messages::text.ilike(pattern(&filter.text)))
        .order(messages::id.desc())
        .limit(filter.limit)
        .select(messages::id)
        .into_boxed();
    if let Some(account) = filter.account_id {
        query = query.filter(messages::account_id.eq(account));
    }
    if let Some(conversation) = filter.conversation_id {
        query = query.filter(messages::conversation_id.eq(conversation));
    }
    if let Some(contact) = filter.contact_id {
        let chats = conversations::table
            .filter(conversations::organization_id.eq(filter.organization_id))
            .filter(conversations::contact_id.eq(contact))
            .select(conversations::id);
        query = query.filter(messages::conversation_id.eq_any(chats));
    }
    // Ids grow with time, so a time is also a place in the indexes.
    if let Some(from) = filter.from {
        query = query
            .filter(messages::created_at.ge(from))
            .filter(messages::id.ge(first_id_of(from - CLOCKS_APART)));
    }
    if let Some(to) = filter.to {
        query =
            query.filter(messages::created_at.lt(to)).filter(messages::id.lt(first_id_of(to + CLOCKS_APART)));
    }
    if let Some(before) = filter.before {
        query = query.filter(messages::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Returns those of `ids` that are messages of the organisation, in the order of `ids`.
pub async fn messages(conn: &mut Conn, organization: Uuid, ids: &[Uuid]) -> Result<Vec<Found>> {
    let found: Vec<Found> = sql_query(format!(
        "SELECT m.id, m.account_id, m.conversation_id, m.direction, m.origin, m.kind, m.text, m.sender_wxid, \
             {STATUS} AS status, COALESCE(m.new_msg_id, s.new_msg_id) AS new_msg_id, m.created_at \
         FROM messages m LEFT JOIN sends s ON s.id = m.send_id \
         WHERE m.id = ANY($1) AND m.organization_id = $2"
    ))
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<SqlUuid, _>(organization)
    .load(conn)
    .await?;
    let mut by_id: HashMap<Uuid, Found> = found.into_iter().map(|found| (found.id, found)).collect();
    Ok(ids.iter().filter_map(|id| by_id.remove(id)).collect())
}

/// What a search engine is told of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, QueryableByName)]
pub struct Document {
    /// The message.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Its tenant.
    #[diesel(sql_type = SqlUuid)]
    pub organization_id: Uuid,
    /// Its account.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    /// Its chat.
    #[diesel(sql_type = SqlUuid)]
    pub conversation_id: Uuid,
    /// The contact that the chat is with.
    #[diesel(sql_type = SqlUuid)]
    pub contact_id: Uuid,
    /// What a person reads.
    #[diesel(sql_type = Text)]
    pub text: String,
    /// When it was stored.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
}

/// Returns what a search engine is told of the messages after `after`, of all organisations, oldest first. Messages
/// without text are left out.
pub async fn documents(conn: &mut Conn, after: Uuid, limit: i64) -> Result<Vec<Document>> {
    const READ: &str = "\
SELECT m.id, m.organization_id, m.account_id, m.conversation_id, c.contact_id, m.text, m.created_at
FROM messages m JOIN conversations c ON c.id = m.conversation_id
WHERE m.id > $1 AND m.text <> '' ORDER BY m.id LIMIT $2";
    Ok(sql_query(READ).bind::<SqlUuid, _>(after).bind::<BigInt, _>(limit).load(conn).await?)
}

/// Returns the smallest UUIDv7 of a moment. What is before 1970 counts as then.
pub fn first_id_of(at: DateTime<Utc>) -> Uuid {
    let millis = u128::try_from(at.timestamp_millis().clamp(0, (1 << 48) - 1)).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}

/// Returns the smallest UUIDv7 of the moment that lies `millis` after that of `id`.
pub fn moved(id: Uuid, millis: i64) -> Uuid {
    let at =
        i64::try_from(id.as_u128() >> 80).unwrap_or_default().saturating_add(millis).clamp(0, (1 << 48) - 1);
    Uuid::from_u128(u128::try_from(at).unwrap_or_default() << 80)
}

/// Returns the pattern for `ILIKE` that finds a text as it is.
fn pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '\\' | '%' | '_') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_a_pattern_is_looked_for_as_it_is() {
        assert_eq!(pattern("100%_a\\b"), "%100\\%\\_a\\\\b%");
    }

    #[test]
    fn the_first_id_of_a_moment_is_not_above_any_id_made_then() {
        let at = Utc::now();
        let made = Uuid::now_v7();
        assert!(first_id_of(at) <= made && made < first_id_of(at + TimeDelta::seconds(10)));
        assert_eq!(first_id_of(DateTime::<Utc>::MIN_UTC), Uuid::nil());
        assert!(first_id_of(DateTime::<Utc>::MAX_UTC) > made);
        assert!(moved(made, -1) < made && moved(made, 1) > made);
        assert_eq!(moved(Uuid::nil(), -1), Uuid::nil());
    }
}
