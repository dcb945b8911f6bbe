//! Where an enrollment goes from here: a function of what is known. It changes nothing; [`super::advance`] writes what it says.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::campaigns::enrollments::Enrollment;
use entropy_schema::campaigns::steps::{SendJob, Step as Row};
use serde_json::Value;

use super::rules;
use super::send::Outgoing;
use super::settled::{Sent, settled};
use super::situation::Situation;
use crate::calendar::day_of;
use crate::sop::config::key::Next;
use crate::sop::config::rules::StopAction;
use crate::sop::config::step::{Step, WaitReply};
use crate::sop::{moment, split};

/// Steps of one run: more than any plan has. No plan has a cycle.
const MOST_STEPS: usize = 300;

/// What is locked beside the enrollment, or must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// The lane of the account, for whoever enqueues.
    pub lane: bool,
    /// The conversation.
    pub conversation: bool,
    /// The contact.
    pub contact: bool,
}

impl Held {
    /// Tells whether it is anything.
    pub fn any(self) -> bool {
        self.lane || self.conversation || self.contact
    }

    /// Returns both.
    #[must_use]
    pub fn and(self, other: Held) -> Held {
        Held {
            lane: self.lane || other.lane,
            conversation: self.conversation || other.conversation,
            contact: self.contact || other.contact,
        }
    }

    /// Tells whether it is enough.
    pub fn covers(self, needs: Held) -> bool {
        self.and(needs) == self
    }
}

/// What happens beside the enrollment and its steps.
#[derive(Debug, Clone, Default)]
pub struct Moves {
    /// This is sent; the last of the steps is its own.
    pub send: Option<Outgoing>,
    /// A model is asked for the text of the last of the steps.
    pub write: bool,
    /// The text of the last of the steps waits for a person.
    pub review: bool,
    /// It has been given a place in front of the account.
    pub takes_place: bool,
    /// The contact is given these.
    pub add_tags: Vec<String>,
    /// These are taken from it.
    pub remove_tags: Vec<String>,
    /// The conversation is given to a person: a stable word, and what they should know.
    pub hand_off: Option<(&'static str, String)>,
}

impl Moves {
    /// Returns what must be locked before the enrollment is.
    pub fn needs(&self) -> Held {
        Held {
            lane: self.send.is_some() || self.takes_place,
            conversation: self.hand_off.is_some(),
            contact: !self.add_tags.is_empty() || !self.remove_tags.is_empty(),
        }
    }
}

/// Where an enrollment goes.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The enrollment as it stands then.
    pub enrollment: Enrollment,
    /// The steps that changed, in order.
    pub steps: Vec<Row>,
    /// What else happens.
    pub moves: Moves,
}

/// What is decided.
#[derive(Debug, Clone)]
pub enum Decided {
    /// A message is due: what was sent before must be counted first.
    Count,
    /// This.
    Outcome(Box<Outcome>),
}

/// Decides where an enrollment goes that is due.
///
/// `current` is what is on record of the step at which it stands, `job` how the job of that step stands.
pub fn decide(situation: &Situation<'_>, current: Option<&Row>, job: Option<&SendJob>) -> Decided {
    let walk = Walk {
        situation,
        enrollment: situation.enrollment.clone(),
        tags: situation.facts.tags.clone(),
        steps: Vec::new(),
        moves: Moves::default(),
        current: None,
    };
    walk.run(current, job)
}

/// An enrollment under way.
pub(super) struct Walk<'a> {
    pub(super) situation: &'a Situation<'a>,
    pub(super) enrollment: Enrollment,
    tags: Vec<String>,
    steps: Vec<Row>,
    pub(super) moves: Moves,
    /// What was on record of the step at which it stands: a text that was written for it goes along.
    pub(super) current: Option<Row>,
}

/// What a step leads to.
pub(super) enum Then {
    /// On to there, where it is due at this moment.
    On(Next, DateTime<Utc>),
    /// It stays; everything is said.
    Stay,
    /// What was sent must be counted first.
    Count,
}

