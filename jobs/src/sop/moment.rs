//! When a step is due: delays, waits, cooldowns, deadlines. Pure.
//!
//! Two kinds of length are kept apart, as in [`Period`]: days are days of the calendar in the recipient's zone (`P1D`
//! after ten o'clock is ten o'clock on the next day, also where that day has 23 hours), and what stands behind the `T`
//! is exact time. Where the clock shows a time twice, the first is meant; where it leaves one out, the first moment
//! after it.

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};

use super::calendar::Calendar;
use super::config::period::Period;
use super::config::rules::ReEntry;
use super::config::step::{Count, CountFrom, Until, WaitFor};
use super::window::Opening;
use crate::calendar::{Zone, day_of};

/// Returns the moment that lies a period after another: first the days, then the exact time.
pub fn after(moment: DateTime<Utc>, period: Period, zone: Zone) -> DateTime<Utc> {
    let later = if period.days() == 0 {
        moment
    } else {
        let local = moment.with_timezone(&zone).naive_local();
        let day = local.checked_add_days(Days::new(period.days().into()));
        day.map_or(moment, |local| first_at(local, zone))
    };
    later + period.exact()
}

/// Returns the first moment at which clocks show a time, or at which they show a later one.
fn first_at(local: NaiveDateTime, zone: Zone) -> DateTime<Utc> {
    if let Some(at) = zone.from_local_datetime(&local).earliest() {
        return at.to_utc();
    }
    // The time is left out. With the offset of the day before, it would be a moment behind the change. Changes are made
    // at whole seconds.
    let local = local.with_nanosecond(0).unwrap_or(local);
    let day_before = local - TimeDelta::days(1);
    let offset = zone.from_local_datetime(&day_before).earliest().map(|at| at.naive_local() - at.naive_utc());
    let beyond = (local - offset.unwrap_or_default()).and_utc();
    let shown = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local();
    // The change is the first second at which clocks show no less than the time.
    let (mut before, mut at) = (beyond - TimeDelta::days(1), beyond);
    while at - before > TimeDelta::seconds(1) {
        let middle = before + TimeDelta::seconds((at - before).num_seconds() / 2);
        if shown(middle) < local { before = middle } else { at = middle }
    }
    at
}

/// Returns when an enrollment begins: the moment at which its first step is due, whatever that step is.
///
/// It is the first allowed moment after the trigger and its delay. Nothing, if the window does not open.
pub fn begins(triggered_at: DateTime<Utc>, delay: Period, opening: &Opening<'_>) -> Option<DateTime<Utc>> {
    opening.next_allowed(after(triggered_at, delay, opening.zone()))
}

/// Returns the day from which `from: start` counts: that on which the first step was due.
///
/// `due` is the first step's due time when it was carried out or left out, so a cap that made it wait has moved the
/// day, and downtime has not.
pub fn start_day(due: DateTime<Utc>, zone: Zone) -> NaiveDate {
    day_of(due, zone)
}

/// Returns when a wait ends that began at a moment; see [`until`]. Nothing, if that never comes.
pub fn wait(
    wait: &WaitFor,
    reached_at: DateTime<Utc>,
    start: NaiveDate,
    opening: &Opening<'_>,
    calendar: &Calendar,
) -> Option<DateTime<Utc>> {
    match wait {
        WaitFor::For(period) => Some(after(reached_at, *period, opening.zone())),
        WaitFor::Until(time) => until(time, reached_at, start, opening, calendar),
    }
}

/// Returns when a step ends that waits until a time of a day.
///
/// Workdays are counted by the campaign's own calendar, and the day from which is counted does not count; an offset of
/// 0 means that day, or with `count: workday` the first workday from it on. A time that has passed when the step is
/// reached means the next allowed moment. A time to come is left as it is: a send behind it looks at the window itself.
///
/// Nothing, if such a day or moment never comes.
pub fn until(
    time: &Until,
    reached_at: DateTime<Utc>,
    start: NaiveDate,
    opening: &Opening<'_>,
    calendar: &Calendar,
) -> Option<DateTime<Utc>> {
    let zone = opening.zone();
    let from = match time.from {
        CountFrom::Here => day_of(reached_at, zone),
        CountFrom::Start => start,
    };
    let day = match time.count {
        Count::CalendarDay => from.checked_add_days(Days::new(time.day_offset.into()))?,
        Count::Workday => calendar.workdays_after(from, time.day_offset.into())?,
    };
    let at = first_at(day.and_time(time.at.time()), zone);
    if at < reached_at { opening.next_allowed(reached_at) } else { Some(at) }
}

/// Returns when an enrollment has taken too long, counted from its beginning (see [`begins`]): nights, weekends and
/// holidays before the first step do not count, what makes the first step wait after that does.
pub fn deadline(began_at: DateTime<Utc>, period: Period, zone: Zone) -> DateTime<Utc> {
    after(began_at, period, zone)
}

/// Whether somebody may go through a campaign again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Now.
    Open,
    /// Not before this moment.
    NotBefore(DateTime<Utc>),
    /// Never again.
    Used,
}

