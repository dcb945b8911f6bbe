//! How much a contact, an account and an organisation may be sent in a day and a week, over all campaigns. Pure.
//!
//! - A day is a day of the organisation's calendar, whatever zone a campaign runs in: what is counted over all
//!   campaigns needs one day for all of them.
//! - A week is seven such days, today and the six before. A calendar week would allow twice as much from Sunday to
//!   Monday.
//! - A send counts from the moment at which it may have left. Answers to what a customer wrote are not counted here.
//! - The counts are read where nobody else adds to them (under the locks of the gate): two sends never use the same
//!   room.

use chrono::{DateTime, Days, NaiveDate, Utc};

use super::config::period::Period;
use super::config::rules::{self, OnCap};
use super::moment::after;
use crate::calendar::{Zone, begins, day_of};

/// Days of a week, today included.
pub const WEEK: usize = 7;

/// Messages by day: today, yesterday, and so on.
pub type Week = [u32; 7];

/// Returns when the week begins that ends with today.
pub fn week_begins(today: NaiveDate, zone: Zone) -> DateTime<Utc> {
    begins(today.checked_sub_days(Days::new(WEEK as u64 - 1)).unwrap_or(today), zone)
}

/// Counts messages by the day on which they were sent. What is older than a week is not in there.
pub fn week(sent_at: &[DateTime<Utc>], today: NaiveDate, zone: Zone) -> Week {
    let mut week = [0; WEEK];
    for at in sent_at {
        let days = (today - day_of(*at, zone)).num_days();
        if let Some(day) = usize::try_from(days).ok().and_then(|days| week.get_mut(days)) {
            *day += 1;
        }
    }
    week
}

/// Messages of an account in its first days, by how many days ago it first logged in.
const WARM_UP: [(i64, u32); 2] = [(3, 20), (7, 50)];

/// Days after a hold in which an account has half of its caps.
const HALVED_DAYS: i64 = 7;

/// What an organisation allows where it has said nothing.
pub const DEFAULTS: Caps = Caps {
    per_contact_per_day: 2,
    per_contact_per_week: Some(5),
    per_account_per_day: 150,
    new_contacts_per_account_per_day: Some(30),
    per_organization_per_day: None,
    min_gap: [None, None],
    max_unanswered: 3,
};

/// What an install allows any organisation.
pub const CEILINGS: Caps = Caps {
    per_contact_per_day: 5,
    per_contact_per_week: Some(10),
    per_account_per_day: 500,
    new_contacts_per_account_per_day: Some(100),
    per_organization_per_day: None,
    min_gap: [None, None],
    max_unanswered: 5,
};

/// A cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cap {
    /// Messages to one contact in a day.
    PerContactPerDay,
    /// Messages to one contact in seven days.
    PerContactPerWeek,
    /// Messages of one account in a day.
    PerAccountPerDay,
    /// Contacts who never answered, written to by one account in a day.
    NewContactsPerAccountPerDay,
    /// Messages of the organisation in a day.
    PerOrganizationPerDay,
    /// Time between two messages to one contact.
    MinGap,
    /// Messages in a row without an answer.
    MaxUnanswered,
}

impl Cap {
    /// The cap's code, as it is stored and shown.
    pub const fn code(self) -> &'static str {
        match self {
            Cap::PerContactPerDay => "per_contact_per_day",
            Cap::PerContactPerWeek => "per_contact_per_week",
            Cap::PerAccountPerDay => "per_account_per_day",
            Cap::NewContactsPerAccountPerDay => "new_contacts_per_account_per_day",
            Cap::PerOrganizationPerDay => "per_organization_per_day",
            Cap::MinGap => "min_gap",
            Cap::MaxUnanswered => "max_unanswered",
        }
    }

    /// A sentence for whoever asks why a message waits.
    pub fn sentence(self) -> &'static str {
        match self {
            Cap::PerContactPerDay => "the contact has had as many campaign messages today as allowed",
            Cap::PerContactPerWeek => {
                "the contact has had as many campaign messages in seven days as allowed"
            }
            Cap::PerAccountPerDay => "the account has sent as many campaign messages today as allowed",
            Cap::NewContactsPerAccountPerDay => {
                "the account has written to as many people who never answered today as allowed"
            }
            Cap::PerOrganizationPerDay => {
                "the organisation has sent as many campaign messages today as allowed"
            }
            Cap::MinGap => "the contact had a campaign message just before",
            Cap::MaxUnanswered => "the contact has left as many messages unanswered as allowed",
        }
    }
}