impl<'a> Walk<'a> {
    fn run(mut self, current: Option<&Row>, job: Option<&SendJob>) -> Decided {
        let (now, plan) = (self.situation.now, self.situation.plan);
        match self.situation.facts.plan_status.as_str() {
            "RUNNING" => {}
            "PAUSED" => {
                self.leave_place(current, "sop_paused");
                self.wait(now + TimeDelta::hours(1), "sop_paused");
                return self.done();
            }
            _ => {
                self.leave_place(current, "canceled");
                self.exit("canceled", None);
                return self.done();
            }
        }
        let mut row = current.cloned();
        let mut job = job.cloned();
        for _ in 0..MOST_STEPS {
            let id = self.enrollment.step_id.clone().unwrap_or_default();
            let Some(step) = plan.config.step(&id) else {
                self.fail("step_missing");
                return self.done();
            };
            // What became of a message counts before the rules are asked: they may be about that.
            let sent = match step {
                Step::Send(_) | Step::AiSend(_) => self.settled(row.as_mut(), job.as_ref()),
                _ => Sent::No,
            };
            self.current = row.clone();
            if let Sent::Under(until, code) = sent {
                if !self.stop(step, row.as_ref()) {
                    self.wait(until, code);
                }
                return self.done();
            }
            if let Sent::Never(code) = sent {
                self.exit(code, None);
                return self.done();
            }
            if self.stop(step, row.as_ref()) {
                if let (Sent::Over(at), "paused") = (sent, self.enrollment.state.as_str()) {
                    self.goes_on_behind(step, at);
                }
                return self.done();
            }
            let then = match sent {
                Sent::Over(at) => Then::On(next_of(step), at),
                _ => self.not_due(step).unwrap_or_else(|| self.step(step, row.as_ref(), job.as_ref())),
            };
            match then {
                Then::On(next, due) => {
                    let was_sent = matches!(sent, Sent::Over(_));
                    self.go(&next, due, was_sent);
                    if let (Step::WaitReply(_), Some(replied)) = (step, self.enrollment.replied_at) {
                        // The answer was this step's, also if it came at this very moment.
                        self.enrollment.reached_at =
                            self.enrollment.reached_at.max(replied + TimeDelta::microseconds(1));
                    }
                    if self.enrollment.finished_at.is_some() {
                        return self.done();
                    }
                }
                Then::Stay => return self.done(),
                Then::Count => return Decided::Count,
            }
            (row, job) = (None, None);
        }
        self.fail("too_many_steps");
        self.done()
    }

    fn done(self) -> Decided {
        let Walk { enrollment, steps, moves, .. } = self;
        Decided::Outcome(Box::new(Outcome { enrollment, steps, moves }))
    }

    /// Goes to another step, which is due at a moment.
    fn go(&mut self, next: &Next, due: DateTime<Utc>, was_sent: bool) {
        let now = self.situation.now;
        let Some(id) = next.step() else {
            self.enrollment.step_id = None;
            self.complete(None);
            return;
        };
        let steps = &self.situation.plan.config.steps;
        let waits_for_reply = steps.iter().any(|step| step.id() == id && matches!(step, Step::WaitReply(_)));
        self.enrollment.step_id = Some(id.as_str().to_owned());
        // Who answers before we know that our message has left has answered it.
        self.enrollment.reached_at =
            if was_sent && waits_for_reply { due.min(now) } else { now.max(self.enrollment.reached_at) };
        self.enrollment.planned_at = Some(due);
        self.enrollment.state = "active".to_owned();
        self.enrollment.wait_code = None;
    }

    /// Whoever had been given a place in front of the account is not in its row any more.
    fn leave_place(&mut self, row: Option<&Row>, reason: &str) {
        if let Some(row) = row.filter(|row| {
            let sends = matches!(row.kind.as_str(), "send" | "ai_send");
            sends && row.job_id.is_none() && matches!(row.state.as_str(), "due" | "planned")
        }) {
            let (state, reason) = ("deferred".to_owned(), Some(reason.to_owned()));
            self.steps.push(Row { state, reason, next_try_at: None, ..row.clone() });
        }
    }

