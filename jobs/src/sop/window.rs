//! When a campaign may speak: days and hours by the clock on the wall. Pure.
//!
//! An [`Opening`] is what is left when every window that holds has been laid over the others: the campaign's, the
//! organisation's, quiet hours. It is open at a moment when a clock in the zone shows a time inside a range, on a day
//! that is open; the end of a range is outside it. What follows where clocks are changed:
//!
//! - A range inside the hour that is left out does not open on that day. One that begins in it opens with the first
//!   moment after it; one that reaches over it is an hour shorter.
//! - A range inside the hour that comes twice opens twice; one that reaches over it is an hour longer.
//!
//! No range crosses midnight: whoever means that writes two.

use chrono::{
    DateTime, Datelike, Days as CalendarDays, NaiveDate, NaiveTime, Offset, TimeDelta, TimeZone, Utc, Weekday,
};

use super::calendar::Calendar;
use super::config::window::{self as config, SendWindow};
use crate::calendar::{Zone, begins, day_of};

/// Days that are searched for an opening. Nobody's holidays are longer.
const HORIZON_DAYS: usize = 400;

/// Minutes of a day on the wall.
const MINUTES_PER_DAY: u16 = 24 * 60;

/// Time between two moments. The end lies outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// First moment inside.
    pub from: DateTime<Utc>,
    /// First moment outside again.
    pub to: DateTime<Utc>,
}

impl Interval {
    /// Returns how long it lasts.
    pub fn length(&self) -> TimeDelta {
        self.to - self.from
    }
}

/// Hours of a day, in minutes from midnight. The end lies outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    from: u16,
    to: u16,
}

impl Range {
    /// The whole day.
    pub const DAY: Range = Range { from: 0, to: MINUTES_PER_DAY };

    /// Returns the hours between two minutes of the day; nothing, if they hold no minute or do not lie in one day.
    pub fn new(from: u16, to: u16) -> Option<Range> {
        (from < to && to <= MINUTES_PER_DAY).then_some(Range { from, to })
    }

    fn within(self, other: Range) -> Option<Range> {
        Range::new(self.from.max(other.from), self.to.min(other.to))
    }
}

/// Days that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Days {
    /// Every day.
    Any,
    /// Days that are worked, as the calendar knows them.
    Workdays,
    /// Days of the week, holidays or not: bit 0 is Monday.
    Weekdays(u8),
}

impl Days {
    /// Returns these days of the week.
    pub fn of_week(days: impl IntoIterator<Item = Weekday>) -> Days {
        Days::Weekdays(days.into_iter().fold(0, |bits, day| bits | bit(day)))
    }

    fn open(self, day: NaiveDate, calendar: &Calendar) -> bool {
        match self {
            Days::Any => true,
            Days::Workdays => calendar.is_workday(day),
            Days::Weekdays(bits) => bits & bit(day.weekday()) != 0,
        }
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.num_days_from_monday()
}

/// Days, and hours of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days.
    pub days: Days,
    /// The hours, in order and apart from each other.
    ranges: Vec<Range>,
}

impl Window {
    /// Puts a window together. Ranges that touch or overlap become one.
    pub fn new(days: Days, ranges: impl IntoIterator<Item = Range>) -> Window {
        let mut sorted: Vec<Range> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut merged: Vec<Range> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.from <= last.to => last.to = last.to.max(range.to),
                _ => merged.push(range),
            }
        }
        Window { days, ranges: merged }
    }

    /// Returns the window that is always open.
    pub fn always() -> Window {
        Window::new(Days::Any, [Range::DAY])
    }

    /// Returns what quiet hours leave. They may cross midnight; from a time to the same time there are none.
    pub fn outside(quiet_from: u16, quiet_to: u16) -> Window {
        let (before, after) = (Range::new(0, quiet_from), Range::new(quiet_to, MINUTES_PER_DAY));
        if quiet_from <= quiet_to {
            let open = if quiet_from == quiet_to { vec![Range::DAY] } else { Vec::new() };
            return Window::new(Days::Any, open.into_iter().chain(before).chain(after));
        }
        Window::new(Days::Any, Range::new(quiet_to, quiet_from))
    }

    /// Returns the hours.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }
}

