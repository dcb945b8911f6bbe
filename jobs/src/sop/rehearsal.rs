//! A whole campaign before it runs: who gets what when, when it ends, and which account holds it up. Pure.
//!
//! It plays the campaign as if nobody answered and nothing broke down, with the same windows, waits, caps and paces by which it
//! will run. Every account serves those who are due one after the other at its pace; of those due at one moment, in the order of
//! [`spread::order`]. An account that has sent what it may in a day goes on on the next. Accounts are played together in the order of
//! time, since the organisation's cap is theirs together.
//!
//! Whoever waits for an account that has sent enough for today is not looked at again until it may send, so that 10,000 recipients
//! cost no more under a small cap than under a large one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use uuid::Uuid;

use super::calendar::Calendar;
use super::caps::{self, Cap, Caps, Counts, Standing, Verdict, WEEK};
use super::config::rules::OnCap;
use super::moment;
use super::spread;
use super::way::Leg;
use super::window::{Opening, Timetable};
use crate::calendar::{Zone, day_of};

/// An account that sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Time between two of its campaign messages; see [`spread::pace`].
    pub pace: TimeDelta,
    /// What makes its caps smaller for a while.
    pub standing: Standing,
    /// Campaign messages that it has sent today.
    pub sent: u32,
    /// Contacts who never answered that it has written to today.
    pub new_contacts: u32,
}

/// Somebody who gets the campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The enrollment's id, or one that stands for it: it makes the order.
    pub id: Uuid,
    /// The account, as its number in the list.
    pub account: usize,
    /// The way, as its number in the list.
    pub way: usize,
    /// The opening that holds for the contact, as its number in the list.
    pub opening: usize,
    /// When the campaign is triggered for the contact, delay included.
    pub enters_at: DateTime<Utc>,
    /// Messages to the contact in the days before, today first, of which [`Counts`] speaks.
    pub contact: [u32; WEEK],
    /// When the contact was last sent something.
    pub contact_last: Option<DateTime<Utc>>,
    /// Messages to the contact since it last wrote.
    pub unanswered: u32,
    /// Whether the contact has ever written.
    pub answered_before: bool,
}

/// All that a rehearsal needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// When it is asked: "today" of all counts lies there.
    pub now: DateTime<Utc>,
    /// The organisation's zone, whose days caps count.
    pub zone: Zone,
    /// The calendar by which waits count workdays.
    pub calendar: &'a Calendar,
    /// The caps.
    pub caps: &'a Caps,
    /// What happens at a cap.
    pub on_cap: OnCap,
    /// Messages that the organisation has sent today.
    pub organization_sent: u32,
    /// The windows, one for each zone that contacts live in.
    pub openings: &'a [Opening<'a>],
    /// The ways through the campaign.
    pub ways: &'a [Vec<Leg>],
    /// The accounts.
    pub accounts: &'a [Account],
    /// The recipients.
    pub recipients: &'a [Recipient],
}

/// What becomes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is sent.
    Sent,
    /// A cap leaves it out.
    Skipped(Cap),
    /// A cap ends the enrollment.
    Exited(Cap),
    /// Its time never comes: the window does not open.
    Never,
}

/// One message of the campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The recipient, as its number in the list.
    pub recipient: usize,
    /// Where on the way.
    pub leg: usize,
    /// When.
    pub at: DateTime<Utc>,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What became of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Messages that it sends.
    pub sends: u32,
    /// When it sends the last.
    pub ends_at: Option<DateTime<Utc>>,
    /// The longest that one of its messages waited for it: for its pace, or for its cap of the day.
    pub longest_wait: TimeDelta,
}

/// The campaign as it will be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rehearsal {
    /// Its messages, in the order of time.
    pub planned: Vec<Planned>,
    /// When the last is sent.
    pub ends_at: Option<DateTime<Utc>>,
    /// The account that holds up the end; none, where the plan's own waits last longer than any account's work.
    pub bottleneck: Option<usize>,
    /// The accounts.
    pub loads: Vec<Load>,
}

