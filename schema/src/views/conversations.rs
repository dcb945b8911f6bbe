//! Conversations, what was said in them, and contacts, as people read them.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use super::Statement;
use crate::contacts::Contact;
use crate::conversations::Conversation;
use crate::tables::{contacts, mode_changes};
use crate::{Conn, Result};

/// A conversation with the other side's names.
#[derive(Debug, Clone, QueryableByName)]
pub struct Chat {
    /// The conversation.
    #[diesel(embed)]
    pub conversation: Conversation,
    /// The name that the other side has given itself.
    #[diesel(sql_type = Text)]
    pub nickname: String,
    /// What the account's owner calls it.
    #[diesel(sql_type = Text)]
    pub remark: String,
    /// Its picture.
    #[diesel(sql_type = Nullable<Text>)]
    pub avatar: Option<String>,
    /// Our words for it.
    #[diesel(sql_type = Array<Text>)]
    pub tags: Vec<String>,
    /// The database's time.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
}

const CHAT_COLUMNS: &str = "c.id, c.organization_id, c.account_id, c.contact_id, c.peer_wxid, c.kind, c.mode, \
    c.mode_until, c.mode_reason, c.mode_by, c.mode_epoch, c.unread, c.last_message_at, c.last_inbound_at, c.era, \
    c.era_used_at, c.disclosed_at, c.created_at, k.nickname, k.remark, k.avatar, k.tags, \
    clock_timestamp() AS now";

/// Which conversations of an organisation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatFilter {
    /// Of this account.
    pub account_id: Option<Uuid>,
    /// Answered by `ai`, `human` or `paused` at this moment.
    pub mode: Option<&'static str>,
    /// Only those that somebody should read.
    pub unread: bool,
    /// With this in the name, the remark or the id of the other side.
    pub name: Option<String>,
}

/// The place of a conversation in the list: its latest message, then its id.
pub type ChatPlace = (Option<DateTime<Utc>>, Uuid);

