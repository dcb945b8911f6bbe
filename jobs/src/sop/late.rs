//! When a step comes too late to be worth saying. Pure.
//!
//! Lateness counts from the due time, and only what the plan itself asks for sets a new one: its window, its caps, and
//! the spreading of many sends. What merely happened to us (downtime, an offline account, a pause) leaves the due time
//! where it was, so that nobody gets on Thursday what was meant for Monday.

use chrono::{DateTime, Utc};

use super::config::rules::{Late, OnExpired};
use super::moment::after;
use crate::calendar::Zone;

/// What made a send wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Days, hours or holidays.
    Window,
    /// A cap, the gap between two messages included.
    Cap,
    /// Many sends were due at once.
    Spread,
    /// The account's rate: a short wait.
    Rate,
    /// No process ran it.
    Downtime,
    /// The account was offline or logged out.
    AccountOffline,
    /// The account was held after a sign of risk.
    RiskHold,
    /// The campaign or the enrollment was paused.
    Paused,
    /// An emergency stop.
    Stopped,
    /// A person had the conversation.
    Human,
    /// A person had to approve the text.
    Review,
}

impl Cause {
    /// Returns whether the wait is part of the plan, so that the send is due at its end.
    pub fn sets_new_due_time(self) -> bool {
        match self {
            Cause::Window | Cause::Cap | Cause::Spread => true,
            Cause::Rate
            | Cause::Downtime
            | Cause::AccountOffline
            | Cause::RiskHold
            | Cause::Paused
            | Cause::Stopped
            | Cause::Human
            | Cause::Review => false,
        }
    }

    /// Returns when a send is due that was due and now has to wait until a moment.
    pub fn due(self, due: DateTime<Utc>, wait_until: DateTime<Utc>) -> DateTime<Utc> {
        if self.sets_new_due_time() { wait_until.max(due) } else { due }
    }
}

/// Returns what happens to a step that runs now and was due at a moment; nothing, if it is still in time.
///
/// `max_delay` is the longest delay that is in time. Without a rule nothing is late.
pub fn expired(due: DateTime<Utc>, now: DateTime<Utc>, late: Option<&Late>, zone: Zone) -> Option<OnExpired> {
    late.filter(|late| now > last_moment(due, late, zone)).map(|late| late.on_expired)
}

/// Returns the last moment at which a step is in time: until then an approval is waited for.
pub fn last_moment(due: DateTime<Utc>, late: &Late, zone: Zone) -> DateTime<Utc> {
    after(due, late.max_delay, zone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::zone;

    fn shanghai(text: &str) -> DateTime<Utc> {
        format!("{text}:00+08:00").parse().expect("a time")
    }

    fn rule(max_delay: &str) -> Late {
        Late { max_delay: max_delay.parse().expect("a period"), on_expired: OnExpired::Skip }
    }

    #[test]
    fn a_step_is_late_after_its_longest_delay() {
        let due = shanghai("2026-11-23T10:00");
        let check = |now: &str, late: Option<&Late>| expired(due, shanghai(now), late, zone(None));
        assert_eq!(check("2026-11-24T10:00", Some(&rule("P1D"))), None);
        assert_eq!(check("2026-11-24T10:01", Some(&rule("P1D"))), Some(OnExpired::Skip));
        assert_eq!(check("2026-11-23T10:01", Some(&rule("PT0S"))), Some(OnExpired::Skip));
        assert_eq!(check("2026-11-23T09:00", Some(&rule("PT0S"))), None);
        assert_eq!(check("2036-11-23T10:00", None), None);
    }

    #[test]
    fn a_weekend_is_no_lateness_and_a_night_without_power_is() {
        let friday = shanghai("2026-11-20T21:42");
        let monday = shanghai("2026-11-23T09:30");
        let late = rule("P1D");
        let in_time =
            |cause: Cause| expired(cause.due(friday, monday), monday, Some(&late), zone(None)).is_none();
        let moved = [Cause::Window, Cause::Cap, Cause::Spread];
        let kept = [
            Cause::Rate,
            Cause::Downtime,
            Cause::AccountOffline,
            Cause::RiskHold,
            Cause::Paused,
            Cause::Stopped,
            Cause::Human,
            Cause::Review,
        ];
        assert!(moved.into_iter().all(in_time));
        assert!(!kept.into_iter().any(in_time));
    }

    #[test]
    fn a_due_time_never_moves_back() {
        let (early, late) = (shanghai("2026-11-23T09:30"), shanghai("2026-11-23T10:00"));
        assert_eq!(Cause::Window.due(late, early), late);
    }
}