impl From<&SendWindow> for Window {
    /// Reads a campaign's window. Whoever asks for chosen days and chooses none gets none; a range that ends before it
    /// begins holds nothing. Validation refuses both.
    fn from(window: &SendWindow) -> Window {
        let days = match window.days {
            config::Days::Any => Days::Any,
            config::Days::Workday => Days::Workdays,
            config::Days::Custom => {
                let chosen = window.weekdays.iter().flatten();
                Days::of_week(chosen.filter_map(|day| Weekday::try_from(day.checked_sub(1)?).ok()))
            }
        };
        let ranges = window.ranges.iter();
        Window::new(days, ranges.filter_map(|range| Range::new(range.from.minute(), range.to.minute())))
    }
}

/// All windows that hold for one recipient, laid over each other, in the zone whose clocks count.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    zone: Zone,
    ranges: Vec<Range>,
    days: Vec<(Days, &'a Calendar)>,
}

impl<'a> Opening<'a> {
    /// Returns the opening of one window.
    pub fn new(zone: Zone, window: &Window, calendar: &'a Calendar) -> Opening<'a> {
        Opening { zone, ranges: window.ranges.clone(), days: vec![(window.days, calendar)] }
    }

    /// Narrows the opening to what another window leaves of it. Each window asks its own calendar.
    pub fn within(mut self, window: &Window, calendar: &'a Calendar) -> Opening<'a> {
        let overlaps =
            |range: &Range| window.ranges.iter().filter_map(|other| range.within(*other)).collect::<Vec<_>>();
        self.ranges = self.ranges.iter().flat_map(overlaps).collect();
        self.days.push((window.days, calendar));
        self
    }

    /// Returns the zone whose clocks count.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// Returns whether it is open at a moment.
    pub fn is_open(&self, moment: DateTime<Utc>) -> bool {
        self.rest_of_day(moment).first().is_some_and(|open| open.from == moment)
    }

    /// Returns the first allowed moment that is not before this one: itself, where it is open.
    ///
    /// Nothing, if it does not open within 400 days.
    pub fn next_allowed(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.next(moment).map(|open| open.from)
    }

    /// Returns the open time that goes on at a moment, or the next; what lies before the moment is cut off.
    pub fn next(&self, moment: DateTime<Utc>) -> Option<Interval> {
        if self.ranges.is_empty() || self.days.iter().any(|(days, _)| *days == Days::Weekdays(0)) {
            return None;
        }
        let days = day_of(moment, self.zone).iter_days().take(HORIZON_DAYS);
        days.filter_map(|day| self.of_day_from(day, moment).next()).next()
    }

    /// Returns what is open from a moment to the end of its day.
    pub fn rest_of_day(&self, moment: DateTime<Utc>) -> Vec<Interval> {
        self.of_day_from(day_of(moment, self.zone), moment).collect()
    }

    fn of_day_from(&self, day: NaiveDate, moment: DateTime<Utc>) -> impl Iterator<Item = Interval> {
        let still_open = self.of_day(day).into_iter().filter(move |open| open.to > moment);
        still_open.map(move |open| Interval { from: open.from.max(moment), to: open.to })
    }

    /// Returns what is open on a day, in order.
    pub fn of_day(&self, day: NaiveDate) -> Vec<Interval> {
        if !self.days.iter().all(|(days, calendar)| days.open(day, calendar)) {
            return Vec::new();
        }
        let midnight = day.and_time(NaiveTime::MIN);
        let mut open: Vec<Interval> = Vec::with_capacity(self.ranges.len());
        for stretch in stretches(day, self.zone) {
            // What clocks show at the stretch's ends.
            let shown = |at: DateTime<Utc>| at.naive_utc() + stretch.offset - midnight;
            let (first, last) = (shown(stretch.from), shown(stretch.to));
            for range in &self.ranges {
                let from = first.max(TimeDelta::minutes(range.from.into()));
                let to = last.min(TimeDelta::minutes(range.to.into()));
                if from >= to {
                    continue;
                }
                let found = Interval { from: stretch.from + (from - first), to: stretch.from + (to - first) };
                match open.last_mut() {
                    // One range, in which clocks were changed.
                    Some(before) if before.to == found.from => before.to = found.to,
                    _ => open.push(found),
                }
            }
        }
        open
    }
}

/// An opening's times over many days, for whoever asks very often.
#[derive(Debug, Clone)]
pub struct Timetable {
    open: Vec<Interval>,
}

impl Timetable {
    /// Writes down when an opening is open, from a moment's day on for so many days.
    pub fn new(opening: &Opening<'_>, from: DateTime<Utc>, days: usize) -> Timetable {
        let days = day_of(from, opening.zone).iter_days().take(days);
        Timetable { open: days.flat_map(|day| opening.of_day(day)).collect() }
    }

    /// Answers as [`Opening::next_allowed`] does, as far as the days go.
    pub fn next_allowed(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self.open.get(self.open.partition_point(|open| open.to <= moment))?;
        Some(next.from.max(moment))
    }
}

/// Returns the first allowed moment that is not before this one, for a campaign's window inside an organisation's;
/// nothing, if there is none within 400 days.
pub fn next_allowed(
    moment: DateTime<Utc>,
    zone: Zone,
    window: &Window,
    organization_window: &Window,
    calendar: &Calendar,
) -> Option<DateTime<Utc>> {
    Opening::new(zone, window, calendar).within(organization_window, calendar).next_allowed(moment)
}

/// Part of a day in which clocks are not changed.
struct Stretch {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    offset: TimeDelta,
}

/// Takes a day apart where its clocks are changed. No zone does that twice a day.
fn stretches(day: NaiveDate, zone: Zone) -> impl Iterator<Item = Stretch> {
    let next = day.checked_add_days(CalendarDays::new(1)).unwrap_or(day);
    let (from, to) = (begins(day, zone), begins(next, zone));
    let offset = |at: DateTime<Utc>| {
        let fixed = zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        TimeDelta::seconds(fixed.local_minus_utc().into())
    };
    let (first, last) = (offset(from), offset(to - TimeDelta::seconds(1)));
    // The first second with the last offset, between one that does not have it and one that does.
    let (mut before, mut after) = (from, if first == last { from } else { to });
    while after - before > TimeDelta::seconds(1) {
        let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
        if offset(middle) == first { before = middle } else { after = middle }
    }
    let parts = [Stretch { from, to: after, offset: first }, Stretch { from: after, to, offset: last }];
    parts.into_iter().filter(|part| part.from < part.to)
}

#[cfg(test)]
mod tests {
    use chrono::Timelike;
    use proptest::prelude::*;

    use super::*;
    use crate::calendar::zone;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn range(text: &str) -> Range {
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':').expect("a time of day");
            hour.parse::<u16>().expect("an hour") * 60 + minute.parse::<u16>().expect("a minute")
        };
        let (from, to) = text.split_once('-').expect("a range");
        Range::new(minute(from), minute(to)).expect("a range that holds a minute")
    }

