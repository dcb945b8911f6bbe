//! Whether a machine may say something, asked at the gate, under its locks.
//!
//! A reply is bound to its conversation's epoch and to its turn's run. The conversation's row stays locked until the gate
//! commits `sending`, and a takeover needs that same lock. So of a takeover and a gate one comes first: if it is the
//! takeover, the gate sees the new epoch and the reply is cancelled; if it is the gate, `sending` is committed before the
//! takeover is, and before its caller is told. There is nothing in between, and hence nothing to look at twice.

use entropy_schema::conversations;
use entropy_schema::{Conn, Result};
use uuid::Uuid;

use super::mode::{self, Mode};
use super::{Origin, Reply};
use crate::job::{Failure, JobError};

/// Who says something, and as an answer to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speaker {
    /// Who it is from.
    pub origin: Origin,
    /// The turn that it answers.
    pub reply: Option<Reply>,
    /// It is the one line that confirms an opt-out, which alone may go to who has opted out.
    pub confirms_opt_out: bool,
}

impl Speaker {
    /// Tells whether a machine speaks, without a person of ours having asked for these words.
    pub fn is_machine(&self) -> bool {
        matches!(self.origin, Origin::Ai | Origin::Sop)
    }

    /// Tells whether the words must not go to somebody who has opted out.
    pub fn heeds_opt_outs(&self) -> bool {
        self.is_machine() && !self.confirms_opt_out
    }
}

/// What the gate knows of a turn when it lets its answer pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// No turn, or one of which a part has passed before.
    Plain,
    /// The first part of this turn's answer.
    FirstPart,
}

/// Tells whether `speaker` may write to `peer` now. People may.
pub async fn may_speak(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    peer: &str,
    speaker: &Speaker,
) -> Result<Result<Passed, JobError>> {
    if !speaker.is_machine() {
        return Ok(Ok(Passed::Plain));
    }
    if let Some(reply) = &speaker.reply {
        let Some(locked) = conversations::lock_row(conn, organization, reply.conversation_id).await? else {
            return Ok(Err(cancel("taken_over", "its conversation is gone")));
        };
        let chat = &locked.conversation;
        if chat.account_id != account || chat.peer_wxid != peer {
            return Ok(Err(cancel("taken_over", "its conversation is another one's")));
        }
        if chat.mode_epoch != reply.epoch || mode::effective(chat, locked.now) != Mode::Ai {
            return Ok(Err(match opted_out(conn, organization, account, peer).await? {
                true => wants_no_more(),
                false => {
                    cancel("taken_over", "a person has taken the conversation over since it was written")
                }
            }));
        }
    }
    let turn = speaker.reply.map(|reply| reply.turn_id);
    let facts = conversations::machine_facts(conn, organization, account, peer, turn).await?;
    if facts.opted_out && !speaker.confirms_opt_out {
        return Ok(Err(wants_no_more()));
    }
    if facts.suppressed {
        return Ok(Err(cancel("contact_suppressed", "nothing that a machine writes goes to this contact")));
    }
    if facts.removed {
        return Ok(Err(cancel(
            "contact_removed",
            "the contact is no friend any more, or the group was left",
        )));
    }
    // A campaign's gate has asked for itself.
    if facts.ai_stopped && speaker.origin == Origin::Ai && !speaker.confirms_opt_out {
        return Ok(Err(cancel("ai_stopped", "an emergency stop of the AI is in force")));
    }
    let Some(reply) = &speaker.reply else { return Ok(Ok(Passed::Plain)) };
    if !facts.ai_enabled {
        return Ok(Err(cancel("ai_disabled", "answers by AI were switched off for the account")));
    }
    if facts.held_since {
        return Ok(Err(cancel(
            "account_risk",
            "the account was put on hold since the customer wrote; people answer by hand",
        )));
    }
    let newer = || cancel("newer_message", "the customer has written more; a newer answer takes its place");
    if facts.turn_run != Some(reply.run) {
        return Ok(Err(newer()));
    }
    Ok(match facts.turn_state.as_deref() {
        // Parts go in their order, so the beginning has ended otherwise: half an answer may say the opposite.
        Some("answering") if reply.part > 0 => {
            Err(cancel("answer_cut", "the beginning of the answer was not sent; a person is asked"))
        }
        Some("answering") => Ok(Passed::FirstPart),
        Some("answered") => Ok(Passed::Plain),
        Some("open" | "replying" | "review") => Err(newer()),
        _ => Err(cancel("taken_over", "its turn was closed without an answer")),
    })
}

/// Says why the record refused a send that [`may_speak`]: somebody has opted out in between. None: that was not it.
pub async fn opted_out_since(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    peer: &str,
    speaker: &Speaker,
) -> Result<Option<JobError>> {
    let out = speaker.heeds_opt_outs() && opted_out(conn, organization, account, peer).await?;
    Ok(out.then(wants_no_more))
}

async fn opted_out(conn: &mut Conn, organization: Uuid, account: Uuid, peer: &str) -> Result<bool> {
    Ok(conversations::machine_facts(conn, organization, account, peer, None).await?.opted_out)
}

fn wants_no_more() -> JobError {
    cancel("opted_out", "the recipient wants no more messages")
}

fn cancel(code: &str, message: &str) -> JobError {
    JobError::Cancel(Failure::new(code, message))
}
