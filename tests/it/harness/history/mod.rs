//! The history checker: what was asked for, what the record says became of it, and what the phone received. Pure.
//!
//! It knows the promises and nothing of how they are kept: no database, no HTTP, no clock. All times are microseconds of
//! one clock. Start reading at [`faults`].

mod limits;
#[cfg(test)]
mod properties;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

pub(crate) use limits::worst;

/// How late after the start of its gate a message may reach the phone.
///
/// The product writes a request at most five seconds after its gate began, whatever froze in between; the second on top
/// is for the way to the phone. A provider that holds requests back needs more, see [`Rules::allowance`].
pub(crate) const IN_FLIGHT: Duration = Duration::from_secs(6);

/// A message that was asked for. Its text is unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Message {
    /// The device that sends.
    pub(crate) app_id: String,
    /// The recipient.
    pub(crate) to_wxid: String,
    /// What it says.
    pub(crate) text: String,
}

/// A message that the phone received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// What was received.
    pub(crate) message: Message,
    /// When, in microseconds.
    pub(crate) at_us: i64,
    /// The trace that it was sent under.
    pub(crate) trace_id: Option<String>,
}

/// What the record says became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was sent, or will be: exactly one arrival.
    Sent,
    /// Nobody can know: one arrival or none.
    Unknown,
    /// Cancelled, expired, refused or dead: no arrival.
    NotSent,
}

/// A message that was asked for, and what the record says became of it.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// What was asked for.
    pub(crate) message: Message,
    /// Its priority, 0 to 2: messages of a conversation keep their order within one.
    pub(crate) class: u8,
    /// Not before.
    pub(crate) not_before_us: Option<i64>,
    /// Not after.
    pub(crate) expires_us: Option<i64>,
    /// When the API had answered that it *is* cancelled. An answer that it may still go out is no promise.
    pub(crate) cancelled_us: Option<i64>,
    /// What the record says.
    pub(crate) outcome: Outcome,
    /// When the gate of each of its calls let it pass.
    pub(crate) gates_us: Vec<i64>,
}

impl Ask {
    /// A message that was asked for at once and without conditions, and sent as far as the record goes.
    pub(crate) fn new(message: Message) -> Ask {
        Ask {
            message,
            class: 0,
            not_before_us: None,
            expires_us: None,
            cancelled_us: None,
            outcome: Outcome::Sent,
            gates_us: Vec::new(),
        }
    }

    /// The record must not have let it pass to the phone.
    fn is_denied(&self) -> bool {
        self.outcome == Outcome::NotSent || self.cancelled_us.is_some()
    }
}

/// The limits of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Messages in any rolling minute.
    pub(crate) per_minute: usize,
    /// Messages in any rolling day.
    pub(crate) per_day: Option<usize>,
    /// Different people in any rolling minute.
    pub(crate) recipients_per_minute: Option<usize>,
    /// Time between two messages.
    pub(crate) min_gap: Duration,
}

/// The limit of a token, over all accounts that use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenLimit {
    /// Who uses it.
    pub(crate) app_ids: Vec<String>,
    /// Calls in any rolling hour.
    pub(crate) per_hour: usize,
}

/// A time in which an account must not send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pause {
    /// The account.
    pub(crate) app_id: String,
    /// When the pause had been answered.
    pub(crate) from_us: i64,
    /// When the account was first asked to go on.
    pub(crate) until_us: i64,
}

