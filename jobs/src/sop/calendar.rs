//! Holidays and make-up workdays: on which days people work. Pure.
//!
//! The tables are those that the State Council publishes for mainland China each November, a table a year.
//! Organisations may change them; what is shipped is in `calendar_cn.json`, in the form in which the API reads and
//! writes a year.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use chrono::{Datelike, Days, NaiveDate, Weekday};
use serde::{Deserialize, Serialize};

use super::config::window::HolidayCalendar;

/// The tables that come with the product.
static SHIPPED: LazyLock<BTreeMap<i32, Year>> = LazyLock::new(|| {
    // The text is part of the program, and a test reads it.
    serde_json::from_str(include_str!("calendar_cn.json")).expect("the shipped calendar is sound")
});

/// No table at all.
static NONE: Calendar = Calendar { years: BTreeMap::new() };

/// The month from which on next year's table is missed: the notice usually comes out in its first days.
const NOTICE_MONTH: u32 = 11;

/// Furthest day looked at when workdays are counted. Ninety of them lie within half a year of any real calendar.
const HORIZON_DAYS: usize = 1000;

/// What is special about one year's days. Each day is written under the year that it lies in, also where a notice for
/// the next year speaks of a day in December.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Year {
    /// Days off, weekends within a holiday included.
    pub holidays: BTreeSet<NaiveDate>,
    /// Days of a weekend that are worked.
    pub workdays: BTreeSet<NaiveDate>,
}

/// Why a year's table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A day of another year.
    #[error("{0} does not lie in {1}: write it into the table of its own year")]
    OtherYear(NaiveDate, i32),
    /// A day that is both.
    #[error("{0} is listed as a holiday and as a workday: keep one of them")]
    Both(NaiveDate),
}

impl Year {
    /// Returns everything that is wrong with the table as that of a year.
    pub fn faults(&self, year: i32) -> Vec<Fault> {
        let all = self.holidays.iter().chain(&self.workdays);
        let strangers = all.filter(|day| day.year() != year).map(|day| Fault::OtherYear(*day, year));
        let both = self.holidays.intersection(&self.workdays).map(|day| Fault::Both(*day));
        strangers.chain(both).collect()
    }
}

/// Years of holidays and make-up workdays. A year without a table goes by the days of the week; so does the empty
/// calendar, which stands for "no holidays".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calendar {
    years: BTreeMap<i32, Year>,
}

impl Calendar {
    /// Puts years together to a calendar.
    pub fn new(years: impl IntoIterator<Item = (i32, Year)>) -> Calendar {
        Calendar { years: years.into_iter().collect() }
    }

    /// Returns the tables that come with the product.
    pub fn shipped() -> Calendar {
        Calendar { years: SHIPPED.clone() }
    }

    /// Returns the calendar that a campaign has chosen: this one, or none.
    pub fn chosen(&self, choice: HolidayCalendar) -> &Calendar {
        match choice {
            HolidayCalendar::Cn => self,
            HolidayCalendar::None => &NONE,
        }
    }

    /// Puts a year's table in the place of what was known of it.
    pub fn replace(&mut self, year: i32, table: Year) {
        self.years.insert(year, table);
    }

    /// Returns a year's table.
    pub fn year(&self, year: i32) -> Option<&Year> {
        self.years.get(&year)
    }

    /// Returns whether there is a table for a year.
    pub fn knows(&self, year: i32) -> bool {
        self.years.contains_key(&year)
    }

    /// Returns the year whose table is missed on a day: the day's own, or from November on the next.
    pub fn misses(&self, today: NaiveDate) -> Option<i32> {
        let next = (today.month() >= NOTICE_MONTH).then_some(today.year() + 1);
        std::iter::once(today.year()).chain(next).find(|year| !self.knows(*year))
    }

    /// Returns whether a day is a holiday by its table. A plain weekend is none.
    pub fn is_holiday(&self, day: NaiveDate) -> bool {
        self.year(day.year()).is_some_and(|year| year.holidays.contains(&day))
    }

    /// Returns whether a day is worked: a make-up workday is, a holiday is not, any other day goes by the week.
    pub fn is_workday(&self, day: NaiveDate) -> bool {
        let by_week = !matches!(day.weekday(), Weekday::Sat | Weekday::Sun);
        self.year(day.year()).map_or(by_week, |year| {
            year.workdays.contains(&day) || (by_week && !year.holidays.contains(&day))
        })
    }

