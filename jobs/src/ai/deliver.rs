//! From an answer to the sends that say it.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::record::enqueue::{NewJob, enqueue};
use entropy_schema::{Conn, replies, settings};
use uuid::Uuid;

use super::text::{Parts, split};
use crate::class::Class;
use crate::conversation::{Origin, Reply};
use crate::enqueue::{Options, new_job};
use crate::kinds::send_message::SendMessage;
use crate::lifecycle::OnUnknown;
use crate::message::{self, Message};

/// An answer that is not sent within so long is not sent at all: it answers a question of half an hour ago.
const GOOD_FOR: TimeDelta = TimeDelta::minutes(30);

/// What is to be said, and in answer to what.
#[derive(Debug, Clone)]
pub struct Delivery<'a> {
    /// The tenant.
    pub organization_id: Uuid,
    /// The account that says it; also the lane.
    pub account_id: Uuid,
    /// The chat.
    pub conversation_id: Uuid,
    /// The other side.
    pub peer_wxid: &'a str,
    /// In a group: the wxid and the name of the one who asked, who is mentioned.
    pub mention: Option<(&'a str, &'a str)>,
    /// The turn.
    pub turn_id: Uuid,
    /// The run of the turn that wrote it.
    pub run: i16,
    /// The epoch under which it was written.
    pub epoch: i64,
    /// What is said, as plain text; split here.
    pub text: &'a str,
    /// The chat was told before that a machine answers.
    pub disclosed: bool,
    /// The database's time.
    pub now: DateTime<Utc>,
    /// Ties the sends to their cause.
    pub trace_id: &'a str,
    /// The person who asked for it, or who approved it.
    pub created_by: Option<Uuid>,
}

/// What was enqueued.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The jobs, in the order of their messages.
    pub job_ids: Vec<Uuid>,
    /// The end of the answer did not fit and is not said.
    pub cut: bool,
}

/// Enqueues an answer's messages in the caller's transaction, and moves its turn to `answering`.
///
/// The caller holds the account's lane ([`replies::lock_lane`]), the chat and the turn, in this order, has made sure that
/// the answer is still wanted, and wakes the relay after the commit. The gate looks once more before each message.
pub async fn deliver(conn: &mut Conn, delivery: &Delivery<'_>) -> entropy_schema::Result<Delivered> {
    deliver_at_once(conn, delivery, None).await
}

/// The same for an answer that no person has looked at: `answered_at` is when the model's last byte had come, by this
/// machine's clock, and there to be measured from.
pub(super) async fn deliver_at_once(
    conn: &mut Conn,
    delivery: &Delivery<'_>,
    answered_at: Option<DateTime<Utc>>,
) -> entropy_schema::Result<Delivered> {
    let disclosure = match delivery.disclosed {
        true => None,
        false => settings::account_ai(conn, delivery.organization_id, delivery.account_id)
            .await?
            .map(|ai| ai.disclosure.trim().to_owned())
            .filter(|disclosure| !disclosure.is_empty()),
    };
    let Parts { parts, cut } = match &disclosure {
        Some(disclosure) => split(&format!("{disclosure}\n{}", delivery.text)),
        None => split(delivery.text),
    };
    let jobs: Vec<NewJob> =
        parts.into_iter().enumerate().map(|(place, text)| send(delivery, answered_at, place, text)).collect();
    enqueue(conn, &jobs).await?;
    if disclosure.is_some() {
        replies::disclose(conn, delivery.conversation_id).await?;
    }
    replies::set_turn(conn, delivery.turn_id, "answering", None).await?;
    Ok(Delivered { job_ids: jobs.iter().map(|job| job.id).collect(), cut })
}

fn send(delivery: &Delivery<'_>, answered_at: Option<DateTime<Utc>>, place: usize, text: String) -> NewJob {
    let (text, ats) = match delivery.mention {
        Some((wxid, name)) if place == 0 && !name.is_empty() => {
            (format!("@{name}\u{2005}{text}"), Some(vec![wxid.to_owned()]))
        }
        _ => (text, None),
    };
    let args = SendMessage {
        account_id: delivery.account_id,
        to_wxid: delivery.peer_wxid.to_owned(),
        message: Message::Text(message::Text { text, ats }),
        // Nobody repeats a machine's words on suspicion, and no person is asked about them.
        on_unknown: OnUnknown::Drop,
        origin: Origin::Ai,
        reply: Some(Reply {
            conversation_id: delivery.conversation_id,
            turn_id: delivery.turn_id,
            run: delivery.run,
            epoch: delivery.epoch,
            part: u8::try_from(place).unwrap_or(u8::MAX),
            // The messages after the first wait for the account's limits, which says nothing about us.
            answered_at: answered_at.filter(|_| place == 0),
        }),
        confirms_opt_out: false,
        campaign: None,
    };
    let options = Options {
        organization_id: delivery.organization_id,
        class: Class::Reply,
        scheduled_at: None,
        expires_at: Some(delivery.now + GOOD_FOR),
        idempotency: None,
        trace_id: delivery.trace_id.to_owned(),
        created_by: delivery.created_by,
    };
    new_job(&args, options)
}
