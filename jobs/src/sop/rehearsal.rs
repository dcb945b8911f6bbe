//! A whole campaign before it runs: who gets what when, when it ends, and which account holds it up. Pure.
//!
//! It plays the plan itself, step by step, as if nothing broke down and nobody answered but those who are said to: with the
//! same waits, windows, caps and conditions by which it will run ([`slot::ask`] is the gate's own question). Every account
//! serves those who are due one after the other at its pace, in the dispatcher's own order (`line`).
//! An account that has sent what it may in a day goes on on the next. Accounts are played together in the order of time,
//! since the organisation's cap and a token's calls are theirs together.
//!
//! Whoever waits for an account that has sent enough for today is not looked at again until it may send, so that 10,000
//! recipients cost no more under a small cap than under a large one.
//!
//! | module | what it owns |
//! |---|---|
//! | `line` | those who wait for an account |
//! | `walker` | somebody on the way |
//! | [`reason`] | what messages wait for |
//! | [`rolling`] | limits over any day or hour |
//! | `row` | an account at work |

mod line;
pub mod reason;
pub mod rolling;
mod row;
mod walker;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use uuid::Uuid;

use self::line::Waiting;
use self::rolling::{Limit, Rolling};
use self::row::Row;
use self::walker::Walker;
use super::calendar::Calendar;
use super::caps::{self, Cap, Caps, Counts, Standing, Week};
use super::condition::Facts;
use super::config::WorkflowConfig;
use super::config::key::{Next, StepId};
use super::config::rules::{OnCap, StopOn};
use super::config::step::{OnMissingVariable, Step};
use super::moment;
use super::slot::{self, Slot};
use super::split;
use super::window::{Opening, Timetable};
use crate::calendar::{Zone, day_of};

/// An account that sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Time between two of its campaign messages; see [`super::spread::pace`].
    pub pace: TimeDelta,
    /// What makes its caps smaller for a while.
    pub standing: Standing,
    /// Campaign messages that it has sent today.
    pub sent: u32,
    /// Contacts who never answered that it has written to today.
    pub new_contacts: u32,
    /// The limits that hold for it besides, as their numbers in the list, each with its code.
    pub limits: Vec<(usize, &'static str)>,
}

/// Somebody who gets the campaign.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// The enrollment's id, or one that stands for it: it makes the order, and chooses the arms of splits.
    pub id: Uuid,
    /// The account, as its number in the list.
    pub account: usize,
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
    /// When the contact wrote last.
    pub answered_at: Option<DateTime<Utc>>,
    /// Since when the contact is known.
    pub added_at: Option<DateTime<Utc>>,
    /// What conditions ask about, as things are now.
    pub facts: Facts,
    /// The contact answers the campaign's first message.
    pub answers: bool,
    /// Steps whose message cannot be made for the contact, with the reason and what follows.
    pub unsayable: Vec<(usize, &'static str, OnMissingVariable)>,
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
    /// What is played.
    pub config: &'a WorkflowConfig,
    /// The caps.
    pub caps: &'a Caps,
    /// Messages that the organisation has sent today.
    pub organization_sent: u32,
    /// The windows, one for each zone that contacts live in.
    pub openings: &'a [Opening<'a>],
    /// Limits over any day or hour.
    pub limits: &'a [Limit],
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
    /// It is left out, for this reason.
    Skipped(&'static str),
    /// The way ends before it, for this reason.
    Exited(&'static str),
}

/// One message of the campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The recipient, as its number in the list.
    pub recipient: usize,
    /// The step, as its number in the plan.
    pub step: usize,
    /// When.
    pub at: DateTime<Utc>,
    /// What becomes of it.
    pub outcome: Outcome,
    waited: u16,
}