    fn window(days: Days, ranges: &[&str]) -> Window {
        Window::new(days, ranges.iter().map(|text| range(text)))
    }

    /// The window of the three days' campaign, in an organisation with quiet nights.
    fn working_hours(calendar: &Calendar) -> Opening<'_> {
        let campaign = window(Days::Workdays, &["14:00-20:30", "09:30-12:00"]);
        Opening::new(zone(None), &campaign, calendar).within(&Window::outside(21 * 60, 9 * 60), calendar)
    }

    fn open_on(zone_name: &str, day: &str, ranges: &[&str]) -> Vec<(String, String)> {
        let calendar = Calendar::default();
        let opening = Opening::new(zone(Some(zone_name)), &window(Days::Any, ranges), &calendar);
        let text = |at: DateTime<Utc>| at.format("%H:%M").to_string();
        let day = day.parse().expect("a day");
        opening.of_day(day).iter().map(|open| (text(open.from), text(open.to))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
    }

    #[test]
    fn a_send_outside_the_window_waits_for_the_next_working_hours() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        // Due, and when it may go, by the clocks of Shanghai.
        let table = [
            ("2026-11-23T09:30:00", "2026-11-23T09:30:00"), // Inside: at once.
            ("2026-11-23T20:29:59.999", "2026-11-23T20:29:59.999"),
            ("2026-11-23T12:00:00", "2026-11-23T14:00:00"), // The end is outside.
            ("2026-11-20T21:42:00", "2026-11-23T09:30:00"), // Friday night: Monday.
            ("2026-11-21T10:00:00", "2026-11-23T09:30:00"),
            ("2026-10-09T21:42:00", "2026-10-10T09:30:00"), // The Saturday makes up for a holiday.
            ("2026-10-10T20:30:00", "2026-10-12T09:30:00"),
            ("2026-09-19T10:00:00", "2026-09-20T09:30:00"), // Sunday makes up.
            ("2026-09-24T20:30:00", "2026-09-28T09:30:00"), // Mid-autumn.
            ("2026-09-30T20:30:00", "2026-10-08T09:30:00"), // National Day.
            ("2026-10-03T10:00:00", "2026-10-08T09:30:00"),
            ("2026-02-13T23:59:59", "2026-02-14T09:30:00"),
            ("2026-02-14T20:30:00", "2026-02-24T09:30:00"), // Spring Festival.
            ("2026-12-31T20:30:00", "2027-01-01T09:30:00"), // 2027 has no table: by the week.
        ];
        for (due, allowed) in table {
            let shanghai = |text: &str| at(&format!("{text}+08:00"));
            assert_eq!(opening.next_allowed(shanghai(due)), Some(shanghai(allowed)), "{due}");
        }
    }

    #[test]
    fn a_campaign_can_only_narrow_the_organisations_window() {
        let calendar = Calendar::shipped();
        let campaign = window(Days::Any, &["08:00-12:00", "18:00-23:00"]);
        let next = |organization: &Window, due: &str| {
            let due = at(&format!("{due}+08:00"));
            next_allowed(due, zone(None), &campaign, organization, &calendar)
                .map(|at| at.with_timezone(&zone(None)).format("%m-%dT%H:%M").to_string())
        };
        let default = Window::outside(21 * 60, 9 * 60);
        assert_eq!(next(&default, "2026-11-21T08:00:00").as_deref(), Some("11-21T09:00"));
        assert_eq!(next(&default, "2026-11-21T21:00:00").as_deref(), Some("11-22T09:00"));
        let weekdays = window(Days::Workdays, &["09:00-18:30"]);
        assert_eq!(next(&weekdays, "2026-11-20T18:30:00").as_deref(), Some("11-23T09:00"));
        // Nothing in common: never.
        assert_eq!(next(&window(Days::Any, &["12:00-18:00"]), "2026-11-21T08:00:00"), None);
        assert_eq!(next(&window(Days::of_week([]), &["08:00-18:00"]), "2026-11-21T08:00:00"), None);
    }

    #[test]
    fn each_window_asks_its_own_calendar() {
        let (none, shipped) = (Calendar::default(), Calendar::shipped());
        let campaign = window(Days::Workdays, &["09:00-18:00"]);
        let without_holidays = Opening::new(zone(None), &campaign, &none);
        let holiday = at("2026-10-01T10:00:00+08:00");
        assert!(without_holidays.is_open(holiday));
        assert!(!without_holidays.within(&campaign, &shipped).is_open(holiday));
    }

    #[test]
    fn chosen_days_of_the_week_ignore_holidays() {
        let calendar = Calendar::shipped();
        let weekend = window(Days::of_week([Weekday::Sat, Weekday::Sun]), &["10:00-11:00"]);
        let opening = Opening::new(zone(None), &weekend, &calendar);
        assert!(opening.is_open(at("2026-10-03T10:30:00+08:00")));
        assert!(opening.is_open(at("2026-10-10T10:30:00+08:00")));
        assert!(!opening.is_open(at("2026-10-09T10:30:00+08:00")));
    }

    #[test]
    fn a_plans_window_is_read() {
        let read = |text: &str| Window::from(&serde_json::from_str::<SendWindow>(text).expect("a window"));
        let ranges = r#""ranges":[{"from":"14:00","to":"20:30"},{"from":"09:30","to":"12:00"}]"#;
        assert_eq!(
            read(&format!(r#"{{"days":"workday",{ranges}}}"#)),
            window(Days::Workdays, &["09:30-12:00", "14:00-20:30"])
        );
        let weekend = read(&format!(r#"{{"days":"custom","weekdays":[6,7],{ranges}}}"#));
        assert_eq!(weekend.days, Days::of_week([Weekday::Sat, Weekday::Sun]));
        assert_eq!(read(&format!(r#"{{"days":"custom",{ranges}}}"#)).days, Days::Weekdays(0));
        assert_eq!(read(r#"{"days":"any","ranges":[{"from":"12:00","to":"09:00"}]}"#).ranges(), []);
    }

    #[test]
    fn a_year_of_holidays_never_opens() {
        let day = |text: &str| text.parse::<NaiveDate>().expect("a day");
        let year = |year: i32| {
            let holidays = day(&format!("{year}-01-01")).iter_days().take_while(|day| day.year() == year);
            (year, super::super::calendar::Year { holidays: holidays.collect(), ..Default::default() })
        };
        let calendar = Calendar::new([year(2026), year(2027), year(2028)]);
        assert_eq!(working_hours(&calendar).next_allowed(at("2026-06-01T00:00:00Z")), None);
    }

    #[test]
    fn quiet_hours_may_cross_midnight() {
        assert_eq!(Window::outside(21 * 60, 9 * 60).ranges(), [range("09:00-21:00")]);
        assert_eq!(Window::outside(0, 8 * 60).ranges(), [range("08:00-24:00")]);
        assert_eq!(Window::outside(12 * 60, 14 * 60).ranges(), [range("00:00-12:00"), range("14:00-24:00")]);
        assert_eq!(Window::outside(60, 60), Window::always());
    }

    #[test]
    fn ranges_that_touch_or_overlap_are_one() {
        let merged = window(Days::Any, &["14:00-16:00", "09:00-12:00", "12:00-13:00", "10:00-11:00"]);
        assert_eq!(merged.ranges(), [range("09:00-13:00"), range("14:00-16:00")]);
        assert_eq!((Range::new(60, 60), Range::new(61, 60), Range::new(0, 1441)), (None, None, None));
    }

    #[test]
    fn an_hour_that_is_left_out_opens_nothing() {
        // New York, 8 March 2026: 02:00 is 03:00, at 07:00 UTC.
        let new_york = |ranges: &[&str]| open_on("America/New_York", "2026-03-08", ranges);
        assert_eq!(new_york(&["02:10-02:50"]), []);
        assert_eq!(new_york(&["02:30-05:00"]), pairs(&[("07:00", "09:00")]));
        assert_eq!(new_york(&["01:00-02:30"]), pairs(&[("06:00", "07:00")]));
        assert_eq!(new_york(&["01:00-04:00"]), pairs(&[("06:00", "08:00")]));
        let calendar = Calendar::default();
        let opening =
            Opening::new(zone(Some("America/New_York")), &window(Days::Any, &["02:10-02:50"]), &calendar);
        assert_eq!(opening.next_allowed(at("2026-03-08T05:00:00Z")), Some(at("2026-03-09T06:10:00Z")));
        // Lord Howe leaves out half an hour: on 4 October 2026, 02:00 is 02:30, at 15:30 UTC of the day before.
        let lord_howe = |ranges: &[&str]| open_on("Australia/Lord_Howe", "2026-10-04", ranges);
        assert_eq!(lord_howe(&["02:00-02:30"]), []);
        assert_eq!(lord_howe(&["02:15-03:00"]), pairs(&[("15:30", "16:00")]));
        assert_eq!(lord_howe(&["09:00-21:00"]), pairs(&[("22:00", "10:00")]));
    }

    #[test]
    fn an_hour_that_comes_twice_opens_twice() {
        // New York, 1 November 2026: 02:00 is 01:00 again, at 06:00 UTC.
        let new_york = |ranges: &[&str]| open_on("America/New_York", "2026-11-01", ranges);
        assert_eq!(new_york(&["01:15-01:45"]), pairs(&[("05:15", "05:45"), ("06:15", "06:45")]));
        assert_eq!(new_york(&["00:30-01:30"]), pairs(&[("04:30", "05:30"), ("06:00", "06:30")]));
        assert_eq!(new_york(&["01:00-03:00"]), pairs(&[("05:00", "08:00")]));
        // Berlin, 25 October 2026: 03:00 is 02:00 again, at 01:00 UTC.
        assert_eq!(open_on("Europe/Berlin", "2026-10-25", &["02:00-03:00"]), pairs(&[("00:00", "02:00")]));
        assert_eq!(open_on("Europe/Berlin", "2026-03-29", &["09:00-21:00"]), pairs(&[("07:00", "19:00")]));
        // Lord Howe, 5 April 2026: 02:00 is 01:30 again, at 15:00 UTC of the day before.
        let lord_howe = |ranges: &[&str]| open_on("Australia/Lord_Howe", "2026-04-05", ranges);
        assert_eq!(lord_howe(&["01:30-02:00"]), pairs(&[("14:30", "15:30")]));
        assert_eq!(lord_howe(&["01:00-01:45"]), pairs(&[("14:00", "14:45"), ("15:00", "15:15")]));
    }

    #[test]
    fn days_without_a_midnight_or_without_anything_are_passed() {
        // Beirut begins 29 March 2026 at 01:00; Samoa had no 30 December 2011.
        assert_eq!(open_on("Asia/Beirut", "2026-03-29", &["00:00-01:30"]), pairs(&[("22:00", "22:30")]));
        assert_eq!(open_on("Pacific/Apia", "2011-12-30", &["00:00-24:00"]), []);
        assert_eq!(open_on("Pacific/Apia", "2011-12-31", &["00:00-24:00"]), pairs(&[("10:00", "10:00")]));
    }

    #[test]
    fn the_rest_of_a_day_begins_now() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let noon = at("2026-11-23T11:00:00+08:00");
        let hours: Vec<i64> =
            opening.rest_of_day(noon).iter().map(|open| open.length().num_minutes()).collect();
        assert_eq!(hours, [60, 390]);
        assert_eq!(opening.rest_of_day(at("2026-11-23T20:30:00+08:00")), []);
    }

    const ZONES: [&str; 6] = [
        "Asia/Shanghai",
        "America/New_York",
        "Europe/Berlin",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "America/Havana",
    ];

    /// Moments of a few years, most of them near a change of the clocks.
    fn moments() -> impl Strategy<Value = DateTime<Utc>> {
        let anywhere = at("2024-01-01T00:00:00Z").timestamp()..at("2028-01-01T00:00:00Z").timestamp();
        let changes = [
            "2026-03-08T07:00:00Z",
            "2026-11-01T06:00:00Z",
            "2026-03-29T01:00:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-03T15:30:00Z",
            "2026-04-04T15:00:00Z",
            "2026-03-08T05:00:00Z",
            "2026-11-01T05:00:00Z",
        ];
        let near =
            (proptest::sample::select(changes.map(|text| at(text).timestamp()).to_vec()), -9000..9000_i64);
        prop_oneof![anywhere, near.prop_map(|(change, off)| change + off)]
            .prop_map(|seconds| DateTime::from_timestamp(seconds, 0).expect("a time"))
    }

    fn windows() -> impl Strategy<Value = Window> {
        let days = prop_oneof![Just(Days::Any), Just(Days::Workdays), (1..128_u8).prop_map(Days::Weekdays)];
        let ranges = proptest::collection::vec((0..1440_u16, 1..400_u16), 1..4).prop_map(|ranges| {
            ranges
                .into_iter()
                .filter_map(|(from, length)| Range::new(from, (from + length).min(1440)))
                .collect()
        });
        (days, ranges).prop_map(|(days, ranges): (Days, Vec<Range>)| Window::new(days, ranges))
    }

    proptest! {
        #[test]
        fn what_is_allowed_is_open_not_before_and_stays(
            zone_name in proptest::sample::select(&ZONES[..]),
            first in windows(), second in windows(), one in moments(), later in 0..200_000_i64,
        ) {
            let calendar = Calendar::shipped();
            let opening = Opening::new(zone(Some(zone_name)), &first, &calendar).within(&second, &calendar);
            if let Some(allowed) = opening.next_allowed(one) {
                prop_assert!(allowed >= one);
                prop_assert!(opening.is_open(allowed));
                prop_assert_eq!(opening.next_allowed(allowed), Some(allowed));
                let timetable = Timetable::new(&opening, one, HORIZON_DAYS);
                prop_assert_eq!(timetable.next_allowed(one), Some(allowed));
                // A later moment is never allowed earlier, and nothing in between is left out.
                let other = one + TimeDelta::seconds(later);
                let after = opening.next_allowed(other);
                prop_assert!(after.is_none_or(|after| after >= allowed));
                if other < allowed {
                    prop_assert!(!opening.is_open(other));
                    prop_assert_eq!(after, Some(allowed));
                }
            }
        }

        #[test]
        fn it_is_open_when_the_clock_on_the_wall_says_so(
            zone_name in proptest::sample::select(&ZONES[..]), first in windows(), moment in moments(),
        ) {
            let calendar = Calendar::shipped();
            let opening = Opening::new(zone(Some(zone_name)), &first, &calendar);
            let wall = moment.with_timezone(&zone(Some(zone_name)));
            let minute = u16::try_from(wall.hour() * 60 + wall.minute()).expect("a minute");
            let says = first.days.open(wall.date_naive(), &calendar)
                && first.ranges().iter().any(|range| (range.from..range.to).contains(&minute));
            prop_assert_eq!(opening.is_open(moment), says);
        }
    }
}
