//! When a line of the timetable fires, and what becomes of ticks that were missed.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::sop::config::cron_expression::{self, NotATrigger};

/// The times at which a line fires: an expression, and the zone in which it is read.
#[derive(Debug, Clone)]
pub struct Timing {
    cron: String,
    zone: Tz,
    schedule: cron::Schedule,
}

/// Is said of what no line can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotATiming {
    /// The expression.
    #[error(transparent)]
    Cron(NotATrigger),
    /// The zone.
    #[error("must be the name of a time zone, such as Asia/Shanghai")]
    Zone,
}

impl Timing {
    /// Reads an expression and a zone as they are stored.
    pub fn read(cron: &str, zone: &str) -> Result<Timing, NotATiming> {
        Timing::new(cron, zone.parse().map_err(|_| NotATiming::Zone)?).map_err(NotATiming::Cron)
    }

    /// Reads an expression: five fields, or six with the second before them.
    pub fn new(cron: &str, zone: Tz) -> Result<Timing, NotATrigger> {
        Ok(Timing { cron: cron.to_owned(), zone, schedule: cron_expression::times(cron)? })
    }

    /// Returns the expression as it was written.
    pub fn cron(&self) -> &str {
        &self.cron
    }

    /// Returns the zone in which the expression is read.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// Returns the first fire time after `at`. None: there is none within a century.
    ///
    /// Depends on nothing but the line and `at`, so that all schedulers agree. Where a clock is set back, a time that
    /// comes twice fires the first time only; where it is set forward, a time that is left out does not fire. Read
    /// hourly lines in UTC, which has neither.
    pub fn next_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        cron_expression::next(&self.schedule, self.zone, at)
    }
}

impl PartialEq for Timing {
    fn eq(&self, other: &Timing) -> bool {
        // The rest follows from these.
        self.cron == other.cron && self.zone == other.zone
    }
}

impl Eq for Timing {}

/// What happens to ticks that nobody was there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// They are let go.
    Skip,
    /// The latest of them runs, once for all.
    RunOnce,
}

impl CatchUp {
    /// Returns the word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            CatchUp::Skip => "skip",
            CatchUp::RunOnce => "run_once",
        }
    }
}

/// The text says neither what to skip nor what to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is skip or run_once")]
pub struct NotACatchUp;

impl FromStr for CatchUp {
    type Err = NotACatchUp;

    fn from_str(text: &str) -> Result<CatchUp, NotACatchUp> {
        [CatchUp::Skip, CatchUp::RunOnce].into_iter().find(|one| one.as_str() == text).ok_or(NotACatchUp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn a_tick_is_not_after_itself_but_after_the_moment_before() {
        let hourly = Timing::new("0 * * * *", Tz::UTC).expect("times");
        assert_eq!(hourly.next_after(at("2026-11-22T12:00:00Z")), Some(at("2026-11-22T13:00:00Z")));
        assert_eq!(hourly.next_after(at("2026-11-22T11:59:59.999Z")), Some(at("2026-11-22T12:00:00Z")));
        assert_eq!(hourly.next_after(at("2026-11-22T12:00:00.001Z")), Some(at("2026-11-22T13:00:00Z")));
    }

    #[test]
    fn an_hour_that_comes_twice_fires_the_first_time_only() {
        // In New York 2026-11-01 has 01:30 at 05:30Z and again at 06:30Z.
        let daily = Timing::read("30 1 * * *", "America/New_York").expect("times");
        assert_eq!(daily.next_after(at("2026-11-01T05:00:00Z")), Some(at("2026-11-01T05:30:00Z")));
        for later in
            ["2026-11-01T05:30:00Z", "2026-11-01T05:59:59.5Z", "2026-11-01T06:10:00Z", "2026-11-01T06:45:00Z"]
        {
            assert_eq!(daily.next_after(at(later)), Some(at("2026-11-02T06:30:00Z")), "after {later}");
        }
    }

    #[test]
    fn a_time_that_is_left_out_does_not_fire() {
        // In New York 2026-03-08 has no 02:30.
        let daily = Timing::read("30 2 * * *", "America/New_York").expect("times");
        assert_eq!(daily.next_after(at("2026-03-07T12:00:00Z")), Some(at("2026-03-09T06:30:00Z")));
    }

    #[test]
    fn a_day_keeps_its_local_time_when_the_clock_is_set() {
        let daily = Timing::read("0 9 * * *", "America/New_York").expect("times");
        assert_eq!(daily.next_after(at("2026-03-07T12:00:00Z")), Some(at("2026-03-07T14:00:00Z")));
        assert_eq!(daily.next_after(at("2026-03-08T12:00:00Z")), Some(at("2026-03-08T13:00:00Z")));
    }

    #[test]
    fn every_second_is_allowed_and_what_is_no_time_is_named() {
        let often = Timing::read("*/2 * * * * *", "UTC").expect("times");
        assert_eq!(often.next_after(at("2026-11-23T00:00:00Z")), Some(at("2026-11-23T00:00:02Z")));
        assert_eq!(Timing::read("* * * * *", "Asia/Entenhausen"), Err(NotATiming::Zone));
        assert_eq!(Timing::read("每天", "UTC"), Err(NotATiming::Cron(NotATrigger::Form)));
        assert_eq!(Timing::read("0 0 30 2 *", "UTC"), Err(NotATiming::Cron(NotATrigger::Never)));
    }

    #[test]
    fn words_of_catching_up_are_read_as_they_are_written() {
        for one in [CatchUp::Skip, CatchUp::RunOnce] {
            assert_eq!(one.as_str().parse(), Ok(one));
        }
        assert_eq!("always".parse::<CatchUp>(), Err(NotACatchUp));
    }
}