/// Returns whether somebody may enter who has been through a campaign so many times. Without a rule, once.
///
/// The cooldown counts from the end of the last time, which is when the person was last left alone.
pub fn entry(
    now: DateTime<Utc>,
    times: u32,
    last_ended_at: Option<DateTime<Utc>>,
    rule: Option<&ReEntry>,
    zone: Zone,
) -> Entry {
    if times >= rule.map_or(1, |rule| rule.max_times) {
        return Entry::Used;
    }
    let cooldown = rule.and_then(|rule| rule.cooldown).unwrap_or_default();
    match last_ended_at.map(|ended| after(ended, cooldown, zone)) {
        Some(open) if open > now => Entry::NotBefore(open),
        _ => Entry::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::window::LocalTime;
    use super::super::window::{Days as On, Range, Window};
    use super::*;
    use crate::calendar::zone;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn shanghai(text: &str) -> DateTime<Utc> {
        at(&format!("{text}:00+08:00"))
    }

    fn period(text: &str) -> Period {
        text.parse().expect("a period")
    }

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a day")
    }

    /// 09:30 to 12:00 and 14:00 to 20:30 on workdays.
    fn working_hours(calendar: &Calendar) -> Opening<'_> {
        let ranges = [(570, 720), (840, 1230)].map(|(from, to)| Range::new(from, to).expect("a range"));
        Opening::new(zone(None), &Window::new(On::Workdays, ranges), calendar)
    }

    fn time(from: CountFrom, day_offset: u16, text: &str, count: Count) -> Until {
        Until { from, day_offset, at: text.parse::<LocalTime>().expect("a time of day"), count }
    }

    #[test]
    fn a_day_is_a_day_of_the_calendar_and_24_hours_are_hours() {
        let new_york = zone(Some("America/New_York"));
        let evening = at("2026-03-07T20:00:00-05:00");
        assert_eq!(after(evening, period("P1D"), new_york), at("2026-03-08T20:00:00-04:00"));
        assert_eq!(after(evening, period("PT24H"), new_york), at("2026-03-08T21:00:00-04:00"));
        assert_eq!(after(evening, period("P1DT30M"), new_york), at("2026-03-08T20:30:00-04:00"));
        // The hour that comes twice: the first.
        let night = at("2026-10-31T01:30:00-04:00");
        assert_eq!(after(night, period("P1D"), new_york), at("2026-11-01T01:30:00-04:00"));
        assert_eq!(after(night, period("PT25H"), new_york), at("2026-11-01T01:30:00-05:00"));
        // In Shanghai they are the same.
        let noon = shanghai("2026-11-23T12:00");
        assert_eq!(after(noon, period("P2D"), zone(None)), after(noon, period("PT48H"), zone(None)));
        assert_eq!(after(noon, period("P0D"), zone(None)), noon);
    }

    #[test]
    fn a_time_that_clocks_leave_out_is_the_first_moment_after_it() {
        let check = |zone_name: &str, from: &str, expected: &str| {
            assert_eq!(after(at(from), period("P1D"), zone(Some(zone_name))), at(expected), "{zone_name}");
        };
        check("America/New_York", "2026-03-07T02:30:00-05:00", "2026-03-08T03:00:00-04:00");
        check("Europe/Berlin", "2026-03-28T02:00:00+01:00", "2026-03-29T03:00:00+02:00");
        check("Australia/Lord_Howe", "2026-10-03T02:29:59+10:30", "2026-10-04T02:30:00+11:00");
        check("America/Havana", "2026-03-07T00:10:00-05:00", "2026-03-08T01:00:00-04:00");
        // Samoa left a day out.
        check("Pacific/Apia", "2011-12-29T10:00:00-10:00", "2011-12-31T00:00:00+14:00");
    }

    #[test]
    fn an_enrollment_begins_in_working_hours_and_that_day_is_its_start() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        // Tagged, begins, start day.
        let table = [
            ("2026-11-20T21:40", "2026-11-23T09:30", "2026-11-23"), // Friday night: Monday.
            ("2026-10-09T21:40", "2026-10-10T09:30", "2026-10-10"), // A Saturday that is worked.
            ("2026-11-23T10:00", "2026-11-23T10:02", "2026-11-23"),
            ("2026-11-23T11:58", "2026-11-23T14:00", "2026-11-23"),
        ];
        for (tagged, expected, start) in table {
            let began = begins(shanghai(tagged), period("PT2M"), &opening);
            assert_eq!(began, Some(shanghai(expected)), "{tagged}");
            assert_eq!(began.map(|due| start_day(due, zone(None))), Some(day(start)), "{tagged}");
        }
    }

    #[test]
    fn the_three_days_of_the_example() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let second = time(CountFrom::Start, 1, "10:00", Count::Workday);
        let third = time(CountFrom::Start, 2, "15:00", Count::Workday);
        // Start day, end of the wait for an answer, second day, third day.
        let table = [
            ("2026-11-23", "2026-11-24T06:00", "2026-11-24T10:00", "2026-11-25T15:00"),
            ("2026-11-20", "2026-11-21T06:00", "2026-11-23T10:00", "2026-11-24T15:00"),
            ("2026-10-09", "2026-10-10T06:00", "2026-10-10T10:00", "2026-10-12T15:00"),
            ("2026-09-30", "2026-10-01T06:00", "2026-10-08T10:00", "2026-10-09T15:00"),
            ("2026-09-18", "2026-09-19T06:00", "2026-09-20T10:00", "2026-09-21T15:00"),
            ("2026-02-13", "2026-02-14T06:00", "2026-02-14T10:00", "2026-02-24T15:00"),
        ];
        for (start, reached, on_second, on_third) in table {
            let start = day(start);
            let outline = shanghai(&format!("{start}T10:00"));
            let reached_at = after(outline, period("PT20H"), zone(None));
            assert_eq!(reached_at, shanghai(reached));
            let second_at = until(&second, reached_at, start, &opening, &calendar);
            assert_eq!(second_at, Some(shanghai(on_second)), "{start}");
            let third_at = until(&third, shanghai(on_second), start, &opening, &calendar);
            assert_eq!(third_at, Some(shanghai(on_third)), "{start}");
        }
    }

    #[test]
    fn a_time_that_has_passed_is_the_next_allowed_moment() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let ends = |time: &Until, reached: &str, start: &str| {
            until(time, shanghai(reached), day(start), &opening, &calendar)
        };
        let ten = time(CountFrom::Here, 0, "10:00", Count::CalendarDay);
        assert_eq!(ends(&ten, "2026-11-23T09:00", "2026-11-23"), Some(shanghai("2026-11-23T10:00")));
        assert_eq!(ends(&ten, "2026-11-23T10:00", "2026-11-23"), Some(shanghai("2026-11-23T10:00")));
        assert_eq!(ends(&ten, "2026-11-23T10:01", "2026-11-23"), Some(shanghai("2026-11-23T10:01")));
        assert_eq!(ends(&ten, "2026-11-23T12:30", "2026-11-23"), Some(shanghai("2026-11-23T14:00")));
        let long_ago = time(CountFrom::Start, 1, "10:00", Count::Workday);
        assert_eq!(ends(&long_ago, "2026-11-27T21:00", "2026-11-23"), Some(shanghai("2026-11-30T09:30")));
        // A time to come stands, in the window or not.
        let night = time(CountFrom::Here, 1, "23:00", Count::CalendarDay);
        assert_eq!(ends(&night, "2026-11-27T10:00", "2026-11-23"), Some(shanghai("2026-11-28T23:00")));
    }

    #[test]
    fn workdays_are_counted_from_where_the_step_is_reached() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let ends = |offset, reached: &str| {
            let time = time(CountFrom::Here, offset, "10:00", Count::Workday);
            until(&time, shanghai(reached), day("2026-01-01"), &opening, &calendar)
        };
        assert_eq!(ends(1, "2026-09-30T11:00"), Some(shanghai("2026-10-08T10:00")));
        assert_eq!(ends(3, "2026-09-30T11:00"), Some(shanghai("2026-10-10T10:00")));
        assert_eq!(ends(0, "2026-10-02T11:00"), Some(shanghai("2026-10-08T10:00")));
        assert_eq!(ends(1, "2026-10-02T11:00"), Some(shanghai("2026-10-08T10:00")));
    }

    #[test]
    fn a_wait_for_a_period_does_not_look_at_the_window() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let start = day("2026-11-23");
        let ended =
            wait(&WaitFor::For(period("PT20H")), shanghai("2026-11-23T10:00"), start, &opening, &calendar);
        assert_eq!(ended, Some(shanghai("2026-11-24T06:00")));
    }

    #[test]
    fn a_deadline_counts_days_of_the_calendar() {
        assert_eq!(
            deadline(shanghai("2026-11-23T09:30"), period("P10D"), zone(None)),
            shanghai("2026-12-03T09:30")
        );
    }

    #[test]
    fn somebody_enters_again_after_the_cooldown_and_not_too_often() {
        let now = shanghai("2026-11-23T10:00");
        let rule = ReEntry { max_times: 2, cooldown: Some(period("P90D")) };
        let check = |times, ended: Option<&str>, rule: Option<&ReEntry>| {
            entry(now, times, ended.map(shanghai), rule, zone(None))
        };
        assert_eq!(check(0, None, None), Entry::Open);
        assert_eq!(check(1, Some("2020-01-01T00:00"), None), Entry::Used);
        assert_eq!(
            check(1, Some("2026-11-01T10:00"), Some(&rule)),
            Entry::NotBefore(shanghai("2027-01-30T10:00"))
        );
        assert_eq!(check(1, Some("2026-08-25T10:00"), Some(&rule)), Entry::Open);
        assert_eq!(check(2, Some("2020-01-01T00:00"), Some(&rule)), Entry::Used);
    }
}
