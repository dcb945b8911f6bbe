//! What the owner types on the phone, and what only looks like it because it is our own.
//!
//! GeWe is said to report only what was typed, not what was sent over its API. We believe it as long as nothing speaks
//! against it: a message with the id of one of our sends is ours; one with the words of a call that is under way waits until
//! that call has its id; and one with the words of a call whose outcome nobody knows counts as ours, since it is the likelier
//! explanation and a takeover out of nothing would silence the AI.

use std::time::Duration;

use chrono::TimeDelta;
use diesel_async::AsyncConnection;
use entropy_schema::messages::{self, Echo, Facts, Received};
use entropy_schema::{Conn, Error, Result, conversations, risk, sends};
use uuid::Uuid;

use super::apply::Applied;
use super::arrive::{chat, is_nobody, sent_at};
use super::{Origin, mode};
use crate::incoming::Message;
use crate::job::{JobError, Scope, Snooze};
use crate::services::Context;

/// How much older than the message a send may be that it is the echo of. WeChat's clock is not ours.
const ECHO_WITHIN: TimeDelta = TimeDelta::minutes(2);

/// How long the event waits for a call that is under way.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Applies a message that the account itself is said to have written.
pub(super) async fn apply(
    ctx: &Context,
    account: Uuid,
    event: Uuid,
    message: &Message,
) -> Result<Applied, JobError> {
    let mut conn = ctx.conn().await?;
    let (organization, peer) = (ctx.organization_id, &message.peer_wxid);
    let (sender, new_msg_id) = (&message.sender_wxid, &message.new_msg_id);
    let Some(facts) = messages::facts(&mut conn, organization, account, peer, sender, new_msg_id).await?
    else {
        return Ok(Applied::Ignored);
    };
    if !facts.seen_lately {
        sends::account_seen(&mut conn, organization, account).await?;
    }
    if facts.known {
        return Ok(Applied::Applied);
    }
    if is_nobody(peer, facts.own_wxid.as_deref()) {
        return Ok(Applied::Ignored);
    }
    let since = sent_at(message, facts.now).min(facts.now) - ECHO_WITHIN;
    match messages::echo(&mut conn, organization, account, peer, new_msg_id, since, &message.text).await? {
        Echo::Ours => {
            risk::echoed(&mut conn, organization, account).await?;
            return Ok(Applied::Ignored);
        }
        Echo::UnknownOfOurs => return Ok(Applied::Ignored),
        Echo::MayBeOurs => {
            return Err(JobError::Snooze(Snooze {
                delay: LOOK_AGAIN,
                code: "send_under_way",
                note:
                    "the same words are on their way from here; it is looked at when their outcome is known"
                        .into(),
                scope: Scope::Job,
            }));
        }
        Echo::Typed => {}
    }
    conn.transaction(async |conn| store(conn, ctx, account, event, message, &facts).await).await?;
    Ok(Applied::Applied)
}

async fn store(
    conn: &mut Conn,
    ctx: &Context,
    account: Uuid,
    event: Uuid,
    message: &Message,
    facts: &Facts,
) -> Result<()> {
    let organization = ctx.organization_id;
    let id = match facts.conversation_id {
        Some(id) => id,
        None => conversations::open(conn, chat(organization, account, &message.peer_wxid)).await?,
    };
    let Some(locked) = conversations::lock_row(conn, organization, id).await? else {
        return Err(Error::Query(diesel::result::Error::NotFound));
    };
    if messages::exists(conn, account, &message.new_msg_id).await? {
        return Ok(());
    }
    // Notices carry the account's own name, too.
    let by_hand = !matches!(message.kind, "system" | "call");
    if by_hand {
        mode::typed_on_phone(conn, &locked, facts.takeover_minutes, sent_at(message, locked.now)).await?;
    }
    let received = Received {
        id: event,
        organization_id: organization,
        account_id: account,
        conversation_id: id,
        origin: Origin::Phone.as_str(),
        kind: message.kind,
        text: &message.text,
        content: message.content.as_ref(),
        sender_wxid: &message.sender_wxid,
        sender_name: None,
        mentions_me: false,
        new_msg_id: &message.new_msg_id,
        msg_id: message.msg_id.as_deref(),
        sent_at: sent_at(message, facts.now),
        turn_id: None,
        has_media: message.media.is_some(),
        in_group: message.is_group(),
        counts_as_unread: false,
    };
    match messages::receive(conn, &received).await? {
        true => Ok(()),
        false => Err(Error::Query(diesel::result::Error::RollbackTransaction)),
    }
}
