//! What an answer by the model needs of the record: the turn and its chat under their locks, the question's messages,
//! and what people said in between.
//!
//! Whoever calls these in one transaction keeps the order lanes → conversations → turns.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::{sensitive_words, turns};
use crate::{Conn, Result};

/// A chat, as a reply sees it.
#[derive(Debug, Clone, QueryableByName)]
pub struct Chat {
    /// The database's time.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
    /// The account.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    /// The other side.
    #[diesel(sql_type = Text)]
    pub peer_wxid: String,
    /// `friend` or `group`.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// `ai`, `human` or `paused`.
    #[diesel(sql_type = Text)]
    pub mode: String,
    /// When `human` goes back to `ai`.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub mode_until: Option<DateTime<Utc>>,
    /// Grows with every change of the mode.
    #[diesel(sql_type = BigInt)]
    pub mode_epoch: i64,
    /// Part of the name of the chat at the provider.
    #[diesel(sql_type = Integer)]
    pub era: i32,
    /// When the era was used last.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub era_used_at: Option<DateTime<Utc>>,
}

impl Chat {
    /// Tells whether a machine may answer now.
    pub fn is_ai(&self) -> bool {
        match self.mode.as_str() {
            "ai" => true,
            "human" => self.mode_until.is_some_and(|until| until <= self.now),
            _ => false,
        }
    }
}

