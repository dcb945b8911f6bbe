//! Who answers in a conversation: the AI, a person, or nobody.
//!
//! Every change is one transaction under the conversation's lock and makes a new epoch. What was made under an older
//! epoch is not said: the gate holds the same lock when it looks. A change that a person waits for is therefore in force
//! for every message whose gate has not been passed when it is committed; no job is hunted for it, they end at their gate.
//!
//! `human` with an end goes back to `ai` by itself: that is read off the row ([`effective`]), nobody has to come and
//! change it.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::conversations::{self, Conversation, Locked, ModeChange};
use entropy_schema::{Conn, Result, settings};
use serde_json::json;
use uuid::Uuid;

use crate::campaign::events as campaigns;

/// How long a person keeps a chat of an account for which nothing was set.
pub const TAKEOVER_MINUTES: i32 = 30;

/// How much later than the typing a handing back must be to outweigh it: clocks differ, and WeChat counts in seconds.
const HANDED_BACK_SLACK_S: f64 = 60.0;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The model.
    Ai,
    /// A person.
    Human,
    /// Nobody by machine, until a person says otherwise.
    Paused,
}

impl Mode {
    /// Returns the word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Ai => "ai",
            Mode::Human => "human",
            Mode::Paused => "paused",
        }
    }
}

/// Tells who answers in a conversation at a moment.
pub fn effective(conversation: &Conversation, now: DateTime<Utc>) -> Mode {
    match conversation.mode.as_str() {
        "human" if conversation.mode_until.is_some_and(|until| until <= now) => Mode::Ai,
        "human" => Mode::Human,
        "paused" => Mode::Paused,
        _ => Mode::Ai,
    }
}

/// How a conversation stands after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Who answers.
    pub mode: Mode,
    /// Until when.
    pub until: Option<DateTime<Utc>>,
    /// The epoch.
    pub epoch: i64,
}

impl Standing {
    fn of(locked: &Locked) -> Standing {
        let chat = &locked.conversation;
        let mode = effective(chat, locked.now);
        let until = chat.mode_until.filter(|_| mode == Mode::Human);
        Standing { mode, until, epoch: chat.mode_epoch }
    }
}

/// A person takes the conversation from the AI, for so many minutes or until somebody hands it back.
///
/// None: the organisation has no such conversation. Call it in a transaction.
pub async fn take_over(
    conn: &mut Conn,
    organization: Uuid,
    id: Uuid,
    minutes: Option<i32>,
    by: Option<Uuid>,
) -> Result<Option<Standing>> {
    let Some(locked) = conversations::lock_row(conn, organization, id).await? else { return Ok(None) };
    let until = minutes.map(|minutes| locked.now + TimeDelta::minutes(minutes.into()));
    let change = ModeChange {
        mode: "human",
        until,
        reason: "takeover",
        note: None,
        by,
        turns_become: "dropped",
        turns_reason: "taken_over",
    };
    let epoch = conversations::set_mode(conn, organization, id, &change).await?;
    Ok(Some(Standing { mode: Mode::Human, until, epoch }))
}

/// Nobody answers by machine until somebody hands the conversation back. None: there is no such conversation.
pub async fn pause(
    conn: &mut Conn,
    organization: Uuid,
    id: Uuid,
    by: Option<Uuid>,
) -> Result<Option<Standing>> {
    let Some(locked) = conversations::lock_row(conn, organization, id).await? else { return Ok(None) };
    if effective(&locked.conversation, locked.now) == Mode::Paused {
        return Ok(Some(Standing::of(&locked)));
    }
    let change = ModeChange {
        mode: "paused",
        until: None,
        reason: "paused",
        note: None,
        by,
        turns_become: "dropped",
        turns_reason: "paused",
    };
    let epoch = conversations::set_mode(conn, organization, id, &change).await?;
    Ok(Some(Standing { mode: Mode::Paused, until: None, epoch }))
}

/// The AI answers again. None: there is no such conversation.
///
/// Where it answers already, nothing is closed: a turn that is being answered goes on.
pub async fn hand_back(
    conn: &mut Conn,
    organization: Uuid,
    id: Uuid,
    by: Option<Uuid>,
) -> Result<Option<Standing>> {
    let Some(locked) = conversations::lock_row(conn, organization, id).await? else { return Ok(None) };
    if effective(&locked.conversation, locked.now) == Mode::Ai {
        if locked.conversation.mode != "ai" {
            conversations::settle_mode(conn, organization, id).await?;
        }
        return Ok(Some(Standing { mode: Mode::Ai, until: None, epoch: locked.conversation.mode_epoch }));
    }
    let change = ModeChange {
        mode: "ai",
        until: None,
        reason: "hand_back",
        note: None,
        by,
        turns_become: "dropped",
        turns_reason: "taken_over",
    };
    let epoch = conversations::set_mode(conn, organization, id, &change).await?;
    // Campaigns that had left the conversation to a person go on.
    campaigns::changed(conn, locked.conversation.contact_id).await?;
    Ok(Some(Standing { mode: Mode::Ai, until: None, epoch }))
}