impl Planned {
    /// Returns what it waits for before, by code.
    pub fn waited_for(&self) -> impl Iterator<Item = &'static str> {
        reason::codes(self.waited)
    }
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
    /// When the last way ends, waits behind the last message included.
    pub finishes_at: Option<DateTime<Utc>>,
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
/// Recipients of accounts or openings that are not in the lists are left out. A plan that has not been validated may lead
/// in circles: a way ends after as many steps between two messages as the plan has.
pub fn rehearse(plan: &Plan<'_>) -> Rehearsal {
    let mut play = Play::new(plan);
    while play.turn() {}
    play.end()
}

/// A day of the organisation.
#[derive(Clone, Copy)]
struct Day {
    on: NaiveDate,
    ends_at: DateTime<Utc>,
}

struct Play<'a> {
    plan: &'a Plan<'a>,
    /// The steps by their names.
    steps: HashMap<&'a StepId, usize>,
    /// When each opening is open. What is not open in there never is.
    timetables: Vec<Timetable>,
    today: Day,
    rows: Vec<Row>,
    walkers: Vec<Walker>,
    limits: Vec<Rolling>,
    /// When each account serves next; of several at one moment, who has sent least. An account stands here once, or not
    /// at all.
    next: BinaryHeap<Reverse<(DateTime<Utc>, u32, usize)>>,
    organization: BTreeMap<NaiveDate, u32>,
    planned: Vec<Planned>,
    finishes_at: Option<DateTime<Utc>>,
}

