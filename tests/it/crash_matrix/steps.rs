//! The numbered steps, and what a death at each may leave behind. The same list stands in `docs/RELIABILITY.md`, and in
//! the sources as `step!("…")`; `document.rs` compares the three.

use entropy_jobs::lifecycle::Delivery;

/// The process that comes by a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Api,
    Worker,
    Scheduler,
}

impl Role {
    /// Returns its name in the document.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Role::Api => "api",
            Role::Worker => "worker",
            Role::Scheduler => "scheduler",
        }
    }
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    /// Jobs of one delivery semantics.
    Jobs,
    /// What customers wrote, and its answers.
    Dialogue,
    /// People on their way through a plan.
    Campaign,
    /// A plan that takes in whom it is meant for.
    Audience,
    /// Texts of a plan that a model writes.
    Writing,
}

/// What may have become of the job that was under way. Every other job is carried out, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// Its way does not lead over this step.
    NotHere,
    /// It is carried out like the others.
    Kept,
    /// It is the one that ends open: a send of unknown outcome, or dead where work must not be repeated.
    Open,
    /// Whatever runs beside the step may end open: at most one, since a lane runs one job at a time.
    PerhapsOpen,
}

impl After {
    /// Returns the word for it in the document.
    pub(super) fn word(self, delivery: Delivery) -> &'static str {
        match (self, delivery) {
            (After::NotHere, _) => "–",
            (After::Kept, _) => "kept",
            (After::Open, Delivery::OnceOrAsk) => "1 unknown",
            (After::Open, _) => "1 dead",
            (After::PerhapsOpen, Delivery::OnceOrAsk) => "≤ 1 unknown",
            (After::PerhapsOpen, _) => "≤ 1 dead",
        }
    }

    /// Tells whether so many jobs may end open.
    pub(super) fn allows(self, open: usize) -> bool {
        match self {
            After::NotHere | After::Kept => open == 0,
            After::Open => open == 1,
            After::PerhapsOpen => open <= 1,
        }
    }
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    /// Its name, which is that of its failpoint.
    pub(super) name: &'static str,
    /// Who comes by.
    pub(super) role: Role,
    /// At which time of coming by the process dies, counted from 1.
    pass: u8,
    once_or_ask: After,
    at_least_once: After,
    at_most_once: After,
}

/// The semantics, in the order of the columns below and in the document.
pub(super) const DELIVERIES: [Delivery; 3] =
    [Delivery::OnceOrAsk, Delivery::AtLeastOnce, Delivery::AtMostOnce];

const fn step(name: &'static str, role: Role, pass: u8, after: [After; 3]) -> Step {
    let [once_or_ask, at_least_once, at_most_once] = after;
    Step { name, role, pass, once_or_ask, at_least_once, at_most_once }
}

impl Step {
    /// Returns at which time of coming by the process dies, counted from 1.
    pub(super) fn pass(&self, delivery: Delivery) -> u8 {
        // Jobs without a lane may all be handed out in one go.
        let in_one_go = delivery == Delivery::AtLeastOnce && self.name.starts_with("relay.");
        if in_one_go { 1 } else { self.pass }
    }

    /// Returns what a death here may leave behind.
    pub(super) fn after(&self, delivery: Delivery) -> After {
        match delivery {
            Delivery::OnceOrAsk => self.once_or_ask,
            Delivery::AtLeastOnce => self.at_least_once,
            Delivery::AtMostOnce => self.at_most_once,
        }
    }

    /// Returns what is under way when a process dies here.
    pub(super) fn under(&self) -> Under {
        match self.name.split('.').next().unwrap_or_default() {
            "intake" | "event" | "reply" | "ask" | "overdue" => Under::Dialogue,
            "sop" => Under::Campaign,
            "tick" | "run" => Under::Audience,
            "write" => Under::Writing,
            _ => Under::Jobs,
        }
    }

    /// Tells whether a death here is also tried while a model writes a campaign's text: its answer is lost with the process, and
    /// then the job.
    pub(super) fn is_of_a_campaigns_text(&self) -> bool {
        matches!(self.name, "ask.read" | "ask.looked_up")
    }

    /// Tells whether a death here is also tried with a campaign's message under way: nobody can know of it, or it was sent.
    pub(super) fn is_of_a_campaigns_message(&self) -> bool {
        matches!(self.name, "gate.committed" | "send.recorded")
    }

