//! A job's states, the moves between them, and what the loss of a process means. Pure.
//!
//! ```text
//!               ┌───────────┐  its time comes   ┌───────────┐
//!   enqueue ──► │ scheduled │ ────────────────► │ available │ ◄── enqueue, revive, resolve as resend
//!               └─────┬─────┘                   └──┬─────▲──┘
//!                     │                   dispatch │     │ snooze, drain, the wait is over
//!                     │                         ┌──▼─────┴──┐   done        ┌───────────┐
//!                     │                         │  running  │ ────────────► │ completed │ ◄── resolve as sent
//!                     │                         └──┬──┬──┬──┘               └───────────┘
//!                     │                      retry │  │  │ discard, attempts spent, quarantine
//!                     │             ┌───────────┐  │  │  │                  ┌───────────┐
//!                     │             │ retryable │ ◄┘  │  └────────────────► │   dead    │ ── revive ──► available
//!                     │             └─────┬─────┘     │                     └───────────┘
//!                     └── cancel, expire ─┴── cancel ─┴───────────────────► cancelled
//! ```
//!
//! `scheduled`, `available` and `retryable` are rows of `pending`, `running` is a row of `leases` that a worker has
//! claimed, and the three ends are written on the job itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for the time it was asked for. Time moves it on, a person may cancel it.
    Scheduled,
    /// May run as soon as its lane and a worker are free. The relay moves it on.
    Available,
    /// A worker has it. The worker moves it on, or the rescuer if the worker is gone.
    Running,
    /// Waits after a failed attempt or a snooze. Time moves it on.
    Retryable,
    /// Has done what it was made for. The end.
    Completed,
    /// Was called off, or its deadline passed. The end.
    Cancelled,
    /// Cannot go on by itself. A person may revive it.
    Dead,
}

impl State {
    /// Every state, in the order of a job's life.
    pub const ALL: [State; 7] = [
        State::Scheduled,
        State::Available,
        State::Running,
        State::Retryable,
        State::Completed,
        State::Cancelled,
        State::Dead,
    ];

    /// The state's name, as it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Available => "available",
            State::Running => "running",
            State::Retryable => "retryable",
            State::Completed => "completed",
            State::Cancelled => "cancelled",
            State::Dead => "dead",
        }
    }

    /// Tells whether the job has ended.
    pub fn is_final(self) -> bool {
        matches!(self, State::Completed | State::Cancelled | State::Dead)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The time it waited for has come.
    Due,
    /// It was handed out and claimed.
    Claim,
    /// Its attempt succeeded.
    Done,
    /// Its attempt failed and may be repeated.
    Retry,
    /// Its attempt ended with "not now" and was not spent.
    Snooze,
    /// Its process stopped in good order before the attempt was over.
    Release,
    /// It must not be repeated, or its attempts are spent, or it killed its process twice.
    Discard,
    /// A person called it off.
    Cancel,
    /// Its deadline passed.
    Expire,
    /// A person gave it another chance.
    Revive,
    /// A person knows that its message was delivered after all.
    ResolveSent,
}

impl Event {
    /// Every event.
    pub const ALL: [Event; 11] = [
        Event::Due,
        Event::Claim,
        Event::Done,
        Event::Retry,
        Event::Snooze,
        Event::Release,
        Event::Discard,
        Event::Cancel,
        Event::Expire,
        Event::Revive,
        Event::ResolveSent,
    ];
}

/// Returns the state after `event`, or none if the event cannot happen there.
pub fn next(state: State, event: Event) -> Option<State> {
    use State::*;
    let next = match (state, event) {
        (Scheduled | Retryable, Event::Due) => Available,
        (Available, Event::Claim) => Running,
        (Running, Event::Done) => Completed,
        (Running, Event::Retry | Event::Snooze) => Retryable,
        (Running, Event::Release) => Available,
        (Running, Event::Discard) => Dead,
        (Scheduled | Available | Retryable | Running, Event::Cancel | Event::Expire) => Cancelled,
        (Dead, Event::Revive) => Available,
        (Dead, Event::ResolveSent) => Completed,
        _ => return None,
    };
    Some(next)
}

/// How often a kind's work may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// The work is idempotent: after a crash it is simply done again.
    AtLeastOnce,
    /// The work is worth less than a repetition: after a crash it is dead.
    AtMostOnce,
    /// The work must not be repeated without proof: after a crash under the call, a person decides.
    OnceOrAsk,
}

/// What the caller wants when the outcome of a send cannot be known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Ask a person.
    #[default]
    Hold,
    /// Send again, at the risk of sending twice.
    Resend,
    /// Leave it at that, at the risk of not having sent.
    Drop,
}

impl OnUnknown {
    /// How an unknown outcome is settled without asking anybody; none: a person decides.
    pub fn settles_as(self) -> Option<&'static str> {
        match self {
            OnUnknown::Hold => None,
            OnUnknown::Resend => Some("resend"),
            OnUnknown::Drop => Some("drop"),
        }
    }

    /// Reads the stored word; anything else means the careful default.
    pub fn parse(text: Option<&str>) -> OnUnknown {
        match text {
            Some("resend") => OnUnknown::Resend,
            Some("drop") => OnUnknown::Drop,
            _ => OnUnknown::Hold,
        }
    }
}