/// The caps that hold for a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Messages to one contact in a day.
    pub per_contact_per_day: u32,
    /// Messages to one contact in seven days.
    pub per_contact_per_week: Option<u32>,
    /// Messages of one account in a day.
    pub per_account_per_day: u32,
    /// Contacts who never answered, written to by one account in a day.
    pub new_contacts_per_account_per_day: Option<u32>,
    /// Messages of the organisation in a day.
    pub per_organization_per_day: Option<u32>,
    /// Time between two messages to one contact: the campaign's and the organisation's, of which the one that ends
    /// later counts.
    pub min_gap: [Option<Period>; 2],
    /// Messages in a row without an answer.
    pub max_unanswered: u32,
}

impl From<&rules::Caps> for Caps {
    fn from(caps: &rules::Caps) -> Caps {
        Caps {
            per_contact_per_day: caps.per_contact_per_day,
            per_contact_per_week: caps.per_contact_per_week,
            per_account_per_day: caps.per_account_per_day,
            new_contacts_per_account_per_day: None,
            per_organization_per_day: None,
            min_gap: [caps.min_gap, None],
            max_unanswered: caps.max_unanswered,
        }
    }
}

impl Caps {
    /// Returns the tighter of each: a campaign can only be stricter than its organisation, and that only than the
    /// install.
    pub fn within(&self, outer: &Caps) -> Caps {
        let tighter = |one: Option<u32>, other: Option<u32>| one.into_iter().chain(other).min();
        let longest = self.min_gap.into_iter().chain(outer.min_gap).flatten();
        Caps {
            per_contact_per_day: self.per_contact_per_day.min(outer.per_contact_per_day),
            per_contact_per_week: tighter(self.per_contact_per_week, outer.per_contact_per_week),
            per_account_per_day: self.per_account_per_day.min(outer.per_account_per_day),
            new_contacts_per_account_per_day: tighter(
                self.new_contacts_per_account_per_day,
                outer.new_contacts_per_account_per_day,
            ),
            per_organization_per_day: tighter(self.per_organization_per_day, outer.per_organization_per_day),
            min_gap: longest_two(longest),
            max_unanswered: self.max_unanswered.min(outer.max_unanswered),
        }
    }
}

/// Keeps one gap in days and one in hours: which of the two ends later depends on the day.
fn longest_two(gaps: impl Iterator<Item = Period>) -> [Option<Period>; 2] {
    let mut kept = [None; 2];
    for gap in gaps {
        let place: &mut Option<Period> = &mut kept[usize::from(gap.days() == 0)];
        *place = (*place).into_iter().chain([gap]).max_by_key(|gap| gap.nominal_seconds());
    }
    kept
}

/// What makes an account's caps smaller for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The day on which the account first logged in here. One that is not known counts as today.
    pub first_login: Option<NaiveDate>,
    /// The day on which it was last let out of a hold.
    pub released: Option<NaiveDate>,
}

impl Standing {
    /// Returns what a daily cap of the account is on a day.
    ///
    /// A new account has 20 in its first three days and 50 in the four after them, the day of its login being the
    /// first. After a hold, an account has half for seven days, the day of its release being the first; half of one is
    /// one.
    pub fn allowance(&self, cap: u32, today: NaiveDate) -> u32 {
        let age = (today - self.first_login.unwrap_or(today)).num_days();
        let warm_up = WARM_UP.into_iter().find(|(days, _)| age < *days).map_or(u32::MAX, |(_, most)| most);
        let cap = cap.min(warm_up);
        let released = self.released.map(|on| (today - on).num_days());
        if released.is_some_and(|days| days < HALVED_DAYS) { (cap / 2).max(cap.min(1)) } else { cap }
    }
}

impl Standing {
    /// Returns which of its first seven days it is for the account; none: it is not new any more.
    pub fn warm_up_day(&self, today: NaiveDate) -> Option<i64> {
        let age = (today - self.first_login.unwrap_or(today)).num_days().max(0);
        WARM_UP.iter().any(|(days, _)| age < *days).then_some(age + 1)
    }

