//! Messages: what was said in a conversation, by either side. What we say ourselves is written by `outgoing`.

pub(crate) mod outgoing;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::messages;
use crate::{Conn, Result};

pub use outgoing::Outgoing;

/// What is known when a message comes in: everything that decides who answers it, but for the conversation's mode.
#[derive(Debug, Clone, QueryableByName)]
pub struct Facts {
    /// The database's time.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
    /// The account's own id in WeChat.
    #[diesel(sql_type = Nullable<Text>)]
    pub own_wxid: Option<String>,
    /// The account was heard of within the last minute.
    #[diesel(sql_type = Bool)]
    pub seen_lately: bool,
    /// The message is stored already.
    #[diesel(sql_type = Bool)]
    pub known: bool,
    /// The conversation, if there is one.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub conversation_id: Option<Uuid>,
    /// Tags of the other side and of who wrote.
    #[diesel(sql_type = Array<Text>)]
    pub tags: Vec<String>,
    /// Nothing that a machine writes goes to the other side.
    #[diesel(sql_type = Bool)]
    pub suppressed: bool,
    /// Since when the other side is no friend any more.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub removed_at: Option<DateTime<Utc>>,
    /// The other side, or who wrote, wants no more messages.
    #[diesel(sql_type = Bool)]
    pub opted_out: bool,
    /// The organisation's own words for opting out.
    #[diesel(sql_type = Array<Text>)]
    pub opt_out_words: Vec<String>,
    /// The organisation's own words for asking for a person.
    #[diesel(sql_type = Array<Text>)]
    pub handoff_words: Vec<String>,
    /// What is said to who opts out; none: the default.
    #[diesel(sql_type = Nullable<Text>)]
    pub opt_out_confirmation: Option<String>,
    /// The organisation's own words with which customers complain.
    #[diesel(sql_type = Array<Text>)]
    pub complaint_words: Vec<String>,
    /// The account is answered for by machine.
    #[diesel(sql_type = Bool)]
    pub enabled: bool,
    /// A turn ends when nothing came for so long.
    #[diesel(sql_type = Integer)]
    pub quiet_ms: i32,
    /// A turn ends so long after its first message.
    #[diesel(sql_type = Integer)]
    pub max_ms: i32,
    /// A turn ends with so many messages.
    #[diesel(sql_type = Integer)]
    pub max_messages: i32,
    /// `off` or `at_only`.
    #[diesel(sql_type = Text)]
    pub groups: String,
    /// How long a person who types keeps the chat.
    #[diesel(sql_type = Integer)]
    pub takeover_minutes: i32,
    /// A message that is older is not answered.
    #[diesel(sql_type = Integer)]
    pub max_age_seconds: i32,
    /// Only these people and groups.
    #[diesel(sql_type = Array<Text>)]
    pub allow_wxids: Vec<String>,
    /// Only contacts with one of these tags.
    #[diesel(sql_type = Array<Text>)]
    pub allow_tags: Vec<String>,
    /// Never these people and groups.
    #[diesel(sql_type = Array<Text>)]
    pub block_wxids: Vec<String>,
    /// Never contacts with one of these tags.
    #[diesel(sql_type = Array<Text>)]
    pub block_tags: Vec<String>,
}

