//! Whether a send that is due may go now, and if not, when: lateness, windows, caps and spreading, in the order of the
//! gate. Pure.
//!
//! The gate asks here with the counts of the moment, a dry run with those of today. Whatever makes a send wait is part
//! of the plan, so the answer is a new due time; see [`super::late`].

use chrono::{DateTime, TimeDelta, Utc};

use super::caps::{self, Cap, Caps, Counts, Standing, Verdict};
use super::config::rules::{Late, OnCap, OnExpired};
use super::late;
use super::spread::{Place, spread};
use super::window::Opening;
use crate::calendar::Zone;

/// What holds for a send.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// When the recipient may be written to.
    pub opening: &'a Opening<'a>,
    /// The organisation's zone, whose days caps count.
    pub zone: Zone,
    /// The caps.
    pub caps: &'a Caps,
    /// What happens at a cap.
    pub on_cap: OnCap,
    /// What happens to a late send.
    pub late: Option<&'a Late>,
    /// What makes the account's caps smaller for a while.
    pub standing: Standing,
    /// Time between two campaign messages of the account.
    pub pace: TimeDelta,
}

/// Why a send does not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is too late for it.
    Late,
    /// Not at this time of the day, or on this day.
    Window,
    /// The windows leave no time at all: somebody has to change them.
    NoWindow,
    /// A cap.
    Cap(Cap),
}

impl Reason {
    /// The reason's code, as it is stored and shown.
    pub fn code(self) -> &'static str {
        match self {
            Reason::Late => "late",
            Reason::Window => "window",
            Reason::NoWindow => "no_window",
            Reason::Cap(cap) => cap.code(),
        }
    }

    /// A sentence for whoever asks why a message does not go.
    pub fn sentence(self) -> &'static str {
        match self {
            Reason::Late => "the message is later than the campaign allows",
            Reason::Window => "campaign messages are not sent at this time",
            Reason::NoWindow => "the send window and the organisation's hours have no time in common",
            Reason::Cap(cap) => cap.sentence(),
        }
    }
}

/// What becomes of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// It goes.
    Now,
    /// It waits, and is due then.
    Due {
        /// Its new due time.
        at: DateTime<Utc>,
        /// Why.
        reason: Reason,
    },
    /// It is left out, and the enrollment goes on.
    Skip(Reason),
    /// The enrollment ends.
    Exit(Reason),
}

