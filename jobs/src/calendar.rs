//! Days and months of an organisation's calendar. Pure.

use chrono::{
    DateTime, Datelike, Days, LocalResult, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone, Timelike, Utc,
};
use chrono_tz::Tz;
use entropy_schema::budgets::Periods;

/// A time zone.
pub type Zone = Tz;

/// The zone of organisations that have chosen none.
pub const DEFAULT_ZONE: Tz = chrono_tz::Asia::Shanghai;

/// Returns the zone of this name. One that this build does not know is taken for the default.
pub fn zone(name: Option<&str>) -> Tz {
    name.and_then(|name| name.parse().ok()).unwrap_or(DEFAULT_ZONE)
}

/// Returns the day that a moment lies in.
pub fn day_of(at: DateTime<Utc>, zone: Tz) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}

/// Returns the minute of the day, from 0 to 1439, as clocks show it.
pub fn minute_of(at: DateTime<Utc>, zone: Tz) -> u16 {
    let local = at.with_timezone(&zone);
    u16::try_from(local.hour() * 60 + local.minute()).unwrap_or_default()
}

/// Returns the periods that a moment lies in.
pub fn periods(at: DateTime<Utc>, zone: Tz) -> Periods {
    let day = day_of(at, zone);
    Periods { day, month: day.with_day(1).unwrap_or(day) }
}

/// Returns the moment at which a day begins: midnight, or what comes first where clocks leave midnight out.
pub fn begins(day: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let midnight = day.and_time(NaiveTime::MIN);
    // Clocks have been put on by up to a day, in quarters of an hour.
    for quarters in 0..=96 {
        match zone.from_local_datetime(&(midnight + TimeDelta::minutes(15 * quarters))) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => return at.to_utc(),
            LocalResult::None => {}
        }
    }
    midnight.and_utc()
}

/// Returns the moment at which the period of this name ends that begins on a day.
pub fn ends(period: &str, starts_on: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let next = match period {
        "month" => starts_on.checked_add_months(Months::new(1)),
        _ => starts_on.checked_add_days(Days::new(1)),
    };
    begins(next.unwrap_or(starts_on), zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a day")
    }

    #[test]
    fn days_and_months_are_those_of_the_zone() {
        let shanghai = zone(None);
        assert_eq!(periods(at("2026-10-31T15:59:59Z"), shanghai).day, day("2026-10-31"));
        let next = periods(at("2026-10-31T16:00:00Z"), shanghai);
        assert_eq!((next.day, next.month), (day("2026-11-01"), day("2026-11-01")));
        assert_eq!(begins(day("2026-11-01"), shanghai), at("2026-10-31T16:00:00Z"));
        assert_eq!(ends("month", day("2026-12-01"), shanghai), at("2026-12-31T16:00:00Z"));
        assert_eq!(minute_of(at("2026-11-22T15:30:00Z"), shanghai), 23 * 60 + 30);
        assert_eq!(zone(Some("Mars/Olympus")), DEFAULT_ZONE);
    }

    #[test]
    fn a_day_may_have_23_or_25_hours_or_no_midnight() {
        let berlin = zone(Some("Europe/Berlin"));
        let length = |on: &str, zone| ends("day", day(on), zone) - begins(day(on), zone);
        assert_eq!(length("2026-03-29", berlin), TimeDelta::hours(23));
        assert_eq!(length("2026-10-25", berlin), TimeDelta::hours(25));
        // In Beirut clocks go from 00:00 to 01:00.
        let beirut = zone(Some("Asia/Beirut"));
        assert_eq!(begins(day("2026-03-29"), beirut), at("2026-03-28T22:00:00Z"));
        assert_eq!(day_of(at("2026-03-28T22:00:00Z"), beirut), day("2026-03-29"));
        assert_eq!(length("2026-03-29", beirut), TimeDelta::hours(23));
        // Samoa left a whole day out.
        let apia = zone(Some("Pacific/Apia"));
        assert_eq!(begins(day("2011-12-30"), apia), begins(day("2011-12-31"), apia));
    }
}