/// What holds for a history.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The limits of each account.
    pub(crate) accounts: HashMap<String, Limits>,
    /// The limits of each token.
    pub(crate) tokens: Vec<TokenLimit>,
    /// Every pause.
    pub(crate) pauses: Vec<Pause>,
    /// How late after its gate a message may arrive: [`IN_FLIGHT`], and more where the provider is slow on purpose.
    pub(crate) allowance: Duration,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { accounts: HashMap::new(), tokens: Vec::new(), pauses: Vec::new(), allowance: IN_FLIGHT }
    }
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Sent, as the record says, and not received.
    Lost(Message),
    /// Received more than once.
    Repeated(Message, usize),
    /// Received and never asked for.
    Unasked(Message),
    /// Received, though the record says that it was not sent.
    Denied(Message),
    /// Received after a message of the same conversation and priority that was asked for later.
    Overtaken {
        /// The late one.
        late: Message,
        /// The text that came before it.
        by: String,
    },
    /// A rolling minute that starts here holds more messages than the account may send.
    TooMany {
        /// The account.
        app_id: String,
        /// When the minute starts.
        from_us: i64,
        /// How many it holds.
        count: usize,
    },
    /// A rolling day that starts here holds more messages than the account may send.
    TooManyInDay {
        /// The account.
        app_id: String,
        /// When the day starts.
        from_us: i64,
        /// How many it holds.
        count: usize,
    },
    /// In a rolling minute that starts here the account wrote to more people than it may.
    TooManyRecipients {
        /// The account.
        app_id: String,
        /// When the minute starts.
        from_us: i64,
        /// How many people.
        count: usize,
    },
    /// A rolling hour that starts here holds more calls of one token than there may be.
    TooManyOfToken {
        /// The accounts of the token.
        app_ids: Vec<String>,
        /// When the hour starts.
        from_us: i64,
        /// How many it holds.
        count: usize,
    },
    /// Two messages of one account are too close.
    TooClose {
        /// The account.
        app_id: String,
        /// When the second one came.
        at_us: i64,
        /// How long after the first.
        gap_us: i64,
    },
    /// It passed its gate, or arrived, before its time.
    SentTooEarly {
        /// Which one.
        message: Message,
        /// When it passed or arrived.
        at_us: i64,
    },
    /// It passed its gate after the API had answered that it is cancelled, or arrived too late to have passed before.
    SentAfterCancel {
        /// Which one.
        message: Message,
        /// When it passed or arrived.
        at_us: i64,
    },
    /// It passed its gate while its account was paused, or arrived too late to have passed before.
    SentWhilePaused {
        /// Which one.
        message: Message,
        /// When it passed or arrived.
        at_us: i64,
    },
    /// It passed its gate after its deadline, or arrived too late to have passed before.
    SentAfterExpiry {
        /// Which one.
        message: Message,
        /// When it passed or arrived.
        at_us: i64,
    },
}

impl Fault {
    /// The words under which faults are counted.
    pub(crate) const NAMES: [&str; 10] = [
        "lost",
        "repeated",
        "never asked for",
        "received though not sent",
        "out of order",
        "over a limit",
        "too early",
        "after cancel",
        "while paused",
        "after expiry",
    ];

    /// Returns the word under which it is counted.
    pub(crate) fn name(&self) -> &'static str {
        let number = match self {
            Fault::Lost(_) => 0,
            Fault::Repeated(..) => 1,
            Fault::Unasked(_) => 2,
            Fault::Denied(_) => 3,
            Fault::Overtaken { .. } => 4,
            Fault::TooMany { .. }
            | Fault::TooManyInDay { .. }
            | Fault::TooManyRecipients { .. }
            | Fault::TooManyOfToken { .. }
            | Fault::TooClose { .. } => 5,
            Fault::SentTooEarly { .. } => 6,
            Fault::SentAfterCancel { .. } => 7,
            Fault::SentWhilePaused { .. } => 8,
            Fault::SentAfterExpiry { .. } => 9,
        };
        Self::NAMES[number]
    }
}

/// Returns every fault. `asked` is in the order of each conversation, `arrived` in the order of arrival.
pub(crate) fn faults(asked: &[Ask], arrived: &[Arrival], rules: &Rules) -> Vec<Fault> {
    let mut faults = Vec::new();
    sending::counted(asked, arrived, rules, &mut faults);
    sending::ordered(asked, arrived, &mut faults);
    sending::timed(asked, arrived, rules, &mut faults);
    limits::kept(arrived, rules, &mut faults);
    faults
}

/// Returns the limits that were broken by calls, whatever came of them: a call that failed has been made as well.
pub(crate) fn over_limits(calls: &[Arrival], rules: &Rules) -> Vec<Fault> {
    let mut faults = Vec::new();
    limits::kept(calls, rules, &mut faults);
    faults
}

/// Microseconds of a duration.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).expect("a duration of this age")
}