/// Returns what becomes of a send that was due at a moment and is looked at now.
///
/// `place` is its place among those of the account that wait for the same opening; see [`spread`]. Where windows have
/// no time in common, the send is asked about again on the next day.
pub fn slot(
    now: DateTime<Utc>,
    due: DateTime<Utc>,
    rules: &Rules<'_>,
    counts: &Counts,
    place: Place,
) -> Slot {
    let opening = rules.opening;
    match late::expired(due, now, rules.late, opening.zone()) {
        Some(OnExpired::Skip) => return Slot::Skip(Reason::Late),
        Some(OnExpired::Exit) => return Slot::Exit(Reason::Late),
        None => {}
    }
    let wait = |from: DateTime<Utc>, reason: Reason| match spread(from, opening, rules.pace, place) {
        Some(at) => Slot::Due { at, reason },
        None => Slot::Due { at: caps::next_day(now, rules.zone), reason: Reason::NoWindow },
    };
    if !opening.is_open(now) {
        return wait(now, Reason::Window);
    }
    match caps::decide(now, rules.zone, rules.caps, rules.on_cap, rules.standing, counts) {
        Verdict::Allowed => Slot::Now,
        // The gap ends for each contact at its own time: nobody stands in a row for it.
        Verdict::Deferred { until, reason: Cap::MinGap } => match opening.next_allowed(until) {
            Some(at) if at == until => Slot::Due { at, reason: Reason::Cap(Cap::MinGap) },
            _ => wait(until, Reason::Cap(Cap::MinGap)),
        },
        Verdict::Deferred { until, reason } => wait(until, Reason::Cap(reason)),
        Verdict::Skip { reason } => Slot::Skip(Reason::Cap(reason)),
        Verdict::Exit { reason } => Slot::Exit(Reason::Cap(reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::calendar::Calendar;
    use super::super::window::{Days, Range, Window};
    use super::*;
    use crate::calendar::zone;

    fn shanghai(text: &str) -> DateTime<Utc> {
        format!("{text}+08:00").parse().expect("a time")
    }

    /// What becomes of a send under the example's rules: 09:30 to 12:00 and 14:00 to 20:30 on workdays, a day of delay.
    fn ask(due: &str, now: &str, counts: Counts, place: Place) -> Slot {
        let calendar = Calendar::shipped();
        let ranges = [(570, 720), (840, 1230)].map(|(from, to)| Range::new(from, to).expect("a range"));
        let opening = Opening::new(zone(None), &Window::new(Days::Workdays, ranges), &calendar);
        let caps = Caps { min_gap: [Some("PT30M".parse().expect("a period")), None], ..caps::DEFAULTS };
        let late = Late { max_delay: "P1D".parse().expect("a period"), on_expired: OnExpired::Skip };
        let rules = Rules {
            opening: &opening,
            zone: zone(None),
            caps: &caps,
            on_cap: OnCap::Defer,
            late: Some(&late),
            standing: Standing { first_login: Some("2026-01-01".parse().expect("a day")), released: None },
            pace: TimeDelta::seconds(6),
        };
        slot(shanghai(now), shanghai(due), &rules, &counts, place)
    }

    fn alone() -> Place {
        Place::nth(0, 1)
    }

    fn due(at: &str, reason: Reason) -> Slot {
        Slot::Due { at: shanghai(at), reason }
    }

    #[test]
    fn a_send_goes_waits_for_hours_or_for_a_cap_or_is_left_out() {
        let none = Counts::default();
        let full = Counts { account: 150, ..none };
        let just_now = |at: &str| Counts { contact_last: Some(shanghai(at)), ..Counts::default() };
        let silent = Counts { unanswered: 3, ..none };
        let gap = Reason::Cap(Cap::MinGap);
        let table = [
            ("2026-11-23T10:00:00", "2026-11-23T10:00:05", none, Slot::Now),
            ("2026-11-20T21:42:00", "2026-11-20T21:42:00", none, due("2026-11-23T09:30:00", Reason::Window)),
            // Late comes first: it was due on Monday, and nobody ran it.
            ("2026-11-23T10:00:00", "2026-11-24T10:00:01", none, Slot::Skip(Reason::Late)),
            ("2026-11-23T10:00:00", "2026-11-24T21:00:00", full, Slot::Skip(Reason::Late)),
            (
                "2026-11-27T10:00:00",
                "2026-11-27T10:00:00",
                full,
                due("2026-11-30T09:30:00", Reason::Cap(Cap::PerAccountPerDay)),
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
                Slot::Exit(Reason::Cap(Cap::MaxUnanswered)),
            ),
        ];
        for (was_due, now, counts, expected) in table {
            assert_eq!(ask(was_due, now, counts, alone()), expected, "{was_due} {now}");
        }
    }

    #[test]
    fn who_waits_together_goes_one_after_the_other() {
        let counts = Counts::default();
        let night = "2026-11-20T21:42:00";
        let third = ask(night, night, counts, Place::nth(2, 100));
        assert_eq!(third, due("2026-11-23T09:30:12", Reason::Window));
        // What ends for each at its own time, nobody stands in a row for.
        let just_now = Counts { contact_last: Some(shanghai("2026-11-23T09:45:00")), ..counts };
        let noon = "2026-11-23T10:00:00";
        let own = ask(noon, noon, just_now, Place::nth(2, 100));
        assert_eq!(own, due("2026-11-23T10:15:00", Reason::Cap(Cap::MinGap)));
    }

    #[test]
    fn the_new_due_time_is_in_time_and_holds() {
        let counts = Counts::default();
        let Slot::Due { at, .. } = ask("2026-09-30T21:00:00", "2026-09-30T21:00:00", counts, alone()) else {
            panic!("the window is shut");
        };
        assert_eq!(at, shanghai("2026-10-08T09:30:00"));
        let text = at.with_timezone(&zone(None)).format("%FT%T").to_string();
        assert_eq!(ask(&text, &text, counts, alone()), Slot::Now);
    }

    #[test]
    fn windows_without_common_time_are_asked_again_the_next_day() {
        let calendar = Calendar::shipped();
        let opening = Opening::new(zone(None), &Window::new(Days::Any, []), &calendar);
        let rules = Rules {
            opening: &opening,
            zone: zone(None),
            caps: &caps::DEFAULTS,
            on_cap: OnCap::Defer,
            late: None,
            standing: Standing::default(),
            pace: TimeDelta::seconds(6),
        };
        let now = shanghai("2026-11-23T10:00:00");
        let answer = slot(now, now, &rules, &Counts::default(), alone());
        assert_eq!(answer, due("2026-11-24T00:00:00", Reason::NoWindow));
    }
}
