//! What a step that sends has to say, and whether it may be said now: the part of [`super::decide`] that is about words.
//!
//! A text stands in the step's row before anything is sent that says it: what a model has written, and what waits for a person,
//! outlasts every wait and every process.

use std::collections::HashMap;

use chrono::TimeDelta;
use entropy_schema::campaigns::steps::{SendJob, Step as Row};

use super::checks::{Asker, Verdict, may_send};
use super::decide::{Then, Walk, next_of};
use super::send::{self, Outgoing, Rendered};
use super::settled::LOOK_AT_WAITING;
use super::situation::Situation;
use crate::ai::words::Action;
use crate::message::Message;
use crate::sop::config::rules::OnExpired;
use crate::sop::config::step::{OnMissingVariable, Review, Step};
use crate::sop::late;
use crate::sop::spread::{self, Turn};
use crate::sop::template::Given;

/// The reason of a step whose text is being written by a model; its job is the one that writes.
pub(super) const WRITING: &str = "writing";

/// The state of a step whose text waits for a person.
pub const HELD: &str = "held_for_review";

/// How long a text waits for a person where the plan does not say when a step is late.
const REVIEW: TimeDelta = TimeDelta::days(3);

/// What a step has to say.
pub(super) enum Words {
    /// This.
    Say(Outgoing),
    /// This, once a person has looked at it.
    Hold(String),
    /// A model is to write it.
    Write,
    /// Nothing.
    Nothing { code: &'static str, exits: OnMissingVariable },
}

/// Tells whether a model is writing the step's text.
pub(crate) fn is_writing(row: &Row) -> bool {
    row.state == "due" && row.reason.as_deref() == Some(WRITING)
}

/// Tells whether the other side has written since a model was asked for the step's text, which it has not read.
pub(super) fn is_outdated(row: &Row, situation: &Situation<'_>) -> bool {
    let replied = situation.enrollment.replied_at;
    row.written_at.zip(replied).is_some_and(|(written, replied)| replied > written)
}

/// Takes what was written out of a step: it is written anew.
pub(super) fn forget(row: &mut Row) {
    (row.text, row.run_id, row.written_at) = (None, None, None);
    (row.decided_by, row.review_until) = (None, None);
}

impl Walk<'_> {
    /// A message is due. `job` is how the job stands that was made for the step last.
    pub(super) fn say(&mut self, step: &Step, job: Option<&SendJob>) -> Then {
        let situation = self.as_it_stands();
        if let Some(row) = self.current.as_mut()
            && is_outdated(row, &situation)
        {
            forget(row);
            if row.state == HELD {
                row.state = "planned".to_owned();
            }
        }
        if let Some(then) = self.held(step).or_else(|| self.being_written(job)) {
            return then;
        }
        if let (Step::AiSend(ai), Some(text)) = (step, self.by_model())
            && ai.review.unwrap_or_default() == Review::Human
            && !self.was_decided()
        {
            return self.hold(step, text, "asked");
        }
        if situation.counts.is_none() {
            return Then::Count;
        }
        let now = situation.now;
        let planned = self.enrollment.planned_at.unwrap_or(now);
        match may_send(&situation, Asker::Step, matches!(step, Step::AiSend(_)), planned) {
            Verdict::Send => {}
            Verdict::NotYet { until, code, moves } => {
                if moves {
                    self.moved(step, until);
                }
                let row = self.note(step, "deferred", Some(code));
                row.next_try_at = Some(until);
                self.wait(until, code);
                return Then::Stay;
            }
            Verdict::Skip { code } => {
                self.note(step, "skipped", Some(code));
                return Then::On(next_of(step), now);
            }
            Verdict::Exit { code } => {
                self.note(step, "skipped", Some(code));
                self.exit(code, None);
                return Then::Stay;
            }
        }
        // Many may be due at once. Whoever was called has had its turn, and so has what a model was asked for.
        let called = matches!(self.enrollment.wait_code.as_deref(), Some("spread" | WRITING));
        let turn = situation.row.map(|row| spread::turn(now, &row, called, &situation.opening()));
        if let Some(turn @ (Turn::At(_) | Turn::Shut(_) | Turn::Never)) = turn {
            return self.queue(step, turn);
        }
        match self.words(step, &situation) {
            Words::Say(outgoing) => {
                let text = outgoing.message.readable().to_owned();
                self.note(step, "due", None).text = Some(text);
                self.moves.send = Some(outgoing);
                self.wait(now + LOOK_AT_WAITING, "sending");
                Then::Stay
            }
            Words::Hold(text) => self.hold(step, text, "sensitive_words"),
            Words::Write => {
                // As what waits in the lane: caps count it before it is paid for.
                self.note(step, "due", Some(WRITING));
                self.moves.write = true;
                self.wait(now + LOOK_AT_WAITING, WRITING);
                Then::Stay
            }
            Words::Nothing { code, exits } => {
                self.note(step, "skipped", Some(code));
                if exits == OnMissingVariable::Exit {
                    self.exit(code, None);
                    return Then::Stay;
                }
                Then::On(next_of(step), now)
            }
        }
    }