    /// It is held behind a message that is over: when it goes on, that is not looked at again.
    fn goes_on_behind(&mut self, step: &Step, at: DateTime<Utc>) {
        let held = self.enrollment.clone();
        self.go(&next_of(step), at, true);
        if self.enrollment.finished_at.is_none() {
            let step_id = self.enrollment.step_id.take();
            self.enrollment = Enrollment { step_id, planned_at: self.enrollment.planned_at, ..held };
        }
    }

    /// Writes what became of the step at which it stands.
    pub(super) fn note(&mut self, step: &Step, state: &str, reason: Option<&str>) -> &mut Row {
        let now = self.situation.now;
        let written = self.current.as_ref().filter(|row| step.sends() && row.step_id == step.id().as_str());
        let over = matches!(state, "done" | "skipped" | "failed" | "sent" | "unknown" | "canceled");
        let enrollment = &self.enrollment;
        let row = Row {
            enrollment_id: enrollment.id,
            step_id: step.id().as_str().to_owned(),
            organization_id: enrollment.organization_id,
            sop_id: enrollment.sop_id,
            version: enrollment.version,
            account_id: enrollment.account_id,
            contact_id: enrollment.contact_id,
            kind: step.type_name().to_owned(),
            state: state.to_owned(),
            reason: reason.map(str::to_owned),
            planned_at: enrollment.planned_at.unwrap_or(now),
            next_try_at: None,
            job_id: None,
            text: written.and_then(|row| row.text.clone()),
            run_id: written.and_then(|row| row.run_id),
            review_until: None,
            decided_by: written.and_then(|row| row.decided_by),
            sent_at: None,
            finished_at: over.then_some(now),
            written_at: written.and_then(|row| row.written_at),
            fallback_code: written.and_then(|row| row.fallback_code.clone()),
        };
        self.steps.push(row);
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }

    /// It waits until a moment, and no longer than its deadline.
    pub(super) fn wait(&mut self, until: DateTime<Utc>, code: &str) {
        let until = self.enrollment.deadline_at.map_or(until, |deadline| until.min(deadline));
        self.enrollment.state = "waiting".to_owned();
        self.enrollment.wait_code = Some(code.to_owned());
        self.enrollment.due_at = Some(until);
    }

    fn finish(&mut self, state: &str, reason: Option<&str>, outcome: Option<&str>) {
        self.enrollment.state = state.to_owned();
        self.enrollment.reason = reason.map(str::to_owned);
        self.enrollment.outcome = outcome.map(str::to_owned);
        self.enrollment.due_at = None;
        self.enrollment.wait_code = None;
        self.enrollment.finished_at = Some(self.situation.now);
    }

    fn complete(&mut self, outcome: Option<&str>) {
        self.finish("completed", None, outcome);
    }

    pub(super) fn exit(&mut self, reason: &str, outcome: Option<&str>) {
        self.finish("exited", Some(reason), outcome);
    }

    fn fail(&mut self, reason: &str) {
        self.finish("failed", Some(reason), None);
    }

