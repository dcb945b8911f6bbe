//! Wanting no more messages: in force for every account of the organisation at once.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::conversations::{self, Locked, ModeChange};
use entropy_schema::opt_outs::{self, NewOptOut};
use entropy_schema::record::enqueue::enqueue;
use entropy_schema::{Conn, Result};
use serde_json::json;
use uuid::Uuid;

use super::Origin;
use crate::campaign::events as campaigns;
use crate::class::Class;
use crate::enqueue::{Options, new_job};
use crate::kinds::send_message::SendMessage;
use crate::lifecycle::OnUnknown;
use crate::message::{MAX_TEXT_CHARS, Message, Text};

/// How late the confirmation may be sent; later it would be one more message that nobody wants.
const CONFIRM_WITHIN: TimeDelta = TimeDelta::minutes(30);

/// Notes that somebody wants no more messages. Returns false if that was known; then nothing else happens.
///
/// `chats` are all conversations with them ([`conversations::lock_all_with`]), locked by the caller: their turns are dropped
/// and get no answer, and what was going to be said is not.
pub async fn opt_out(conn: &mut Conn, opt_out: &NewOptOut<'_>, chats: &[Locked]) -> Result<bool> {
    if !opt_outs::insert(conn, opt_out).await? {
        return Ok(false);
    }
    for locked in chats {
        let chat = &locked.conversation;
        let change = ModeChange {
            mode: &chat.mode,
            until: chat.mode_until,
            reason: "opt_out",
            note: None,
            by: opt_out.created_by,
            turns_become: "dropped",
            turns_reason: "opted_out",
        };
        conversations::set_mode(conn, chat.organization_id, chat.id, &change).await?;
    }
    campaigns::opted_out(conn, opt_out.organization_id, opt_out.wxid).await?;
    Ok(true)
}

/// Tells people that a customer has opted out.
pub async fn tell_people(
    conn: &mut Conn,
    opt_out: &NewOptOut<'_>,
    message: Uuid,
    conversation: Uuid,
) -> Result<()> {
    let alert = NewAlert {
        organization_id: opt_out.organization_id,
        kind: "opted_out",
        severity: Severity::Info,
        dedupe_key: &format!("opted_out:{message}"),
        text: "A customer wants no more messages; no machine writes to them any more.",
        account_id: opt_out.account_id,
        conversation_id: Some(conversation),
        details: Some(json!({ "wxid": opt_out.wxid, "word": opt_out.reason })),
    };
    alerts::raise(conn, &alert).await?;
    Ok(())
}

/// The one line that confirms an opt-out.
#[derive(Debug, Clone, Copy)]
pub struct Confirmation<'a> {
    /// The tenant.
    pub organization_id: Uuid,
    /// The account that was written to; the caller has locked its lane.
    pub account_id: Uuid,
    /// Who opted out.
    pub to_wxid: &'a str,
    /// What is said.
    pub text: &'a str,
    /// The database's time.
    pub now: DateTime<Utc>,
    /// Ties it to its cause.
    pub trace_id: &'a str,
}

/// Enqueues the confirmation, unless the organisation wants none.
pub async fn confirm(conn: &mut Conn, confirmation: &Confirmation<'_>) -> Result<()> {
    let text: String = confirmation.text.trim().chars().take(MAX_TEXT_CHARS).collect();
    if text.is_empty() {
        return Ok(());
    }
    let send = SendMessage {
        account_id: confirmation.account_id,
        to_wxid: confirmation.to_wxid.to_owned(),
        message: Message::Text(Text { text, ats: None }),
        on_unknown: OnUnknown::Drop,
        origin: Origin::Ai,
        reply: None,
        confirms_opt_out: true,
        campaign: None,
    };
    let options = Options {
        organization_id: confirmation.organization_id,
        class: Class::Reply,
        scheduled_at: None,
        expires_at: Some(confirmation.now + CONFIRM_WITHIN),
        idempotency: None,
        trace_id: confirmation.trace_id.to_owned(),
        created_by: None,
    };
    enqueue(conn, &[new_job(&send, options)]).await?;
    Ok(())
}