/// Makes a text match itself and nothing else in a pattern.
fn literal(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// Returns conversations, the one with the latest message first, after `after`.
///
/// Walks the index of recent conversations of each account, as far as the page asks, and merges them.
pub async fn chats(
    conn: &mut Conn,
    organization: Uuid,
    filter: &ChatFilter,
    after: Option<ChatPlace>,
    limit: i64,
) -> Result<Vec<Chat>> {
    let mut binds = 3;
    let mut next = || {
        binds += 1;
        binds
    };
    let mut statement: Statement = sql_query(format!(
        "SELECT {CHAT_COLUMNS} FROM wechat_accounts a CROSS JOIN LATERAL ( \
             SELECT x.id, x.contact_id, x.last_message_at FROM conversations x JOIN contacts k ON k.id = x.contact_id \
             WHERE x.organization_id = $1 AND x.account_id = a.id"
    ))
    .into_boxed()
    .bind::<SqlUuid, _>(organization)
    .bind::<Nullable<SqlUuid>, _>(filter.account_id)
    .bind::<BigInt, _>(limit);
    if let Some(mode) = filter.mode {
        statement = statement
            .sql(format!(
                " AND ${} = CASE WHEN x.mode = 'human' AND x.mode_until <= clock_timestamp() THEN 'ai' ELSE x.mode END",
                next()
            ))
            .bind::<Text, _>(mode);
    }
    if filter.unread {
        statement = statement.sql(" AND x.unread > 0");
    }
    if let Some(name) = &filter.name {
        let n = next();
        statement = statement
            .sql(format!(" AND (k.nickname ILIKE ${n} OR k.remark ILIKE ${n} OR x.peer_wxid ILIKE ${n})"))
            .bind::<Text, _>(literal(name));
    }
    match after {
        None => {}
        Some((Some(at), id)) => {
            let (at_n, id_n) = (next(), next());
            statement = statement
                .sql(format!(
                    " AND (x.last_message_at < ${at_n} OR (x.last_message_at = ${at_n} AND x.id < ${id_n}) \
                     OR x.last_message_at IS NULL)"
                ))
                .bind::<Timestamptz, _>(at)
                .bind::<SqlUuid, _>(id);
        }
        Some((None, id)) => {
            statement = statement
                .sql(format!(" AND x.last_message_at IS NULL AND x.id < ${}", next()))
                .bind::<SqlUuid, _>(id);
        }
    }
    Ok(statement
        .sql(
            " ORDER BY x.last_message_at DESC NULLS LAST, x.id DESC LIMIT $3 \
             ) AS r JOIN conversations c ON c.id = r.id JOIN contacts k ON k.id = c.contact_id \
             WHERE a.organization_id = $1 AND ($2 IS NULL OR a.id = $2) \
             ORDER BY r.last_message_at DESC NULLS LAST, r.id DESC LIMIT $3",
        )
        .load(conn)
        .await?)
}

/// Returns one conversation.
pub async fn chat(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Chat>> {
    Ok(sql_query(format!(
        "SELECT {CHAT_COLUMNS} FROM conversations c JOIN contacts k ON k.id = c.contact_id \
         WHERE c.id = $1 AND c.organization_id = $2"
    ))
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(organization)
    .get_result(conn)
    .await
    .optional()?)
}

/// A message as it is read.
#[derive(Debug, Clone, QueryableByName)]
pub struct Said {
    /// UUIDv7; of what waits, that of its job.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// `in` or `out`.
    #[diesel(sql_type = Text)]
    pub direction: String,
    /// Who it is from.
    #[diesel(sql_type = Text)]
    pub origin: String,
    /// Its kind.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// What a person reads of it.
    #[diesel(sql_type = Text)]
    pub text: String,
    /// What the kind has beside it.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub content: Option<Value>,
    /// Who wrote it.
    #[diesel(sql_type = Nullable<Text>)]
    pub sender_wxid: Option<String>,
    /// The name of who wrote it in a group.
    #[diesel(sql_type = Nullable<Text>)]
    pub sender_name: Option<String>,
    /// The account was mentioned.
    #[diesel(sql_type = Bool)]
    pub mentions_me: bool,
    /// `received`, `scheduled`, `queued`, `sending`, `sent`, `failed` or `unknown`; none: its send was pruned.
    #[diesel(sql_type = Nullable<Text>)]
    pub status: Option<String>,
    /// The provider's global id.
    #[diesel(sql_type = Nullable<Text>)]
    pub new_msg_id: Option<String>,
    /// The provider's time.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub sent_at: Option<DateTime<Utc>>,
    /// The job that sends it.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub job_id: Option<Uuid>,
    /// The turn that it belongs to, or answers.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub turn_id: Option<Uuid>,
    /// The person of ours who asked for it.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub user_id: Option<Uuid>,
    /// Since when it is taken back.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub recalled_at: Option<DateTime<Utc>>,
    /// How its media stand.
    #[diesel(sql_type = Nullable<Text>)]
    pub media_state: Option<String>,
    /// When it was stored.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
}

/// How a stored message `m` with its send `s`, if that is still on record, stands: what came in is `received`, what was typed on
/// the phone is `sent`, and ours is as its send.
pub(crate) const STATUS: &str = "CASE WHEN m.direction = 'in' THEN 'received' WHEN m.origin = 'phone' THEN 'sent' \
    WHEN s.resolved_as IN ('sent', 'failed') THEN s.resolved_as ELSE s.state END";

/// Returns the messages of a conversation, newest first, older than `before`.
pub async fn messages(
    conn: &mut Conn,
    organization: Uuid,
    conversation: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Said>> {
    Ok(sql_query(format!(
        "SELECT m.id, m.direction, m.origin, m.kind, m.text, m.content, m.sender_wxid, g.nickname AS sender_name, \
             m.mentions_me, {STATUS} AS status, \
             COALESCE(m.new_msg_id, s.new_msg_id) AS new_msg_id, m.sent_at, m.job_id, m.turn_id, m.user_id, \
             m.recalled_at, m.media_state, m.created_at \
         FROM messages m LEFT JOIN sends s ON s.id = m.send_id \
         LEFT JOIN conversations c ON c.id = m.conversation_id AND c.kind = 'group' \
         LEFT JOIN group_members g ON g.account_id = m.account_id AND g.group_wxid = c.peer_wxid \
             AND g.wxid = m.sender_wxid \
         WHERE m.conversation_id = $1 AND m.organization_id = $2 AND ($3 IS NULL OR m.id < $3) \
         ORDER BY m.id DESC LIMIT $4"
    ))
    .bind::<SqlUuid, _>(conversation)
    .bind::<SqlUuid, _>(organization)
    .bind::<Nullable<SqlUuid>, _>(before)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?)
}

/// Returns what still waits to be sent in a conversation, the latest first.
pub async fn waiting(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    peer: &str,
    limit: i64,
) -> Result<Vec<Said>> {
    Ok(sql_query(
        "SELECT j.id, 'out' AS direction, COALESCE(j.args ->> 'origin', 'person') AS origin, \
             COALESCE(j.args #>> '{message,kind}', 'other') AS kind, \
             COALESCE(j.args #>> '{message,text}', j.args #>> '{message,title}', j.args #>> '{message,name}', \
                 j.args #>> '{message,nickname}', '') AS text, \
             CASE WHEN j.args #>> '{message,kind}' <> 'text' THEN j.args -> 'message' END AS content, \
             NULL::text AS sender_wxid, NULL::text AS sender_name, false AS mentions_me, w.status, \
             NULL::text AS new_msg_id, NULL::timestamptz AS sent_at, j.id AS job_id, \
             (j.args #>> '{reply,turn_id}')::uuid AS turn_id, j.created_by AS user_id, \
             NULL::timestamptz AS recalled_at, NULL::text AS media_state, j.created_at \
         FROM ( \
             SELECT p.job_id, CASE WHEN p.wait_code = 'scheduled' THEN 'scheduled' ELSE 'queued' END AS status \
             FROM pending p WHERE p.organization_id = $1 AND p.lane_id = $2 AND p.order_key = $3 \
             UNION ALL \
             SELECT l.job_id, 'queued' FROM leases l \
             WHERE l.organization_id = $1 AND l.lane_id = $2 AND l.order_key = $3 \
         ) AS w JOIN jobs j ON j.id = w.job_id \
         WHERE j.kind = 'send_message' AND NOT EXISTS (SELECT FROM sends s WHERE s.job_id = j.id) \
         ORDER BY j.id DESC LIMIT $4",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<Text, _>(peer)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?)
}

/// A change of a conversation's mode.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = mode_changes)]
pub struct ModeChange {
    /// UUIDv7.
    pub id: Uuid,
    /// `ai`, `human` or `paused`.
    pub mode: String,
    /// When it ends by itself.
    pub until: Option<DateTime<Utc>>,
    /// Stable word.
    pub reason: String,
    /// A sentence for people.
    pub note: Option<String>,
    /// Who did it.
    pub changed_by: Option<Uuid>,
    /// The epoch that it began.
    pub epoch: i64,
    /// When.
    pub changed_at: DateTime<Utc>,
}

/// Returns the changes of a conversation's mode, newest first, older than `before`.
pub async fn mode_changes(
    conn: &mut Conn,
    organization: Uuid,
    conversation: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ModeChange>> {
    let mut query = mode_changes::table
        .filter(mode_changes::conversation_id.eq(conversation))
        .filter(mode_changes::organization_id.eq(organization))
        .order(mode_changes::id.desc())
        .limit(limit)
        .select(ModeChange::as_select())
        .into_boxed();
    if let Some(before) = before {
        query = query.filter(mode_changes::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Which contacts of an organisation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContactFilter {
    /// Of this account.
    pub account_id: Option<Uuid>,
    /// Of this kind.
    pub kind: Option<&'static str>,
    /// With this tag.
    pub tag: Option<String>,
    /// With this in the name, the remark or the id.
    pub name: Option<String>,
}

/// Returns contacts, newest first, older than `before`.
pub async fn contacts(
    conn: &mut Conn,
    organization: Uuid,
    filter: &ContactFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Contact>> {
    let mut query = contacts::table
        .filter(contacts::organization_id.eq(organization))
        .order(contacts::id.desc())
        .limit(limit)
        .select(Contact::as_select())
        .into_boxed();
    if let Some(account) = filter.account_id {
        query = query.filter(contacts::account_id.eq(account));
    }
    if let Some(kind) = filter.kind {
        query = query.filter(contacts::kind.eq(kind));
    }
    if let Some(tag) = &filter.tag {
        query = query.filter(contacts::tags.contains(vec![tag.clone()]));
    }
    if let Some(name) = &filter.name {
        let pattern = literal(name);
        query = query.filter(
            contacts::nickname
                .ilike(pattern.clone())
                .or(contacts::remark.ilike(pattern.clone()))
                .or(contacts::wxid.ilike(pattern)),
        );
    }
    if let Some(before) = before {
        query = query.filter(contacts::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_types_is_no_pattern() {
        assert_eq!(literal("50%_off\\"), "%50\\%\\_off\\\\%");
        assert_eq!(literal("小李"), "%小李%");
    }
}