    /// Returns the last day on which the account has half of its caps; none: it has all of them.
    pub fn halved_until(&self, today: NaiveDate) -> Option<NaiveDate> {
        let released = self.released.filter(|on| (today - *on).num_days() < HALVED_DAYS)?;
        released.checked_add_days(Days::new(HALVED_DAYS.unsigned_abs() - 1))
    }
}

/// What has been sent, over all campaigns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages to the contact by day: today, yesterday, and so on.
    pub contact: Week,
    /// When the contact was last sent something.
    pub contact_last: Option<DateTime<Utc>>,
    /// Messages to the contact since it last wrote.
    pub unanswered: u32,
    /// Whether the contact has ever written.
    pub answered_before: bool,
    /// Messages of the account today.
    pub account: u32,
    /// Contacts who never answered that the account has written to today, this one left out.
    pub account_new: u32,
    /// Messages of the organisation today.
    pub organization: u32,
}

impl Counts {
    /// Returns whether a message would be the first of the day to somebody who never answered.
    pub fn is_stranger(&self) -> bool {
        !self.answered_before && self.contact[0] == 0
    }
}

/// What the caps say to a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may go.
    Allowed,
    /// It waits.
    Deferred {
        /// The earliest moment at which the caps can allow it. They are asked again then.
        until: DateTime<Utc>,
        /// The cap that opens last.
        reason: Cap,
    },
    /// It is left out, and the enrollment goes on.
    Skip {
        /// The cap.
        reason: Cap,
    },
    /// The enrollment ends.
    Exit {
        /// The cap.
        reason: Cap,
    },
}

/// Asks the caps about a send at a moment.
///
/// What happens at a cap is the campaign's choice, with two exceptions. The gap between two messages always makes the
/// second wait: it passes by itself within the campaign's own time. Unanswered messages are never waited for, since no
/// time passes that cap: the enrollment ends, unless the campaign would rather leave the message out.
pub fn decide(
    now: DateTime<Utc>,
    zone: Zone,
    caps: &Caps,
    on_cap: OnCap,
    standing: Standing,
    counts: &Counts,
) -> Verdict {
    if counts.unanswered >= caps.max_unanswered {
        let reason = Cap::MaxUnanswered;
        return if on_cap == OnCap::Skip { Verdict::Skip { reason } } else { Verdict::Exit { reason } };
    }
    let today = day_of(now, zone);
    let full = [
        exhausted(caps, standing, counts, today).map(|cap| (cap, 1)),
        (counts.is_stranger() && strangers_exhausted(caps, standing, counts, today))
            .then_some((Cap::NewContactsPerAccountPerDay, 1)),
        (counts.contact[0] >= caps.per_contact_per_day).then_some((Cap::PerContactPerDay, 1)),
        days_to_room_in_week(caps, counts).map(|days| (Cap::PerContactPerWeek, days)),
    ];
    // Of caps that open on the same day, the first of the list is named.
    let full = full.into_iter().flatten().rev().max_by_key(|(_, days)| *days);
    let full = full.map(|(cap, days)| (cap, begins_in(today, days, zone)));
    match (full, on_cap) {
        (Some((reason, _)), OnCap::Skip) => Verdict::Skip { reason },
        (Some((reason, _)), OnCap::Exit) => Verdict::Exit { reason },
        (full, _) => {
            let gap = gap_ends(caps, counts, zone).filter(|ends| *ends > now).map(|ends| (Cap::MinGap, ends));
            let last = full.into_iter().chain(gap).max_by_key(|(_, until)| *until);
            last.map_or(Verdict::Allowed, |(reason, until)| Verdict::Deferred { until, reason })
        }
    }
}

/// Returns the cap that keeps an account from sending anything more today, whoever it is for.
pub fn exhausted(caps: &Caps, standing: Standing, counts: &Counts, today: NaiveDate) -> Option<Cap> {
    let account = counts.account >= standing.allowance(caps.per_account_per_day, today);
    let organization = caps.per_organization_per_day.is_some_and(|cap| counts.organization >= cap);
    let organization = organization.then_some(Cap::PerOrganizationPerDay);
    account.then_some(Cap::PerAccountPerDay).or(organization)
}

