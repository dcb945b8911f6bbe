//! What the steps of a plan say to somebody, held against the organisation's sensitive words as what is really sent is.
//!
//! What a text without placeholders says it says to everybody, and so does a material: those are looked at once, and only the
//! others for each person. What a model will write nobody knows; of its step the fallback text is looked at where it is already
//! known that it is sent.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::costs::Costs;
use crate::campaign::say::{self, Words};
use crate::campaign::send::{self, Rendered};
use crate::campaign::situation::Situation;
use crate::sop::config::step::{AiSend, OnMissingVariable, Review, Step};
use crate::sop::template::{self, Given};

/// The reason of a text that waits for a person because of its words.
const SENSITIVE_WORDS: &str = "sensitive_words";

/// What becomes of the words of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// They are sent.
    Sent,
    /// A person looks at them first: because of this; none: the plan wants it so.
    Held(Option<&'static str>),
    /// There are none.
    Not {
        /// Why.
        code: &'static str,
        /// Whether the way ends for it.
        exits: OnMissingVariable,
    },
}

/// What is known before of the words that somebody would get. What is not named is sent as it is.
#[derive(Debug, Default)]
pub(super) struct Speech {
    /// Steps that have nothing to say, with the reason and what follows.
    pub(super) unsayable: Vec<(usize, &'static str, OnMissingVariable)>,
    /// Steps whose words a person looks at first.
    held: Vec<(usize, Option<&'static str>)>,
    /// Steps of models in whose place the plan's own text is sent, with the reason.
    fallen_back: Vec<(usize, &'static str)>,
}

impl Speech {
    fn note(&mut self, step: usize, said: Said) {
        match said {
            Said::Sent => {}
            Said::Held(cause) => self.held.push((step, cause)),
            Said::Not { code, exits } => self.unsayable.push((step, code, exits)),
        }
    }

    /// Returns what becomes of the words of a step that is sent.
    pub(super) fn said(&self, step: usize) -> Said {
        let held = self.held.iter().find(|(held, _)| *held == step);
        held.map_or(Said::Sent, |(_, cause)| Said::Held(*cause))
    }

    /// Returns why no model writes for a step of a model; none: one does.
    pub(super) fn falls_back(&self, step: usize) -> Option<&'static str> {
        self.fallen_back.iter().find(|(fallen, _)| *fallen == step).map(|(_, code)| *code)
    }
}

/// The steps of a plan that say something.
#[derive(Debug)]
pub(super) struct Texts {
    sayings: Vec<Saying>,
}

#[derive(Debug)]
struct Saying {
    /// Its step, as a number in the plan.
    step: usize,
    /// What becomes of the plan's own words, for everybody; none: they are other words for each.
    own: Option<Said>,
    by_model: Option<ByModel>,
}

#[derive(Debug)]
struct ByModel {
    /// Why the model is asked for nobody.
    never: Option<&'static str>,
    /// Whether the model is asked for something else by each.
    asks_for_values: bool,
    is_reviewed: bool,
}

impl Texts {
    /// Looks at what is the same for everybody, of whom this is one.
    pub(super) fn of(situation: &Situation<'_>, costs: &Costs) -> Texts {
        let steps = situation.plan.config.steps.iter().enumerate();
        let sayings = steps.filter_map(|(number, step)| {
            let (is_alike, by_model) = match step {
                Step::Send(send) => (send.message.text().is_none_or(is_alike), None),
                Step::AiSend(ai) => {
                    let by_model = ByModel {
                        never: (!costs.know(&ai.workflow)).then_some("workflow_missing"),
                        asks_for_values: !is_alike(&ai.instruction),
                        is_reviewed: ai.review.unwrap_or_default() == Review::Human,
                    };
                    (is_alike(&ai.fallback_text), Some(by_model))
                }
                _ => return None,
            };
            let own = is_alike.then(|| said(situation, step, &HashMap::new()));
            Some(Saying { step: number, own, by_model })
        });
        Texts { sayings: sayings.collect() }
    }

    /// Looks at everything that somebody would get.
    pub(super) fn to(&self, situation: &Situation<'_>) -> Speech {
        let given = OnceCell::new();
        let given = || given.get_or_init(|| situation.for_texts());
        let is_silenced = situation.facts.stops.iter().any(|stop| stop == "ai");
        let mut speech = Speech::default();
        for Saying { step: number, own, by_model } in &self.sayings {
            let Some(step) = situation.plan.config.steps.get(*number) else { continue };
            let own = || own.unwrap_or_else(|| said(situation, step, given()));
            match (by_model, step) {
                (Some(_), _) if is_silenced => {
                    // As long as that is so it waits.
                    speech.unsayable.push((*number, "stopped", OnMissingVariable::Exit));
                }
                (Some(by_model), Step::AiSend(ai)) => {
                    let lacks = by_model.asks_for_values && lacks_values(situation, ai, given());
                    match by_model.never.or(lacks.then_some("missing_variable")) {
                        Some(code) => {
                            speech.fallen_back.push((*number, code));
                            speech.note(*number, own());
                        }
                        None if by_model.is_reviewed => speech.note(*number, Said::Held(None)),
                        None => {}
                    }
                }
                _ => speech.note(*number, own()),
            }
        }
        speech
    }

    /// Looks at the plan's own words for a step: of a model's, at its fallback text.
    pub(super) fn own(&self, situation: &Situation<'_>, number: usize) -> Said {
        let known = self.sayings.iter().find(|saying| saying.step == number).and_then(|saying| saying.own);
        let looked_at = || {
            let step = situation.plan.config.steps.get(number)?;
            Some(said(situation, step, &situation.for_texts()))
        };
        known.or_else(looked_at).unwrap_or(Said::Sent)
    }
}

/// Returns the plan's own words for a step as they are sent, or would be if the organisation did not mind them. None: they cannot
/// be made.
pub(super) fn shown(situation: &Situation<'_>, step: &Step) -> Option<String> {
    let Rendered::Message(outgoing) = send::render(situation, step, &situation.for_texts()) else {
        return None;
    };
    let minded = outgoing.message.readable().to_owned();
    Some(match say::checked(situation, *outgoing, false) {
        Words::Say(outgoing) => outgoing.message.readable().to_owned(),
        Words::Hold(text) => text,
        Words::Write | Words::Nothing { .. } => minded,
    })
}

fn said(situation: &Situation<'_>, step: &Step, given: &HashMap<String, Given>) -> Said {
    match say::own_words(situation, step, given) {
        Words::Hold(_) => Said::Held(Some(SENSITIVE_WORDS)),
        Words::Nothing { code, exits } => Said::Not { code, exits },
        Words::Say(_) | Words::Write => Said::Sent,
    }
}

/// Whether a text says the same to everybody.
fn is_alike(text: &str) -> bool {
    !text.contains("{{")
}

/// Whether a value is missing that a model's instruction needs.
fn lacks_values(situation: &Situation<'_>, ai: &AiSend, given: &HashMap<String, Given>) -> bool {
    let declared = &situation.plan.config.variables;
    matches!(template::render(&ai.instruction, declared, given), template::Rendered::Missing(_))
}