/// How far a campaign is followed. One that takes longer has a cap that lets nothing through.
const HORIZON_DAYS: usize = 1000;

/// The shortest wait for an account that anybody would call one.
const WORTH_NAMING: TimeDelta = TimeDelta::minutes(5);

/// Plays a campaign.
///
/// Recipients of accounts, ways or openings that are not in the lists are left out.
pub fn rehearse(plan: &Plan<'_>) -> Rehearsal {
    let mut play = Play::new(plan);
    while let Some(Reverse((_, account))) = play.next.pop() {
        play.serve(account);
        play.line_up(account);
    }
    play.end()
}

/// Someone who waits for an account: since when, in which order, who.
type Waiting = Reverse<(DateTime<Utc>, u64, usize)>;

/// An account at work.
struct Row {
    /// Who has answered before, or was written to on the day on which the message is due.
    known: BinaryHeap<Waiting>,
    /// Everybody else.
    strangers: BinaryHeap<Waiting>,
    /// When the account can send again.
    free_at: DateTime<Utc>,
    /// The end of the last day on which it had sent enough; the same for strangers.
    enough_until: DateTime<Utc>,
    strangers_until: DateTime<Utc>,
    day: NaiveDate,
    sent: u32,
    new_contacts: u32,
    load: Load,
}

impl Row {
    /// Returns when the account serves next, and whether that is for a stranger.
    fn next(&self) -> Option<(DateTime<Utc>, bool)> {
        let known = self.known.peek().map(|Reverse((due, ..))| ((*due).max(self.free_at), false));
        let free_at = self.free_at.max(self.strangers_until);
        let stranger = self.strangers.peek().map(|Reverse((due, ..))| ((*due).max(free_at), true));
        known.into_iter().chain(stranger).min()
    }

    fn of(&mut self, stranger: bool) -> &mut BinaryHeap<Waiting> {
        if stranger { &mut self.strangers } else { &mut self.known }
    }
}

/// A recipient on the way.
struct Walker {
    order: u64,
    leg: usize,
    start: Option<NaiveDate>,
    day: NaiveDate,
    contact: [u32; WEEK],
    contact_last: Option<DateTime<Utc>>,
    unanswered: u32,
}

/// A day of the organisation.
#[derive(Clone, Copy)]
struct Day {
    on: NaiveDate,
    ends_at: DateTime<Utc>,
}

struct Play<'a> {
    plan: &'a Plan<'a>,
    /// When each opening is open. What is not open in there never is.
    timetables: Vec<Timetable>,
    today: Day,
    rows: Vec<Row>,
    walkers: Vec<Walker>,
    /// When each account serves next. An account stands here once, or not at all.
    next: BinaryHeap<Reverse<(DateTime<Utc>, usize)>>,
    organization: BTreeMap<NaiveDate, u32>,
    planned: Vec<Planned>,
}

