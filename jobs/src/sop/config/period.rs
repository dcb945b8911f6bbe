//! Lengths of time as ISO 8601 writes them: `PT30M`, `P1D`.

use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

/// The longest length of time, in days.
pub const MOST_DAYS: u32 = 3650;

const MOST_SECONDS: u64 = MOST_DAYS as u64 * 86_400;

/// A length of time.
///
/// Days are days of the calendar in the zone of the person: `P1D` after ten o'clock is ten o'clock on the next day, also
/// where clocks are changed in between. What stands behind the `T` is exact: `PT24H` is 24 hours and nothing else. Where
/// there is both, the days are gone first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period {
    days: u32,
    seconds: u64,
}

/// Is said of a text that is no length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAPeriod {
    /// It is written otherwise.
    #[error("write a length of time as PT30M, PT20H, P1D or P1DT12H")]
    Form,
    /// It is longer than [`MOST_DAYS`].
    #[error("a length of time is at most {MOST_DAYS} days")]
    TooLong,
}

impl Period {
    /// Makes a length of days of the calendar and exact time. Parts of a second are left out.
    pub fn new(days: u32, exact: std::time::Duration) -> Result<Period, NotAPeriod> {
        let period = Period { days, seconds: exact.as_secs() };
        if days > MOST_DAYS || period.seconds > MOST_SECONDS || period.upper_bound() > MOST_SECONDS {
            return Err(NotAPeriod::TooLong);
        }
        Ok(period)
    }

    /// Returns the days of the calendar.
    pub fn days(self) -> u32 {
        self.days
    }

    /// Returns the exact part, which comes after the days.
    pub fn exact(self) -> TimeDelta {
        // At most MOST_SECONDS, which is far inside what a TimeDelta holds.
        TimeDelta::seconds(i64::try_from(self.seconds).unwrap_or_default())
    }

    /// Tells whether it is no time at all.
    pub fn is_zero(self) -> bool {
        self.days == 0 && self.seconds == 0
    }

    /// Returns the length in seconds where every day has 24 hours: for estimates, not for clocks.
    pub fn nominal_seconds(self) -> u64 {
        self.upper_bound()
    }

    fn upper_bound(self) -> u64 {
        u64::from(self.days) * 86_400 + self.seconds
    }
}

impl FromStr for Period {
    type Err = NotAPeriod;

    fn from_str(text: &str) -> Result<Period, NotAPeriod> {
        let rest = text.strip_prefix('P').ok_or(NotAPeriod::Form)?;
        let (date, time) = match rest.split_once('T') {
            Some((_, "")) => return Err(NotAPeriod::Form),
            Some((date, time)) => (date, time),
            None if rest.is_empty() => return Err(NotAPeriod::Form),
            None => (rest, ""),
        };
        let days = parts(date, &[('D', 1)])?;
        let seconds = parts(time, &[('H', 3600), ('M', 60), ('S', 1)])?;
        let days = u32::try_from(days).map_err(|_| NotAPeriod::TooLong)?;
        Period::new(days, std::time::Duration::from_secs(seconds))
    }
}

/// Reads numbers that are followed by these units in this order, each at most once, and adds them up.
fn parts(mut text: &str, units: &[(char, u64)]) -> Result<u64, NotAPeriod> {
    let mut units = units.iter();
    let mut sum = 0_u64;
    while !text.is_empty() {
        let end = text.find(|c: char| !c.is_ascii_digit()).ok_or(NotAPeriod::Form)?;
        let (digits, rest) = text.split_at(end);
        let mut rest = rest.chars();
        let unit = rest.next().ok_or(NotAPeriod::Form)?;
        let (_, seconds) = units.find(|(name, _)| *name == unit).ok_or(NotAPeriod::Form)?;
        if digits.is_empty() {
            return Err(NotAPeriod::Form);
        }
        text = rest.as_str();
        // Whatever is longer than that is too long; how it goes on is still looked at.
        let number = digits.trim_start_matches('0');
        let number = if number.len() > 12 { u64::from(u32::MAX) } else { number.parse().unwrap_or(0) };
        sum = sum.saturating_add(number.saturating_mul(*seconds));
    }
    Ok(sum)
}

impl fmt::Display for Period {
    /// Writes one text for one length, whatever it was read from: `PT90M` is written as `PT1H30M`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P")?;
        if self.days > 0 {
            write!(f, "{}D", self.days)?;
        }
        if self.seconds > 0 || self.days == 0 {
            f.write_str("T")?;
            let parts = [(self.seconds / 3600, 'H'), (self.seconds / 60 % 60, 'M'), (self.seconds % 60, 'S')];
            for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
                write!(f, "{number}{unit}")?;
            }
            if self.seconds == 0 {
                f.write_str("0S")?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Period {
    type Error = NotAPeriod;

    fn try_from(text: String) -> Result<Period, NotAPeriod> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> String {
        period.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_stay_days_and_hours_stay_hours() {
        for (text, days, seconds, written) in [
            ("P1D", 1, 0, "P1D"),
            ("PT24H", 0, 86_400, "PT24H"),
            ("PT30M", 0, 1800, "PT30M"),
            ("PT90M", 0, 5400, "PT1H30M"),
            ("P1DT2H3M4S", 1, 7384, "P1DT2H3M4S"),
            ("PT0S", 0, 0, "PT0S"),
            ("P0D", 0, 0, "PT0S"),
            ("PT5S", 0, 5, "PT5S"),
            ("P0090D", 90, 0, "P90D"),
            ("P3650D", 3650, 0, "P3650D"),
        ] {
            let period: Period = text.parse().expect(text);
            assert_eq!((period.days(), period.exact()), (days, TimeDelta::seconds(seconds)), "{text}");
            assert_eq!(period.to_string(), written);
            assert_eq!(written.parse(), Ok(period));
        }
    }

    #[test]
    fn what_the_schema_refuses_is_no_length_of_time() {
        for text in [
            "", "P", "PT", "P1", "1D", "P1DT", "PT1", "P1M", "P1Y", "P1W", "PT1M1H", "PT1H1H", "P-1D",
            "P1.5D", "p1d", " P1D", "P1D ", "P１D", "PTH", "PD", "P1DT1D", "P1D1H", "PT1H\n",
        ] {
            assert_eq!(text.parse::<Period>(), Err(NotAPeriod::Form), "{text:?}");
        }
    }

    #[test]
    fn no_length_of_time_is_longer_than_ten_years() {
        let digits = format!("PT{}S", "9".repeat(500));
        for text in ["P3651D", "PT99999999H", "P3650DT1S", "P99999999999999999999D", digits.as_str()] {
            assert_eq!(text.parse::<Period>(), Err(NotAPeriod::TooLong), "{text:?}");
        }
    }
}
