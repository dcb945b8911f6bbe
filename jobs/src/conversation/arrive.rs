//! A message that comes in: stored once, put into its turn, or into nobody's hands but a person's.
//!
//! One transaction of few statements. Everything that only a person changes is read before it; mode and turns are read
//! under the conversation's lock, which also lets two deliveries of one message find each other.

use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::conversations::{self, Locked, NewChat};
use entropy_schema::messages::{self, Facts, Received};
use entropy_schema::opt_outs::NewOptOut;
use entropy_schema::settings::Organization;
use entropy_schema::{Conn, Error, Result, sends, turns};
use serde_json::json;
use uuid::Uuid;

use super::apply::Applied;
use super::control::{self, Control};
use super::decide::{Asked, Decision, decide, is_late, is_official};
use super::opt_out::{self, Confirmation};
use super::turn::{self, Arrival, Debounce};
use super::{Origin, mode};
use crate::campaign::events::{self as campaigns, Happened};
use crate::incoming::Message;
use crate::job::JobError;
use crate::risk::hold::{hold, look_at_leavers};
use crate::risk::{Seen, Signal, signal};
use crate::services::Context;
use crate::step;

/// The longest id of a contact, in characters.
const MAX_WXID_CHARS: usize = 200;

/// A complaint that is older is history: it comes when an account is logged in anew.
const COMPLAINTS_AGE: TimeDelta = TimeDelta::days(1);

/// Tells whether an id can be that of a contact.
pub(super) fn is_wxid(wxid: &str) -> bool {
    (1..=MAX_WXID_CHARS).contains(&wxid.chars().count())
}

/// Chats with oneself and WeChat's own tools, which are nobody's conversation.
pub(super) fn is_nobody(peer: &str, own_wxid: Option<&str>) -> bool {
    !is_wxid(peer) || peer == "filehelper" || own_wxid == Some(peer)
}

/// Returns the provider's time of a message as it is stored: what cannot be a time of WeChat's is brought to where one can.
pub(super) fn sent_at(message: &Message, now: DateTime<Utc>) -> DateTime<Utc> {
    message.sent_at.clamp(DateTime::UNIX_EPOCH, now + TimeDelta::days(1))
}

/// Returns how the chat of a message is opened, if this is its first.
pub(super) fn chat<'a>(organization: Uuid, account: Uuid, peer: &'a str) -> NewChat<'a> {
    let (contact_kind, kind) = kinds(peer);
    NewChat { organization_id: organization, account_id: account, peer_wxid: peer, contact_kind, kind }
}

/// Returns the kinds of a contact and of its conversation, as far as an id tells.
pub(crate) fn kinds(peer: &str) -> (&'static str, &'static str) {
    if peer.ends_with("@chatroom") {
        ("group", "group")
    } else if is_official(peer) {
        ("official", "friend")
    } else {
        ("friend", "friend")
    }
}

/// Applies a message that somebody wrote to the account, or into a group that it is in.
pub(super) async fn apply(
    ctx: &Context,
    account: Uuid,
    event: Uuid,
    message: &Message,
) -> Result<Applied, JobError> {
    let mut conn = ctx.conn().await?;
    let organization = ctx.organization_id;
    let (peer, sender) = (&message.peer_wxid, &message.sender_wxid);
    let Some(mut facts) =
        messages::facts(&mut conn, organization, account, peer, sender, &message.new_msg_id).await?
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
    if complains(message, &facts) {
        let details = json!({ "event_id": event });
        hold(&mut conn, organization, account, Signal::Complaint, details, &ctx.trace_id).await?;
        facts.enabled = false;
    }
    let arriving = Arriving { ctx, account, event, message, facts: &facts };
    conn.transaction(async |conn| {
        arriving.apply(conn).await?;
        step!("event.written");
        Ok::<_, Error>(())
    })
    .await?;
    step!("event.committed");
    if matches!(arriving.control(), Some(Control::OptOut(_))) {
        drop(conn);
        look_at_leavers(ctx, account).await?;
    }
    Ok(Applied::Applied)
}

