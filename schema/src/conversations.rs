//! Conversations: one chat of one account, and who answers in it.
//!
//! Whoever changes a conversation's mode, or a turn of it, holds the conversation's row ([`lock`], [`lock_row`]): the
//! gate, the kind that answers and whoever takes over meet there. Lanes come before conversations in the order of locks,
//! so whoever will enqueue locks the lanes first ([`lock`], [`lock_to_send`]).

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Bool, Double, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::conversations;
use crate::{Conn, Result};

/// A conversation.
#[derive(Debug, Clone, Queryable, Selectable, QueryableByName)]
#[diesel(table_name = conversations)]
pub struct Conversation {
    /// Also the id of the lane in which its replies are written.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The other side.
    pub contact_id: Uuid,
    /// Its id in WeChat.
    pub peer_wxid: String,
    /// `friend` or `group`.
    pub kind: String,
    /// `ai`, `human` or `paused`, as it was set; see `mode_until`.
    pub mode: String,
    /// When `human` goes back to `ai` by itself.
    pub mode_until: Option<DateTime<Utc>>,
    /// Why.
    pub mode_reason: Option<String>,
    /// Who set it.
    pub mode_by: Option<Uuid>,
    /// Grows with every change of the mode.
    pub mode_epoch: i64,
    /// Messages that nobody has read.
    pub unread: i32,
    /// The latest message of either side.
    pub last_message_at: Option<DateTime<Utc>>,
    /// The latest message of the other side.
    pub last_inbound_at: Option<DateTime<Utc>>,
    /// Part of the name of the chat at the AI provider.
    pub era: i32,
    /// When the AI provider was asked last.
    pub era_used_at: Option<DateTime<Utc>>,
    /// When the customer was told that a machine answers.
    pub disclosed_at: Option<DateTime<Utc>>,
    /// When it began.
    pub created_at: DateTime<Utc>,
}

/// A conversation whose row is ours until the transaction ends.
#[derive(Debug, Clone, QueryableByName)]
pub struct Locked {
    /// The conversation.
    #[diesel(embed)]
    pub conversation: Conversation,
    /// The database's time.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
}

macro_rules! columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            ".id, ",
            $prefix,
            ".organization_id, ",
            $prefix,
            ".account_id, ",
            $prefix,
            ".contact_id, ",
            $prefix,
            ".peer_wxid, ",
            $prefix,
            ".kind, ",
            $prefix,
            ".mode, ",
            $prefix,
            ".mode_until, ",
            $prefix,
            ".mode_reason, ",
            $prefix,
            ".mode_by, ",
            $prefix,
            ".mode_epoch, ",
            $prefix,
            ".unread, ",
            $prefix,
            ".last_message_at, ",
            $prefix,
            ".last_inbound_at, ",
            $prefix,
            ".era, ",
            $prefix,
            ".era_used_at, ",
            $prefix,
            ".disclosed_at, ",
            $prefix,
            ".created_at"
        )
    };
}

