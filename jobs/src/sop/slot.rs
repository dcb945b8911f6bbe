//! Whether a message may go at a moment as far as time is concerned, and if not, when: lateness, window, caps. Pure.
//!
//! One function, asked by the gate with the counts of the moment ([`crate::campaign::checks`]) and by the rehearsal with
//! those that it has played so far ([`super::rehearsal`]): what a rehearsal says is what will be done.

use chrono::{DateTime, Utc};

use super::caps::{self, Caps, Counts, Standing, Verdict};
use super::config::rules::{Late, OnCap, OnExpired};
use super::late;
use crate::calendar::Zone;

/// The message came too late.
pub const LATE: &str = "late";

/// Not at this time of the day, or on this day.
pub const WINDOW: &str = "window";

/// The windows leave no time at all.
pub const NO_WINDOW: &str = "window_never_opens";

/// What holds for a message.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The organisation's zone, whose days caps count.
    pub house: Zone,
    /// The zone of whoever is written to.
    pub person: Zone,
    /// The caps.
    pub caps: &'a Caps,
    /// What happens at a cap.
    pub on_cap: OnCap,
    /// What happens to a late message.
    pub late: Option<&'a Late>,
    /// What makes the account's caps smaller for a while.
    pub standing: Standing,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// It goes.
    Now,
    /// It waits, and is due then: the plan itself wants it so.
    Due {
        /// Its new due time.
        at: DateTime<Utc>,
        /// Why.
        code: &'static str,
    },
    /// It is left out, and the enrollment goes on.
    Skip {
        /// Why.
        code: &'static str,
    },
    /// The enrollment ends.
    Exit {
        /// Why.
        code: &'static str,
    },
}

/// Returns what becomes of a message that was due at a moment and is looked at now.
///
/// `next_allowed` tells when the windows of whoever is written to are open, as
/// [`Opening::next_allowed`](super::window::Opening::next_allowed) does.
pub fn ask(
    now: DateTime<Utc>,
    due: DateTime<Utc>,
    next_allowed: impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>>,
    rules: &Rules<'_>,
    counts: &Counts,
) -> Slot {
    match late::expired(due, now, rules.late, rules.person) {
        Some(OnExpired::Skip) => return Slot::Skip { code: LATE },
        Some(OnExpired::Exit) => return Slot::Exit { code: LATE },
        None => {}
    }
    match next_allowed(now) {
        None => return Slot::Exit { code: NO_WINDOW },
        Some(at) if at > now => return Slot::Due { at, code: WINDOW },
        Some(_) => {}
    }
    match caps::decide(now, rules.house, rules.caps, rules.on_cap, rules.standing, counts) {
        Verdict::Allowed => Slot::Now,
        Verdict::Deferred { until, reason } => {
            // Caps open at midnight, when nobody may be written to.
            Slot::Due { at: next_allowed(until).unwrap_or(until), code: reason.code() }
        }
        Verdict::Skip { reason } => Slot::Skip { code: reason.code() },
        Verdict::Exit { reason } => Slot::Exit { code: reason.code() },
    }
}

#[cfg(test)]
mod tests {
    use super::super::calendar::Calendar;
    use super::super::caps::Cap;
    use super::super::window::{Days, Opening, Range, Window};
    use super::*;
    use crate::calendar::zone;

    fn shanghai(text: &str) -> DateTime<Utc> {
        format!("{text}+08:00").parse().expect("a time")
    }

    /// What becomes of a message under the example's rules: 09:30 to 12:00 and 14:00 to 20:30 on workdays, a day of delay.
    fn look(due: &str, now: &str, counts: Counts) -> Slot {
        let calendar = Calendar::shipped();
        let ranges = [(570, 720), (840, 1230)].map(|(from, to)| Range::new(from, to).expect("a range"));
        let opening = Opening::new(zone(None), &Window::new(Days::Workdays, ranges), &calendar);
        let caps = Caps { min_gap: [Some("PT30M".parse().expect("a period")), None], ..caps::DEFAULTS };
        let late = Late { max_delay: "P1D".parse().expect("a period"), on_expired: OnExpired::Skip };
        let rules = Rules {
            house: zone(None),
            person: zone(None),
            caps: &caps,
            on_cap: OnCap::Defer,
            late: Some(&late),
            standing: Standing { first_login: Some("2026-01-01".parse().expect("a day")), released: None },
        };
        ask(shanghai(now), shanghai(due), |at| opening.next_allowed(at), &rules, &counts)
    }

    fn due(at: &str, code: &'static str) -> Slot {
        Slot::Due { at: shanghai(at), code }
    }

    #[test]
    fn a_message_goes_waits_for_hours_or_for_a_cap_or_is_left_out() {
        let none = Counts::default();
        let full = Counts { account: 150, ..none };
        let just_now = |at: &str| Counts { contact_last: Some(shanghai(at)), ..Counts::default() };
        let silent = Counts { unanswered: 3, ..none };
        let gap = Cap::MinGap.code();
        let table = [
            ("2026-11-23T10:00:00", "2026-11-23T10:00:05", none, Slot::Now),
            ("2026-11-20T21:42:00", "2026-11-20T21:42:00", none, due("2026-11-23T09:30:00", WINDOW)),
            // Late comes first: it was due on Monday, and nobody ran it.
            ("2026-11-23T10:00:00", "2026-11-24T10:00:01", none, Slot::Skip { code: LATE }),
            ("2026-11-23T10:00:00", "2026-11-24T21:00:00", full, Slot::Skip { code: LATE }),
            (
                "2026-11-27T10:00:00",
                "2026-11-27T10:00:00",
                full,
                due("2026-11-30T09:30:00", Cap::PerAccountPerDay.code()),
            ),
            (
                "2026-11-23T10:00:00",
                "2026-11-23T10:00:00",
                just_now("2026-11-23T09:45:00"),
                due("2026-11-23T10:15:00", gap),
            ),
            (
                "2026-11-23T11:50:00",
                "2026-11-23T11:50:00",
                just_now("2026-11-23T11:45:00"),
                due("2026-11-23T14:00:00", gap),
            ),
            (
                "2026-11-23T10:00:00",
                "2026-11-23T10:00:00",
                silent,
                Slot::Exit { code: Cap::MaxUnanswered.code() },
            ),
        ];
        for (was_due, now, counts, expected) in table {
            assert_eq!(look(was_due, now, counts), expected, "{was_due} {now}");
        }
    }

    #[test]
    fn the_new_due_time_is_in_time_and_holds() {
        let counts = Counts::default();
        let Slot::Due { at, .. } = look("2026-09-30T21:00:00", "2026-09-30T21:00:00", counts) else {
            panic!("the window is shut");
        };
        assert_eq!(at, shanghai("2026-10-08T09:30:00"));
        let text = at.with_timezone(&zone(None)).format("%FT%T").to_string();
        assert_eq!(look(&text, &text, counts), Slot::Now);
    }

    #[test]
    fn windows_without_common_time_end_it() {
        let rules = Rules {
            house: zone(None),
            person: zone(None),
            caps: &caps::DEFAULTS,
            on_cap: OnCap::Defer,
            late: None,
            standing: Standing::default(),
        };
        let now = shanghai("2026-11-23T10:00:00");
        assert_eq!(ask(now, now, |_| None, &rules, &Counts::default()), Slot::Exit { code: NO_WINDOW });
    }
}
