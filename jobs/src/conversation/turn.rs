//! Turns: what a customer writes in a row gets one answer.
//!
//! A turn is a row with a time, and a job that waits for that time; each further message moves both. A message that
//! comes while the model writes, or before its answer has left, opens the turn once more: the answer of the older run is
//! not sent, and the next run sees everything. After that, what comes is a turn of its own.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::conversations::Conversation;
use entropy_schema::messages::Facts;
use entropy_schema::record::enqueue::enqueue;
use entropy_schema::record::reschedule::reschedule;
use entropy_schema::turns::{self, Turn};
use entropy_schema::{Conn, Result};
use uuid::Uuid;

use crate::class::Class;
use crate::enqueue::{NewJob, Options, new_job};
use crate::kinds::ai_reply::AiReply;

/// Runs of the model for one turn: the second is for what came while the first one wrote.
pub const MAX_RUNS: i16 = 2;

/// How long messages are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Debounce {
    /// Nothing came for so long.
    pub quiet: TimeDelta,
    /// The first message came so long ago.
    pub max: TimeDelta,
    /// So many came.
    pub max_messages: i32,
}

impl Debounce {
    /// Returns what was chosen for the account.
    pub fn of(facts: &Facts) -> Debounce {
        Debounce {
            quiet: TimeDelta::milliseconds(facts.quiet_ms.into()),
            max: TimeDelta::milliseconds(facts.max_ms.into()),
            max_messages: facts.max_messages,
        }
    }

    /// Returns when a turn that was opened at `opened` ends if its latest message, the `messages`-th, came `now`.
    pub fn flush_at(&self, opened: DateTime<Utc>, now: DateTime<Utc>, messages: i32) -> DateTime<Utc> {
        if messages >= self.max_messages {
            return now;
        }
        (now + self.quiet).min(opened + self.max).max(now)
    }
}

/// A message that is to be answered.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// The conversation, which the caller has locked together with its lane.
    pub chat: &'a Conversation,
    /// The database's time.
    pub now: DateTime<Utc>,
    /// Who wrote it.
    pub sender: &'a str,
    /// How long messages are collected.
    pub debounce: Debounce,
    /// Ties the answer to its cause.
    pub trace_id: &'a str,
}

/// Puts a message into the turn that it belongs to, and sees to it that a job will answer that turn.
pub async fn receive(conn: &mut Conn, arrival: &Arrival<'_>) -> Result<Uuid> {
    let Arrival { chat, now, sender, debounce, trace_id } = *arrival;
    let standing = turns::standing(conn, chat.id, sender).await?;
    let standing = standing.filter(|standing| standing.turn.epoch == chat.mode_epoch);
    match standing {
        Some(standing) if standing.turn.state == "open" && !standing.job_ended => {
            let turn = standing.turn;
            let flush_at = match turn.run {
                1 => debounce.flush_at(turn.opened_at, now, turn.messages + 1),
                // The customer has waited for one run already: what comes meanwhile is seen, and delays nothing.
                _ => turn.flush_at,
            };
            turns::extend(conn, turn.id, now, flush_at).await?;
            if flush_at != turn.flush_at {
                reschedule(conn, turn.job_id, flush_at).await?;
            }
            Ok(turn.id)
        }
        // Also a turn whose job has died under it: it gets another one.
        Some(standing) if standing.turn.run < MAX_RUNS => {
            let turn = standing.turn;
            let flush_at = now + debounce.quiet.min(debounce.max);
            let job = job(chat, turn.id, turn.run + 1, flush_at, now, trace_id);
            turns::reopen(conn, turn.id, job.id, now, flush_at).await?;
            enqueue(conn, &[job]).await?;
            Ok(turn.id)
        }
        standing => {
            let id = Uuid::now_v7();
            // Nobody has answered what is in a turn whose last job died either: it is asked together with the rest.
            let before = match standing {
                Some(standing) if standing.turn.state == "open" => {
                    turns::absorb(conn, standing.turn.id, id, "job_ended").await?
                }
                _ => 0,
            };
            let flush_at = debounce.flush_at(now, now, 1);
            let job = job(chat, id, 1, flush_at, now, trace_id);
            let turn = Turn {
                id,
                organization_id: chat.organization_id,
                account_id: chat.account_id,
                conversation_id: chat.id,
                sender_wxid: sender.to_owned(),
                state: "open".into(),
                reason: None,
                epoch: chat.mode_epoch,
                run: 1,
                messages: before + 1,
                job_id: job.id,
                opened_at: now,
                last_message_at: now,
                flush_at,
                instruction: None,
                answered_at: None,
                closed_at: None,
            };
            turns::insert(conn, &turn).await?;
            enqueue(conn, &[job]).await?;
            Ok(id)
        }
    }
}

fn job(
    chat: &Conversation,
    turn_id: Uuid,
    run: i16,
    flush_at: DateTime<Utc>,
    now: DateTime<Utc>,
    trace_id: &str,
) -> NewJob {
    let args = AiReply {
        account_id: chat.account_id,
        conversation_id: chat.id,
        turn_id,
        run,
        epoch: chat.mode_epoch,
        asked: None,
    };
    let options = Options {
        organization_id: chat.organization_id,
        class: Class::Reply,
        scheduled_at: (flush_at > now).then_some(flush_at),
        expires_at: None,
        idempotency: None,
        trace_id: trace_id.to_owned(),
        created_by: None,
    };
    new_job(&args, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_with_quiet_with_its_longest_time_or_with_its_last_message() {
        let debounce =
            Debounce { quiet: TimeDelta::seconds(4), max: TimeDelta::seconds(15), max_messages: 10 };
        let opened = DateTime::UNIX_EPOCH;
        let at = |seconds| opened + TimeDelta::seconds(seconds);
        assert_eq!(debounce.flush_at(opened, at(0), 1), at(4));
        assert_eq!(debounce.flush_at(opened, at(10), 3), at(14));
        assert_eq!(debounce.flush_at(opened, at(13), 4), at(15));
        assert_eq!(debounce.flush_at(opened, at(5), 10), at(5));
        assert_eq!(debounce.flush_at(opened, at(20), 5), at(20), "never in the past");
    }
}