/// Returns whether an account can write to nobody more today who never answered and was not written to today.
pub fn strangers_exhausted(caps: &Caps, standing: Standing, counts: &Counts, today: NaiveDate) -> bool {
    let room = caps.new_contacts_per_account_per_day.map(|cap| standing.allowance(cap, today));
    room.is_some_and(|room| counts.account_new >= room)
}

/// Returns after how many days the contact's week has room again; nothing, if it has.
fn days_to_room_in_week(caps: &Caps, counts: &Counts) -> Option<u64> {
    let cap = caps.per_contact_per_week?;
    let full = |days: usize| {
        counts.contact[..WEEK - days].iter().fold(0, |sum: u32, n| sum.saturating_add(*n)) >= cap
    };
    let days = (0..WEEK).find(|days| !full(*days)).unwrap_or(WEEK);
    (days > 0).then_some(days as u64)
}

fn gap_ends(caps: &Caps, counts: &Counts, zone: Zone) -> Option<DateTime<Utc>> {
    let last = counts.contact_last?;
    caps.min_gap.into_iter().flatten().map(|gap| after(last, gap, zone)).max()
}

/// Returns the beginning of a day to come.
fn begins_in(today: NaiveDate, days: u64, zone: Zone) -> DateTime<Utc> {
    begins(today.checked_add_days(Days::new(days)).unwrap_or(today), zone)
}