    /// Returns the n-th workday after a day, which itself is not counted. For none, it is the day itself or the first
    /// workday after it. Nothing, where a table leaves no workdays.
    pub fn workdays_after(&self, day: NaiveDate, count: u32) -> Option<NaiveDate> {
        let from = if count == 0 { day } else { day.checked_add_days(Days::new(1))? };
        let nth = usize::try_from(count.saturating_sub(1)).ok()?;
        from.iter_days().take(HORIZON_DAYS).filter(|day| self.is_workday(*day)).nth(nth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a day")
    }

    #[test]
    fn the_shipped_tables_are_sound() {
        let shipped = Calendar::shipped();
        assert!(shipped.knows(2026));
        for (year, table) in &shipped.years {
            assert_eq!(table.faults(*year), []);
            // Days are only moved: a make-up workday is a day of a weekend.
            for day in &table.workdays {
                assert!(matches!(day.weekday(), Weekday::Sat | Weekday::Sun), "{day}");
            }
            // Since 2025 there are 13 days of holidays by law; weekends and moved days make the rest.
            let weekdays_off = table.holidays.iter().filter(|day| day.weekday().number_from_monday() < 6);
            let by_law = weekdays_off.count() - table.workdays.len();
            assert!((10..=13).contains(&by_law), "{year}: {by_law}");
        }
    }

    #[test]
    fn the_year_2026_is_the_one_that_was_published() {
        let calendar = Calendar::shipped();
        // First day, last day and make-up days of each holiday, as the notice of November 2025 gives them.
        let notice = [
            ("元旦", "2026-01-01", "2026-01-03", &["2026-01-04"] as &[&str]),
            ("春节", "2026-02-15", "2026-02-23", &["2026-02-14", "2026-02-28"]),
            ("清明节", "2026-04-04", "2026-04-06", &[]),
            ("劳动节", "2026-05-01", "2026-05-05", &["2026-05-09"]),
            ("端午节", "2026-06-19", "2026-06-21", &[]),
            ("中秋节", "2026-09-25", "2026-09-27", &[]),
            ("国庆节", "2026-10-01", "2026-10-07", &["2026-09-20", "2026-10-10"]),
        ];
        let mut expected = Year::default();
        for (_, first, last, made_up) in notice {
            expected.holidays.extend(day(first).iter_days().take_while(|on| *on <= day(last)));
            expected.workdays.extend(made_up.iter().map(|on| day(on)));
        }
        assert_eq!(calendar.year(2026), Some(&expected));
        // 365 days less 104 of weekends, less 13 by law that fell on or were moved to weekdays.
        let year = day("2026-01-01").iter_days().take(365);
        assert_eq!(year.filter(|on| calendar.is_workday(*on)).count(), 248);
    }

    #[test]
    fn days_around_the_national_day_of_2026() {
        let calendar = Calendar::shipped();
        let worked = [
            ("2026-09-19", false), // Saturday
            ("2026-09-20", true),  // Sunday, made up
            ("2026-09-24", true),
            ("2026-09-25", false), // 中秋节
            ("2026-09-27", false),
            ("2026-09-28", true),
            ("2026-09-30", true),
            ("2026-10-01", false), // 国庆节
            ("2026-10-07", false),
            ("2026-10-08", true),
            ("2026-10-09", true),
            ("2026-10-10", true),  // Saturday, made up
            ("2026-10-11", false), // Sunday
            ("2026-10-12", true),
        ];
        for (on, expected) in worked {
            assert_eq!(calendar.is_workday(day(on)), expected, "{on}");
        }
        assert!(calendar.is_holiday(day("2026-10-03")) && !calendar.is_holiday(day("2026-10-11")));
    }

    #[test]
    fn a_year_without_a_table_goes_by_the_week() {
        let shipped = Calendar::shipped();
        let calendar = shipped.chosen(HolidayCalendar::None);
        assert!(calendar.is_workday(day("2026-10-01")));
        assert!(!calendar.is_workday(day("2026-10-10")));
        assert_eq!(shipped.chosen(HolidayCalendar::Cn), &shipped);
    }

    #[test]
    fn next_years_table_is_missed_from_november_on() {
        let only_2026 = Calendar::new([(2026, Year::default())]);
        assert_eq!(only_2026.misses(day("2026-10-31")), None);
        assert_eq!(only_2026.misses(day("2026-11-01")), Some(2027));
        assert_eq!(only_2026.misses(day("2027-03-01")), Some(2027));
        let mut both = only_2026;
        both.replace(2027, Year::default());
        assert_eq!(both.misses(day("2026-12-31")), None);
    }

    #[test]
    fn workdays_are_counted_over_holidays() {
        let calendar = Calendar::shipped();
        let after = |on: &str, count| calendar.workdays_after(day(on), count).map(|on| on.to_string());
        // From Wednesday before the National Day: Thursday, Friday, and the Saturday that makes up.
        assert_eq!(after("2026-09-30", 1).as_deref(), Some("2026-10-08"));
        assert_eq!(after("2026-09-30", 3).as_deref(), Some("2026-10-10"));
        assert_eq!(after("2026-09-30", 4).as_deref(), Some("2026-10-12"));
        // None: today, if it is worked.
        assert_eq!(after("2026-09-30", 0).as_deref(), Some("2026-09-30"));
        assert_eq!(after("2026-10-02", 0).as_deref(), Some("2026-10-08"));
        // A day off counts as little as a workday from which one starts.
        assert_eq!(after("2026-10-02", 1).as_deref(), Some("2026-10-08"));
    }

    #[test]
    fn a_table_without_workdays_ends_the_search() {
        let off = |year: i32| {
            let first = NaiveDate::from_ymd_opt(year, 1, 1).expect("a day");
            let holidays = first.iter_days().take_while(|day| day.year() == year).collect();
            (year, Year { holidays, workdays: BTreeSet::new() })
        };
        let calendar = Calendar::new((2026..2031).map(off));
        assert_eq!(calendar.workdays_after(day("2026-01-01"), 1), None);
    }

    #[test]
    fn a_table_is_read_strictly_and_its_faults_are_named() {
        let table: Year =
            serde_json::from_str(r#"{"holidays":["2026-05-01","2027-01-01"],"workdays":["2026-05-01"]}"#)
                .expect("a table");
        assert_eq!(
            table.faults(2026),
            [Fault::OtherYear(day("2027-01-01"), 2026), Fault::Both(day("2026-05-01")),]
        );
        assert!(serde_json::from_str::<Year>(r#"{"holidays":[],"workdays":[],"holliday":[]}"#).is_err());
        assert!(serde_json::from_str::<Year>(r#"{"holidays":["2026-02-30"],"workdays":[]}"#).is_err());
    }
}