impl<'a> Play<'a> {
    fn new(plan: &'a Plan<'a>) -> Play<'a> {
        let today = Day { on: day_of(plan.now, plan.zone), ends_at: caps::next_day(plan.now, plan.zone) };
        let row = |account: &Account| Row {
            known: BinaryHeap::new(),
            strangers: BinaryHeap::new(),
            free_at: plan.now,
            enough_until: plan.now,
            strangers_until: plan.now,
            day: today.on,
            sent: account.sent,
            new_contacts: account.new_contacts,
            load: Load::default(),
        };
        let walker = |recipient: &Recipient| Walker {
            order: spread::order(recipient.id),
            leg: 0,
            start: None,
            day: today.on,
            contact: recipient.contact,
            contact_last: recipient.contact_last,
            unanswered: recipient.unanswered,
        };
        let mut play = Play {
            plan,
            timetables: plan
                .openings
                .iter()
                .map(|opening| Timetable::new(opening, plan.now, HORIZON_DAYS))
                .collect(),
            today,
            rows: plan.accounts.iter().map(row).collect(),
            walkers: plan.recipients.iter().map(walker).collect(),
            next: BinaryHeap::new(),
            organization: BTreeMap::from([(today.on, plan.organization_sent)]),
            planned: Vec::with_capacity(plan.recipients.len()),
        };
        for (who, recipient) in plan.recipients.iter().enumerate() {
            let known = recipient.account < plan.accounts.len() && recipient.opening < plan.openings.len();
            if known && recipient.way < plan.ways.len() {
                let entered = recipient.enters_at.max(plan.now);
                match play.timetables[recipient.opening].next_allowed(entered) {
                    Some(begins) => play.walk(who, begins),
                    None => play.note(who, entered, Outcome::Never),
                }
            }
        }
        for account in 0..plan.accounts.len() {
            play.line_up(account);
        }
        play
    }

    /// Leads somebody from a moment on over waits to the next message, and into the row for it.
    fn walk(&mut self, who: usize, from: DateTime<Utc>) {
        let recipient = &self.plan.recipients[who];
        let opening = &self.plan.openings[recipient.opening];
        let walker = &mut self.walkers[who];
        let legs = &self.plan.ways[recipient.way];
        let mut at = Some(from);
        while let (Some(reached_at), Some(Leg::Wait(wait))) = (at, legs.get(walker.leg)) {
            let start = *walker.start.get_or_insert_with(|| moment::start_day(reached_at, opening.zone()));
            at = moment::wait(wait, reached_at, start, opening, self.plan.calendar);
            walker.leg += 1;
        }
        if walker.leg >= legs.len() {
            return;
        }
        self.wait(who, at, from);
    }

    /// Puts somebody into the row for a message that is due at a moment, or later, where the window is shut.
    fn wait(&mut self, who: usize, due: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        let recipient = &self.plan.recipients[who];
        let Some(due) = due.and_then(|due| self.timetables[recipient.opening].next_allowed(due)) else {
            return self.note(who, now, Outcome::Never);
        };
        let walker = &self.walkers[who];
        let written_to_today = walker.day == self.today.on && walker.contact[0] > 0;
        let known = recipient.answered_before || (written_to_today && due < self.today.ends_at);
        self.rows[recipient.account].of(!known).push(Reverse((due, walker.order, who)));
    }

    /// Notes when an account serves next.
    fn line_up(&mut self, account: usize) {
        if let Some((at, _)) = self.rows[account].next() {
            self.next.push(Reverse((at, account)));
        }
    }

    /// Lets an account do one thing: serve one of its row, or see that it has done enough for today.
    fn serve(&mut self, account: usize) {
        let plan = self.plan;
        let standing = plan.accounts[account].standing;
        let row = &mut self.rows[account];
        let Some((now, stranger)) = row.next() else { return };
        if now - plan.now > TimeDelta::days(HORIZON_DAYS as i64) {
            let waiting: Vec<Waiting> = row.known.drain().chain(row.strangers.drain()).collect();
            for Reverse((_, _, who)) in waiting {
                self.note(who, now, Outcome::Never);
            }
            return;
        }
        if now >= self.today.ends_at {
            self.today = Day { on: day_of(now, plan.zone), ends_at: caps::next_day(now, plan.zone) };
        }
        let Day { on: today, ends_at: tomorrow } = self.today;
        if row.day != today {
            (row.day, row.sent, row.new_contacts) = (today, 0, 0);
        }
        let organization = self.organization.entry(today).or_default();
        let mut counts = Counts {
            account: row.sent,
            account_new: row.new_contacts,
            organization: *organization,
            ..Counts::default()
        };
        if plan.on_cap == OnCap::Defer {
            if caps::exhausted(plan.caps, standing, &counts, today).is_some() {
                (row.free_at, row.enough_until) = (tomorrow, tomorrow);
                return;
            }
            if stranger && caps::strangers_exhausted(plan.caps, standing, &counts, today) {
                row.strangers_until = tomorrow;
                return;
            }
        }
        let enough_until =
            if stranger { row.enough_until.max(row.strangers_until) } else { row.enough_until };
        let Some(Reverse((asked, _, who))) = row.of(stranger).pop() else { return };
        let recipient = &plan.recipients[who];
        let timetable = &self.timetables[recipient.opening];
        if timetable.next_allowed(now) != Some(now) {
            // The row was longer than the window.
            row.load.longest_wait = row.load.longest_wait.max(now - asked);
            return self.wait(who, Some(now), now);
        }
        // A day on which the account had sent enough has moved the due time.
        let due =
            if asked < enough_until { timetable.next_allowed(enough_until).unwrap_or(now) } else { asked };
        let walker = &mut self.walkers[who];
        walker.turn_to(today);
        counts.contact = walker.contact;
        counts.contact_last = walker.contact_last;
        counts.unanswered = walker.unanswered;
        counts.answered_before = recipient.answered_before;
        match caps::decide(now, plan.zone, plan.caps, plan.on_cap, standing, &counts) {
            Verdict::Deferred { until, .. } => self.wait(who, Some(until), now),
            Verdict::Exit { reason } => self.note(who, now, Outcome::Exited(reason)),
            Verdict::Skip { reason } => {
                self.note(who, now, Outcome::Skipped(reason));
                self.go_on(who, due, now);
            }
            Verdict::Allowed => {
                row.new_contacts += u32::from(counts.is_stranger());
                row.sent += 1;
                *organization += 1;
                walker.contact[0] += 1;
                walker.contact_last = Some(now);
                walker.unanswered += 1;
                row.free_at = now + plan.accounts[account].pace;
                row.load.sends += 1;
                row.load.ends_at = Some(now);
                row.load.longest_wait = row.load.longest_wait.max(now - asked);
                self.note(who, now, Outcome::Sent);
                self.go_on(who, due, now);
            }
        }
    }

    fn go_on(&mut self, who: usize, due: DateTime<Utc>, now: DateTime<Utc>) {
        let zone = self.plan.openings[self.plan.recipients[who].opening].zone();
        let walker = &mut self.walkers[who];
        walker.start.get_or_insert_with(|| moment::start_day(due, zone));
        walker.leg += 1;
        self.walk(who, now);
    }

    fn note(&mut self, who: usize, at: DateTime<Utc>, outcome: Outcome) {
        self.planned.push(Planned { recipient: who, leg: self.walkers[who].leg, at, outcome });
    }

    fn end(mut self) -> Rehearsal {
        self.planned.sort_by_key(|planned| (planned.at, planned.recipient));
        let loads: Vec<Load> = self.rows.into_iter().map(|row| row.load).collect();
        let last = loads.iter().enumerate().max_by_key(|(_, load)| load.ends_at);
        let held_up = last.filter(|(_, load)| load.longest_wait >= WORTH_NAMING);
        Rehearsal {
            planned: self.planned,
            ends_at: last.and_then(|(_, load)| load.ends_at),
            bottleneck: held_up.map(|(account, _)| account),
            loads,
        }
    }
}