    /// Asks the rules, and does what the first one says that has come true.
    fn stop(&mut self, step: &Step, row: Option<&Row>) -> bool {
        let situation = self.as_it_stands();
        let taken_by_next = match next_of(step) {
            Next::Step(next) if step.sends() => situation.plan.config.steps.iter().any(|other| {
                matches!(other, Step::WaitReply(WaitReply { id, on_reply: Some(_), .. }) if *id == next)
            }),
            _ => false,
        };
        let goal = rules::goal(&situation);
        let stopped = rules::stopped(&situation, Some(step), taken_by_next);
        let now = situation.now;
        let found = stopped.map(|stopped| (stopped.rule.clone(), stopped.reason));
        if goal && self.enrollment.goal_at.is_none() {
            self.enrollment.goal_at = Some(now);
        }
        let Some((rule, reason)) = found else { return false };
        match rule.action {
            StopAction::Pause => {
                self.enrollment.paused_from = Some("waiting".to_owned());
                self.enrollment.state = "paused".to_owned();
                self.enrollment.reason = Some(reason.to_owned());
                self.enrollment.wait_code = Some("paused".to_owned());
                // What has paused it does not pause it again; what comes meanwhile counts.
                self.enrollment.reached_at = now + TimeDelta::microseconds(1);
                self.leave_place(row, reason);
                let zone = self.situation.zone();
                self.enrollment.due_at = rule.resume_after.map(|after| moment::after(now, after, zone));
                return true;
            }
            StopAction::Handoff => {
                let note = match reason {
                    "replied" => "A customer has answered a campaign; a person should look.",
                    _ => "A campaign gives this conversation to a person.",
                };
                self.moves.hand_off = Some(("campaign", note.to_owned()));
            }
            StopAction::Exit => {}
        }
        // What has passed its gate is not called back: how it ends is noted all the same.
        let stands =
            |row: &&Row| matches!(row.state.as_str(), "planned" | "due" | "deferred" | "held_for_review");
        if let Some(row) = row.filter(stands) {
            let (state, reason) = ("canceled".to_owned(), Some(reason.to_owned()));
            let finished_at = Some(now);
            self.steps.push(Row { state, reason, finished_at, next_try_at: None, ..row.clone() });
        }
        self.exit(reason, rule.outcome.as_deref());
        true
    }

    /// Stays at a step whose time has not come: something has happened meanwhile that changes nothing. Waits have times of their own.
    fn not_due(&mut self, step: &Step) -> Option<Then> {
        let planned = self.enrollment.planned_at.filter(|planned| *planned > self.situation.now)?;
        if matches!(step, Step::Wait(_) | Step::WaitReply(_)) {
            return None;
        }
        let code = self.enrollment.wait_code.clone().unwrap_or_else(|| "begins".to_owned());
        self.wait(planned, &code);
        Some(Then::Stay)
    }

