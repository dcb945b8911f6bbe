//! The times of a trigger that repeats.
//!
//! Five fields as everybody writes them: minute, hour, day of the month, month, day of the week; `30 9 * * 1-5` is half past
//! nine from Monday to Friday. A sixth field before them may say the second. Days of the week are 0 to 7, both ends are Sunday,
//! or `MON` to `SUN`. The crate behind it counts them from 1 for Sunday, so they are translated.

use std::str::FromStr;

use chrono::{DateTime, TimeZone, Utc};
use chrono_tz::Tz;
use cron::{Schedule, TimeUnitSpec};

/// The longest expression, in characters.
const LONGEST: usize = 100;

const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Is said of an expression that no trigger can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotATrigger {
    /// It cannot be read.
    #[error(
        "write the times as five fields: minute, hour, day of the month, month, day of the week, such as 30 9 * * 1-5"
    )]
    Form,
    /// It says both the day of the month and the day of the week.
    #[error("say either the day of the month or the day of the week, and * for the other")]
    TwoKindsOfDays,
    /// Two of its times lie in one hour.
    #[error("the times lie closer than an hour: give one minute, such as 30 9-18 * * *")]
    TooOften,
    /// It never fires.
    #[error("no calendar has such a day: change the day or the month")]
    Never,
}

/// Reads the times of a trigger. They are at least an hour apart.
pub fn schedule(text: &str) -> Result<Schedule, NotATrigger> {
    let schedule = times(text)?;
    if schedule.seconds().count() * schedule.minutes().count() > 1 {
        return Err(NotATrigger::TooOften);
    }
    Ok(schedule)
}

/// Reads times, however close to each other.
pub fn times(text: &str) -> Result<Schedule, NotATrigger> {
    if text.chars().nth(LONGEST).is_some() {
        return Err(NotATrigger::Form);
    }
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let (second, minute, hour, day, month, weekday) = match *fields.as_slice() {
        [minute, hour, day, month, weekday] => ("0", minute, hour, day, month, weekday),
        [second, minute, hour, day, month, weekday] => (second, minute, hour, day, month, weekday),
        _ => return Err(NotATrigger::Form),
    };
    let every = |field: &str| matches!(field, "*" | "?");
    if !every(day) && !every(weekday) {
        return Err(NotATrigger::TwoKindsOfDays);
    }
    let weekday = weekdays(weekday).ok_or(NotATrigger::Form)?;
    let schedule = Schedule::from_str(&format!("{second} {minute} {hour} {day} {month} {weekday}"))
        .map_err(|_| NotATrigger::Form)?;
    // A day that is not in the next leap years is in none.
    if schedule.after(&DateTime::<Utc>::UNIX_EPOCH).next().is_none() {
        return Err(NotATrigger::Never);
    }
    Ok(schedule)
}

/// Returns the first time after a moment, as clocks in a zone show it.
///
/// Where clocks show a time twice, the first is meant; a time that they leave out is left out.
pub fn next(schedule: &Schedule, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    schedule
        .after(&after.with_timezone(&zone))
        // In the hour that comes twice, the crate offers its times again, and also those before the moment.
        .find(|at| *at > after && zone.from_local_datetime(&at.naive_local()).earliest().as_ref() == Some(at))
        .map(|at| at.to_utc())
}

/// Writes the field of the days of the week by names.
fn weekdays(field: &str) -> Option<String> {
    if matches!(field, "*" | "?") {
        return Some("*".to_owned());
    }
    let mut chosen = [false; 7];
    for item in field.split(',') {
        let (days, step) = match item.split_once('/') {
            Some((days, step)) => (days, step.parse::<usize>().ok().filter(|step| (1..=7).contains(step))?),
            None => (item, 1),
        };
        let (from, to) = match days.split_once('-') {
            _ if days == "*" => (0, 6),
            Some((from, to)) => (weekday(from)?, weekday(to)?),
            None if item.contains('/') => (weekday(days)?, 6),
            None => (weekday(days)?, weekday(days)?),
        };
        // `FRI-SUN`: Sunday at the end is the seventh day.
        let to = if to == 0 && from > 0 { 7 } else { to };
        if from > to {
            return None;
        }
        (from..=to).step_by(step).for_each(|day| chosen[day % 7] = true);
    }
    let names = WEEKDAYS.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(name, _)| *name);
    Some(names.collect::<Vec<_>>().join(","))
}