    /// Tells whether a death here is also tried with an answer under way: one for each way in which a send may stand.
    pub(super) fn is_of_an_answer(&self) -> bool {
        matches!(self.name, "gate.written" | "gate.committed" | "send.answered" | "send.recorded")
    }

    /// Tells whether a death here leaves a call of the model that was never made: it is waited for as long as it could take.
    pub(super) fn waits_for_a_call(&self) -> bool {
        matches!(self.name, "reply.committed" | "ask.handed_over" | "write.committed")
    }

    /// Returns the steps at which other workers have to die first, so that there is something to rescue.
    pub(super) fn rescues(&self, delivery: Delivery) -> Vec<&'static Step> {
        let first: &[&str] = match (self.name, delivery) {
            ("rescuer.redelivering" | "rescuer.redelivered", _) => &["relay.picked"],
            ("rescuer.found" | "rescuer.settled" | "rescuer.committed", delivery) => match delivery {
                Delivery::OnceOrAsk => &["gate.committed"],
                Delivery::AtLeastOnce => &["cost.committed"],
                Delivery::AtMostOnce => &["worker.ran"],
            },
            ("ask.looked_up", _) => &["ask.read"],
            // The second death quarantines the job.
            ("overdue.written" | "overdue.committed", _) => &["reply.locked", "reply.locked"],
            _ => &[],
        };
        first.iter().filter_map(|name| STEPS.iter().find(|step| step.name == *name)).collect()
    }
}

use After::{Kept, NotHere, Open, PerhapsOpen};
use Role::{Api, Scheduler, Worker};

