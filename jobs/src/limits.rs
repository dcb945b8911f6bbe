//! The limiter's arithmetic: from the send records that fill a window to when the next send may go. Pure.
//!
//! A window of n per period is open when the n-th latest send lies a whole period back. Since every record counts
//! with the latest moment at which the provider can have received it, the provider sees no rolling window above its
//! limit either.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::sends::{GateFacts, Limits as Windowed, Windows};

use crate::process::config::Ceilings;

/// The limits of one account, cut to the ceilings of the install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages in any rolling minute.
    pub messages_per_minute: i32,
    /// Time between two messages.
    pub min_gap_ms: i32,
    /// Messages in any rolling day.
    pub messages_per_day: i32,
    /// Distinct recipients in any rolling minute.
    pub recipients_per_minute: i32,
    /// Calls of the token, over all its accounts, in any rolling hour.
    pub api_calls_per_hour: i32,
}

/// Which limit makes a send wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Time between two messages.
    MinGap,
    /// Messages in any rolling minute.
    MessagesPerMinute,
    /// Messages in any rolling day.
    MessagesPerDay,
    /// Distinct recipients in any rolling minute.
    RecipientsPerMinute,
    /// Calls of the token in any rolling hour.
    ApiCallsPerHour,
}

impl Limit {
    /// The limit's code, as it is stored and shown.
    pub fn code(self) -> &'static str {
        match self {
            Limit::MinGap => "min_gap",
            Limit::MessagesPerMinute => "messages_per_minute",
            Limit::MessagesPerDay => "messages_per_day",
            Limit::RecipientsPerMinute => "recipients_per_minute",
            Limit::ApiCallsPerHour => "api_calls_per_hour",
        }
    }

    /// A sentence for whoever asks why a message waits.
    pub fn sentence(self) -> &'static str {
        match self {
            Limit::MinGap => "the account keeps a gap between two messages",
            Limit::MessagesPerMinute => "the account has reached its messages per minute",
            Limit::MessagesPerDay => "the account has reached its messages per day",
            Limit::RecipientsPerMinute => {
                "the account has written to as many different people as it may in a minute"
            }
            Limit::ApiCallsPerHour => "the GeWe token has reached its calls per hour",
        }
    }
}

/// A wait that a limit asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The limit that is open last.
    pub limit: Limit,
    /// How long from now.
    pub delay: TimeDelta,
}

impl Wait {
    /// The wait in whole milliseconds, rounded up.
    pub fn delay_ms(&self) -> i64 {
        self.delay.num_milliseconds() + 1
    }
}

/// How long a window that a call under way may still fill is left alone before it is looked at again.
const UNDER_WAY: TimeDelta = TimeDelta::seconds(1);

impl Limits {
    /// The account's limits, none above the install's ceiling: an operator who lowers a ceiling means it.
    pub fn of(facts: &GateFacts, ceilings: &Ceilings) -> Limits {
        Limits {
            messages_per_minute: facts.messages_per_minute.min(ceilings.messages_per_minute),
            min_gap_ms: facts.min_gap_ms,
            messages_per_day: facts.messages_per_day,
            recipients_per_minute: facts.recipients_per_minute,
            api_calls_per_hour: facts.api_calls_per_hour.min(ceilings.api_calls_per_hour),
        }
    }

    /// The windows to be read for these limits.
    pub fn windows(&self) -> Windowed {
        Windowed {
            per_minute: self.messages_per_minute,
            per_day: self.messages_per_day,
            recipients_per_minute: self.recipients_per_minute,
            token_per_hour: self.api_calls_per_hour,
        }
    }

    /// Returns how long the next send must wait, and for which limit; none: it may go now.
    pub fn wait(&self, windows: &Windows) -> Option<Wait> {
        let minute = TimeDelta::minutes(1);
        // Without a gap, a call that counts from a later moment (its process seemed to die under it) holds nothing up.
        let last = windows.last.filter(|_| self.min_gap_ms > 0);
        let opens = [
            (Limit::MinGap, last, TimeDelta::milliseconds(self.min_gap_ms.into())),
            (Limit::MessagesPerMinute, windows.fills_minute, minute),
            (Limit::RecipientsPerMinute, windows.fills_recipients, minute),
            (Limit::ApiCallsPerHour, windows.fills_token_hour, TimeDelta::hours(1)),
            (Limit::MessagesPerDay, windows.fills_day, TimeDelta::days(1)),
        ];
        opens
            .into_iter()
            .filter_map(|(limit, filled_at, period)| {
                let delay = until_open(windows.now, filled_at?, period)?;
                Some(Wait { limit, delay })
            })
            .max_by_key(|wait| wait.delay)
    }
}

/// Returns how long a window stays shut that was filled at `filled_at`; none: it is open.
fn until_open(now: DateTime<Utc>, filled_at: DateTime<Utc>, period: TimeDelta) -> Option<TimeDelta> {
    if filled_at > now {
        // A call is under way, and only its end tells from when it counts.
        return Some(UNDER_WAY);
    }
    let delay = filled_at + period - now;
    (delay > TimeDelta::zero()).then_some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        messages_per_minute: 10,
        min_gap_ms: 1000,
        messages_per_day: 500,
        recipients_per_minute: 15,
        api_calls_per_hour: 1000,
    };

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).expect("a valid time")
    }

    fn empty() -> Windows {
        Windows {
            now: now(),
            last: None,
            fills_minute: None,
            fills_day: None,
            fills_token_hour: None,
            fills_recipients: None,
        }
    }

    fn ago(seconds: i64) -> Option<DateTime<Utc>> {
        Some(now() - TimeDelta::seconds(seconds))
    }

    #[test]
    fn an_account_that_has_sent_nothing_may_send() {
        assert_eq!(LIMITS.wait(&empty()), None);
    }

    #[test]
    fn a_full_minute_opens_when_its_oldest_send_is_a_minute_old() {
        let windows = |seconds| Windows { last: ago(10), fills_minute: ago(seconds), ..empty() };
        let wait = LIMITS.wait(&windows(20)).expect("the minute is full");
        assert_eq!((wait.limit, wait.delay), (Limit::MessagesPerMinute, TimeDelta::seconds(40)));
        assert_eq!(LIMITS.wait(&windows(60)), None);
    }

    #[test]
    fn an_account_without_a_gap_does_not_wait_for_one() {
        let windows = Windows { last: Some(now() + TimeDelta::seconds(3)), ..empty() };
        assert!(LIMITS.wait(&windows).is_some());
        assert_eq!(Limits { min_gap_ms: 0, ..LIMITS }.wait(&windows), None);
    }

    #[test]
    fn the_limit_that_opens_last_is_the_one_that_is_named() {
        let windows = Windows { last: ago(0), fills_minute: ago(30), fills_day: ago(3600), ..empty() };
        let wait = LIMITS.wait(&windows).expect("three windows are shut");
        assert_eq!((wait.limit, wait.delay), (Limit::MessagesPerDay, TimeDelta::hours(23)));
    }

    #[test]
    fn a_call_under_way_keeps_the_window_shut() {
        let windows = Windows { fills_token_hour: Some(now() + TimeDelta::hours(1)), ..empty() };
        let wait = LIMITS.wait(&windows).expect("the hour may be full");
        assert_eq!((wait.limit, wait.delay), (Limit::ApiCallsPerHour, UNDER_WAY));
    }
}
