//! What is due: pure functions over the times of a line and the ticks that are already recorded.

use std::iter::successors;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use entropy_jobs::timetable::{CatchUp, Timing};

/// What a scheduler noticed about a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The clock started: whatever came due until then, it did not see.
    Start(DateTime<Utc>),
    /// A tick.
    Tick(DateTime<Utc>),
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// That ticks up to this one are settled.
    Remember(DateTime<Utc>),
    /// The jobs of these ticks, in their order, and that they are settled.
    Enqueue(Vec<DateTime<Utc>>),
}

/// A tick that is no later than this was not missed: a scheduler was restarted, or the machine was busy.
const ON_TIME: TimeDelta = TimeDelta::minutes(1);

/// Names the job of one tick: the same for every scheduler that notices it.
pub(crate) fn idempotency_key(name: &str, fire_at: DateTime<Utc>) -> String {
    format!("schedule:{name}:{}", fire_at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// Decides about the ticks up to `start`, given the last one that is recorded.
///
/// Each tick of the last minute is due, whatever `catch_up` says: it is on time. A line that has never ticked starts with
/// a clean slate: its past is settled without a job.
pub(crate) fn missed(
    timing: &Timing,
    catch_up: CatchUp,
    last: Option<DateTime<Utc>>,
    start: DateTime<Utc>,
) -> Due {
    let Some(latest) = latest_tick(timing, last.unwrap_or(DateTime::UNIX_EPOCH), start) else {
        return Due::Nothing;
    };
    let Some(last) = last else { return Due::Remember(latest) };
    // A tick that is as old as that is still on time.
    let on_time: Vec<_> =
        ticks(timing, last.max(start - ON_TIME - TimeDelta::nanoseconds(1)), start).collect();
    match catch_up {
        _ if !on_time.is_empty() => Due::Enqueue(on_time),
        CatchUp::RunOnce => Due::Enqueue(vec![latest]),
        CatchUp::Skip => Due::Remember(latest),
    }
}

/// Tells whether a moment need not be pursued any more: it is not on time, and a later tick is due by `now`, which stands
/// for it.
pub(crate) fn is_overtaken(timing: &Timing, moment: Moment, now: DateTime<Utc>) -> bool {
    let (Moment::Start(at) | Moment::Tick(at)) = moment;
    now - at > ON_TIME && timing.next_after(at).is_some_and(|next| next <= now)
}

/// Returns the ticks after `after` and not after `until`.
fn ticks(
    timing: &Timing,
    after: DateTime<Utc>,
    until: DateTime<Utc>,
) -> impl Iterator<Item = DateTime<Utc>> + '_ {
    successors(timing.next_after(after), |tick| timing.next_after(*tick))
        .take_while(move |tick| *tick <= until)
}

/// Returns the latest tick after `after` and not after `until`.
fn latest_tick(timing: &Timing, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
    // Looks back in growing strides, so that a year of minutes is not walked one by one.
    let mut stride = TimeDelta::minutes(1);
    loop {
        let from = after.max(until - stride);
        let latest = ticks(timing, from, until).last();
        if latest.is_some() || from == after {
            return latest;
        }
        stride = stride * 2;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono_tz::Tz;

    use super::*;

    pub(crate) fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    pub(crate) fn timing(cron: &str, zone: Tz) -> Timing {
        Timing::new(cron, zone).expect("a valid expression")
    }

    fn hourly() -> Timing {
        timing("0 * * * *", Tz::UTC)
    }

    #[test]
    fn a_key_names_the_schedule_and_its_fire_time_in_utc() {
        let fire_at = at("2026-11-23T03:20:00+08:00");
        assert_eq!(idempotency_key("prune_history", fire_at), "schedule:prune_history:2026-11-22T19:20:00Z");
    }

    fn check_latest(cron: &str, zone: Tz, after: &str, until: &str, expected: Option<&str>) {
        let found = latest_tick(&timing(cron, zone), at(after), at(until));
        assert_eq!(found, expected.map(at), "{cron} in {zone} after {after} until {until}");
    }

    #[test]
    fn the_latest_missed_tick_lies_in_the_zone_of_the_schedule() {
        let shanghai = Tz::Asia__Shanghai;
        let night = "0 20 3 * * *";
        check_latest(
            night,
            shanghai,
            "2026-11-19T19:20:00Z",
            "2026-11-22T12:00:00Z",
            Some("2026-11-21T19:20:00Z"),
        );
        check_latest(night, shanghai, "2026-11-21T19:20:00Z", "2026-11-22T12:00:00Z", None);
        check_latest(night, shanghai, "2026-11-21T19:20:00Z", "2026-11-22T19:19:59.9Z", None);
        check_latest(
            night,
            shanghai,
            "2026-11-21T19:20:00Z",
            "2026-11-22T19:20:00Z",
            Some("2026-11-22T19:20:00Z"),
        );
    }

    #[test]
    fn the_latest_missed_tick_follows_daylight_saving() {
        let new_york = Tz::America__New_York;
        let nine = "0 0 9 * * *";
        check_latest(
            nine,
            new_york,
            "2026-03-07T14:00:00Z",
            "2026-03-08T13:30:00Z",
            Some("2026-03-08T13:00:00Z"),
        );
        check_latest(nine, new_york, "2026-10-31T13:00:00Z", "2026-11-01T13:30:00Z", None);
        // The hour that comes twice: 01:30 ran at 05:30Z.
        let half_past_one = "0 30 1 * * *";
        check_latest(half_past_one, new_york, "2026-11-01T05:30:00Z", "2026-11-01T12:00:00Z", None);
        check_latest(
            half_past_one,
            new_york,
            "2026-10-31T05:30:00Z",
            "2026-11-01T12:00:00Z",
            Some("2026-11-01T05:30:00Z"),
        );
        // The hour that is left out.
        check_latest("0 30 2 * * *", new_york, "2026-03-07T07:30:00Z", "2026-03-08T20:00:00Z", None);
    }

    #[test]
    fn the_latest_tick_of_years_is_found_at_once() {
        check_latest(
            "* * * * * *",
            Tz::UTC,
            "1970-01-01T00:00:00Z",
            "2026-11-22T12:00:00.5Z",
            Some("2026-11-22T12:00:00Z"),
        );
        check_latest(
            "0 0 0 29 2 *",
            Tz::UTC,
            "1970-01-01T00:00:00Z",
            "2026-11-22T12:00:00Z",
            Some("2024-02-29T00:00:00Z"),
        );
    }

    #[test]
    fn nothing_is_missed_when_the_clock_went_back() {
        check_latest("0 0 * * * *", Tz::UTC, "2026-11-22T12:00:00Z", "2026-11-22T09:30:00Z", None);
    }

    #[test]
    fn missed_ticks_run_once_or_are_let_go() {
        let (last, start) = (Some(at("2026-11-22T05:00:00Z")), at("2026-11-22T12:30:00Z"));
        let latest = at("2026-11-22T12:00:00Z");
        assert_eq!(missed(&hourly(), CatchUp::RunOnce, last, start), Due::Enqueue(vec![latest]));
        assert_eq!(missed(&hourly(), CatchUp::Skip, last, start), Due::Remember(latest));
        assert_eq!(missed(&hourly(), CatchUp::RunOnce, Some(latest), start), Due::Nothing);
    }

    #[test]
    fn a_restart_across_a_tick_does_not_skip_it() {
        let last = Some(at("2026-11-22T11:00:00Z"));
        let tick = at("2026-11-22T12:00:00Z");
        let missed = |start| missed(&hourly(), CatchUp::Skip, last, at(start));
        assert_eq!(missed("2026-11-22T12:00:20Z"), Due::Enqueue(vec![tick]));
        assert_eq!(missed("2026-11-22T12:01:00Z"), Due::Enqueue(vec![tick]));
        assert_eq!(missed("2026-11-22T12:01:01Z"), Due::Remember(tick));
    }

    #[test]
    fn a_restart_across_several_ticks_skips_none_of_the_last_minute() {
        let often = timing("*/10 * * * * *", Tz::UTC);
        let tick = |second| at(&format!("2026-11-22T12:00:{second:02}Z"));
        for catch_up in [CatchUp::Skip, CatchUp::RunOnce] {
            let missed = |last, start| missed(&often, catch_up, Some(last), start);
            let three = Due::Enqueue(vec![tick(10), tick(20), tick(30)]);
            assert_eq!(missed(tick(0), at("2026-11-22T12:00:30.5Z")), three);
            assert_eq!(missed(tick(20), at("2026-11-22T12:00:30.5Z")), Due::Enqueue(vec![tick(30)]));
            // Those before were missed, and the later ones stand for them.
            let Due::Enqueue(found) = missed(tick(0), at("2026-11-22T14:00:05Z")) else { panic!("ticks") };
            assert_eq!(found.len(), 6);
            assert_eq!(found[0], at("2026-11-22T13:59:10Z"));
        }
    }

    #[test]
    fn the_first_boot_makes_nothing_good_but_draws_the_line() {
        let start = at("2026-11-22T12:00:01Z");
        let line = Due::Remember(at("2026-11-22T12:00:00Z"));
        assert_eq!(missed(&hourly(), CatchUp::RunOnce, None, start), line);
    }

    #[test]
    fn a_moment_is_overtaken_by_the_next_tick() {
        let tick = Moment::Tick(at("2026-11-22T12:00:00Z"));
        assert!(!is_overtaken(&hourly(), tick, at("2026-11-22T12:59:59Z")));
        assert!(is_overtaken(&hourly(), tick, at("2026-11-22T13:00:00Z")));
        let start = Moment::Start(at("2026-11-22T12:30:00Z"));
        assert!(is_overtaken(&hourly(), start, at("2026-11-22T13:00:00Z")));
    }

    #[test]
    fn a_tick_of_the_last_minute_is_pursued_although_another_is_due() {
        let often = timing("* * * * * *", Tz::UTC);
        let tick = Moment::Tick(at("2026-11-22T12:00:00Z"));
        assert!(!is_overtaken(&often, tick, at("2026-11-22T12:01:00Z")));
        assert!(is_overtaken(&often, tick, at("2026-11-22T12:01:01Z")));
    }
}