impl<'a> Play<'a> {
    fn new(plan: &'a Plan<'a>) -> Play<'a> {
        let today = Day { on: day_of(plan.now, plan.zone), ends_at: caps::next_day(plan.now, plan.zone) };
        let steps: HashMap<&StepId, usize> =
            plan.config.steps.iter().enumerate().map(|(index, step)| (step.id(), index)).collect();
        let entry = steps.get(&plan.config.entry).copied();
        let mut play = Play {
            plan,
            steps,
            timetables: plan
                .openings
                .iter()
                .map(|opening| Timetable::new(opening, plan.now, HORIZON_DAYS))
                .collect(),
            today,
            rows: plan.accounts.iter().map(|account| Row::new(account, plan.now, today.on)).collect(),
            walkers: plan.recipients.iter().map(|one| Walker::new(one, entry, today.on)).collect(),
            limits: plan.limits.iter().map(Rolling::new).collect(),
            next: BinaryHeap::new(),
            organization: BTreeMap::from([(today.on, plan.organization_sent)]),
            planned: Vec::with_capacity(plan.recipients.len()),
            finishes_at: None,
        };
        for (who, recipient) in plan.recipients.iter().enumerate() {
            if recipient.account < plan.accounts.len() && recipient.opening < plan.openings.len() {
                play.enter(who, recipient);
            }
        }
        for account in 0..plan.accounts.len() {
            play.line_up(account);
        }
        play
    }

    fn enter(&mut self, who: usize, recipient: &Recipient) {
        let entered = recipient.enters_at.max(self.plan.now);
        let Some(begins) = self.timetables[recipient.opening].next_allowed(entered) else {
            return self.note(who, entered, Outcome::Exited(slot::NO_WINDOW));
        };
        let zone = self.plan.openings[recipient.opening].zone();
        let deadlines = self.plan.config.stop.iter().filter(|rule| rule.on == StopOn::Deadline);
        let walker = &mut self.walkers[who];
        walker.start = moment::start_day(begins, zone);
        walker.deadline =
            deadlines.filter_map(|rule| rule.after).map(|after| moment::deadline(begins, after, zone)).min();
        if begins > entered {
            walker.waits_for(slot::WINDOW);
        }
        walker.reached = entered;
        self.walk(who, begins);
    }

    /// Lets the account whose turn it is do one thing; false, when all is done.
    fn turn(&mut self) -> bool {
        let Some(Reverse((_, _, account))) = self.next.pop() else { return false };
        self.serve(account);
        self.line_up(account);
        true
    }

    /// Leads somebody from a moment on to the next message, and into the row for it.
    fn walk(&mut self, who: usize, from: DateTime<Utc>) {
        let (plan, recipient) = (self.plan, &self.plan.recipients[who]);
        let opening = &plan.openings[recipient.opening];
        let zone = opening.zone();
        let (mut at, mut rested) = (from, self.walkers[who].reached);
        for _ in 0..=plan.config.steps.len() {
            let Some(index) = self.walkers[who].step else { return self.over(at) };
            if self.is_stopped(who, at) {
                return;
            }
            let walker = &mut self.walkers[who];
            let next = match &plan.config.steps[index] {
                Step::Send(_) | Step::AiSend(_) => return self.wait(who, at, at, rested),
                Step::Wait(wait) => {
                    rested = walker.reached;
                    match moment::wait(&wait.wait, at, walker.start, opening, plan.calendar) {
                        Some(end) => at = end,
                        None => return self.note(who, at, Outcome::Exited(slot::NO_WINDOW)),
                    }
                    &wait.next
                }
                Step::WaitReply(wait) => {
                    rested = walker.reached;
                    at = moment::after(at, wait.timeout, zone);
                    &wait.on_timeout
                }
                Step::Branch(branch) => {
                    let facts = walker.facts_at(at, recipient, zone, plan.calendar);
                    let case = branch.cases.iter().find(|case| facts.meet(&case.when));
                    case.map_or(&branch.otherwise, |case| &case.next)
                }
                Step::Split(split) => match split::arm(split, recipient.id) {
                    Some(arm) => {
                        walker.facts.arms.insert(split.id.clone(), arm.key.clone());
                        &arm.next
                    }
                    None => return self.note(who, at, Outcome::Exited("no_arm")),
                },
                Step::Tag(tag) => {
                    walker.tag(tag);
                    &tag.next
                }
                Step::Handoff(handoff) => &handoff.next,
                Step::End(_) => return self.over(at),
            };
            self.walkers[who].step = self.index_of(next);
            self.walkers[who].reached = at;
        }
    }

    fn index_of(&self, next: &Next) -> Option<usize> {
        next.step().and_then(|id| self.steps.get(id)).copied()
    }

    /// Asks the plan's rules at a moment; notes the end, if one of them has come true.
    fn is_stopped(&mut self, who: usize, at: DateTime<Utc>) -> bool {
        let config = self.plan.config;
        if let Some(deadline) = self.walkers[who].deadline.filter(|deadline| *deadline <= at) {
            self.note(who, deadline, Outcome::Exited("deadline"));
            return true;
        }
        let Some(goal) =
            config.goal.as_ref().filter(|_| config.stop.iter().any(|rule| rule.on == StopOn::Goal))
        else {
            return false;
        };
        let recipient = &self.plan.recipients[who];
        let zone = self.plan.openings[recipient.opening].zone();
        let met = self.walkers[who].facts_at(at, recipient, zone, self.plan.calendar).meet(goal);
        if met {
            self.note(who, at, Outcome::Exited("goal"));
        }
        met
    }

    /// Puts somebody into the row for a message that is due at a moment, or later, where the window is shut. `rested`: since when
    /// they have stood at one step until that moment.
    fn wait(&mut self, who: usize, due: DateTime<Utc>, now: DateTime<Utc>, rested: DateTime<Utc>) {
        let recipient = &self.plan.recipients[who];
        let Some(open) = self.timetables[recipient.opening].next_allowed(due) else {
            return self.note(who, now, Outcome::Exited(slot::NO_WINDOW));
        };
        let walker = &mut self.walkers[who];
        if open > due {
            walker.waits_for(slot::WINDOW);
        }
        let written_to_today = walker.was_written_to(self.today.on);
        let known = walker.answered_at.is_some() || (written_to_today && open < self.today.ends_at);
        let reached = walker.reached;
        // A shut window has been met already, by the message itself.
        let rested = if open > due { reached } else { rested };
        let waiting = Waiting { due: open, rested, id: recipient.id, who, reached };
        self.rows[recipient.account].of(!known).join(waiting);
    }

    /// Notes when an account serves next.
    fn line_up(&mut self, account: usize) {
        if let Some((at, _)) = self.rows[account].next() {
            self.next.push(Reverse((at, self.rows[account].load.sends, account)));
        }
    }

    /// Lets an account do one thing: serve one of its row, or see that it has done enough for now.
    fn serve(&mut self, account: usize) {
        let plan = self.plan;
        let Account { standing, pace, limits, .. } = &plan.accounts[account];
        let row = &mut self.rows[account];
        let Some((now, stranger)) = row.next() else { return };
        match self.timetables.iter().filter_map(|timetable| timetable.next_allowed(now)).min() {
            Some(open) if open > now => {
                // The row was longer than the window of everybody in it; or its day's cap opens while the window is shut.
                let code = if row.due_from.0 == row.free_at { row.due_from.1 } else { slot::WINDOW };
                row.due_from = (open, code);
                row.put_off(open);
                return;
            }
            Some(_) => {}
            None => {
                let waiting = [row.known.leave(), row.strangers.leave()].concat();
                for who in waiting {
                    self.note(who, now, Outcome::Exited(slot::NO_WINDOW));
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
        let counts = Counts {
            account: row.sent,
            account_new: row.new_contacts,
            organization: *organization,
            ..Counts::default()
        };
        if plan.config.caps.on_cap == OnCap::Defer {
            if let Some(cap) = caps::exhausted(plan.caps, *standing, &counts, today) {
                row.due_from = (tomorrow, cap.code());
                row.put_off(tomorrow);
                return;
            }
            if stranger && caps::strangers_exhausted(plan.caps, *standing, &counts, today) {
                row.strangers_from = tomorrow;
                row.strangers.put_off(tomorrow);
                return;
            }
        }
        let shut =
            limits.iter().filter_map(|(limit, code)| Some((self.limits[*limit].opens_after(now)?, *code)));
        if let Some((open, code)) = shut.max() {
            row.free_at = open;
            row.held_by = Some((open, code));
            return;
        }
        let Some((who, asked)) = row.of(stranger).take() else { return };
        let recipient = &plan.recipients[who];
        let timetable = &self.timetables[recipient.opening];
        // A shut window and a day on which the account had sent enough have moved the due time.
        let mut due = asked;
        let walker = &mut self.walkers[who];
        let new_people = Cap::NewContactsPerAccountPerDay.code();
        let strangers_from =
            stranger.then_some((row.strangers_from, new_people)).filter(|(from, _)| asked < *from);
        let of_account = Some(row.due_from).filter(|(from, code)| {
            // The cap of the day before is what they wait for, and not the night behind it.
            let behind = strangers_from.and_then(|(strangers, _)| timetable.next_allowed(strangers));
            asked < *from && (*code != slot::WINDOW || behind != Some(*from))
        });
        for (from, code) in of_account.into_iter().chain(strangers_from) {
            due = due.max(timetable.next_allowed(from).unwrap_or(now));
            walker.waits_for(code);
        }
        if now > due {
            let held = row.held_by.filter(|(until, _)| due < *until);
            walker.waits_for(held.map_or(reason::SPREAD, |(_, code)| code));
        }
        if self.is_stopped(who, now) {
            return;
        }
        let timetable = &self.timetables[recipient.opening];
        let (row, walker) = (&mut self.rows[account], &mut self.walkers[who]);
        walker.turn_to(today);
        let counts = walker.counted(counts);
        let rules = slot::Rules {
            house: plan.zone,
            person: plan.openings[recipient.opening].zone(),
            caps: plan.caps,
            on_cap: plan.config.caps.on_cap,
            // Whoever waits in a row waits by the plan, and is not late.
            late: None,
            standing: *standing,
        };
        match slot::ask(now, now, |at| timetable.next_allowed(at), &rules, &counts) {
            Slot::Due { at, code } => {
                walker.waits_for(code);
                row.load.longest_wait = row.load.longest_wait.max(now - asked);
                let reached = walker.reached;
                self.wait(who, at, now, reached);
            }
            Slot::Exit { code } => self.note(who, now, Outcome::Exited(code)),
            Slot::Skip { code } => self.skip(who, due, now, code),
            Slot::Now => {
                let unsayable = recipient.unsayable.iter().find(|(step, ..)| walker.step == Some(*step));
                match unsayable {
                    Some((_, code, OnMissingVariable::Exit)) => self.note(who, now, Outcome::Exited(code)),
                    Some((_, code, _)) => self.skip(who, due, now, code),
                    None => {
                        row.new_contacts += u32::from(counts.is_stranger());
                        row.sent += 1;
                        row.free_at = now + *pace;
                        row.load.sends += 1;
                        row.load.ends_at = Some(now);
                        row.load.longest_wait = row.load.longest_wait.max(now - asked);
                        *self.organization.entry(today).or_default() += 1;
                        walker.is_sent(now);
                        for (limit, _) in limits {
                            self.limits[*limit].take(now);
                        }
                        self.note(who, now, Outcome::Sent);
                        self.go_on(who, due, now, true);
                    }
                }
            }
        }
    }

    fn skip(&mut self, who: usize, due: DateTime<Utc>, now: DateTime<Utc>, code: &'static str) {
        self.note(who, now, Outcome::Skipped(code));
        self.go_on(who, due, now, false);
    }

    /// Leads somebody on behind a message that is over.
    fn go_on(&mut self, who: usize, due: DateTime<Utc>, now: DateTime<Utc>, was_sent: bool) {
        let plan = self.plan;
        let recipient = &plan.recipients[who];
        let zone = plan.openings[recipient.opening].zone();
        let walker = &mut self.walkers[who];
        let Some(index) = walker.step else { return };
        let step = &plan.config.steps[index];
        if *step.id() == plan.config.entry && walker.sent == u32::from(was_sent) {
            walker.start = moment::start_day(due, zone);
        }
        let answers = was_sent && recipient.answers && walker.sent == 1;
        let next = self.index_of(next_of(step));
        let walker = &mut self.walkers[who];
        (walker.step, walker.reached) = (next, now);
        if answers {
            walker.answers(now);
            match next.map(|index| &plan.config.steps[index]) {
                // The answer is this step's own.
                Some(Step::WaitReply(wait)) if wait.on_reply.is_some() => {
                    self.walkers[who].step = wait.on_reply.as_ref().and_then(|next| self.index_of(next));
                }
                _ if plan.config.stop.iter().any(|rule| rule.on == StopOn::Reply) => return self.over(now),
                _ => {}
            }
        }
        self.walk(who, now);
    }

    /// Somebody's way is over.
    fn over(&mut self, at: DateTime<Utc>) {
        self.finishes_at = self.finishes_at.max(Some(at));
    }

    /// Notes what becomes of the message that somebody waits for, or would have come to.
    fn note(&mut self, who: usize, at: DateTime<Utc>, outcome: Outcome) {
        let walker = &mut self.walkers[who];
        let waited = std::mem::take(&mut walker.waited);
        if let Some(step) = walker.step {
            self.planned.push(Planned { recipient: who, step, at, outcome, waited });
        }
        if matches!(outcome, Outcome::Exited(_)) {
            self.over(at);
        }
    }

    fn end(mut self) -> Rehearsal {
        self.planned.sort_by_key(|planned| (planned.at, planned.recipient));
        let loads: Vec<Load> = self.rows.into_iter().map(|row| row.load).collect();
        let last = loads.iter().enumerate().max_by_key(|(_, load)| load.ends_at);
        let held_up = last.filter(|(_, load)| load.longest_wait >= WORTH_NAMING);
        Rehearsal {
            planned: self.planned,
            ends_at: last.and_then(|(_, load)| load.ends_at),
            finishes_at: self.finishes_at,
            bottleneck: held_up.map(|(account, _)| account),
            loads,
        }
    }
}

/// Returns where a step that sends goes on.
fn next_of(step: &Step) -> &Next {
    match step {
        Step::Send(step) => &step.next,
        Step::AiSend(step) => &step.next,
        _ => &Next::End,
    }
}

#[cfg(test)]
mod tests;
