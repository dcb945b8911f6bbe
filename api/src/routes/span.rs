//! The time that a report is about: days of the organisation's calendar, or moments.

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use entropy_jobs::calendar;

use super::jobs::storable;
use crate::problem::{ApiError, FieldProblem};

/// A year, for reports of sums.
pub(super) const YEAR: i64 = 366;

/// A quarter of a year, for reports that read every message.
pub(super) const QUARTER: i64 = 92;

/// Days of a report for which none are asked.
const USUAL_DAYS: u64 = 30;

/// From one moment to before another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    /// The first moment.
    pub(super) from: DateTime<Utc>,
    /// The end, exclusive.
    pub(super) to: DateTime<Utc>,
    /// Whose days count.
    pub(super) zone: calendar::Zone,
}

impl Range {
    /// Reads the parameters `from` and `to`.
    pub(super) fn read(
        from: Option<&str>,
        to: Option<&str>,
        now: DateTime<Utc>,
        timezone: &str,
        most_days: i64,
    ) -> Result<Range, ApiError> {
        let zone = calendar::zone(Some(timezone));
        let today = calendar::day_of(now, zone);
        let first = today.checked_sub_days(Days::new(USUAL_DAYS - 1)).unwrap_or(today);
        let from = match from {
            Some(text) => moment(text, "from", zone, 0)?,
            None => calendar::begins(first, zone),
        };
        let to = match to {
            Some(text) => moment(text, "to", zone, 1)?,
            None => calendar::ends("day", today, zone),
        };
        if to <= from {
            let message = "must lie after from";
            return Err(ApiError::malformed(vec![FieldProblem::new("to", "not_after", message)]));
        }
        // A day may have 25 hours.
        if to - from > TimeDelta::days(most_days) + TimeDelta::hours(2) {
            let message = format!("must lie at most {most_days} days after from");
            return Err(ApiError::malformed(vec![FieldProblem::new("to", "out_of_range", message)]));
        }
        Ok(Range { from, to, zone })
    }

    /// Returns the moments between which its days lie, and the days.
    pub(super) fn days(&self) -> (Vec<DateTime<Utc>>, Vec<NaiveDate>) {
        let mut day = calendar::day_of(self.from, self.zone);
        let (mut bounds, mut days) = (vec![self.from], Vec::new());
        loop {
            let end = calendar::ends("day", day, self.zone);
            if end > *bounds.last().unwrap_or(&self.from) {
                days.push(day);
                bounds.push(end.min(self.to));
            }
            match day.succ_opt() {
                Some(next) if end < self.to => day = next,
                _ => return (bounds, days),
            }
        }
    }
}

/// Reads a day or a moment. Of a day, `after` days later counts.
fn moment(text: &str, path: &str, zone: calendar::Zone, after: u64) -> Result<DateTime<Utc>, ApiError> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(storable(at.to_utc()));
    }
    // chrono also takes signs and short forms.
    let plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let day = text
        .parse::<NaiveDate>()
        .ok()
        .filter(|_| plain)
        .and_then(|day| day.checked_add_days(Days::new(after)));
    match day {
        Some(day) => Ok(storable(calendar::begins(day, zone))),
        None => {
            let message = "must be a day such as 2026-11-01, or a time such as 2026-11-01T08:00:00Z";
            Err(ApiError::malformed(vec![FieldProblem::new(path, "bad_time", message)]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn read(from: &str, to: &str) -> Result<Range, ApiError> {
        Range::read(Some(from), Some(to), at("2026-11-22T00:00:00Z"), "Asia/Shanghai", YEAR)
    }

    #[test]
    fn days_are_whole_days_of_the_zone() {
        let range = read("2026-11-01", "2026-11-02").expect("a range");
        assert_eq!((range.from, range.to), (at("2026-10-31T16:00:00Z"), at("2026-11-02T16:00:00Z")));
        let (bounds, days) = range.days();
        assert_eq!(bounds, [range.from, at("2026-11-01T16:00:00Z"), range.to]);
        assert_eq!(days.len(), 2);
        let part = read("2026-11-01T12:00:00Z", "2026-11-01T17:00:00Z").expect("a range").days();
        assert_eq!(part.0.len(), 3, "a part of two days: {part:?}");
        let usual = Range::read(None, None, at("2026-11-22T00:00:00Z"), "UTC", YEAR).expect("a range");
        assert_eq!(usual.days().1.len(), 30);
    }

    #[test]
    fn a_range_that_cannot_be_is_refused() {
        for (from, to) in [
            ("2026-11-02", "2026-11-01"),
            ("2026-11-02T00:00:00Z", "2026-11-02T00:00:00Z"),
            ("2026-1-1", "2026-11-01"),
            ("yesterday", "2026-11-01"),
            ("2025-01-01", "2026-11-01"),
            ("+26-11-011", "2026-11-01"),
            ("", ""),
        ] {
            assert!(read(from, to).is_err(), "{from} {to}");
        }
    }
}