/// Every step, on the way from a request to its result; then what helps from aside.
#[rustfmt::skip]
pub(super) const STEPS: &[Step] = &[
    //    name                   process   pass  once_or_ask  at_least_once  at_most_once
    step("api.read",             Api,       2, [Kept,        Kept,          NotHere]),
    step("enqueue.begun",        Api,       2, [Kept,        Kept,          NotHere]),
    step("enqueue.written",      Api,       2, [Kept,        Kept,          NotHere]),
    step("enqueue.committed",    Api,       2, [Kept,        Kept,          NotHere]),
    step("api.answering",        Api,       2, [Kept,        Kept,          NotHere]),
    step("relay.picked",         Worker,    3, [Kept,        Kept,          Kept]),
    step("relay.pushed",         Worker,    3, [PerhapsOpen, Kept,          PerhapsOpen]),
    step("worker.delivered",     Worker,    3, [Kept,        Kept,          Kept]),
    step("worker.claimed",       Worker,    3, [Kept,        Kept,          Open]),
    step("gate.locked",          Worker,    3, [Kept,        NotHere,       NotHere]),
    step("gate.written",         Worker,    3, [Kept,        NotHere,       NotHere]),
    step("gate.committed",       Worker,    3, [Open,        NotHere,       NotHere]),
    step("send.handed_over",     Worker,    3, [Open,        NotHere,       NotHere]),
    step("send.answered",        Worker,    3, [Open,        NotHere,       NotHere]),
    step("send.read",            Worker,    3, [Open,        NotHere,       NotHere]),
    step("send.recorded",        Worker,    3, [Kept,        NotHere,       NotHere]),
    step("cost.written",         Worker,    3, [NotHere,     Kept,          NotHere]),
    step("cost.committed",       Worker,    3, [NotHere,     Kept,          NotHere]),
    step("worker.ran",           Worker,    3, [Kept,        Kept,          Open]),
    step("worker.ended",         Worker,    3, [PerhapsOpen, Kept,          PerhapsOpen]),
    step("worker.acknowledging", Worker,    3, [PerhapsOpen, Kept,          PerhapsOpen]),
    step("janitor.trimmed",      Worker,    1, [PerhapsOpen, Kept,          PerhapsOpen]),
    step("rescuer.redelivering", Worker,    1, [Kept,        Kept,          Kept]),
    step("rescuer.redelivered",  Worker,    1, [PerhapsOpen, Kept,          PerhapsOpen]),
    step("rescuer.found",        Worker,    1, [Open,        Kept,          Open]),
    step("rescuer.settled",      Worker,    1, [Open,        Kept,          Open]),
    step("rescuer.committed",    Worker,    1, [Open,        Kept,          Open]),
    step("schedule.due",         Scheduler, 1, [NotHere,     Kept,          NotHere]),
    step("schedule.written",     Scheduler, 1, [NotHere,     Kept,          NotHere]),
    step("schedule.committed",   Scheduler, 1, [NotHere,     Kept,          NotHere]),
    step("control.cancelled",    Api,       1, [Kept,        NotHere,       NotHere]),
    step("control.paused",       Api,       1, [Kept,        NotHere,       NotHere]),
    // An event of the provider, and the answer to what a customer wrote.
    step("intake.begun",         Api,       2, [NotHere,     Kept,          NotHere]),
    step("intake.written",       Api,       2, [NotHere,     Kept,          NotHere]),
    step("intake.committed",     Api,       2, [NotHere,     Kept,          NotHere]),
    step("event.written",        Worker,    2, [NotHere,     Kept,          NotHere]),
    step("event.committed",      Worker,    2, [NotHere,     Kept,          NotHere]),
    step("event.noted",          Worker,    2, [NotHere,     Kept,          NotHere]),
    step("reply.locked",         Worker,    1, [NotHere,     Kept,          NotHere]),
    step("reply.reserved",       Worker,    2, [NotHere,     Kept,          NotHere]),
    step("reply.committed",      Worker,    2, [NotHere,     Kept,          NotHere]),
    step("ask.handed_over",      Worker,    2, [NotHere,     Kept,          NotHere]),
    step("ask.answered",         Worker,    2, [NotHere,     Kept,          NotHere]),
    step("ask.read",             Worker,    2, [NotHere,     Kept,          NotHere]),
    step("ask.looked_up",        Worker,    1, [NotHere,     Open,          NotHere]),
    step("reply.booked",         Worker,    2, [NotHere,     Kept,          NotHere]),
    step("reply.enqueued",       Worker,    2, [NotHere,     Kept,          NotHere]),
    step("reply.concluded",      Worker,    2, [NotHere,     Kept,          NotHere]),
    step("overdue.written",      Worker,    1, [NotHere,     Open,          NotHere]),
    step("overdue.committed",    Worker,    1, [NotHere,     Open,          NotHere]),
    // Somebody's way through a plan.
    step("sop.enrolled",         Api,       2, [NotHere,     Kept,          NotHere]),
    step("sop.taken",            Worker,    3, [NotHere,     Kept,          NotHere]),
    step("sop.dispatched",       Worker,    3, [NotHere,     Kept,          NotHere]),
    step("sop.decided",          Worker,    3, [NotHere,     Kept,          NotHere]),
    step("sop.written",          Worker,    3, [NotHere,     Kept,          NotHere]),
    step("sop.advanced",         Worker,    3, [NotHere,     Kept,          NotHere]),
    step("sop.settled",          Worker,    2, [Open,        NotHere,       NotHere]),
    step("sop.heard",            Worker,    1, [NotHere,     Kept,          NotHere]),
    // A plan takes in by itself whom it is meant for.
    step("tick.written",         Scheduler, 1, [NotHere,     Kept,          NotHere]),
    step("tick.committed",       Scheduler, 1, [NotHere,     Kept,          NotHere]),
    step("run.frozen",           Worker,    1, [NotHere,     Kept,          NotHere]),
    step("run.paged",            Worker,    1, [NotHere,     Kept,          NotHere]),
    step("run.committed",        Worker,    2, [NotHere,     Kept,          NotHere]),
    step("run.ended",            Worker,    1, [NotHere,     Kept,          NotHere]),
    // A model writes a campaign's text.
    step("write.committed",      Worker,    2, [NotHere,     Kept,          NotHere]),
    step("write.written",        Worker,    2, [NotHere,     Kept,          NotHere]),
    step("write.concluded",      Worker,    2, [NotHere,     Kept,          NotHere]),
];

#[test]
fn a_step_allows_what_its_row_says_and_nothing_more() {
    let allowed = |after: After| (0..3).filter(|&open| after.allows(open)).collect::<Vec<_>>();
    assert_eq!(allowed(Kept), [0]);
    assert_eq!(allowed(Open), [1]);
    assert_eq!(allowed(PerhapsOpen), [0, 1]);
}