impl Walker {
    /// Lets days pass over the counts.
    fn turn_to(&mut self, today: NaiveDate) {
        let days = usize::try_from((today - self.day).num_days()).unwrap_or_default();
        if days > 0 {
            self.contact.rotate_right(days.min(WEEK) % WEEK);
            self.contact[..days.min(WEEK)].fill(0);
            self.day = today;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::config::step::{Count, CountFrom, Until, WaitFor};
    use super::super::way::{Fork, follow};
    use super::super::window::{Days, Range, Window};
    use super::*;
    use crate::calendar::zone;

    fn shanghai(text: &str) -> DateTime<Utc> {
        format!("{text}+08:00").parse().expect("a time")
    }

    fn period(text: &str) -> Leg {
        Leg::Wait(WaitFor::For(text.parse().expect("a period")))
    }

    fn workday(day_offset: u16, at: &str) -> Leg {
        let at = at.parse().expect("a time of day");
        Leg::Wait(WaitFor::Until(Until { from: CountFrom::Start, day_offset, at, count: Count::Workday }))
    }

    /// 09:30 to 12:00 and 14:00 to 20:30 on workdays.
    fn working_hours(calendar: &Calendar) -> Opening<'_> {
        let ranges = [(570, 720), (840, 1230)].map(|(from, to)| Range::new(from, to).expect("a range"));
        Opening::new(zone(None), &Window::new(Days::Workdays, ranges), calendar)
    }

    fn three_days() -> Vec<Leg> {
        vec![
            Leg::Send,
            period("PT30M"),
            Leg::Send,
            period("PT20H"),
            workday(1, "10:00"),
            Leg::Send,
            workday(2, "15:00"),
            Leg::Send,
            period("P2D"),
        ]
    }

    fn caps() -> Caps {
        Caps { max_unanswered: 10, new_contacts_per_account_per_day: None, ..caps::DEFAULTS }
    }

    fn account(pace_seconds: i64) -> Account {
        let first_login = Some("2026-01-01".parse().expect("a day"));
        Account {
            pace: TimeDelta::seconds(pace_seconds),
            standing: Standing { first_login, released: None },
            sent: 0,
            new_contacts: 0,
        }
    }

    fn recipients(count: usize, accounts: usize, enters_at: DateTime<Utc>) -> Vec<Recipient> {
        let recipient = |number: usize| Recipient {
            id: Uuid::from_u128(number as u128),
            account: number % accounts,
            way: 0,
            opening: 0,
            enters_at,
            contact: [0; WEEK],
            contact_last: None,
            unanswered: 0,
            answered_before: false,
        };
        (0..count).map(recipient).collect()
    }

    /// Plays a campaign from Friday night on.
    fn play(
        caps: &Caps,
        on_cap: OnCap,
        ways: &[Vec<Leg>],
        accounts: &[Account],
        recipients: &[Recipient],
    ) -> Rehearsal {
        let calendar = Calendar::shipped();
        let openings = [working_hours(&calendar)];
        rehearse(&Plan {
            now: shanghai("2026-11-20T21:40:00"),
            zone: zone(None),
            calendar: &calendar,
            caps,
            on_cap,
            organization_sent: 0,
            openings: &openings,
            ways,
            accounts,
            recipients,
        })
    }

    fn friday() -> DateTime<Utc> {
        shanghai("2026-11-20T21:42:00")
    }

    fn times(rehearsal: &Rehearsal) -> Vec<String> {
        let local =
            |planned: &Planned| planned.at.with_timezone(&zone(None)).format("%a %H:%M:%S").to_string();
        rehearsal.planned.iter().map(local).collect()
    }

    #[test]
    fn one_person_gets_the_example_at_the_times_worked_out_by_hand() {
        let played = play(&caps(), OnCap::Defer, &[three_days()], &[account(6)], &recipients(1, 1, friday()));
        assert_eq!(times(&played), ["Mon 09:30:00", "Mon 10:00:00", "Tue 10:00:00", "Wed 15:00:00"]);
        assert!(played.planned.iter().all(|planned| planned.outcome == Outcome::Sent));
        assert_eq!(played.planned.iter().map(|planned| planned.leg).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!((played.ends_at, played.bottleneck), (Some(shanghai("2026-11-25T15:00:00")), None));
    }

    #[test]
    fn the_example_is_played_as_it_is_written() {
        let text = include_str!("examples/new_lead_3_days.json");
        let plan: super::super::config::WorkflowConfig = serde_json::from_str(text).expect("a plan");
        let way = follow(&plan, |fork| match fork {
            Fork::Branch(branch) => &branch.otherwise,
            Fork::Split(split) => &split.arms[0].next,
        });
        let calendar = Calendar::shipped();
        let holidays = calendar.chosen(plan.send_window.holiday_calendar);
        let opening = Opening::new(plan.timezone, &Window::from(&plan.send_window), holidays)
            .within(&Window::outside(21 * 60, 9 * 60), &calendar);
        // Tagged on the Friday before the last workday of the National Day, and on an ordinary one. Two minutes of delay.
        let mut everybody = recipients(2, 2, friday());
        everybody[0].enters_at = shanghai("2026-10-09T21:42:00");
        let played = rehearse(&Plan {
            now: shanghai("2026-10-09T21:40:00"),
            zone: plan.timezone,
            calendar: holidays,
            caps: &Caps::from(&plan.caps),
            on_cap: plan.caps.on_cap,
            organization_sent: 0,
            openings: &[opening],
            ways: &[way.legs],
            accounts: &[account(6), account(6)],
            recipients: &everybody,
        });
        let sent = |who: usize| {
            let own = played.planned.iter().filter(move |planned| planned.recipient == who);
            own.map(|planned| (way.steps[planned.leg].as_str(), planned.at)).collect::<Vec<_>>()
        };
        assert_eq!(
            sent(0),
            [
                ("d1_hello", shanghai("2026-10-10T09:30:00")), // A Saturday that is worked.
                ("d1_outline", shanghai("2026-10-10T10:00:00")),
                ("d2_case", shanghai("2026-10-12T10:00:00")),
                ("d3_invite", shanghai("2026-10-13T15:00:00")),
            ]
        );
        assert_eq!(
            sent(1),
            [
                ("d1_hello", shanghai("2026-11-23T09:30:00")),
                ("d1_outline", shanghai("2026-11-23T10:00:00")),
                ("d2_case", shanghai("2026-11-24T10:00:00")),
                ("d3_invite", shanghai("2026-11-25T15:00:00")),
            ]
        );
    }

    #[test]
    fn an_account_serves_one_after_the_other_and_goes_on_on_the_next_day() {
        let caps = Caps { per_account_per_day: 2, ..caps() };
        let way = vec![Leg::Send, workday(1, "10:00"), Leg::Send];
        let everybody = recipients(3, 1, friday());
        let played = play(&caps, OnCap::Defer, &[way], &[account(6)], &everybody);
        // On Monday two of three. The third is first on Tuesday, its day of start; one of the others follows at ten, the other on
        // Wednesday, when the third comes back at ten.
        let expected =
            ["Mon 09:30:00", "Mon 09:30:06", "Tue 09:30:00", "Tue 10:00:00", "Wed 09:30:00", "Wed 10:00:00"];
        assert_eq!(times(&played), expected);
        assert_eq!(played.bottleneck, Some(0));
        let mut order: Vec<usize> = (0..3).collect();
        order.sort_by_key(|who| spread::order(everybody[*who].id));
        assert_eq!(played.planned[..3].iter().map(|planned| planned.recipient).collect::<Vec<_>>(), order);
        assert_eq!(played.planned[5].recipient, order[2]);
    }

    #[test]
    fn people_who_never_answered_have_a_cap_of_their_own() {
        let caps = Caps { new_contacts_per_account_per_day: Some(1), ..caps() };
        let mut everybody = recipients(4, 1, friday());
        everybody[3].answered_before = true;
        let way = vec![Leg::Send, period("PT30M"), Leg::Send];
        let played = play(&caps, OnCap::Defer, &[way], &[account(6)], &everybody);
        let mut by_day: Vec<(String, usize)> = Vec::new();
        for (time, planned) in times(&played).iter().zip(&played.planned) {
            by_day.push((time[..3].to_owned(), planned.recipient));
        }
        let on = |day: &str| {
            let mut who: Vec<usize> =
                by_day.iter().filter(|(on, _)| on == day).map(|(_, who)| *who).collect();
            who.sort_unstable();
            who
        };
        // Both messages on one day are one person; whoever has answered is not counted.
        let days = ["Mon", "Tue", "Wed"].map(on);
        assert_eq!(days.map(|who| who.len()), [4, 2, 2]);
        assert_eq!(on("Mon").iter().filter(|who| **who == 3).count(), 2);
    }

    #[test]
    fn a_cap_may_leave_out_or_end_and_a_shut_window_never_opens() {
        let caps = Caps { per_account_per_day: 1, ..caps() };
        let way = vec![Leg::Send, period("P1D"), Leg::Send];
        let outcomes = |on_cap| {
            let played =
                play(&caps, on_cap, std::slice::from_ref(&way), &[account(6)], &recipients(2, 1, friday()));
            played.planned.iter().map(|planned| planned.outcome).collect::<Vec<_>>()
        };
        let full = Cap::PerAccountPerDay;
        assert_eq!(outcomes(OnCap::Exit), [Outcome::Sent, Outcome::Exited(full), Outcome::Sent]);
        assert_eq!(
            outcomes(OnCap::Skip),
            [Outcome::Sent, Outcome::Skipped(full), Outcome::Sent, Outcome::Skipped(full)]
        );
        let calendar = Calendar::default();
        let openings = [Opening::new(zone(None), &Window::new(Days::Any, []), &calendar)];
        let everybody = recipients(2, 1, friday());
        let played = rehearse(&Plan {
            now: friday(),
            zone: zone(None),
            calendar: &calendar,
            caps: &caps,
            on_cap: OnCap::Defer,
            organization_sent: 0,
            openings: &openings,
            ways: &[way],
            accounts: &[account(6)],
            recipients: &everybody,
        });
        assert!(played.planned.iter().all(|planned| planned.outcome == Outcome::Never));
        assert_eq!((played.planned.len(), played.ends_at, played.bottleneck), (2, None, None));
    }

    #[test]
    fn a_cap_that_lets_nothing_through_ends_the_rehearsal() {
        let caps = Caps { per_account_per_day: 0, ..caps() };
        let played = play(&caps, OnCap::Defer, &[three_days()], &[account(6)], &recipients(2, 1, friday()));
        assert_eq!(
            played.planned.iter().map(|planned| planned.outcome).collect::<Vec<_>>(),
            [Outcome::Never; 2]
        );
    }

    #[test]
    fn ten_thousand_recipients_within_caps_window_and_time() {
        let mut accounts = vec![account(6); 20];
        // New on Friday: twenty a day, then fifty.
        accounts[7].standing.first_login = Some("2026-11-20".parse().expect("a day"));
        accounts[7].pace = TimeDelta::seconds(60);
        let six =
            [Leg::Send, period("PT1H"), Leg::Send, workday(1, "10:00"), Leg::Send, period("P1D"), Leg::Send];
        let six = [&six[..], &[period("P2D"), Leg::Send, period("P3D"), Leg::Send]].concat();
        let everybody = recipients(10_000, 20, friday());
        let caps =
            Caps { per_contact_per_week: Some(5), new_contacts_per_account_per_day: Some(30), ..caps() };
        let began = Instant::now();
        let played = play(&caps, OnCap::Defer, &[six], &accounts, &everybody);
        let took = began.elapsed();
        assert!(took.as_secs() < 10, "{took:?}");
        assert_eq!(played.planned.len(), 60_000);
        assert_eq!(played.bottleneck, Some(7));

        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let mut by_account: HashMap<(usize, NaiveDate), u32> = HashMap::new();
        let mut by_contact: HashMap<(usize, NaiveDate), u32> = HashMap::new();
        let mut last: HashMap<usize, DateTime<Utc>> = HashMap::new();
        for planned in &played.planned {
            assert_eq!(planned.outcome, Outcome::Sent);
            assert!(opening.is_open(planned.at));
            let (day, account) = (day_of(planned.at, zone(None)), planned.recipient % 20);
            *by_account.entry((account, day)).or_default() += 1;
            *by_contact.entry((planned.recipient, day)).or_default() += 1;
            if let Some(before) = last.insert(account, planned.at) {
                assert!(planned.at - before >= accounts[account].pace);
            }
        }
        for ((account, day), sent) in by_account {
            assert!(sent <= accounts[account].standing.allowance(150, day), "{account} {day} {sent}");
        }
        assert!(by_contact.values().all(|sent| *sent <= 2));
    }

    /// A recipient of a random campaign: account, hours after the trigger, whether there was an answer before.
    fn anybody() -> impl Strategy<Value = (usize, i64, bool)> {
        (0..3_usize, 0..100_i64, any::<bool>())
    }

    fn leg() -> impl Strategy<Value = Leg> {
        prop_oneof![
            4 => Just(Leg::Send),
            1 => (0..3000_u32).prop_map(|minutes| period(&format!("PT{minutes}M"))),
            1 => (0..5_u16).prop_map(|days| workday(days, "10:00")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn everybody_gets_everything_once_in_order_and_within_every_cap(
            everybody in proptest::collection::vec(anybody(), 1..12),
            way in proptest::collection::vec(leg(), 1..7),
            (per_day, per_week, per_account) in (1..3_u32, 2..6_u32, 1..5_u32),
            (strangers, organization, gap) in (1..4_u32, 3..9_u32, 0..300_u32),
        ) {
            let caps = Caps {
                per_contact_per_day: per_day,
                per_contact_per_week: Some(per_week),
                per_account_per_day: per_account,
                new_contacts_per_account_per_day: Some(strangers),
                per_organization_per_day: Some(organization),
                min_gap: [Some(format!("PT{gap}M").parse().expect("a period")), None],
                max_unanswered: 100,
            };
            let base = recipients(everybody.len(), 3, friday());
            let chosen = |(recipient, (account, hours, answered_before)): (Recipient, &(usize, i64, bool))| Recipient {
                account: *account,
                enters_at: friday() + TimeDelta::hours(*hours),
                answered_before: *answered_before,
                ..recipient
            };
            let people: Vec<Recipient> = base.into_iter().zip(&everybody).map(chosen).collect();
            let accounts = [account(6), account(60), account(600)];
            let played = play(&caps, OnCap::Defer, std::slice::from_ref(&way), &accounts, &people);

            let sends: Vec<usize> = (0..way.len()).filter(|leg| way[*leg] == Leg::Send).collect();
            let calendar = Calendar::shipped();
            let opening = working_hours(&calendar);
            let day = |planned: &Planned| day_of(planned.at, zone(None));
            for (who, recipient) in people.iter().enumerate() {
                let own: Vec<&Planned> = played.planned.iter().filter(|planned| planned.recipient == who).collect();
                prop_assert_eq!(own.iter().map(|planned| planned.leg).collect::<Vec<_>>(), sends.clone());
                for (before, planned) in own.iter().enumerate() {
                    prop_assert!(planned.at >= recipient.enters_at && opening.is_open(planned.at));
                    let in_days = |length| own.iter().filter(|other| {
                        (0..length).contains(&(day(planned) - day(other)).num_days())
                    }).count() as u32;
                    prop_assert!(in_days(1) <= per_day && in_days(7) <= per_week);
                    if let Some(next) = own.get(before + 1) {
                        prop_assert!(next.at - planned.at >= TimeDelta::minutes(gap.into()));
                    }
                }
            }
            for planned in &played.planned {
                prop_assert_eq!(planned.outcome, Outcome::Sent);
                let people = &people;
                let of_day = |account: Option<usize>| played.planned.iter().filter(move |other| {
                    day(other) == day(planned) && account.is_none_or(|account| people[other.recipient].account == account)
                });
                let account = people[planned.recipient].account;
                prop_assert!(of_day(None).count() as u32 <= organization);
                prop_assert!(of_day(Some(account)).count() as u32 <= per_account);
                let mut new: Vec<usize> = of_day(Some(account)).map(|other| other.recipient).collect();
                new.retain(|who| !people[*who].answered_before);
                new.sort_unstable();
                new.dedup();
                prop_assert!(new.len() as u32 <= strangers);
            }
        }
    }
}