    /// Everything known, with what this run has changed of it.
    pub(super) fn as_it_stands(&self) -> Situation<'a> {
        Situation {
            now: self.situation.now,
            enrollment: self.enrollment.clone(),
            facts: self.situation.facts,
            plan: self.situation.plan,
            calendar: self.situation.calendar.clone(),
            counts: self.situation.counts,
            row: self.situation.row,
            tags: Some(self.tags.clone()),
            words: self.situation.words.clone(),
            links: self.situation.links.clone(),
        }
    }

    fn step(&mut self, step: &Step, row: Option<&Row>, job: Option<&SendJob>) -> Then {
        let now = self.situation.now;
        let planned = self.enrollment.planned_at.unwrap_or(now);
        match step {
            Step::Send(_) | Step::AiSend(_) => self.say(step, job),
            Step::Wait(wait) => {
                let end = match row {
                    Some(row) => Some(row.planned_at),
                    None => {
                        let start = self.enrollment.start_day;
                        let start = start.unwrap_or_else(|| day_of(now, self.situation.zone()));
                        let config = &self.situation.plan.config;
                        let calendar = self.situation.calendar.chosen(config.send_window.holiday_calendar);
                        moment::wait(&wait.wait, planned, start, &self.situation.opening(), calendar)
                    }
                };
                let Some(end) = end else {
                    self.note(step, "failed", Some("window_never_opens"));
                    self.exit("window_never_opens", None);
                    return Then::Stay;
                };
                self.until(step, end, "wait").unwrap_or(Then::On(wait.next.clone(), end))
            }
            Step::WaitReply(wait) => {
                let zone = self.situation.zone();
                let end =
                    row.map_or_else(|| moment::after(planned, wait.timeout, zone), |row| row.planned_at);
                let replied =
                    self.enrollment.replied_at.is_some_and(|replied| replied >= self.enrollment.reached_at);
                if let (true, Some(next)) = (replied, &wait.on_reply) {
                    self.note(step, "done", Some("replied"));
                    return Then::On(next.clone(), now);
                }
                self.until(step, end, "wait_reply").unwrap_or(Then::On(wait.on_timeout.clone(), end))
            }
            Step::Branch(branch) => {
                let facts = self.as_it_stands().for_conditions();
                let case = branch.cases.iter().position(|case| facts.meet(&case.when));
                let next = case.map_or(&branch.otherwise, |at| &branch.cases[at].next).clone();
                let way = case.map_or_else(|| "else".to_owned(), |at| format!("case_{at}"));
                self.note(step, "done", Some(&way));
                Then::On(next, planned)
            }
            Step::Split(split) => {
                let Some(arm) = split::arm(split, self.enrollment.id) else {
                    self.fail("no_arm");
                    return Then::Stay;
                };
                if let Value::Object(arms) = &mut self.enrollment.arms {
                    arms.insert(split.id.as_str().to_owned(), Value::String(arm.key.as_str().to_owned()));
                }
                let next = arm.next.clone();
                self.note(step, "done", Some(arm.key.as_str()));
                Then::On(next, planned)
            }
            Step::Tag(tag) => {
                for added in tag.add.iter().flatten() {
                    self.moves.remove_tags.retain(|other| other != added);
                    self.moves.add_tags.push(added.clone());
                    if !self.enrollment.own_tags.contains(added) {
                        self.enrollment.own_tags.push(added.clone());
                    }
                    if !self.tags.contains(added) {
                        self.tags.push(added.clone());
                    }
                }
                for removed in tag.remove.iter().flatten() {
                    self.moves.add_tags.retain(|other| other != removed);
                    self.moves.remove_tags.push(removed.clone());
                    self.tags.retain(|other| other != removed);
                }
                self.note(step, "done", None);
                Then::On(tag.next.clone(), planned)
            }
            Step::Handoff(handoff) => {
                let chat = self.situation.facts.conversation_id;
                self.moves.hand_off = Some(("campaign", handoff.note.clone()));
                self.note(step, "done", chat.is_none().then_some("no_conversation"));
                Then::On(handoff.next.clone(), planned)
            }
            Step::End(end) => {
                self.note(step, "done", None);
                self.complete(Some(&end.outcome));
                Then::Stay
            }
        }
    }

    /// Stays at a step until a moment; none, once that has come.
    fn until(&mut self, step: &Step, end: DateTime<Utc>, code: &str) -> Option<Then> {
        let over = end <= self.situation.now;
        let row = self.note(step, if over { "done" } else { "planned" }, None);
        row.planned_at = end;
        if over {
            return None;
        }
        row.next_try_at = Some(end);
        self.wait(end, code);
        Some(Then::Stay)
    }

    /// The plan itself has moved a message: it is due then. If it is the first, the plan's days count from there.
    pub(super) fn moved(&mut self, step: &Step, until: DateTime<Utc>) {
        self.enrollment.planned_at = Some(until);
        if self.enrollment.sent == 0 && *step.id() == self.situation.plan.config.entry {
            self.enrollment.start_day = Some(moment::start_day(until, self.situation.zone()));
        }
    }

    /// Reads what became of the step's message, notes it where nobody has, and counts it.
    fn settled(&mut self, row: Option<&mut Row>, job: Option<&SendJob>) -> Sent {
        let Some(row) = row else { return Sent::No };
        let (sent, changed) = settled(row, job, self.situation.now);
        if changed {
            self.steps.push(row.clone());
        }
        match row.state.as_str() {
            "sent" => {
                self.enrollment.sent += 1;
                self.enrollment.failures = 0;
            }
            "failed" => self.enrollment.failures += 1,
            _ => {}
        }
        sent
    }
}

/// Returns where a step that sends goes on.
pub(super) fn next_of(step: &Step) -> Next {
    match step {
        Step::Send(step) => step.next.clone(),
        Step::AiSend(step) => step.next.clone(),
        _ => Next::End,
    }
}
