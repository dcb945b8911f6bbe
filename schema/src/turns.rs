//! Turns: what a customer writes in a row. Whoever changes one holds the row of its conversation.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Bool, Integer, Nullable, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::turns;
use crate::{Conn, Result};

/// A turn.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, QueryableByName)]
#[diesel(table_name = turns)]
pub struct Turn {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The conversation.
    pub conversation_id: Uuid,
    /// Who writes.
    pub sender_wxid: String,
    /// `open`, `replying`, `review`, `answering`, `answered`, `dropped` or `handed_off`.
    pub state: String,
    /// Why it has no answer.
    pub reason: Option<String>,
    /// The conversation's epoch when it was opened.
    pub epoch: i64,
    /// Which run of the model it is at, from 1.
    pub run: i16,
    /// How many messages it has.
    pub messages: i32,
    /// The job of the present run.
    pub job_id: Uuid,
    /// When its first message came.
    pub opened_at: DateTime<Utc>,
    /// When its latest message came.
    pub last_message_at: DateTime<Utc>,
    /// When it is answered.
    pub flush_at: DateTime<Utc>,
    /// What a person asked for in words.
    pub instruction: Option<String>,
    /// When the first part of the answer passed the gate.
    pub answered_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub closed_at: Option<DateTime<Utc>>,
}

/// Inserts a turn.
pub async fn insert(conn: &mut Conn, turn: &Turn) -> Result<()> {
    diesel::insert_into(turns::table).values(turn).execute(conn).await?;
    Ok(())
}

/// Returns a turn of the organisation.
pub async fn get(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Turn>> {
    Ok(turns::table
        .find(id)
        .filter(turns::organization_id.eq(organization))
        .select(Turn::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// The turn that a new message of a sender may belong to.
#[derive(Debug, Clone, QueryableByName)]
pub struct Standing {
    /// The turn.
    #[diesel(embed)]
    pub turn: Turn,
    /// Its job has ended.
    #[diesel(sql_type = Bool)]
    pub job_ended: bool,
}

const COLUMNS: &str = "t.id, t.organization_id, t.account_id, t.conversation_id, t.sender_wxid, t.state, t.reason, \
    t.epoch, t.run, t.messages, t.job_id, t.opened_at, t.last_message_at, t.flush_at, t.instruction, t.answered_at, \
    t.closed_at";

/// Only the latest turns are looked at: a conversation may have thousands, and one that is being answered is young.
static STANDING: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS}, COALESCE((SELECT j.final_state IS NOT NULL FROM jobs j WHERE j.id = t.job_id), true) \
             AS job_ended \
         FROM ( \
             (SELECT {COLUMNS} FROM turns t WHERE t.conversation_id = $1 AND t.sender_wxid = $2 AND t.state = 'open') \
             UNION ALL \
             (SELECT {COLUMNS} FROM turns t WHERE t.conversation_id = $1 ORDER BY t.id DESC LIMIT 20) \
         ) AS t \
         WHERE t.sender_wxid = $2 AND t.state IN ('open', 'replying', 'review', 'answering') \
         ORDER BY t.state = 'open' DESC, t.id DESC LIMIT 1"
    )
});

/// Returns the turn of `sender` that is open, or else the latest that is being answered. The caller has locked the
/// conversation.
pub async fn standing(conn: &mut Conn, conversation: Uuid, sender: &str) -> Result<Option<Standing>> {
    Ok(sql_query(&*STANDING)
        .bind::<SqlUuid, _>(conversation)
        .bind::<Text, _>(sender)
        .cached()
        .get_result(conn)
        .await
        .optional()?)
}

