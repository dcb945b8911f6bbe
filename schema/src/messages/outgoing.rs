//! What we say ourselves: a message is written by the statement that lets its send begin.

use std::sync::LazyLock;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Bool, Jsonb, Nullable, SmallInt, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::conversations::{self, NewChat};
use crate::sends::{BEGIN, NewSend};
use crate::{Conn, Result};

/// A message of ours that is about to leave.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// `person`, `ai` or `sop`.
    pub origin: &'a str,
    /// What a person reads.
    pub text: &'a str,
    /// What the kind has beside its text.
    pub content: Option<&'a Value>,
    /// The account's own id in WeChat.
    pub sender_wxid: &'a str,
    /// The turn that it answers.
    pub turn_id: Option<Uuid>,
    /// The person who asked for it.
    pub user_id: Option<Uuid>,
    /// It must not leave if the recipient has opted out in the meantime.
    pub heeds_opt_outs: bool,
    /// Kind of the conversation, if there is none yet: `friend` or `group`.
    pub chat_kind: &'a str,
    /// Kind of the contact, if there is none yet.
    pub contact_kind: &'a str,
}

/// The send and what the conversation shows of it, in one statement.
///
/// A job has one message, however often it is tried: a later send takes over the message of an earlier one. Someone who
/// opted out since the gate locked is written to by no machine.
static BEGIN_MESSAGE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "\
WITH begun AS (
    {BEGIN}
      AND NOT ($9 AND EXISTS (SELECT FROM opt_outs o WHERE o.organization_id = $2 AND o.wxid = $7))
    RETURNING id, job_id, started_at
), chat AS (
    SELECT c.id FROM begun JOIN conversations c ON c.account_id = $3 AND c.peer_wxid = $7
), moved AS (
    UPDATE messages SET send_id = begun.id FROM begun
    WHERE messages.send_id IN (SELECT s.id FROM sends s WHERE s.job_id = $5)
    RETURNING messages.id
), written AS (
    INSERT INTO messages (id, organization_id, account_id, conversation_id, direction, origin, kind, text, content,
        sender_wxid, send_id, job_id, turn_id, user_id, created_at)
    SELECT $10, $2, $3, chat.id, 'out', $11, $8, $12, $13, $14, begun.id, begun.job_id, $15, $16, begun.started_at
    FROM begun, chat WHERE NOT EXISTS (SELECT FROM moved)
), touched AS (
    UPDATE conversations SET last_message_at = GREATEST(last_message_at, begun.started_at) FROM begun, chat
    WHERE conversations.id = chat.id
)
SELECT (SELECT id FROM chat) AS conversation_id FROM begun"
    )
});

#[derive(QueryableByName)]
struct Begun {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    conversation_id: Option<Uuid>,
}

/// Writes `sending` and the message. False, and nothing is written: see [`crate::sends::begin`].
pub(crate) async fn begin(conn: &mut Conn, send: &NewSend<'_>, message: &Outgoing<'_>) -> Result<bool> {
    let begun = sql_query(&*BEGIN_MESSAGE)
        .bind::<SqlUuid, _>(send.id)
        .bind::<SqlUuid, _>(send.organization_id)
        .bind::<SqlUuid, _>(send.account_id)
        .bind::<Text, _>(send.token_key)
        .bind::<SqlUuid, _>(send.job_id)
        .bind::<SmallInt, _>(send.attempt)
        .bind::<Text, _>(send.to_wxid)
        .bind::<Text, _>(send.message_kind)
        .bind::<Bool, _>(message.heeds_opt_outs)
        .bind::<SqlUuid, _>(Uuid::now_v7())
        .bind::<Text, _>(message.origin)
        .bind::<Text, _>(message.text)
        .bind::<Nullable<Jsonb>, _>(message.content)
        .bind::<Text, _>(message.sender_wxid)
        .bind::<Nullable<SqlUuid>, _>(message.turn_id)
        .bind::<Nullable<SqlUuid>, _>(message.user_id)
        .cached()
        .get_result::<Begun>(conn)
        .await
        .optional()?;
    match begun {
        None => Ok(false),
        Some(Begun { conversation_id: Some(_) }) => Ok(true),
        Some(Begun { conversation_id: None }) => {
            begin_chat(conn, send, message).await?;
            Ok(true)
        }
    }
}

/// Opens the conversation with a recipient to whom nothing was ever written, and puts the message into it.
async fn begin_chat(conn: &mut Conn, send: &NewSend<'_>, message: &Outgoing<'_>) -> Result<()> {
    let chat = NewChat {
        organization_id: send.organization_id,
        account_id: send.account_id,
        peer_wxid: send.to_wxid,
        contact_kind: message.contact_kind,
        kind: message.chat_kind,
    };
    let conversation = conversations::open(conn, chat).await?;
    sql_query(
        "WITH written AS ( \
             INSERT INTO messages (id, organization_id, account_id, conversation_id, direction, origin, kind, text, \
                 content, sender_wxid, send_id, job_id, turn_id, user_id) \
             VALUES ($1, $2, $3, $4, 'out', $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         ) \
         UPDATE conversations SET last_message_at = GREATEST(last_message_at, clock_timestamp()) WHERE id = $4",
    )
    .bind::<SqlUuid, _>(Uuid::now_v7())
    .bind::<SqlUuid, _>(send.organization_id)
    .bind::<SqlUuid, _>(send.account_id)
    .bind::<SqlUuid, _>(conversation)
    .bind::<Text, _>(message.origin)
    .bind::<Text, _>(send.message_kind)
    .bind::<Text, _>(message.text)
    .bind::<Nullable<Jsonb>, _>(message.content)
    .bind::<Text, _>(message.sender_wxid)
    .bind::<SqlUuid, _>(send.id)
    .bind::<SqlUuid, _>(send.job_id)
    .bind::<Nullable<SqlUuid>, _>(message.turn_id)
    .bind::<Nullable<SqlUuid>, _>(message.user_id)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}