/// Locks a chat, and reads it. None: the organisation has no such chat.
pub async fn lock_chat(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Chat>> {
    Ok(sql_query(
        "SELECT clock_timestamp() AS now, account_id, peer_wxid, kind, mode, mode_until, mode_epoch, era, era_used_at \
         FROM conversations WHERE id = $1 AND organization_id = $2 FOR UPDATE",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(organization)
    .cached()
    .get_result(conn)
    .await
    .optional()?)
}

/// Whether the model may be asked for an answer in a chat.
#[derive(Debug, Clone, QueryableByName)]
pub struct Askable {
    /// The chat.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Its account.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    /// Its epoch.
    #[diesel(sql_type = BigInt)]
    pub mode_epoch: i64,
    /// A machine may answer now.
    #[diesel(sql_type = Bool)]
    pub is_ai: bool,
    /// A machine answers for the account, and nothing has stopped it.
    #[diesel(sql_type = Bool)]
    pub enabled: bool,
    /// No machine writes to this contact.
    #[diesel(sql_type = Bool)]
    pub stopped: bool,
}

/// Reads how chats stand, without a lock. Those of other organisations are not among them.
pub async fn askable(conn: &mut Conn, organization: Uuid, ids: &[Uuid]) -> Result<Vec<Askable>> {
    Ok(sql_query(
        "SELECT c.id, c.account_id, c.mode_epoch, \
             c.mode = 'ai' OR (c.mode = 'human' AND coalesce(c.mode_until <= clock_timestamp(), false)) AS is_ai, \
             coalesce(ai.enabled AND ai.workflow_id IS NOT NULL, false) AND a.deleted_at IS NULL \
                 AND NOT EXISTS (SELECT FROM stops x WHERE x.organization_id = c.organization_id AND x.scope = 'ai') \
                 AS enabled, \
             k.suppressed_at IS NOT NULL OR k.removed_at IS NOT NULL OR EXISTS (SELECT FROM opt_outs o \
                 WHERE o.organization_id = c.organization_id AND o.wxid = c.peer_wxid) AS stopped \
         FROM conversations c JOIN wechat_accounts a ON a.id = c.account_id \
             LEFT JOIN contacts k ON k.id = c.contact_id LEFT JOIN account_ai ai ON ai.account_id = c.account_id \
         WHERE c.id = ANY($1) AND c.organization_id = $2",
    )
    .bind::<Array<SqlUuid>, _>(ids)
    .bind::<SqlUuid, _>(organization)
    .load(conn)
    .await?)
}

/// A turn, as a reply sees it.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = turns)]
pub struct Turn {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The chat.
    pub conversation_id: Uuid,
    /// Who wrote.
    pub sender_wxid: String,
    /// Where it stands.
    pub state: String,
    /// The epoch under which it was opened.
    pub epoch: i64,
    /// Which run of the model it is at.
    pub run: i16,
    /// Messages in it.
    pub messages: i32,
    /// The job of the present run.
    pub job_id: Uuid,
    /// Its first message.
    pub opened_at: DateTime<Utc>,
    /// Its last message.
    pub last_message_at: DateTime<Utc>,
    /// When it is due.
    pub flush_at: DateTime<Utc>,
    /// What a person asked for in words.
    pub instruction: Option<String>,
}

/// Locks a turn of a chat, and reads it.
pub async fn lock_turn(
    conn: &mut Conn,
    organization: Uuid,
    conversation: Uuid,
    id: Uuid,
) -> Result<Option<Turn>> {
    Ok(turns::table
        .find(id)
        .filter(turns::organization_id.eq(organization).and(turns::conversation_id.eq(conversation)))
        .select(Turn::as_select())
        .for_update()
        .first(conn)
        .await
        .optional()?)
}

/// Returns the turn that a job opened or took, if it is among the latest of its chat.
pub async fn turn_of_job(
    conn: &mut Conn,
    organization: Uuid,
    conversation: Uuid,
    job: Uuid,
) -> Result<Option<Uuid>> {
    // Walks back over the chat's turns by their index; the turn of a live job is young.
    let latest: Vec<(Uuid, Uuid)> = turns::table
        .filter(turns::conversation_id.eq(conversation).and(turns::organization_id.eq(organization)))
        .order(turns::id.desc())
        .limit(100)
        .select((turns::id, turns::job_id))
        .load(conn)
        .await?;
    Ok(latest.into_iter().find(|(_, of)| *of == job).map(|(id, _)| id))
}

/// Opens the turn for which a person asked, under the lock of its chat, and returns it.
///
/// If messages of the sender are being collected just now, that turn is taken: it is due at once, and the job that
/// waited for it finds another run.
pub async fn open_asked(conn: &mut Conn, asked: &Turn) -> Result<Turn> {
    Ok(diesel::insert_into(turns::table)
        .values(asked)
        .on_conflict((turns::conversation_id, turns::sender_wxid))
        // In words: Postgres finds the index of open turns by a constant, not by a parameter.
        .filter_target(sql::<Bool>("state = 'open'"))
        .do_update()
        .set((
            turns::run.eq(turns::run + 1),
            turns::job_id.eq(asked.job_id),
            turns::flush_at.eq(asked.flush_at),
            turns::instruction.eq(&asked.instruction),
        ))
        .returning(Turn::as_returning())
        .get_result(conn)
        .await?)
}

/// Moves a turn, under its lock.
pub async fn set_turn(conn: &mut Conn, id: Uuid, state: &str, reason: Option<&str>) -> Result<()> {
    sql_query(
        "UPDATE turns SET state = $2, reason = $3, \
         closed_at = CASE WHEN $2 IN ('dropped', 'handed_off') THEN clock_timestamp() END WHERE id = $1",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Text, _>(state)
    .bind::<Nullable<Text>, _>(reason)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks a lane that jobs will be enqueued in, before the chat is locked.
pub async fn lock_lane(conn: &mut Conn, id: Uuid) -> Result<()> {
    sql_query("SELECT FROM lanes WHERE id = $1 FOR UPDATE")
        .bind::<SqlUuid, _>(id)
        .cached()
        .execute(conn)
        .await?;
    Ok(())
}

/// What else speaks for or against an answer, and how to address the customer.
#[derive(Debug, Clone, QueryableByName)]
pub struct Facts {
    /// The customer, or the group, wants no more messages.
    #[diesel(sql_type = Bool)]
    pub opted_out: bool,
    /// A person said that no machine writes to this contact.
    #[diesel(sql_type = Bool)]
    pub suppressed: bool,
    /// The contact is none any more.
    #[diesel(sql_type = Bool)]
    pub removed: bool,
    /// The account was removed.
    #[diesel(sql_type = Bool)]
    pub account_removed: bool,
    /// The account is on hold: only people answer, by hand.
    #[diesel(sql_type = Bool)]
    pub account_held: bool,
    /// The person who owns the account; their budget counts.
    #[diesel(sql_type = SqlUuid)]
    pub owner_id: Uuid,
    /// How the customer is called.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// The chat was told that a machine answers, and that message was sent.
    #[diesel(sql_type = Bool)]
    pub disclosed: bool,
    /// An emergency stop of the AI is in force.
    #[diesel(sql_type = Bool)]
    pub ai_stopped: bool,
}

/// Reads what else speaks for or against an answer.
pub async fn facts(
    conn: &mut Conn,
    organization: Uuid,
    conversation: Uuid,
    sender: &str,
) -> Result<Option<Facts>> {
    Ok(sql_query(
        "SELECT EXISTS (SELECT FROM opt_outs o WHERE o.organization_id = c.organization_id \
                 AND o.wxid = ANY(ARRAY[c.peer_wxid, $3])) AS opted_out, \
             coalesce(k.suppressed_at IS NOT NULL, false) \
                 OR EXISTS (SELECT FROM contacts s WHERE s.account_id = c.account_id AND s.wxid = $3 \
                     AND s.suppressed_at IS NOT NULL) AS suppressed, \
             coalesce(k.removed_at IS NOT NULL, false) AS removed, \
             a.deleted_at IS NOT NULL AS account_removed, a.status = 'RISK_HOLD' AS account_held, a.user_id AS owner_id, \
             coalesce((SELECT coalesce(nullif(g.display_name, ''), g.nickname) FROM group_members g \
                 WHERE c.kind = 'group' AND g.account_id = c.account_id AND g.group_wxid = c.peer_wxid AND g.wxid = $3), \
                 (SELECT s.nickname FROM contacts s WHERE s.account_id = c.account_id AND s.wxid = $3), '') AS name, \
             c.disclosed_at IS NOT NULL AND EXISTS (SELECT FROM turns t WHERE t.conversation_id = c.id \
                 AND t.answered_at >= c.disclosed_at) \
                 OR EXISTS (SELECT FROM (SELECT s.state, s.run_id, s.fallback_code FROM sop_steps s \
                     WHERE s.contact_id = c.contact_id AND s.sent_at IS NOT NULL OFFSET 0) s \
                     WHERE s.state = 'sent' AND s.run_id IS NOT NULL AND s.fallback_code IS NULL) AS disclosed, \
             EXISTS (SELECT FROM stops x WHERE x.organization_id = c.organization_id AND x.scope = 'ai') AS ai_stopped \
         FROM conversations c JOIN wechat_accounts a ON a.id = c.account_id \
             LEFT JOIN contacts k ON k.id = c.contact_id \
         WHERE c.id = $1 AND c.organization_id = $2",
    )
    .bind::<SqlUuid, _>(conversation)
    .bind::<SqlUuid, _>(organization)
    .bind::<Text, _>(sender)
    .cached()
    .get_result(conn)
    .await
    .optional()?)
}

/// Notes that the chat is told that a machine answers.
pub async fn disclose(conn: &mut Conn, conversation: Uuid) -> Result<()> {
    sql_query("UPDATE conversations SET disclosed_at = clock_timestamp() WHERE id = $1")
        .bind::<SqlUuid, _>(conversation)
        .cached()
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes which era of the chat is used, and that it is used now.
pub async fn use_era(conn: &mut Conn, conversation: Uuid, era: i32) -> Result<()> {
    sql_query("UPDATE conversations SET era = $2, era_used_at = clock_timestamp() WHERE id = $1")
        .bind::<SqlUuid, _>(conversation)
        .bind::<Integer, _>(era)
        .cached()
        .execute(conn)
        .await?;
    Ok(())
}

/// A message, as a question or a history quotes it.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct Said {
    /// The message.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// `customer`, `phone`, `person`, `ai` or `sop`.
    #[diesel(sql_type = Text)]
    pub origin: String,
    /// Its kind.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// What a person reads.
    #[diesel(sql_type = Text)]
    pub text: String,
    /// What the kind has beside its text.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub content: Option<Value>,
    /// Where its media is.
    #[diesel(sql_type = Nullable<Text>)]
    pub media_state: Option<String>,
    /// When, in the organisation's time zone, as people write it.
    #[diesel(sql_type = Text)]
    pub at: String,
}

/// Reads `clock` in the organisation's zone; the same default stands in the migration.
const SAID: &str = "\
SELECT m.id, m.origin, m.kind, m.text, m.content, m.media_state,
    to_char(coalesce(m.sent_at, m.created_at) AT TIME ZONE coalesce((SELECT s.timezone FROM organization_settings s
        WHERE s.organization_id = m.organization_id), 'Asia/Shanghai'), 'MM-DD HH24:MI') AS at
FROM messages m";

/// Returns what a turn's messages say, in the order in which they were written.
pub async fn turn_messages(conn: &mut Conn, organization: Uuid, turn: Uuid) -> Result<Vec<Said>> {
    Ok(sql_query(format!(
        "{SAID} WHERE m.turn_id = $1 AND m.organization_id = $2 AND m.direction = 'in' AND m.recalled_at IS NULL \
         ORDER BY coalesce(m.sent_at, m.created_at), m.id LIMIT 100"
    ))
    .bind::<SqlUuid, _>(turn)
    .bind::<SqlUuid, _>(organization)
    .load(conn)
    .await?)
}

/// Returns what a customer wrote last and nobody has answered, oldest first.
pub async fn unanswered(
    conn: &mut Conn,
    organization: Uuid,
    conversation: Uuid,
    sender: &str,
) -> Result<Vec<Said>> {
    let mut said: Vec<Said> = sql_query(format!(
        "{SAID} WHERE m.conversation_id = $1 AND m.organization_id = $2 AND m.direction = 'in' \
             AND m.sender_wxid = $3 AND m.recalled_at IS NULL \
             AND m.id > coalesce((SELECT o.id FROM messages o WHERE o.conversation_id = $1 AND o.direction = 'out' \
                 ORDER BY o.id DESC LIMIT 1), '00000000-0000-0000-0000-000000000000') \
         ORDER BY m.id DESC LIMIT 10"
    ))
    .bind::<SqlUuid, _>(conversation)
    .bind::<SqlUuid, _>(organization)
    .bind::<Text, _>(sender)
    .load(conn)
    .await?;
    said.reverse();
    Ok(said)
}

/// Returns what was said last in a chat, by whomever, oldest first.
pub async fn recent(
    conn: &mut Conn,
    organization: Uuid,
    conversation: Uuid,
    limit: i64,
) -> Result<Vec<Said>> {
    let mut said: Vec<Said> = sql_query(format!(
        "{SAID} WHERE m.conversation_id = $1 AND m.organization_id = $2 AND m.recalled_at IS NULL \
         ORDER BY m.id DESC LIMIT $3"
    ))
    .bind::<SqlUuid, _>(conversation)
    .bind::<SqlUuid, _>(organization)
    .bind::<diesel::sql_types::BigInt, _>(limit)
    .load(conn)
    .await?;
    said.reverse();
    Ok(said)
}

/// One edge of a stretch in which people answered.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Edge {
    /// The mode that began.
    #[diesel(sql_type = Text)]
    pub mode: String,
    /// Why.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// When, in the organisation's time zone, as people write it.
    #[diesel(sql_type = Text)]
    pub at: String,
    /// When it ends, or ended, by itself.
    #[diesel(sql_type = Nullable<Text>)]
    pub until: Option<String>,
}

/// What happened in a chat since the model answered last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Meanwhile {
    /// Who was to answer, oldest first.
    pub edges: Vec<Edge>,
    /// What was said outside of `turn`, oldest first, if people answered.
    pub said: Vec<Said>,
}

/// Returns what happened in a chat since the model answered last: the newest 20 edges and 50 messages.
pub async fn meanwhile(
    conn: &mut Conn,
    organization: Uuid,
    conversation: Uuid,
    turn: Uuid,
) -> Result<Meanwhile> {
    #[derive(QueryableByName)]
    struct Since {
        #[diesel(sql_type = Timestamptz)]
        since: DateTime<Utc>,
    }
    let since: Since = sql_query(
        "SELECT coalesce((SELECT t.answered_at FROM turns t WHERE t.conversation_id = $1 AND t.id < $2 \
             AND t.answered_at IS NOT NULL ORDER BY t.id DESC LIMIT 1), 'epoch') AS since",
    )
    .bind::<SqlUuid, _>(conversation)
    .bind::<SqlUuid, _>(turn)
    .cached()
    .get_result(conn)
    .await?;
    let mut edges: Vec<Edge> = sql_query(
        "SELECT e.mode, e.reason, to_char(e.changed_at AT TIME ZONE z.zone, 'MM-DD HH24:MI') AS at, \
             to_char(e.until AT TIME ZONE z.zone, 'MM-DD HH24:MI') AS until \
         FROM mode_changes e, (SELECT coalesce((SELECT timezone FROM organization_settings \
             WHERE organization_id = $2), 'Asia/Shanghai') AS zone) z \
         WHERE e.conversation_id = $1 AND e.organization_id = $2 AND e.changed_at > $3 ORDER BY e.id DESC LIMIT 20",
    )
    .bind::<SqlUuid, _>(conversation)
    .bind::<SqlUuid, _>(organization)
    .bind::<Timestamptz, _>(since.since)
    .cached()
    .load(conn)
    .await?;
    edges.reverse();
    let mut said: Vec<Said> = sql_query(format!(
        "{SAID} WHERE m.conversation_id = $1 AND m.organization_id = $2 AND m.created_at > $3 \
             AND m.turn_id IS DISTINCT FROM $4 AND m.origin IN ('customer', 'phone', 'person') \
             AND m.recalled_at IS NULL \
         ORDER BY m.id DESC LIMIT 50"
    ))
    .bind::<SqlUuid, _>(conversation)
    .bind::<SqlUuid, _>(organization)
    .bind::<Timestamptz, _>(since.since)
    .bind::<SqlUuid, _>(turn)
    .load(conn)
    .await?;
    said.reverse();
    Ok(Meanwhile { edges, said })
}

/// A sensitive word, as texts are compared with it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = sensitive_words)]
pub struct SensitiveWord {
    /// UUIDv7.
    pub id: Uuid,
    /// As it is compared.
    pub normalized: String,
    /// `block`, `review` or `mask`.
    pub action: String,
}

/// Returns an organisation's sensitive words, in a stable order.
pub async fn sensitive_words(conn: &mut Conn, organization: Uuid) -> Result<Vec<SensitiveWord>> {
    Ok(sensitive_words::table
        .filter(sensitive_words::organization_id.eq(organization))
        .order(sensitive_words::id)
        .limit(20_000)
        .select(SensitiveWord::as_select())
        .load(conn)
        .await?)
}