/// Adds a message to an open turn, which is answered at `flush_at`.
pub async fn extend(conn: &mut Conn, id: Uuid, now: DateTime<Utc>, flush_at: DateTime<Utc>) -> Result<()> {
    diesel::update(turns::table.find(id).filter(turns::state.eq("open")))
        .set((
            turns::messages.eq(turns::messages + 1),
            turns::last_message_at.eq(now),
            turns::flush_at.eq(flush_at),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Opens a turn again for one more run with one more message; drafts of the old run are superseded.
pub async fn reopen(
    conn: &mut Conn,
    id: Uuid,
    job: Uuid,
    now: DateTime<Utc>,
    flush_at: DateTime<Utc>,
) -> Result<()> {
    sql_query(
        "WITH reopened AS ( \
             UPDATE turns SET state = 'open', run = run + 1, messages = messages + 1, job_id = $2, \
                 last_message_at = $3, flush_at = $4 \
             WHERE id = $1 RETURNING id, conversation_id \
         ) \
         UPDATE drafts SET state = 'superseded', decided_at = clock_timestamp() FROM reopened \
         WHERE drafts.conversation_id = reopened.conversation_id AND drafts.turn_id = reopened.id \
           AND drafts.state = 'waiting'",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(job)
    .bind::<Timestamptz, _>(now)
    .bind::<Timestamptz, _>(flush_at)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// Moves a turn that stands in one of `from` at `run`. Returns false if it stands elsewhere.
///
/// A turn that reaches `answered`, `dropped` or `handed_off` is closed. The caller has locked the conversation.
pub async fn set_state(
    conn: &mut Conn,
    id: Uuid,
    run: i16,
    from: &[&str],
    to: &str,
    reason: Option<&str>,
) -> Result<bool> {
    let changed = sql_query(
        "UPDATE turns SET state = $4, reason = COALESCE($5, reason), \
             answered_at = CASE WHEN $4 = 'answered' THEN clock_timestamp() ELSE answered_at END, \
             closed_at = CASE WHEN $4 IN ('answered', 'dropped', 'handed_off') THEN clock_timestamp() END \
         WHERE id = $1 AND run = $2 AND state = ANY($3)",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<SmallInt, _>(run)
    .bind::<Array<Text>, _>(from)
    .bind::<Text, _>(to)
    .bind::<Nullable<Text>, _>(reason)
    .cached()
    .execute(conn)
    .await?;
    Ok(changed == 1)
}

/// Drops a turn and gives its messages to another, which is about to be made. Returns how many there were.
pub async fn absorb(conn: &mut Conn, id: Uuid, by: Uuid, reason: &str) -> Result<i32> {
    let moved: Absorbed = sql_query(
        "WITH moved AS ( \
             UPDATE messages SET turn_id = $2 WHERE turn_id = $1 AND direction = 'in' RETURNING id, recalled_at \
         ), dropped AS ( \
             UPDATE turns SET state = 'dropped', reason = $3, messages = 0, closed_at = clock_timestamp() WHERE id = $1 \
         ) \
         SELECT count(*)::integer AS messages FROM moved WHERE recalled_at IS NULL",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(by)
    .bind::<Text, _>(reason)
    .get_result(conn)
    .await?;
    Ok(moved.messages)
}

#[derive(QueryableByName)]
struct Absorbed {
    #[diesel(sql_type = Integer)]
    messages: i32,
}

/// Drops the turns of a conversation that are not answered yet; of one sender, or of all. Drafts are superseded.
pub async fn drop_all(conn: &mut Conn, conversation: Uuid, sender: Option<&str>, reason: &str) -> Result<()> {
    sql_query(
        "WITH dropped AS ( \
             UPDATE turns SET state = 'dropped', reason = $3, closed_at = clock_timestamp() \
             WHERE conversation_id = $1 AND ($2 IS NULL OR sender_wxid = $2) \
               AND state IN ('open', 'replying', 'review', 'answering') RETURNING id \
         ) \
         UPDATE drafts SET state = 'superseded', decided_at = clock_timestamp() FROM dropped \
         WHERE drafts.conversation_id = $1 AND drafts.turn_id = dropped.id AND drafts.state = 'waiting'",
    )
    .bind::<SqlUuid, _>(conversation)
    .bind::<Nullable<Text>, _>(sender)
    .bind::<Text, _>(reason)
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes one message out of an open turn; without messages it is dropped. The caller has locked the conversation.
pub async fn take_out(conn: &mut Conn, id: Uuid) -> Result<()> {
    sql_query(
        "UPDATE turns SET messages = messages - 1, \
             state = CASE WHEN messages <= 1 THEN 'dropped' ELSE state END, \
             reason = CASE WHEN messages <= 1 THEN 'recalled' ELSE reason END, \
             closed_at = CASE WHEN messages <= 1 THEN clock_timestamp() END \
         WHERE id = $1 AND state = 'open'",
    )
    .bind::<SqlUuid, _>(id)
    .execute(conn)
    .await?;
    Ok(())
}