/// Returns a conversation of the organisation, unlocked.
pub async fn get(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Conversation>> {
    Ok(conversations::table
        .find(id)
        .filter(conversations::organization_id.eq(organization))
        .select(Conversation::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns the id of an account's chat with somebody.
pub async fn find(conn: &mut Conn, organization: Uuid, account: Uuid, peer: &str) -> Result<Option<Uuid>> {
    Ok(conversations::table
        .filter(conversations::account_id.eq(account).and(conversations::peer_wxid.eq(peer)))
        .filter(conversations::organization_id.eq(organization))
        .select(conversations::id)
        .first(conn)
        .await
        .optional()?)
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// What a chat is opened with.
#[derive(Debug, Clone, Copy)]
pub struct NewChat<'a> {
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The other side.
    pub peer_wxid: &'a str,
    /// Kind of the contact, if it is not known yet: `friend`, `group`, `stranger` or `official`.
    pub contact_kind: &'a str,
    /// `friend` or `group`.
    pub kind: &'a str,
}

/// Makes sure that contact, conversation and the conversation's lane exist, and returns the conversation's id.
///
/// Two that open the same chat wait for each other at its unique key.
pub async fn open(conn: &mut Conn, chat: NewChat<'_>) -> Result<Uuid> {
    let contact = sql_query(
        "INSERT INTO contacts (id, organization_id, account_id, wxid, kind) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (account_id, wxid) DO UPDATE SET wxid = EXCLUDED.wxid RETURNING id",
    )
    .bind::<SqlUuid, _>(Uuid::now_v7())
    .bind::<SqlUuid, _>(chat.organization_id)
    .bind::<SqlUuid, _>(chat.account_id)
    .bind::<Text, _>(chat.peer_wxid)
    .bind::<Text, _>(chat.contact_kind)
    .cached()
    .get_result::<Id>(conn)
    .await?
    .id;
    // The lane comes before the conversation in the order of locks, but nobody else can know of a new one.
    let opened = sql_query(
        "WITH opened AS ( \
             INSERT INTO conversations (id, organization_id, account_id, contact_id, peer_wxid, kind) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (account_id, peer_wxid) DO NOTHING RETURNING id \
         ), lane AS ( \
             INSERT INTO lanes (id, organization_id, kind) SELECT id, $2, 'conversation' FROM opened \
         ) \
         SELECT id FROM opened",
    )
    .bind::<SqlUuid, _>(Uuid::now_v7())
    .bind::<SqlUuid, _>(chat.organization_id)
    .bind::<SqlUuid, _>(chat.account_id)
    .bind::<SqlUuid, _>(contact)
    .bind::<Text, _>(chat.peer_wxid)
    .bind::<Text, _>(chat.kind)
    .cached()
    .get_result::<Id>(conn)
    .await
    .optional()?;
    if let Some(opened) = opened {
        return Ok(opened.id);
    }
    // Somebody else's: committed, since the conflict waited for it.
    Ok(sql_query("SELECT id FROM conversations WHERE account_id = $1 AND peer_wxid = $2")
        .bind::<SqlUuid, _>(chat.account_id)
        .bind::<Text, _>(chat.peer_wxid)
        .cached()
        .get_result::<Id>(conn)
        .await?
        .id)
}

const LOCK: &str = concat!(
    "WITH lane AS MATERIALIZED (SELECT id FROM lanes WHERE id = $1 FOR UPDATE) SELECT ",
    columns!("c"),
    ", clock_timestamp() AS now FROM lane JOIN conversations c ON c.id = lane.id WHERE c.organization_id = $2 \
     FOR UPDATE OF c"
);

/// Locks a conversation with its lane, for whoever will enqueue an answer to be written.
pub async fn lock(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Locked>> {
    Ok(sql_query(LOCK)
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(organization)
        .cached()
        .get_result(conn)
        .await
        .optional()?)
}

/// Locks lanes in the order of their ids.
pub async fn lock_lanes(conn: &mut Conn, organization: Uuid, ids: &[Uuid]) -> Result<()> {
    sql_query("SELECT id FROM lanes WHERE id = ANY($1) AND organization_id = $2 ORDER BY id FOR UPDATE")
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<SqlUuid, _>(organization)
        .cached()
        .load::<Id>(conn)
        .await?;
    Ok(())
}

/// Locks a conversation with its lane and that of its account, for whoever will enqueue a message to be sent.
pub async fn lock_to_send(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    id: Uuid,
) -> Result<Option<Locked>> {
    lock_lanes(conn, organization, &[account, id]).await?;
    lock_row(conn, organization, id).await
}

const LOCK_ROW: &str = concat!(
    "SELECT ",
    columns!("c"),
    ", clock_timestamp() AS now FROM conversations c WHERE c.id = $1 AND c.organization_id = $2 FOR UPDATE"
);

/// Locks a conversation alone, for whoever enqueues nothing or holds the lanes already.
pub async fn lock_row(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Locked>> {
    Ok(sql_query(LOCK_ROW)
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(organization)
        .cached()
        .get_result(conn)
        .await
        .optional()?)
}

const LOCK_ALL: &str = concat!(
    "SELECT ",
    columns!("c"),
    ", clock_timestamp() AS now FROM conversations c \
     WHERE c.account_id = ANY(ARRAY(SELECT a.id FROM wechat_accounts a WHERE a.organization_id = $1)) \
       AND c.peer_wxid = $2 ORDER BY c.id FOR UPDATE"
);

/// Locks the chats of all accounts of the organisation with one person, in the order of their ids.
pub async fn lock_all_with(conn: &mut Conn, organization: Uuid, peer: &str) -> Result<Vec<Locked>> {
    Ok(sql_query(LOCK_ALL).bind::<SqlUuid, _>(organization).bind::<Text, _>(peer).cached().load(conn).await?)
}

/// A change of the mode, as it is written.
#[derive(Debug, Clone, Copy)]
pub struct ModeChange<'a> {
    /// `ai`, `human` or `paused`.
    pub mode: &'a str,
    /// When it ends by itself.
    pub until: Option<DateTime<Utc>>,
    /// Stable word.
    pub reason: &'a str,
    /// A sentence for people.
    pub note: Option<&'a str>,
    /// Who did it.
    pub by: Option<Uuid>,
    /// What becomes of turns that are not answered yet: `dropped` or `handed_off`.
    pub turns_become: &'a str,
    /// Why, as the turns have it.
    pub turns_reason: &'a str,
}

#[derive(QueryableByName)]
struct Epoch {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    mode_epoch: i64,
}

/// Sets the mode of a conversation that the caller has locked, under a new epoch, which it returns.
///
/// What was going to be said under the old epoch is not: turns that are not answered are closed and drafts superseded.
pub async fn set_mode(conn: &mut Conn, organization: Uuid, id: Uuid, change: &ModeChange<'_>) -> Result<i64> {
    let epoch = sql_query(
        "WITH changed AS ( \
             UPDATE conversations SET mode = $3, mode_until = $4, mode_reason = $5, mode_by = $7, \
                 mode_epoch = mode_epoch + 1 \
             WHERE id = $1 AND organization_id = $2 RETURNING id, organization_id, mode_epoch \
         ), noted AS ( \
             INSERT INTO mode_changes (id, organization_id, conversation_id, mode, until, reason, note, changed_by, \
                 epoch, changed_at) \
             SELECT $8, organization_id, id, $3, $4, $5, $6, $7, mode_epoch, clock_timestamp() FROM changed \
         ), closed AS ( \
             UPDATE turns SET state = $9, reason = $10, closed_at = clock_timestamp() FROM changed \
             WHERE turns.conversation_id = changed.id AND turns.state IN ('open', 'replying', 'review', 'answering') \
         ), withdrawn AS ( \
             UPDATE drafts SET state = 'superseded', decided_at = clock_timestamp() FROM changed \
             WHERE drafts.conversation_id = changed.id AND drafts.state = 'waiting' \
         ) \
         SELECT mode_epoch FROM changed",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(organization)
    .bind::<Text, _>(change.mode)
    .bind::<Nullable<Timestamptz>, _>(change.until)
    .bind::<Text, _>(change.reason)
    .bind::<Nullable<Text>, _>(change.note)
    .bind::<Nullable<SqlUuid>, _>(change.by)
    .bind::<SqlUuid, _>(Uuid::now_v7())
    .bind::<Text, _>(change.turns_become)
    .bind::<Text, _>(change.turns_reason)
    .cached()
    .get_result::<Epoch>(conn)
    .await?;
    Ok(epoch.mode_epoch)
}

/// Moves the end of a mode that stays as it is. The caller has locked the conversation.
pub async fn extend_mode(conn: &mut Conn, organization: Uuid, id: Uuid, until: DateTime<Utc>) -> Result<()> {
    diesel::update(conversations::table.find(id).filter(conversations::organization_id.eq(organization)))
        .set(conversations::mode_until.eq(until))
        .execute(conn)
        .await?;
    Ok(())
}

/// Writes down that a mode which ran out is `ai` again: the same epoch, and nothing is closed. The caller has locked the
/// conversation.
pub async fn settle_mode(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<()> {
    diesel::update(conversations::table.find(id).filter(conversations::organization_id.eq(organization)))
        .set((conversations::mode.eq("ai"), conversations::mode_until.eq(None::<DateTime<Utc>>)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Marks everything as read. Returns false if the organisation has no such conversation.
pub async fn mark_read(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<bool> {
    let changed =
        diesel::update(conversations::table.find(id).filter(conversations::organization_id.eq(organization)))
            .set(conversations::unread.eq(0))
            .execute(conn)
            .await?;
    Ok(changed == 1)
}

#[derive(QueryableByName)]
struct Flag {
    #[diesel(sql_type = Bool)]
    found: bool,
}

/// Tells whether a person handed the conversation back later than `at`, by more than `slack_s` seconds.
pub async fn handed_back_after(
    conn: &mut Conn,
    conversation: Uuid,
    at: DateTime<Utc>,
    slack_s: f64,
) -> Result<bool> {
    let row = sql_query(
        "SELECT COALESCE((SELECT m.reason = 'hand_back' AND m.changed_at > $2 + $3 * interval '1 second' \
             FROM mode_changes m WHERE m.conversation_id = $1 ORDER BY m.id DESC LIMIT 1), false) AS found",
    )
    .bind::<SqlUuid, _>(conversation)
    .bind::<Timestamptz, _>(at)
    .bind::<Double, _>(slack_s)
    .get_result::<Flag>(conn)
    .await?;
    Ok(row.found)
}

/// What decides whether a machine may write to somebody, beside the conversation's row.
#[derive(Debug, Clone, QueryableByName)]
pub struct MachineFacts {
    /// The person, or who wrote the turn in a group, wants no more messages.
    #[diesel(sql_type = Bool)]
    pub opted_out: bool,
    /// A person of ours said: nothing that a machine writes.
    #[diesel(sql_type = Bool)]
    pub suppressed: bool,
    /// No friend any more, or the group was left.
    #[diesel(sql_type = Bool)]
    pub removed: bool,
    /// The account is answered for by machine.
    #[diesel(sql_type = Bool)]
    pub ai_enabled: bool,
    /// An emergency stop of the AI is in force.
    #[diesel(sql_type = Bool)]
    pub ai_stopped: bool,
    /// The account was put on hold after the turn had begun.
    #[diesel(sql_type = Bool)]
    pub held_since: bool,
    /// State of the turn that is answered.
    #[diesel(sql_type = Nullable<Text>)]
    pub turn_state: Option<String>,
    /// Its run.
    #[diesel(sql_type = Nullable<SmallInt>)]
    pub turn_run: Option<i16>,
}

const MACHINE: &str = "\
SELECT EXISTS (SELECT FROM opt_outs o WHERE o.organization_id = $1 AND o.wxid IN ($3, t.sender_wxid)) AS opted_out,
    k.suppressed_at IS NOT NULL AS suppressed, k.removed_at IS NOT NULL AS removed,
    COALESCE(ai.enabled, false) AS ai_enabled,
    EXISTS (SELECT FROM stops x WHERE x.organization_id = $1 AND x.scope = 'ai') AS ai_stopped,
    EXISTS (SELECT FROM wechat_accounts a WHERE a.id = $2 AND a.risk_held_at > t.opened_at) AS held_since,
    t.state AS turn_state, t.run AS turn_run
FROM (SELECT 1) AS one
LEFT JOIN contacts k ON k.account_id = $2 AND k.wxid = $3
LEFT JOIN account_ai ai ON ai.account_id = $2
LEFT JOIN turns t ON t.id = $4 AND t.organization_id = $1";

/// Reads whether a machine may write to `peer`, and where the turn stands that it answers.
///
/// With a turn, the caller has locked its conversation: nobody changes a turn without.
pub async fn machine_facts(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    peer: &str,
    turn: Option<Uuid>,
) -> Result<MachineFacts> {
    Ok(sql_query(MACHINE)
        .bind::<SqlUuid, _>(organization)
        .bind::<SqlUuid, _>(account)
        .bind::<Text, _>(peer)
        .bind::<Nullable<SqlUuid>, _>(turn)
        .cached()
        .get_result(conn)
        .await?)
}