/// Tells whether a message complains about us: in a group only if the account was meant. An old one is nothing new.
///
/// It is asked, and the hold is written, before the message is stored: a process that dies in between does it again.
fn complains(message: &Message, facts: &Facts) -> bool {
    let meant = !message.is_group() || message.mentions_me;
    let old = message.sent_at < facts.now - COMPLAINTS_AGE;
    if !matches!(message.kind, "text" | "quote") || !meant || old || is_official(&message.sender_wxid) {
        return false;
    }
    signal(Seen::Wrote(&message.text, &facts.complaint_words)).is_some()
}

struct Arriving<'a> {
    ctx: &'a Context,
    account: Uuid,
    event: Uuid,
    message: &'a Message,
    facts: &'a Facts,
}

impl Arriving<'_> {
    async fn apply(&self, conn: &mut Conn) -> Result<()> {
        match self.control() {
            Some(Control::OptOut(word)) => self.opt_out(conn, &word).await,
            control => self.plain(conn, control.is_some()).await,
        }
    }

    /// In a group a word counts only if the account was meant.
    fn control(&self) -> Option<Control> {
        if self.message.kind != "text" || is_official(&self.message.sender_wxid) {
            return None;
        }
        let text = match self.message.is_group() {
            true if !self.message.mentions_me => return None,
            true => control::without_mention(&self.message.text),
            false => &self.message.text,
        };
        control::of(text, &self.facts.opt_out_words, &self.facts.handoff_words)
    }

    async fn open(&self, conn: &mut Conn) -> Result<Uuid> {
        match self.facts.conversation_id {
            Some(id) => Ok(id),
            None => {
                let chat = chat(self.ctx.organization_id, self.account, &self.message.peer_wxid);
                conversations::open(conn, chat).await
            }
        }
    }

    async fn plain(&self, conn: &mut Conn, asks_for_person: bool) -> Result<()> {
        let organization = self.ctx.organization_id;
        let id = self.open(conn).await?;
        let locked = conversations::lock(conn, organization, id).await?.ok_or_else(gone)?;
        if messages::exists(conn, self.account, &self.message.new_msg_id).await? {
            return Ok(());
        }
        let decision = self.decide(&locked);
        let chat = &locked.conversation;
        match decision {
            Decision::Answer if !asks_for_person => {
                let arrival = Arrival {
                    chat,
                    now: locked.now,
                    sender: &self.message.sender_wxid,
                    debounce: Debounce::of(self.facts),
                    trace_id: &self.ctx.trace_id,
                };
                let turn = turn::receive(conn, &arrival).await?;
                self.store(conn, id, Some(turn)).await
            }
            Decision::Answer | Decision::Missed if asks_for_person => {
                self.store(conn, id, None).await?;
                let note = "The customer asks for a person.";
                mode::hand_off(conn, organization, id, "customer_asked", note).await?;
                Ok(())
            }
            Decision::Missed => {
                self.store(conn, id, None).await?;
                self.missed(conn, &locked).await
            }
            Decision::Answer | Decision::Nobody(_) => self.store(conn, id, None).await,
        }
    }

    fn decide(&self, locked: &Locked) -> Decision {
        let (facts, message) = (self.facts, self.message);
        decide(&Asked {
            enabled: facts.enabled,
            mode: mode::effective(&locked.conversation, locked.now),
            kind: message.kind,
            peer_wxid: &message.peer_wxid,
            sender_wxid: &message.sender_wxid,
            tags: &facts.tags,
            mentions_me: message.mentions_me,
            groups: &facts.groups,
            allow_wxids: &facts.allow_wxids,
            allow_tags: &facts.allow_tags,
            block_wxids: &facts.block_wxids,
            block_tags: &facts.block_tags,
            opted_out: facts.opted_out,
            suppressed: facts.suppressed,
            sent_at: sent_at(message, locked.now),
            now: locked.now,
            max_age_seconds: facts.max_age_seconds,
        })
    }

    async fn store(&self, conn: &mut Conn, conversation: Uuid, turn: Option<Uuid>) -> Result<()> {
        let message = self.message;
        let received = Received {
            id: self.event,
            organization_id: self.ctx.organization_id,
            account_id: self.account,
            conversation_id: conversation,
            origin: Origin::Customer.as_str(),
            kind: message.kind,
            text: &message.text,
            content: message.content.as_ref(),
            sender_wxid: &message.sender_wxid,
            sender_name: message.sender_name.as_deref(),
            mentions_me: message.mentions_me,
            new_msg_id: &message.new_msg_id,
            msg_id: message.msg_id.as_deref(),
            sent_at: sent_at(message, self.facts.now),
            turn_id: turn,
            has_media: message.media.is_some(),
            in_group: message.is_group(),
            counts_as_unread: message.kind != "system",
        };
        match messages::receive(conn, &received).await? {
            true => self.tell_campaigns(conn).await,
            // Not under the conversation's lock, where it was looked for; take everything back all the same.
            false => Err(Error::Query(diesel::result::Error::RollbackTransaction)),
        }
    }

    /// An answer, for campaigns: in a group only what names the account. What came too late begins no plan.
    async fn tell_campaigns(&self, conn: &mut Conn) -> Result<()> {
        let (message, organization) = (self.message, self.ctx.organization_id);
        if message.kind == "system" || (message.is_group() && !message.mentions_me) {
            return Ok(());
        }
        campaigns::replied(conn, organization, self.account, &message.peer_wxid).await?;
        let late = is_late(message.sent_at, self.facts.now, self.facts.max_age_seconds);
        if message.kind != "text" || late || self.facts.opted_out {
            return Ok(());
        }
        let plans = &self.ctx.services.plans;
        let wrote = Happened::Wrote(&message.text);
        campaigns::happened_to(conn, plans, organization, self.account, &message.peer_wxid, wrote).await
    }

    /// Once per conversation and hour.
    async fn missed(&self, conn: &mut Conn, locked: &Locked) -> Result<()> {
        let id = locked.conversation.id;
        let alert = NewAlert {
            organization_id: self.ctx.organization_id,
            kind: "missed_message",
            severity: Severity::Warning,
            dedupe_key: &format!("missed_message:{id}:{}", locked.now.format("%Y-%m-%dT%H")),
            text: "A message came in too late to be answered by AI; a person should look.",
            account_id: Some(self.account),
            conversation_id: Some(id),
            details: Some(json!({ "message_id": self.event, "sent_at": self.message.sent_at })),
        };
        alerts::raise(conn, &alert).await?;
        Ok(())
    }

    /// In force for all accounts; one confirmation, from this one, to a person and not into a group.
    ///
    /// The account's lane is locked first, since it comes before conversations in the order of locks. All conversations with
    /// the person are locked in the order of their ids; that of a group comes before them.
    async fn opt_out(&self, conn: &mut Conn, word: &str) -> Result<()> {
        let (organization, message) = (self.ctx.organization_id, self.message);
        let in_group = message.is_group();
        conversations::lock_lanes(conn, organization, &[self.account]).await?;
        let id = self.open(conn).await?;
        if in_group {
            conversations::lock_row(conn, organization, id).await?.ok_or_else(gone)?;
        }
        let chats = conversations::lock_all_with(conn, organization, &message.sender_wxid).await?;
        if messages::exists(conn, self.account, &message.new_msg_id).await? {
            return Ok(());
        }
        let wish = NewOptOut {
            organization_id: organization,
            wxid: &message.sender_wxid,
            reason: word,
            account_id: Some(self.account),
            message_id: Some(self.event),
            created_by: None,
        };
        let new = opt_out::opt_out(conn, &wish, &chats).await?;
        if in_group {
            turns::drop_all(conn, id, Some(&message.sender_wxid), "opted_out").await?;
        }
        self.store(conn, id, None).await?;
        if !new {
            return Ok(());
        }
        opt_out::tell_people(conn, &wish, self.event, id).await?;
        let now = self.facts.now;
        let late = is_late(message.sent_at, now, self.facts.max_age_seconds);
        if in_group || late || self.facts.suppressed {
            return Ok(());
        }
        let default = Organization::default_of(organization).opt_out_confirmation;
        let confirmation = Confirmation {
            organization_id: organization,
            account_id: self.account,
            to_wxid: &message.sender_wxid,
            text: self.facts.opt_out_confirmation.as_deref().unwrap_or(&default),
            now,
            trace_id: &self.ctx.trace_id,
        };
        opt_out::confirm(conn, &confirmation).await
    }
}

/// Conversations are never deleted; if one is, the event is tried again and opens another.
fn gone() -> Error {
    Error::Query(diesel::result::Error::NotFound)
}
