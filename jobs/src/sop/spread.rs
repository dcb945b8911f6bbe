//! Many sends that are due at once: who goes when. Pure, and the same work for the first as for the last.
//!
//! What falls due overnight or over a holiday is due at one moment, when the window opens. Sent as fast as the account
//! may, it would all leave in the first minutes, and nothing else would get through. So each send has a place in the
//! row, and places follow each other at the account's own pace, over what is left of the window on that day. Where that
//! is too short for all, they stand closer: never beyond the window. Who cannot be served in a day at all is told how
//! many days later ([`Place::day`]).
//!
//! A place is either counted (somebody has numbered the row) or drawn from the enrollment's id. The latter needs
//! nothing but the length of the row, never changes, and keeps people in the same order at every step; two may draw
//! neighbouring places, which the account's own limits then keep apart.
//!
//! When a campaign runs, places are given one by one ([`turn`]): to whoever is due and may be written to, behind all who have
//! one. An account's lane never holds more than about a minute of them, so a person's message, a stop or a hold finds little in
//! front of it, and after an outage or a lifted stop everybody queues anew.

use chrono::{DateTime, TimeDelta, Utc};
use ring::digest::{SHA256, digest};
use uuid::Uuid;

use super::window::Opening;

/// A send's place among those of its account that are due together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    rank: u32,
    of: u32,
}

impl Place {
    /// Returns the n-th place of a row, counted from 0. A place behind the end is the last.
    pub fn nth(rank: u32, of: u32) -> Place {
        let of = of.max(1);
        Place { rank: rank.min(of - 1), of }
    }

    /// Returns the place that an enrollment draws in a row of this length.
    pub fn drawn(enrollment: Uuid, of: u32) -> Place {
        let of = of.max(1);
        // The order's share of all orders, scaled to the row.
        let rank = (u128::from(order(enrollment)) * u128::from(of)) >> 64;
        Place::nth(u32::try_from(rank).unwrap_or(u32::MAX), of)
    }

    /// Returns in how many days the place is served, by an account that can still send `today` messages today and
    /// `per_day` on the days after; and the place among those of that day.
    pub fn day(self, today: u32, per_day: u32) -> (u32, Place) {
        if self.rank < today {
            return (0, Place::nth(self.rank, self.of.min(today)));
        }
        let (rank, of, per_day) = (self.rank - today, self.of - today, per_day.max(1));
        let days = rank / per_day;
        let before = days * per_day;
        (days + 1, Place::nth(rank - before, (of - before).min(per_day)))
    }
}

/// Returns an enrollment's order among all: the same for ever, and like nothing that a person could choose.
///
/// It is the first eight bytes, most significant first, of the SHA-256 of the id's sixteen bytes.
pub fn order(enrollment: Uuid) -> u64 {
    let hash = digest(&SHA256, enrollment.as_bytes());
    hash.as_ref().iter().take(8).fold(0, |order, byte| order << 8 | u64::from(*byte))
}

/// Returns the time that an account leaves between two campaign messages: the longer of its gap and what its messages a
/// minute ask for.
pub fn pace(messages_per_minute: u32, min_gap: TimeDelta) -> TimeDelta {
    let share = TimeDelta::milliseconds(60_000_u32.div_ceil(messages_per_minute.max(1)).into());
    share.max(min_gap)
}

/// Returns when a send goes that is due at a moment together with others.
///
/// The first place goes when the window lets it, each further one a pace later, hours between two ranges left out.
/// Nothing, if the window never opens.
pub fn spread(
    due: DateTime<Utc>,
    opening: &Opening<'_>,
    pace: TimeDelta,
    place: Place,
) -> Option<DateTime<Utc>> {
    let first = opening.next_allowed(due)?;
    if place.rank == 0 {
        return Some(first);
    }
    let open = opening.rest_of_day(first);
    let left: TimeDelta = open.iter().map(|open| open.length()).sum();
    // In microseconds: a row of four thousand million within a minute still has places.
    let micros = |length: TimeDelta| length.num_microseconds().unwrap_or(i64::MAX);
    let total = i128::from(micros(left));
    let whole = i128::from(micros(pace)) * i128::from(place.of);
    // Of the time that the row takes, or has.
    let offset = whole.min(total) * i128::from(place.rank) / i128::from(place.of);
    let mut offset = TimeDelta::microseconds(i64::try_from(offset).unwrap_or_default());
    for open in open {
        if offset < open.length() {
            return Some(open.from + offset);
        }
        offset -= open.length();
    }
    Some(first)
}

/// How much of the row stands in the account's lane, ready to be sent.
const AHEAD: TimeDelta = TimeDelta::minutes(1);

/// The row of campaign messages in front of an account, as it is known under the lock of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Time between two of its campaign messages; see [`pace`].
    pub pace: TimeDelta,
    /// Messages in the account's lane.
    pub in_lane: u32,
    /// The last place that was given behind them.
    pub last_place: Option<DateTime<Utc>>,
}