const FACTS: &str = "\
SELECT clock_timestamp() AS now, a.wxid AS own_wxid,
    COALESCE(a.last_seen_at > clock_timestamp() - interval '1 minute', false) AS seen_lately,
    EXISTS (SELECT FROM messages m WHERE m.account_id = $2 AND m.new_msg_id = $5) AS known,
    (SELECT c.id FROM conversations c WHERE c.account_id = $2 AND c.peer_wxid = $3) AS conversation_id,
    COALESCE(peer.tags, '{}') || CASE WHEN $3 <> $4
        THEN COALESCE((SELECT s.tags FROM contacts s WHERE s.account_id = $2 AND s.wxid = $4), '{}') ELSE '{}' END AS tags,
    peer.suppressed_at IS NOT NULL AS suppressed, peer.removed_at,
    EXISTS (SELECT FROM opt_outs x WHERE x.organization_id = $1 AND x.wxid IN ($3, $4)) AS opted_out,
    COALESCE(o.opt_out_words, '{}') AS opt_out_words, COALESCE(o.handoff_words, '{}') AS handoff_words,
    COALESCE(o.complaint_words, '{}') AS complaint_words, o.opt_out_confirmation,
    COALESCE(ai.enabled, false) AND a.status <> 'RISK_HOLD' AS enabled, COALESCE(ai.quiet_ms, 4000) AS quiet_ms,
    COALESCE(ai.max_ms, 15000) AS max_ms, COALESCE(ai.max_messages, 10) AS max_messages,
    COALESCE(ai.groups, 'off') AS groups, COALESCE(ai.takeover_minutes, 30) AS takeover_minutes,
    COALESCE(ai.max_age_seconds, 600) AS max_age_seconds,
    COALESCE(ai.allow_wxids, '{}') AS allow_wxids, COALESCE(ai.allow_tags, '{}') AS allow_tags,
    COALESCE(ai.block_wxids, '{}') AS block_wxids, COALESCE(ai.block_tags, '{}') AS block_tags
FROM wechat_accounts a
LEFT JOIN contacts peer ON peer.account_id = a.id AND peer.wxid = $3
LEFT JOIN organization_settings o ON o.organization_id = $1
LEFT JOIN account_ai ai ON ai.account_id = a.id
WHERE a.id = $2 AND a.organization_id = $1 AND a.deleted_at IS NULL";

/// Reads what is known when a message of `sender` comes in from `peer`. None: the organisation has no such account.
pub async fn facts(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    peer: &str,
    sender: &str,
    new_msg_id: &str,
) -> Result<Option<Facts>> {
    Ok(sql_query(FACTS)
        .bind::<SqlUuid, _>(organization)
        .bind::<SqlUuid, _>(account)
        .bind::<Text, _>(peer)
        .bind::<Text, _>(sender)
        .bind::<Text, _>(new_msg_id)
        .cached()
        .get_result(conn)
        .await
        .optional()?)
}

/// Tells whether a message of the provider's is stored. Ask under the conversation's lock.
pub async fn exists(conn: &mut Conn, account: Uuid, new_msg_id: &str) -> Result<bool> {
    let found: i64 = messages::table
        .filter(messages::account_id.eq(account).and(messages::new_msg_id.eq(new_msg_id)))
        .count()
        .get_result(conn)
        .await?;
    Ok(found > 0)
}

/// A message that came in, or that the owner typed on the phone.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    /// That of the event: it grows in the order in which events were taken in.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// `customer` or `phone`.
    pub origin: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// What a person reads.
    pub text: &'a str,
    /// What the kind has beside it.
    pub content: Option<&'a Value>,
    /// Who wrote it.
    pub sender_wxid: &'a str,
    /// The name of the sender, if it is told.
    pub sender_name: Option<&'a str>,
    /// The account was mentioned.
    pub mentions_me: bool,
    /// The provider's global id.
    pub new_msg_id: &'a str,
    /// The provider's local id.
    pub msg_id: Option<&'a str>,
    /// The provider's time.
    pub sent_at: DateTime<Utc>,
    /// The turn that it belongs to.
    pub turn_id: Option<Uuid>,
    /// There is something to be downloaded.
    pub has_media: bool,
    /// The chat is a group.
    pub in_group: bool,
    /// Somebody should read it.
    pub counts_as_unread: bool,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// The message, the conversation's counters, the member of the group, the contact's name: one statement.
