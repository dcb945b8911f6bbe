//! The timetable against a clock on the wall, looked at minute by minute.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use entropy_jobs::timetable::{CatchUp, Timing};
use proptest::prelude::*;
use proptest::sample::select;

use crate::due::tests::{at, timing};
use crate::due::{Due, missed};

/// Zones whose clocks jump by an hour, by half an hour, at midnight, and never.
const ZONES: [Tz; 8] = [
    Tz::America__New_York,
    Tz::Europe__Berlin,
    Tz::Australia__Lord_Howe,
    Tz::America__Santiago,
    Tz::America__St_Johns,
    Tz::Asia__Shanghai,
    Tz::Asia__Kolkata,
    Tz::UTC,
];

/// Days on which one of them changes, and two on which none does.
const DAYS: [&str; 10] = [
    "2026-03-08T00:00:00Z",
    "2026-11-01T00:00:00Z",
    "2026-03-29T00:00:00Z",
    "2026-10-25T00:00:00Z",
    "2026-04-04T12:00:00Z",
    "2026-10-03T12:00:00Z",
    "2026-04-05T00:00:00Z",
    "2026-09-06T00:00:00Z",
    "2026-11-22T00:00:00Z",
    "2028-02-29T00:00:00Z",
];

/// What an expression of ours may ask for; empty: any.
#[derive(Debug, Clone)]
struct Wish {
    minutes: BTreeSet<u32>,
    hours: BTreeSet<u32>,
    /// 0 is Sunday.
    weekdays: BTreeSet<u32>,
}

impl Wish {
    fn expression(&self) -> String {
        let list = |numbers: &BTreeSet<u32>| match numbers.is_empty() {
            true => "*".to_owned(),
            false => numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        };
        format!("{} {} * * {}", list(&self.minutes), list(&self.hours), list(&self.weekdays))
    }

    fn grants(&self, wall: NaiveDateTime) -> bool {
        let any_or = |numbers: &BTreeSet<u32>, n| numbers.is_empty() || numbers.contains(&n);
        any_or(&self.minutes, wall.minute())
            && any_or(&self.hours, wall.hour())
            && any_or(&self.weekdays, wall.weekday().num_days_from_sunday())
    }

    /// Every tick in `(from, until]`: looks at the wall each minute. A time that comes twice counts when it comes first.
    fn ticks(&self, zone: Tz, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let mut seen = BTreeSet::new();
        let mut ticks = Vec::new();
        // Early enough to have seen what comes a second time at the start.
        let mut minute = from - TimeDelta::hours(3);
        minute -= TimeDelta::seconds(minute.timestamp().rem_euclid(60));
        while minute <= until {
            let wall = minute.with_timezone(&zone).naive_local();
            if seen.insert(wall) && minute > from && self.grants(wall) {
                ticks.push(minute);
            }
            minute += TimeDelta::minutes(1);
        }
        ticks
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    let set = |most: u32| prop::collection::btree_set(0..most, 0..3);
    (
        set(60),
        set(24),
        prop_oneof![3 => Just(BTreeSet::new()), 1 => prop::collection::btree_set(0..7_u32, 1..4)],
    )
        .prop_map(|(minutes, hours, weekdays)| Wish { minutes, hours, weekdays })
}

/// A stretch of up to a day and a half around a day of [`DAYS`].
fn stretch() -> impl Strategy<Value = (DateTime<Utc>, DateTime<Utc>)> {
    (select(&DAYS[..]), -90_000..90_000_i64, 0..130_000_i64).prop_map(|(day, off, length)| {
        let from = at(day) + TimeDelta::seconds(off);
        (from, from + TimeDelta::seconds(length))
    })
}

fn walk(timing: &Timing, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    std::iter::successors(timing.next_after(from), |tick| timing.next_after(*tick))
        .take_while(|tick| *tick <= until)
        .take(3000)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn ticks_are_those_of_the_clock_on_the_wall(wish in wish(), zone in select(&ZONES[..]), stretch in stretch()) {
        let (from, until) = stretch;
        let expected = wish.ticks(zone, from, until);
        let timing = timing(&wish.expression(), zone);
        prop_assert_eq!(walk(&timing, from, until), expected, "{} in {}", timing.cron(), zone);
    }

    #[test]
    fn what_was_missed_is_the_latest_tick_and_runs_once(
        wish in wish(), zone in select(&ZONES[..]), stretch in stretch(), ever in any::<bool>(),
    ) {
        let (from, until) = stretch;
        let ticks = wish.ticks(zone, from, until);
        let on_time: Vec<_> =
            ticks.iter().copied().filter(|tick| until - *tick <= TimeDelta::minutes(1)).collect();
        let timing = timing(&wish.expression(), zone);
        for catch_up in [CatchUp::RunOnce, CatchUp::Skip] {
            let found = missed(&timing, catch_up, Some(from), until);
            let expected = match ticks.last() {
                None => Due::Nothing,
                Some(_) if !on_time.is_empty() => Due::Enqueue(on_time.clone()),
                Some(tick) if catch_up == CatchUp::RunOnce => Due::Enqueue(vec![*tick]),
                Some(tick) => Due::Remember(*tick),
            };
            prop_assert_eq!(found, expected, "{} in {}", timing.cron(), zone);
            // Whoever looks again finds nothing left to do.
            if let Some(tick) = ticks.last() {
                prop_assert_eq!(missed(&timing, catch_up, Some(*tick), until), Due::Nothing);
            }
            if ever {
                let first = missed(&timing, catch_up, None, until);
                prop_assert!(!matches!(first, Due::Enqueue(_)), "the past of a new line");
            }
        }
    }
}