/// Reads a day of the week, 0 is Sunday.
fn weekday(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [digit @ b'0'..=b'7'] => Some(usize::from(digit - b'0')),
        _ => WEEKDAYS.iter().position(|name| name.eq_ignore_ascii_case(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, after: &str, expected: &[&str]) {
        let schedule = schedule(text).expect(text);
        let mut at: DateTime<Utc> = after.parse().expect("a time");
        for expected in expected {
            at = next(&schedule, chrono_tz::Asia::Shanghai, at).expect("another time");
            assert_eq!(at, expected.parse::<DateTime<Utc>>().expect("a time"), "{text}");
        }
    }

    #[test]
    fn one_is_monday_and_both_ends_of_the_week_are_sunday() {
        // 2026-11-23 is a Monday; 09:30 in Shanghai is 01:30 UTC.
        let monday = "2026-11-23T00:00:00Z";
        check("30 9 * * 1", monday, &["2026-11-23T01:30:00Z", "2026-11-30T01:30:00Z"]);
        check("30 9 * * MON-FRI", monday, &["2026-11-23T01:30:00Z", "2026-11-24T01:30:00Z"]);
        for sunday in ["30 9 * * 0", "30 9 * * 7", "30 9 * * sun", "0 30 9 ? * 7"] {
            check(sunday, monday, &["2026-11-29T01:30:00Z", "2026-12-06T01:30:00Z"]);
        }
        let weekend =
            ["2026-11-27T01:30:00Z", "2026-11-28T01:30:00Z", "2026-11-29T01:30:00Z", "2026-12-04T01:30:00Z"];
        for text in ["30 9 * * 5-7", "30 9 * * FRI-SUN", "30 9 * * 5,6,0"] {
            check(text, monday, &weekend);
        }
        check(
            "30 9 * * 1-5/2",
            monday,
            &["2026-11-23T01:30:00Z", "2026-11-25T01:30:00Z", "2026-11-27T01:30:00Z"],
        );
    }

    #[test]
    fn an_hour_that_comes_twice_fires_once_and_one_that_is_left_out_does_not() {
        let fires = |text: &str, after: &str| {
            let after = after.parse::<DateTime<Utc>>().expect("a time");
            next(&schedule(text).expect(text), chrono_tz::America::New_York, after)
                .expect("fires")
                .to_string()
        };
        // On 2026-11-01 New York has 01:30 at 05:30 UTC and again an hour later.
        assert_eq!(fires("30 1 * * *", "2026-11-01T04:00:00Z"), "2026-11-01 05:30:00 UTC");
        assert_eq!(fires("30 1 * * *", "2026-11-01T05:30:00Z"), "2026-11-02 06:30:00 UTC");
        assert_eq!(fires("30 1 * * *", "2026-11-01T06:10:00Z"), "2026-11-02 06:30:00 UTC");
        // On 2026-03-08 it has no 02:30.
        assert_eq!(fires("30 2 * * *", "2026-03-08T00:00:00Z"), "2026-03-09 06:30:00 UTC");
    }

    #[test]
    fn once_an_hour_is_the_most() {
        check("0 * * * *", "2026-11-23T00:00:00Z", &["2026-11-23T01:00:00Z", "2026-11-23T02:00:00Z"]);
        for text in
            ["*/30 * * * *", "0,1 9 * * *", "* * * * *", "0-5 9 1 1 *", "0,30 0 9 * * *", "* 0 9 * * *"]
        {
            assert_eq!(schedule(text), Err(NotATrigger::TooOften), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let long = format!("0 9 * * {}1", "1,".repeat(60));
        for text in [
            "",
            "9",
            "0 9 * *",
            "0 0 9 * * * 2026",
            "a b * d *",
            "60 9 * * *",
            "0 24 * * *",
            "0 9 32 * *",
            "0 9 * 13 *",
            "0 9 * * 8",
            "0 9 * * 5-1",
            "0 9 * * */0",
            "0 */0 * * *",
            "0 9 * * 1#2",
            "0 9 L * *",
            "@daily",
            "0 9 * * 每天",
            "0 9 * * 1-",
            "0 99999999999 * * *",
            &long,
        ] {
            assert_eq!(schedule(text), Err(NotATrigger::Form), "{text}");
        }
        assert_eq!(schedule("0 9 1 * 1"), Err(NotATrigger::TwoKindsOfDays));
        for text in ["0 9 30 2 *", "0 9 31 4,6 *"] {
            assert_eq!(schedule(text), Err(NotATrigger::Never), "{text}");
        }
        check("0 9 29 2 *", "2026-11-23T00:00:00Z", &["2028-02-29T01:00:00Z"]);
    }
}