///
/// What the owner typed on the phone was read by the owner, so everything before it was, too.
const RECEIVE: &str = "\
WITH fresh AS (
    INSERT INTO messages (id, organization_id, account_id, conversation_id, direction, origin, kind, text, content,
        sender_wxid, mentions_me, new_msg_id, msg_id, sent_at, turn_id, media_state)
    VALUES ($1, $2, $3, $4, CASE WHEN $5 = 'phone' THEN 'out' ELSE 'in' END, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
        CASE WHEN $15 THEN 'waiting' END)
    ON CONFLICT DO NOTHING
    RETURNING conversation_id
), touched AS (
    UPDATE conversations SET last_message_at = GREATEST(last_message_at, clock_timestamp()),
        last_inbound_at = CASE WHEN $5 = 'phone' THEN last_inbound_at ELSE clock_timestamp() END,
        unread = CASE WHEN $5 = 'phone' THEN 0 WHEN $16 THEN unread + 1 ELSE unread END
    FROM fresh WHERE conversations.id = fresh.conversation_id
    RETURNING conversations.contact_id
), back AS (
    UPDATE contacts SET removed_at = CASE WHEN removed_at < $13 THEN NULL ELSE removed_at END,
        nickname = CASE WHEN nickname = '' AND NOT $17 AND $5 <> 'phone' THEN COALESCE($18, '') ELSE nickname END
    FROM touched WHERE contacts.id = touched.contact_id
      AND (removed_at < $13 OR (nickname = '' AND NOT $17 AND $5 <> 'phone' AND $18 <> ''))
), member AS (
    INSERT INTO group_members (account_id, group_wxid, wxid, organization_id, nickname)
    SELECT $3, c.peer_wxid, $9, $2, COALESCE($18, '') FROM fresh JOIN conversations c ON c.id = fresh.conversation_id
    WHERE $17 AND $5 <> 'phone'
    ON CONFLICT (account_id, group_wxid, wxid) DO UPDATE SET seen_at = clock_timestamp(),
        nickname = CASE WHEN EXCLUDED.nickname = '' THEN group_members.nickname ELSE EXCLUDED.nickname END
)
SELECT count(*) AS n FROM fresh";

/// Stores a message. Returns false, and changes nothing, if it was stored before.
pub async fn receive(conn: &mut Conn, message: &Received<'_>) -> Result<bool> {
    let stored = sql_query(RECEIVE)
        .bind::<SqlUuid, _>(message.id)
        .bind::<SqlUuid, _>(message.organization_id)
        .bind::<SqlUuid, _>(message.account_id)
        .bind::<SqlUuid, _>(message.conversation_id)
        .bind::<Text, _>(message.origin)
        .bind::<Text, _>(message.kind)
        .bind::<Text, _>(message.text)
        .bind::<Nullable<Jsonb>, _>(message.content)
        .bind::<Text, _>(message.sender_wxid)
        .bind::<Bool, _>(message.mentions_me)
        .bind::<Text, _>(message.new_msg_id)
        .bind::<Nullable<Text>, _>(message.msg_id)
        .bind::<Timestamptz, _>(message.sent_at)
        .bind::<Nullable<SqlUuid>, _>(message.turn_id)
        .bind::<Bool, _>(message.has_media)
        .bind::<Bool, _>(message.counts_as_unread)
        .bind::<Bool, _>(message.in_group)
        .bind::<Nullable<Text>, _>(message.sender_name)
        .cached()
        .get_result::<Count>(conn)
        .await?;
    Ok(stored.n == 1)
}

/// Whose a message is that came back from the account's own side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// It carries the id of one of our sends.
    Ours,
    /// A call with the same text is under way: its id is not known yet.
    MayBeOurs,
    /// A call with the same text has an unknown outcome.
    UnknownOfOurs,
    /// Nothing of ours looks like it.
    Typed,
}

#[derive(QueryableByName)]
struct EchoRow {
    #[diesel(sql_type = Bool)]
    ours: bool,
    #[diesel(sql_type = Bool)]
    under_way: bool,
    #[diesel(sql_type = Bool)]
    unknown: bool,
}

const ECHO: &str = "\
WITH like_it AS (
    SELECT s.state FROM sends s JOIN messages m ON m.send_id = s.id
    WHERE s.account_id = $2 AND s.id > $5 AND s.to_wxid = $3 AND m.text = $6
      AND (s.state = 'sending' OR (s.state = 'unknown' AND s.started_at > clock_timestamp() - interval '10 minutes'))
    ORDER BY s.id DESC LIMIT 20
)
SELECT EXISTS (SELECT FROM sends s WHERE s.account_id = $2 AND s.new_msg_id = $4 AND s.organization_id = $1) AS ours,
    EXISTS (SELECT FROM like_it WHERE state = 'sending') AS under_way,
    EXISTS (SELECT FROM like_it WHERE state = 'unknown') AS unknown";

