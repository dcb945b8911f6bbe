//! When messages may be sent: days and hours.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveTime;
use serde::{Deserialize, Serialize};

/// A time that clocks show, to the minute: `09:30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LocalTime(u16);

/// Is said of a text that no clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a time of day as 09:30, from 00:00 to 23:59")]
pub struct NotATime;

impl LocalTime {
    /// Returns the time that is so many minutes after midnight; none from 24 hours on.
    pub fn from_minute(minute: u16) -> Option<LocalTime> {
        (minute < 24 * 60).then_some(LocalTime(minute))
    }

    /// Returns the minutes since midnight, from 0 to 1439.
    pub fn minute(self) -> u16 {
        self.0
    }

    /// Returns the time as the calendar's arithmetic takes it.
    pub fn time(self) -> NaiveTime {
        NaiveTime::from_hms_opt(u32::from(self.0 / 60), u32::from(self.0 % 60), 0).unwrap_or_default()
    }
}

impl FromStr for LocalTime {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<LocalTime, NotATime> {
        let &[a, b, b':', c, d] = text.as_bytes() else { return Err(NotATime) };
        let digits = [a, b, c, d];
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(NotATime);
        }
        let [a, b, c, d] = digits.map(|digit| u16::from(digit - b'0'));
        let (hour, minute) = (a * 10 + b, c * 10 + d);
        if hour > 23 || minute > 59 { Err(NotATime) } else { Ok(LocalTime(hour * 60 + minute)) }
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl TryFrom<String> for LocalTime {
    type Error = NotATime;

    fn try_from(text: String) -> Result<LocalTime, NotATime> {
        text.parse()
    }
}

impl From<LocalTime> for String {
    fn from(time: LocalTime) -> String {
        time.to_string()
    }
}

/// When messages may be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendWindow {
    /// On which days.
    pub days: Days,
    /// The days of the week, 1 is Monday, where [`Days::Custom`] asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekdays: Option<Vec<u8>>,
    /// At which times of the day.
    pub ranges: Vec<Range>,
    /// Whose holidays count.
    #[serde(default)]
    pub holiday_calendar: HolidayCalendar,
}

/// On which days messages may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Days {
    /// On any day.
    Any,
    /// On working days, make-up days included and holidays not.
    Workday,
    /// On the days of the week that `weekdays` names.
    Custom,
}

/// A part of the day. It begins at `from` and ends just before `to`; it does not cross midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Where it begins.
    pub from: LocalTime,
    /// Where it ends.
    pub to: LocalTime,
}

/// Whose holidays and make-up days count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HolidayCalendar {
    /// Those of mainland China.
    #[default]
    Cn,
    /// Nobody's: a working day is Monday to Friday.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_what_a_clock_shows() {
        for (text, minute) in [("00:00", 0), ("09:30", 570), ("23:59", 1439)] {
            let time: LocalTime = text.parse().expect(text);
            assert_eq!((time.minute(), time.to_string().as_str()), (minute, text));
            assert_eq!(LocalTime::from_minute(minute), Some(time));
            assert_eq!(time.time().format("%H:%M").to_string(), text);
        }
        for text in
            ["24:00", "24:30", "9:30", "09:60", "0930", "09：30", "０9:30", "09:30:00", "", "ab:cd", "-1:00"]
        {
            assert_eq!(text.parse::<LocalTime>(), Err(NotATime), "{text:?}");
        }
        assert_eq!(LocalTime::from_minute(1440), None);
    }
}