    /// Others are before it: it waits for its turn.
    fn queue(&mut self, step: &Step, turn: Turn) -> Then {
        let (until, state, code) = match turn {
            Turn::Now => return Then::Stay,
            Turn::At(place) => (place, "due", "spread"),
            Turn::Shut(until) => (until, "deferred", "window"),
            Turn::Never => {
                self.note(step, "skipped", Some("window_never_opens"));
                self.exit("window_never_opens", None);
                return Then::Stay;
            }
        };
        self.moved(step, until);
        self.note(step, state, Some(code)).next_try_at = Some(until);
        self.moves.takes_place = code == "spread";
        self.wait(until, code);
        Then::Stay
    }

    /// A text waits for a person: it goes on waiting, unless its time has passed. None: nothing waits for one.
    fn held(&mut self, step: &Step) -> Option<Then> {
        let until = self.current.as_ref().filter(|row| row.state == HELD)?.review_until;
        let now = self.situation.now;
        if let Some(until) = until.filter(|until| *until > now) {
            self.wait(until, HELD);
            return Some(Then::Stay);
        }
        self.note(step, "skipped", Some("review_expired"));
        let late = self.situation.plan.config.late.as_ref();
        if late.is_some_and(|late| late.on_expired == OnExpired::Exit) {
            self.exit("review_expired", None);
            return Some(Then::Stay);
        }
        Some(Then::On(next_of(step), now))
    }

    /// A model is writing: its job wakes the enrollment. None: none is. If its job ended without a word, the plan's own text
    /// takes the place.
    fn being_written(&mut self, job: Option<&SendJob>) -> Option<Then> {
        let row = self.current.as_mut().filter(|row| is_writing(row))?;
        if job.is_some_and(|job| job.final_state.is_none()) {
            self.wait(self.situation.now + LOOK_AT_WAITING, WRITING);
            return Some(Then::Stay);
        }
        let code = job.and_then(|job| job.code.clone());
        row.fallback_code = Some(code.unwrap_or_else(|| "writing_failed".to_owned()));
        None
    }

    /// Returns what a model has written for the step.
    fn by_model(&self) -> Option<String> {
        let row = self.current.as_ref()?;
        let written = row.written_at.is_some() && row.fallback_code.is_none();
        row.text.clone().filter(|_| written)
    }

    fn was_decided(&self) -> bool {
        self.current.as_ref().is_some_and(|row| row.decided_by.is_some())
    }

    /// Returns what the step has to say, held against the words that the organisation minds.
    fn words(&mut self, step: &Step, situation: &Situation<'_>) -> Words {
        let decided = self.was_decided();
        let of_person = self.current.as_ref().filter(|_| decided).and_then(|row| row.text.clone());
        let ready = match step {
            Step::AiSend(_) => {
                let has_fallback = self.current.as_ref().is_some_and(|row| row.fallback_code.is_some());
                match self.by_model() {
                    Some(text) => match checked(situation, Outgoing::text(text), decided) {
                        Words::Nothing { code, .. } => {
                            if let Some(row) = self.current.as_mut() {
                                row.fallback_code = Some(code.to_owned());
                            }
                            None
                        }
                        words => return words,
                    },
                    None if has_fallback => of_person,
                    None => return Words::Write,
                }
            }
            _ => of_person,
        };
        if let Some(text) = ready {
            return checked(situation, Outgoing::text(text), true);
        }
        own_words(situation, step, &situation.for_texts())
    }

    /// A text waits for a person, until the step is late.
    fn hold(&mut self, step: &Step, text: String, reason: &str) -> Then {
        let (now, zone) = (self.situation.now, self.situation.zone());
        let planned = self.enrollment.planned_at.unwrap_or(now);
        let late = self.situation.plan.config.late.as_ref();
        let until = late.map_or(now + REVIEW, |late| late::last_moment(planned, late, zone));
        let row = self.note(step, HELD, Some(reason));
        (row.text, row.review_until, row.next_try_at) = (Some(text), Some(until), Some(until));
        row.decided_by = None;
        self.moves.review = true;
        self.wait(until, HELD);
        Then::Stay
    }
}

/// Returns the plan's own words for a step, held against those that the organisation minds: of a model's step, its fallback text.
/// `given`: what texts may say.
pub(super) fn own_words(situation: &Situation<'_>, step: &Step, given: &HashMap<String, Given>) -> Words {
    match send::render(situation, step, given) {
        Rendered::Message(outgoing) => checked(situation, *outgoing, false),
        Rendered::Not { code, exits } => Words::Nothing { code, exits },
    }
}

/// Holds a text against the words that the organisation minds. `decided`: a person has looked at it.
pub(super) fn checked(situation: &Situation<'_>, mut outgoing: Outgoing, decided: bool) -> Words {
    if let (Message::Text(text), Some(words)) = (&mut outgoing.message, &situation.words) {
        let found = words.check(&text.text);
        match found.action {
            Some(Action::Block) => {
                return Words::Nothing { code: "sensitive_words", exits: OnMissingVariable::Skip };
            }
            Some(Action::Review) if !decided => return Words::Hold(found.text),
            _ => text.text = found.text,
        }
    }
    Words::Say(outgoing)
}
