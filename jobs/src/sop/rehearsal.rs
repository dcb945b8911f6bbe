//! A whole campaign before it runs: who gets what when, when it ends, and which account holds it up. Pure.
//!
//! It plays the campaign as if nobody answered and nothing broke down, with the same windows, waits, caps and paces by
//! which it will run. Every account serves those who are due one after the other at its pace; of those due at one
//! moment, in the order of [`spread::order`]. An account that has sent what it may in a day goes on on the next.
//! Accounts are played together in the order of time, since the organisation's cap is theirs together.
//!
//! Whoever waits for an account that has sent enough for today is not looked at again until it may send, so that 10,000
//! recipients cost no more under a small cap than under a large one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use uuid::Uuid;

use super::calendar::Calendar;
use super::caps::{self, Cap, Caps, Counts, Standing, Verdict, Week};
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
    pub contact: Week,
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
    while play.turn() {}
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
    /// Since when it sends again after it had sent enough for a day, or after the window was shut: who has waited for
    /// that is due then.
    due_from: DateTime<Utc>,
    /// The same, for strangers.
    strangers_from: DateTime<Utc>,
    day: NaiveDate,
    sent: u32,
    new_contacts: u32,
    load: Load,
}

impl Row {
    /// Returns when the account serves next, and whether that is for a stranger.
    fn next(&self) -> Option<(DateTime<Utc>, bool)> {
        let known = self.known.peek().map(|Reverse((due, ..))| ((*due).max(self.free_at), false));
        let free_at = self.free_at.max(self.strangers_from);
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
    contact: Week,
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
            due_from: plan.now,
            strangers_from: plan.now,
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

    /// Lets the account whose turn it is do one thing; false, when all is done.
    fn turn(&mut self) -> bool {
        let Some(Reverse((_, account))) = self.next.pop() else { return false };
        self.serve(account);
        self.line_up(account);
        true
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
        match self.timetables.iter().filter_map(|timetable| timetable.next_allowed(now)).min() {
            Some(open) if open > now => {
                // The row was longer than the window of everybody in it.
                (row.free_at, row.due_from) = (open, open);
                return;
            }
            Some(_) => {}
            None => {
                let waiting: Vec<Waiting> = row.known.drain().chain(row.strangers.drain()).collect();
                for Reverse((_, _, who)) in waiting {
                    self.note(who, now, Outcome::Never);
                }
                return;
            }
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
                (row.free_at, row.due_from) = (tomorrow, tomorrow);
                return;
            }
            if stranger && caps::strangers_exhausted(plan.caps, standing, &counts, today) {
                row.strangers_from = tomorrow;
                return;
            }
        }
        let due_from = if stranger { row.due_from.max(row.strangers_from) } else { row.due_from };
        let Some(Reverse((asked, _, who))) = row.of(stranger).pop() else { return };
        let recipient = &plan.recipients[who];
        let timetable = &self.timetables[recipient.opening];
        if timetable.next_allowed(now) != Some(now) {
            // The window of this one is shut, somebody else's is open.
            row.load.longest_wait = row.load.longest_wait.max(now - asked);
            return self.wait(who, Some(now), now);
        }
        // A shut window and a day on which the account had sent enough have moved the due time.
        let due = if asked < due_from { timetable.next_allowed(due_from).unwrap_or(now) } else { asked };
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
            let new = days.min(self.contact.len());
            self.contact.rotate_right(new);
            self.contact[..new].fill(0);
            self.day = today;
        }
    }
}

#[cfg(test)]
mod tests;