/// The AI gives the conversation to people, who get an alert. None: there is no such conversation.
///
/// `reason` is a stable word, `note` a sentence for people; neither is ever said to the customer. Where a person answers
/// already, or nobody should, nothing happens.
pub async fn hand_off(
    conn: &mut Conn,
    organization: Uuid,
    id: Uuid,
    reason: &str,
    note: &str,
) -> Result<Option<Standing>> {
    let Some(locked) = conversations::lock_row(conn, organization, id).await? else { return Ok(None) };
    let chat = &locked.conversation;
    if effective(chat, locked.now) != Mode::Ai {
        return Ok(Some(Standing::of(&locked)));
    }
    let chosen = settings::account_ai(conn, organization, chat.account_id).await?;
    let minutes = chosen.map_or(TAKEOVER_MINUTES, |chosen| chosen.takeover_minutes);
    let until = Some(locked.now + TimeDelta::minutes(minutes.into()));
    let change = ModeChange {
        mode: "human",
        until,
        reason: "handoff",
        note: Some(note),
        by: None,
        turns_become: "handed_off",
        turns_reason: reason,
    };
    let epoch = conversations::set_mode(conn, organization, id, &change).await?;
    let alert = NewAlert {
        organization_id: organization,
        kind: "handed_off",
        severity: Severity::Warning,
        dedupe_key: &format!("handed_off:{id}:{epoch}"),
        text: note,
        account_id: Some(chat.account_id),
        conversation_id: Some(id),
        details: Some(json!({ "reason": reason, "until": until })),
    };
    alerts::raise(conn, &alert).await?;
    Ok(Some(Standing { mode: Mode::Human, until, epoch }))
}

/// The owner types on the phone: the conversation is theirs for a while from `at`, and longer while they go on.
///
/// An event that comes late takes nothing from an AI to which a person has handed the conversation since.
pub async fn typed_on_phone(
    conn: &mut Conn,
    locked: &Locked,
    minutes: i32,
    at: DateTime<Utc>,
) -> Result<Standing> {
    let (chat, now) = (&locked.conversation, locked.now);
    let until = at.min(now) + TimeDelta::minutes(minutes.into());
    let standing = Standing::of(locked);
    if until <= now {
        return Ok(standing);
    }
    match standing.mode {
        Mode::Paused => Ok(standing),
        Mode::Human => {
            // Without an end a person has taken it for good.
            if standing.until.is_some_and(|known| known < until) {
                conversations::extend_mode(conn, chat.organization_id, chat.id, until).await?;
                return Ok(Standing { until: Some(until), ..standing });
            }
            Ok(standing)
        }
        Mode::Ai => {
            if conversations::handed_back_after(conn, chat.id, at, HANDED_BACK_SLACK_S).await? {
                return Ok(standing);
            }
            let change = ModeChange {
                mode: "human",
                until: Some(until),
                reason: "phone",
                note: None,
                by: None,
                turns_become: "dropped",
                turns_reason: "taken_over",
            };
            let epoch = conversations::set_mode(conn, chat.organization_id, chat.id, &change).await?;
            Ok(Standing { mode: Mode::Human, until: Some(until), epoch })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(mode: &str, mode_until: Option<DateTime<Utc>>) -> Conversation {
        Conversation {
            id: Uuid::nil(),
            organization_id: Uuid::nil(),
            account_id: Uuid::nil(),
            contact_id: Uuid::nil(),
            peer_wxid: "wxid_1".into(),
            kind: "friend".into(),
            mode: mode.into(),
            mode_until,
            mode_reason: None,
            mode_by: None,
            mode_epoch: 0,
            unread: 0,
            last_message_at: None,
            last_inbound_at: None,
            era: 1,
            era_used_at: None,
            disclosed_at: None,
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_person_keeps_a_conversation_until_its_end_and_not_a_moment_longer() {
        let now = Utc::now();
        let second = TimeDelta::seconds(1);
        assert_eq!(effective(&chat("human", Some(now + second)), now), Mode::Human);
        assert_eq!(effective(&chat("human", Some(now)), now), Mode::Ai);
        assert_eq!(effective(&chat("human", None), now), Mode::Human);
        assert_eq!(effective(&chat("paused", Some(now - second)), now), Mode::Paused);
        assert_eq!(effective(&chat("ai", None), now), Mode::Ai);
    }
}