/// Tells whose a message is that the account itself is said to have written. `since` bounds how old a send may be.
pub async fn echo(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    peer: &str,
    new_msg_id: &str,
    since: DateTime<Utc>,
    text: &str,
) -> Result<Echo> {
    let row = sql_query(ECHO)
        .bind::<SqlUuid, _>(organization)
        .bind::<SqlUuid, _>(account)
        .bind::<Text, _>(peer)
        .bind::<Text, _>(new_msg_id)
        .bind::<SqlUuid, _>(crate::views::first_id_of(since))
        .bind::<Text, _>(text)
        .cached()
        .get_result::<EchoRow>(conn)
        .await?;
    Ok(match row {
        EchoRow { ours: true, .. } => Echo::Ours,
        EchoRow { under_way: true, .. } => Echo::MayBeOurs,
        EchoRow { unknown: true, .. } => Echo::UnknownOfOurs,
        _ => Echo::Typed,
    })
}

/// A message that was taken back, as it stands.
#[derive(Debug, Clone, QueryableByName)]
pub struct Recallable {
    /// The message.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Its conversation.
    #[diesel(sql_type = SqlUuid)]
    pub conversation_id: Uuid,
}

/// Finds the message with the provider's id, ours or theirs.
pub async fn find(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    new_msg_id: &str,
) -> Result<Option<Recallable>> {
    Ok(sql_query(
        "SELECT m.id, m.conversation_id FROM messages m \
         WHERE m.organization_id = $1 AND m.account_id = $2 AND m.new_msg_id = $3 \
         UNION ALL \
         SELECT m.id, m.conversation_id FROM sends s JOIN messages m ON m.send_id = s.id \
         WHERE s.organization_id = $1 AND s.account_id = $2 AND s.new_msg_id = $3 LIMIT 1",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<Text, _>(new_msg_id)
    .get_result(conn)
    .await
    .optional()?)
}

#[derive(QueryableByName)]
struct OfTurn {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    turn_id: Option<Uuid>,
}

/// Marks a message as taken back. An open turn loses it; that turn is returned. Nothing happens a second time.
///
/// The caller has locked the conversation.
pub async fn recall(conn: &mut Conn, id: Uuid) -> Result<Option<Uuid>> {
    let row = sql_query(
        "WITH target AS ( \
             SELECT m.id, t.id AS turn_id FROM messages m LEFT JOIN turns t ON t.id = m.turn_id AND t.state = 'open' \
             WHERE m.id = $1 AND m.recalled_at IS NULL \
         ) \
         UPDATE messages SET recalled_at = clock_timestamp(), \
             turn_id = CASE WHEN target.turn_id IS NOT NULL THEN NULL ELSE messages.turn_id END \
         FROM target WHERE messages.id = target.id RETURNING target.turn_id",
    )
    .bind::<SqlUuid, _>(id)
    .get_result::<OfTurn>(conn)
    .await
    .optional()?;
    Ok(row.and_then(|row| row.turn_id))
}

/// Where an answer of the AI stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Answering {
    /// The tenant.
    #[diesel(sql_type = SqlUuid)]
    pub organization_id: Uuid,
    /// The account.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    /// The conversation.
    #[diesel(sql_type = SqlUuid)]
    pub conversation_id: Uuid,
}

/// Returns where the message of a send stands, if it answers a customer by machine.
pub async fn answering(conn: &mut Conn, send: Uuid) -> Result<Option<Answering>> {
    Ok(sql_query(
        "SELECT organization_id, account_id, conversation_id FROM messages \
         WHERE send_id = $1 AND origin = 'ai' AND turn_id IS NOT NULL",
    )
    .bind::<SqlUuid, _>(send)
    .get_result(conn)
    .await
    .optional()?)
}