/// What the row says to somebody who is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Into the lane, now.
    Now,
    /// This is its place: it is due then.
    At(DateTime<Utc>),
    /// The window shuts before its place comes. It queues anew when the window opens again.
    Shut(DateTime<Utc>),
    /// The window never opens again.
    Never,
}

/// Tells whose turn it is. `called`: it has had a place, which has come.
///
/// Whoever comes first is served first: a place lies a pace behind the last one, or behind what is in the lane. Whose place comes
/// while the lane is full, because something held it up, queues anew.
pub fn turn(now: DateTime<Utc>, row: &Row, called: bool, opening: &Opening<'_>) -> Turn {
    let pace = row.pace.max(TimeDelta::milliseconds(1));
    let in_lane = i32::try_from(row.in_lane).unwrap_or(i32::MAX);
    // What is in the lane leaves at the pace; the first of it may leave now.
    let behind_lane = pace.checked_mul(in_lane).unwrap_or(TimeDelta::MAX);
    let has_room = behind_lane <= AHEAD;
    if called && has_room {
        return Turn::Now;
    }
    // One that is stuck for longer is looked at again tomorrow.
    let behind_lane = now + behind_lane.min(TimeDelta::days(1));
    let place = row.last_place.map_or(behind_lane, |last| behind_lane.max(last + pace));
    if has_room && place - now <= AHEAD {
        return Turn::Now;
    }
    match opening.next_allowed(place) {
        Some(opens) if opens == place => Turn::At(place),
        Some(opens) => Turn::Shut(opens),
        None => Turn::Never,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::calendar::Calendar;
    use super::super::window::{Days, Range, Window};
    use super::*;
    use crate::calendar::zone;

    fn shanghai(text: &str) -> DateTime<Utc> {
        format!("{text}+08:00").parse().expect("a time")
    }

    fn enrollment(number: u128) -> Uuid {
        Uuid::from_u128(0x019a_b000_0000_7000_8000_0000_0000_0000 + number)
    }

    /// 09:30 to 12:00 and 14:00 to 20:30 on workdays: nine hours.
    fn working_hours(calendar: &Calendar) -> Opening<'_> {
        let ranges = [(570, 720), (840, 1230)].map(|(from, to)| Range::new(from, to).expect("a range"));
        Opening::new(zone(None), &Window::new(Days::Workdays, ranges), calendar)
    }

    const PACE: TimeDelta = TimeDelta::seconds(6);

    #[test]
    fn a_lone_send_goes_at_its_time() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let place = Place::drawn(enrollment(7), 1);
        let goes = |due: &str| spread(shanghai(due), &opening, PACE, place);
        assert_eq!(goes("2026-11-20T21:42:00"), Some(shanghai("2026-11-23T09:30:00")));
        assert_eq!(goes("2026-11-23T10:00:00"), Some(shanghai("2026-11-23T10:00:00")));
    }

    #[test]
    fn sends_follow_each_other_at_the_accounts_pace() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let goes = |rank, of| spread(shanghai("2026-11-20T21:42:00"), &opening, PACE, Place::nth(rank, of));
        assert_eq!(goes(1, 100), Some(shanghai("2026-11-23T09:30:06")));
        assert_eq!(goes(99, 100), Some(shanghai("2026-11-23T09:39:54")));
        // 1500 are served before noon. The next goes after it.
        assert_eq!(goes(1499, 2000), Some(shanghai("2026-11-23T11:59:54")));
        assert_eq!(goes(1500, 2000), Some(shanghai("2026-11-23T14:00:00")));
        assert_eq!(goes(1999, 2000), Some(shanghai("2026-11-23T14:49:54")));
    }

    #[test]
    fn a_row_that_is_too_long_for_the_window_stands_closer() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let goes = |rank, of| spread(shanghai("2026-11-23T20:00:00"), &opening, PACE, Place::nth(rank, of));
        // Half an hour is left, enough for 300.
        assert_eq!(goes(599, 600), Some(shanghai("2026-11-23T20:29:57")));
        let last = goes(u32::MAX - 1, u32::MAX).expect("a time");
        assert!(last < shanghai("2026-11-23T20:30:00") && opening.is_open(last));
    }

    #[test]
    fn the_place_that_is_drawn_never_changes() {
        // Stored times depend on it.
        assert_eq!(order(Uuid::nil()), 0x3747_08ff_f771_9dd5);
        assert_eq!(order(enrollment(2)), 0xf7b2_0386_df1a_1a36);
        assert_eq!(Place::drawn(Uuid::nil(), 1000), Place::nth(215, 1000));
        assert_eq!(Place::drawn(enrollment(1), 1000), Place::nth(0, 1000));
        assert_eq!(Place::drawn(enrollment(2), 1000), Place::nth(967, 1000));
        assert_eq!(Place::drawn(enrollment(2), 0), Place::nth(0, 1));
    }

    #[test]
    fn drawn_places_fill_the_row_evenly() {
        let mut tenths = [0; 10];
        for number in 0..10_000 {
            tenths[Place::drawn(enrollment(number), 10_000).rank as usize / 1000] += 1;
        }
        // A thousand each, give or take what chance gives.
        assert!(tenths.iter().all(|count| (880..1120).contains(count)), "{tenths:?}");
    }

    #[test]
    fn whoever_is_beyond_the_days_cap_is_told_which_day() {
        let table = [
            (0, (0, Place::nth(0, 100))),
            (99, (0, Place::nth(99, 100))),
            (100, (1, Place::nth(0, 150))),
            (249, (1, Place::nth(149, 150))),
            (250, (2, Place::nth(0, 50))),
            (299, (2, Place::nth(49, 50))),
        ];
        for (rank, expected) in table {
            assert_eq!(Place::nth(rank, 300).day(100, 150), expected, "{rank}");
        }
        assert_eq!(Place::nth(5, 50).day(100, 150), (0, Place::nth(5, 50)));
        assert_eq!(Place::nth(5, 50).day(0, 0), (6, Place::nth(0, 1)));
    }

    #[test]
    fn the_pace_keeps_rate_and_gap() {
        assert_eq!(pace(10, TimeDelta::seconds(5)), TimeDelta::seconds(6));
        assert_eq!(pace(40, TimeDelta::seconds(5)), TimeDelta::seconds(5));
        assert_eq!(pace(7, TimeDelta::zero()), TimeDelta::milliseconds(8572));
        assert_eq!(pace(0, TimeDelta::zero()), TimeDelta::minutes(1));
    }

    #[test]
    fn the_first_minute_goes_into_the_lane_and_everybody_else_gets_a_place() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let now = shanghai("2026-11-23T10:00:00");
        let mut row = Row { pace: PACE, in_lane: 0, last_place: None };
        let mut places = Vec::new();
        for _ in 0..500 {
            match turn(now, &row, false, &opening) {
                Turn::Now => row.in_lane += 1,
                Turn::At(place) => {
                    row.last_place = Some(place);
                    places.push(place);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((row.in_lane, places.len()), (11, 489));
        assert_eq!(places[0], shanghai("2026-11-23T10:01:06"));
        assert!(places.windows(2).all(|two| two[1] - two[0] == PACE));
        assert_eq!(places.last(), Some(&shanghai("2026-11-23T10:49:54")), "500 in 50 minutes");
        // At its place, whoever was given one goes, if the lane has got on.
        let at = Row { in_lane: 3, ..row };
        assert_eq!(turn(places[0], &at, true, &opening), Turn::Now);
        // It was held up: all who were given a place queue behind the others.
        assert_eq!(turn(places[0], &row, true, &opening), Turn::At(shanghai("2026-11-23T10:50:00")));
    }

    #[test]
    fn a_row_that_is_longer_than_the_window_goes_on_when_it_opens_again() {
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let noon = Row { pace: PACE, in_lane: 9, last_place: Some(shanghai("2026-11-23T11:59:58")) };
        let ask = |row: &Row| turn(shanghai("2026-11-23T11:50:00"), row, false, &opening);
        assert_eq!(ask(&noon), Turn::Shut(shanghai("2026-11-23T14:00:00")));
        // Who had a place that came while nobody was there queues from now on.
        let old = Row { in_lane: 0, last_place: Some(shanghai("2026-11-23T09:40:00")), ..noon };
        assert_eq!(ask(&old), Turn::Now);
        // A lane that is stuck gets no more.
        let stuck = Row { in_lane: u32::MAX, last_place: None, pace: TimeDelta::days(1) };
        assert_eq!(ask(&stuck), Turn::At(shanghai("2026-11-24T11:50:00")));
    }

    proptest! {
        #[test]
        fn nobody_goes_early_outside_the_window_or_before_who_stands_in_front(
            minute in 0..20_000_i64, of in 1..5000_u32, rank in 0..5000_u32, pace_ms in 1..120_000_i64,
        ) {
            let calendar = Calendar::shipped();
            let opening = working_hours(&calendar);
            let due = shanghai("2026-09-25T00:00:00") + TimeDelta::minutes(minute);
            let pace = TimeDelta::milliseconds(pace_ms);
            let goes = |rank| spread(due, &opening, pace, Place::nth(rank, of)).expect("a time");
            let (first, at) = (goes(0), goes(rank));
            prop_assert!(at >= due && opening.is_open(at));
            prop_assert_eq!(at.with_timezone(&zone(None)).date_naive(), first.with_timezone(&zone(None)).date_naive());
            let next = goes(rank.saturating_add(1));
            prop_assert!(next >= at && (next - at <= pace + TimeDelta::hours(2)));
        }
    }
}