/// How far a lost attempt's send had got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostSend {
    /// No send was recorded: nothing has left the machine.
    NotBegun,
    /// It was on its way.
    Sending,
    /// Its outcome was recorded, the attempt's was not.
    Sent,
    /// It was refused, or surely did not leave; the attempt's end was not recorded.
    Failed,
    /// It was called unknown before.
    Unknown,
}

/// What becomes of a job whose attempt was lost with its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLoss {
    /// Run it again.
    Retry,
    /// Its work was done.
    Completed,
    /// It is dead and waits for a person.
    Dead(LossReason),
    /// Its outcome is unknown and the caller does not want to be asked.
    Dropped,
}

/// Why a lost job is not run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossReason {
    /// Two processes have died under it.
    Quarantined,
    /// Its attempts are spent.
    AttemptsSpent,
    /// It may not be repeated at all.
    AtMostOnce,
    /// Nobody can know whether its message was sent.
    OutcomeUnknown,
}

/// Process deaths under one job after which it is not tried again, unless its kind says otherwise.
pub const QUARANTINE_AFTER: i16 = 2;

/// Decides what becomes of a job whose attempt was lost.
///
/// `crashes` counts the process deaths under it, this one included; `quarantine_after` of them are too many.
pub fn after_loss(
    delivery: Delivery,
    send: LostSend,
    on_unknown: OnUnknown,
    crashes: i16,
    quarantine_after: i16,
    attempts_left: bool,
) -> AfterLoss {
    let again = || {
        if crashes >= quarantine_after {
            AfterLoss::Dead(LossReason::Quarantined)
        } else if attempts_left {
            AfterLoss::Retry
        } else {
            AfterLoss::Dead(LossReason::AttemptsSpent)
        }
    };
    match (delivery, send) {
        (_, LostSend::Sent) => AfterLoss::Completed,
        (Delivery::OnceOrAsk, LostSend::Sending | LostSend::Unknown) => match on_unknown {
            OnUnknown::Hold => AfterLoss::Dead(LossReason::OutcomeUnknown),
            OnUnknown::Resend => again(),
            OnUnknown::Drop => AfterLoss::Dropped,
        },
        (Delivery::AtMostOnce, _) => AfterLoss::Dead(LossReason::AtMostOnce),
        _ => again(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_job_leaves_an_end_state() {
        for state in State::ALL.into_iter().filter(|state| state.is_final()) {
            for event in Event::ALL {
                let legal = matches!((state, event), (State::Dead, Event::Revive | Event::ResolveSent));
                assert_eq!(next(state, event).is_some(), legal, "{state} {event:?}");
            }
        }
    }

    #[test]
    fn every_living_job_can_be_cancelled_and_can_expire() {
        for state in State::ALL.into_iter().filter(|state| !state.is_final()) {
            assert_eq!(next(state, Event::Cancel), Some(State::Cancelled));
            assert_eq!(next(state, Event::Expire), Some(State::Cancelled));
        }
    }

    #[test]
    fn only_an_available_job_is_claimed() {
        for state in State::ALL {
            assert_eq!(next(state, Event::Claim).is_some(), state == State::Available, "{state}");
        }
    }

    #[test]
    fn a_send_that_was_on_its_way_is_never_repeated_unasked() {
        for crashes in 1..4 {
            for attempts_left in [true, false] {
                for send in [LostSend::Sending, LostSend::Unknown] {
                    let held = after_loss(
                        Delivery::OnceOrAsk,
                        send,
                        OnUnknown::Hold,
                        crashes,
                        QUARANTINE_AFTER,
                        attempts_left,
                    );
                    assert_eq!(held, AfterLoss::Dead(LossReason::OutcomeUnknown));
                    let dropped = after_loss(
                        Delivery::OnceOrAsk,
                        send,
                        OnUnknown::Drop,
                        crashes,
                        QUARANTINE_AFTER,
                        attempts_left,
                    );
                    assert_eq!(dropped, AfterLoss::Dropped);
                }
            }
        }
    }

    #[test]
    fn a_send_that_had_not_begun_is_tried_again() {
        let lost =
            after_loss(Delivery::OnceOrAsk, LostSend::NotBegun, OnUnknown::Hold, 1, QUARANTINE_AFTER, true);
        assert_eq!(lost, AfterLoss::Retry);
    }

    #[test]
    fn a_send_that_was_recorded_completes_its_job() {
        let lost =
            after_loss(Delivery::OnceOrAsk, LostSend::Sent, OnUnknown::Hold, 5, QUARANTINE_AFTER, false);
        assert_eq!(lost, AfterLoss::Completed);
    }

    #[test]
    fn a_job_that_kills_its_process_twice_is_quarantined() {
        let lost = |crashes| {
            after_loss(
                Delivery::AtLeastOnce,
                LostSend::NotBegun,
                OnUnknown::Hold,
                crashes,
                QUARANTINE_AFTER,
                true,
            )
        };
        assert_eq!(lost(1), AfterLoss::Retry);
        assert_eq!(lost(2), AfterLoss::Dead(LossReason::Quarantined));
    }
}