/// Returns the beginning of the day after a moment: when caps by the day open again.
pub fn next_day(now: DateTime<Utc>, zone: Zone) -> DateTime<Utc> {
    begins_in(day_of(now, zone), 1, zone)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::calendar::zone;

    fn shanghai(text: &str) -> DateTime<Utc> {
        format!("{text}:00+08:00").parse().expect("a time")
    }

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a day")
    }

    /// An account that nothing holds back any more.
    fn old() -> Standing {
        Standing { first_login: Some(day("2026-01-01")), released: None }
    }

    fn caps() -> Caps {
        Caps {
            per_contact_per_day: 2,
            per_contact_per_week: Some(5),
            per_account_per_day: 150,
            new_contacts_per_account_per_day: Some(30),
            per_organization_per_day: Some(1000),
            min_gap: [Some("PT30M".parse().expect("a period")), None],
            max_unanswered: 4,
        }
    }

    const NOON: &str = "2026-11-23T12:00";

    fn ask(on_cap: OnCap, counts: Counts) -> Verdict {
        decide(shanghai(NOON), zone(None), &caps(), on_cap, old(), &counts)
    }

    fn deferred(until: &str, reason: Cap) -> Verdict {
        Verdict::Deferred { until: shanghai(until), reason }
    }

    #[test]
    fn a_week_is_counted_by_the_days_of_its_zone() {
        let (today, zone) = (day("2026-11-23"), zone(None));
        assert_eq!(week_begins(today, zone), shanghai("2026-11-17T00:00"));
        let sent = [
            "2026-11-23T00:00",
            "2026-11-22T23:59",
            "2026-11-22T00:00",
            "2026-11-17T00:00",
            "2026-11-16T23:59",
            "2026-11-24T00:00", // By a clock that is ahead.
        ];
        assert_eq!(week(&sent.map(shanghai), today, zone), [1, 2, 0, 0, 0, 0, 1]);
        assert_eq!(week(&[], today, zone), [0; WEEK]);
    }

    #[test]
    fn each_cap_opens_when_it_can_be_met_again() {
        let none = Counts::default();
        assert_eq!(ask(OnCap::Defer, none), Verdict::Allowed);
        let tomorrow = "2026-11-24T00:00";
        let table = [
            (Counts { contact: [2, 0, 0, 0, 0, 0, 0], ..none }, tomorrow, Cap::PerContactPerDay),
            (Counts { account: 150, ..none }, tomorrow, Cap::PerAccountPerDay),
            (Counts { account_new: 30, ..none }, tomorrow, Cap::NewContactsPerAccountPerDay),
            (Counts { organization: 1000, ..none }, tomorrow, Cap::PerOrganizationPerDay),
            (
                Counts { contact_last: Some(shanghai("2026-11-23T11:45")), ..none },
                "2026-11-23T12:15",
                Cap::MinGap,
            ),
            // Five in seven days: there is room when the oldest day falls out.
            (Counts { contact: [1, 2, 0, 0, 0, 0, 2], ..none }, tomorrow, Cap::PerContactPerWeek),
            (Counts { contact: [0, 2, 2, 0, 1, 0, 0], ..none }, "2026-11-26T00:00", Cap::PerContactPerWeek),
            (Counts { contact: [1, 2, 2, 0, 0, 0, 0], ..none }, "2026-11-28T00:00", Cap::PerContactPerWeek),
            // Several at once: the one that opens last.
            (
                Counts { contact: [2, 2, 1, 0, 0, 0, 0], account: 150, ..none },
                "2026-11-28T00:00",
                Cap::PerContactPerWeek,
            ),
        ];
        for (counts, until, reason) in table {
            assert_eq!(ask(OnCap::Defer, counts), deferred(until, reason), "{counts:?}");
        }
    }

    #[test]
    fn one_below_a_cap_is_allowed() {
        let counts = Counts {
            contact: [1, 0, 2, 0, 1, 0, 0],
            contact_last: Some(shanghai("2026-11-23T11:30")),
            unanswered: 3,
            answered_before: false,
            account: 149,
            account_new: 29,
            organization: 999,
        };
        assert_eq!(ask(OnCap::Defer, counts), Verdict::Allowed);
    }

    #[test]
    fn the_campaign_chooses_what_happens_at_a_cap() {
        let full = Counts { account: 150, ..Counts::default() };
        let reason = Cap::PerAccountPerDay;
        assert_eq!(ask(OnCap::Skip, full), Verdict::Skip { reason });
        assert_eq!(ask(OnCap::Exit, full), Verdict::Exit { reason });
        // The gap between two messages is waited for in any case.
        let just_now = Counts { contact_last: Some(shanghai("2026-11-23T11:59")), ..Counts::default() };
        for on_cap in [OnCap::Defer, OnCap::Skip, OnCap::Exit] {
            assert_eq!(ask(on_cap, just_now), deferred("2026-11-23T12:29", Cap::MinGap));
        }
    }

    #[test]
    fn nobody_waits_for_time_to_answer() {
        let silent = Counts { unanswered: 4, ..Counts::default() };
        let reason = Cap::MaxUnanswered;
        assert_eq!(ask(OnCap::Defer, silent), Verdict::Exit { reason });
        assert_eq!(ask(OnCap::Exit, silent), Verdict::Exit { reason });
        assert_eq!(ask(OnCap::Skip, silent), Verdict::Skip { reason });
    }

    #[test]
    fn whoever_has_answered_or_was_written_to_today_is_not_new() {
        let full = Counts { account_new: 30, ..Counts::default() };
        assert_eq!(ask(OnCap::Defer, Counts { answered_before: true, ..full }), Verdict::Allowed);
        let today = Counts { contact: [1, 0, 0, 0, 0, 0, 0], ..full };
        assert_eq!(ask(OnCap::Defer, today), Verdict::Allowed);
    }

    #[test]
    fn a_new_account_warms_up() {
        let standing = Standing { first_login: Some(day("2026-11-20")), released: None };
        let table = [
            ("2026-11-20", 20),
            ("2026-11-22", 20),
            ("2026-11-23", 50),
            ("2026-11-26", 50),
            ("2026-11-27", 150),
        ];
        for (today, expected) in table {
            assert_eq!(standing.allowance(150, day(today)), expected, "{today}");
            assert_eq!(standing.allowance(10, day(today)), 10);
        }
        assert_eq!(Standing::default().allowance(150, day("2026-11-20")), 20);
        let days = ["2026-11-20", "2026-11-26", "2026-11-27"].map(|today| standing.warm_up_day(day(today)));
        assert_eq!(days, [Some(1), Some(7), None]);
    }

    #[test]
    fn a_released_account_has_half_for_seven_days() {
        let standing = Standing { released: Some(day("2026-11-20")), ..old() };
        for (today, expected) in [("2026-11-20", 75), ("2026-11-26", 75), ("2026-11-27", 150)] {
            assert_eq!(standing.allowance(150, day(today)), expected, "{today}");
        }
        assert_eq!(standing.halved_until(day("2026-11-26")), Some(day("2026-11-26")));
        assert_eq!(standing.halved_until(day("2026-11-27")), None);
        let halves = [0, 1, 2, 3].map(|cap| standing.allowance(cap, day("2026-11-20")));
        assert_eq!(halves, [0, 1, 1, 1]);
        // New and released: half of the little that a new one has.
        let both = Standing { first_login: Some(day("2026-11-20")), released: Some(day("2026-11-20")) };
        assert_eq!(both.allowance(150, day("2026-11-20")), 10);
    }

    #[test]
    fn the_tighter_cap_of_each_holds() {
        let campaign = Caps { per_contact_per_day: 1, per_contact_per_week: None, ..caps() };
        let day_long = Caps { min_gap: [Some("P1D".parse().expect("a period")), None], ..DEFAULTS };
        let both = campaign.within(&day_long).within(&CEILINGS);
        assert_eq!((both.per_contact_per_day, both.per_contact_per_week), (1, Some(5)));
        assert_eq!((both.per_account_per_day, both.max_unanswered), (150, 3));
        let counts = Counts { contact_last: Some(shanghai("2026-11-22T20:00")), ..Counts::default() };
        let verdict = decide(shanghai(NOON), zone(None), &both, OnCap::Defer, old(), &counts);
        assert_eq!(verdict, deferred("2026-11-23T20:00", Cap::MinGap));
    }

    #[test]
    fn a_cap_of_nothing_is_asked_again_and_never_allows() {
        let none = Caps { per_contact_per_day: 0, per_contact_per_week: Some(0), ..caps() };
        let verdict = decide(shanghai(NOON), zone(None), &none, OnCap::Defer, old(), &Counts::default());
        assert_eq!(verdict, deferred("2026-11-30T00:00", Cap::PerContactPerWeek));
    }

    #[test]
    fn a_day_of_caps_is_the_organisations() {
        let counts = Counts { account: 150, ..Counts::default() };
        let late = "2026-11-23T23:30:00Z".parse().expect("a time");
        let until = |name: &str| decide(late, zone(Some(name)), &caps(), OnCap::Defer, old(), &counts);
        let reason = Cap::PerAccountPerDay;
        let midnight = |text: &str| Verdict::Deferred { until: text.parse().expect("a time"), reason };
        assert_eq!(until("Asia/Shanghai"), midnight("2026-11-24T16:00:00Z"));
        assert_eq!(until("America/New_York"), midnight("2026-11-24T05:00:00Z"));
    }

    proptest! {
        /// Sends one after the other whenever the caps allow it, and counts what came of it.
        #[test]
        fn whoever_waits_as_long_as_he_is_told_goes_through_and_never_above_a_cap(
            per_day in 1..4_u32, per_week in 1..8_u32, gap_minutes in 0..3000_u32, sends in 1..12_usize,
        ) {
            let caps = Caps {
                per_contact_per_day: per_day,
                per_contact_per_week: Some(per_week),
                min_gap: [Some(format!("PT{gap_minutes}M").parse().expect("a period")), None],
                max_unanswered: 100,
                ..caps()
            };
            let mut now = shanghai(NOON);
            let mut sent: Vec<DateTime<Utc>> = Vec::new();
            let mut asked = 0;
            while sent.len() < sends {
                asked += 1;
                prop_assert!(asked <= 3 * sends, "a wait is not worth asking so often");
                let today = day_of(now, zone(None));
                let contact_last = sent.last().copied();
                let mut counts = Counts { contact_last, answered_before: true, ..Counts::default() };
                for at in &sent {
                    let days = (today - day_of(*at, zone(None))).num_days();
                    if let Some(count) = usize::try_from(days).ok().and_then(|days| counts.contact.get_mut(days)) {
                        *count += 1;
                    }
                }
                match decide(now, zone(None), &caps, OnCap::Defer, old(), &counts) {
                    Verdict::Allowed => sent.push(now),
                    Verdict::Deferred { until, .. } => {
                        prop_assert!(until > now);
                        now = until;
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            let days: Vec<NaiveDate> = sent.iter().map(|at| day_of(*at, zone(None))).collect();
            for last in &days {
                let within = |length: i64| {
                    days.iter().filter(|day| (0..length).contains(&(*last - **day).num_days())).count()
                };
                prop_assert!(within(1) <= per_day as usize && within(7) <= per_week as usize);
            }
            for pair in sent.windows(2) {
                prop_assert!(pair[1] - pair[0] >= chrono::TimeDelta::minutes(gap_minutes.into()));
            }
        }
    }
}
