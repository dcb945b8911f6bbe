//! The graph of the steps: names, ways, circles, what is reached, and what is sent on the longest way.

use std::collections::HashMap;

use super::Findings;
use crate::sop::config::WorkflowConfig;
use crate::sop::config::key::StepId;
use crate::sop::config::period::Period;
use crate::sop::config::step::{CountFrom, Step, WaitFor, Way};
use crate::sop::finding::{Code, shown};

/// How many steps of a circle are named.
const NAMED: usize = 8;

const DAY: u64 = 86_400;

/// The steps as a graph. Steps are named by their place in the plan.
#[derive(Debug)]
pub(super) struct Shape {
    /// Where each step leads, for ways that lead to a step.
    edges: Vec<Vec<Edge>>,
    /// Where the plan begins, if that exists.
    entry: Option<usize>,
    /// Steps that are reached, each before those to which it leads; none if there is a circle.
    order: Option<Vec<usize>>,
}

#[derive(Debug, Clone)]
struct Edge {
    to: usize,
    place: String,
}

impl Shape {
    /// Reads the graph, and says what is wrong with it: `E02` to `E05`, `W01`, `W02`.
    pub(super) fn of(config: &WorkflowConfig, findings: &mut Findings) -> Shape {
        let mut places: HashMap<&StepId, usize> = HashMap::new();
        let mut is_double = vec![false; config.steps.len()];
        for (at, step) in config.steps.iter().enumerate() {
            if let Some(first) = places.get(step.id()) {
                is_double[at] = true;
                let message =
                    format!("step {} has the name {} too: give one of them another", first + 1, step.id());
                findings.say(Code::E02, format!("/steps/{at}/id"), message);
            } else {
                places.insert(step.id(), at);
            }
            double_arms(step, at, findings);
        }
        let mut missing = |path: String, id: &StepId| {
            findings.say(
                Code::E03,
                path,
                format!("there is no step {id}: add it, or lead the way to another"),
            );
        };
        let mut edges = vec![Vec::new(); config.steps.len()];
        for (at, step) in config.steps.iter().enumerate() {
            for Way { place, next } in step.ways() {
                let Some(id) = next.step() else { continue };
                match places.get(id) {
                    Some(to) => edges[at].push(Edge { to: *to, place: format!("/steps/{at}{place}") }),
                    None => missing(format!("/steps/{at}{place}"), id),
                }
            }
        }
        let entry = places.get(&config.entry).copied();
        if entry.is_none() {
            missing("/entry".to_owned(), &config.entry);
        }
        let mut shape = Shape { edges, entry, order: None };
        let is_round = shape.circles(config, findings);
        let reached = shape.reached();
        // Without a beginning nothing is reached, which has been said.
        if entry.is_some() {
            for (at, step) in config.steps.iter().enumerate() {
                if !reached[at] && !is_double[at] {
                    let message =
                        format!("no way leads to the step {}: lead one to it, or remove it", step.id());
                    findings.say(Code::E05, format!("/steps/{at}"), message);
                }
            }
        }
        if !is_round {
            shape.order = Some(shape.topological(&reached));
            shape.unanswered(config, findings);
            shape.gapless(config, findings);
        }
        shape
    }

    /// Says every way that closes a circle (`E04`). Depth first, with a stack of its own.
    fn circles(&self, config: &WorkflowConfig, findings: &mut Findings) -> bool {
        #[derive(Clone, Copy, PartialEq)]
        enum Seen {
            Not,
            Under,
            Done,
        }
        let mut seen = vec![Seen::Not; self.edges.len()];
        let mut found = false;
        // From the beginning first: the way that closes a circle is then the one that leads back.
        for start in self.entry.into_iter().chain(0..self.edges.len()) {
            if seen[start] != Seen::Not {
                continue;
            }
            seen[start] = Seen::Under;
            let mut path = vec![(start, 0)];
            while let Some((at, edge)) = path.last_mut() {
                let Some(way) = self.edges[*at].get(*edge) else {
                    seen[*at] = Seen::Done;
                    path.pop();
                    continue;
                };
                *edge += 1;
                match seen[way.to] {
                    Seen::Done => {}
                    Seen::Not => {
                        seen[way.to] = Seen::Under;
                        path.push((way.to, 0));
                    }
                    Seen::Under => {
                        found = true;
                        let circle = path.iter().skip_while(|(step, _)| *step != way.to);
                        let names: Vec<String> =
                            circle.map(|(step, _)| config.steps[*step].id().to_string()).collect();
                        findings.say(Code::E04, way.place.clone(), circle_message(&names));
                    }
                }
            }
        }
        found
    }

    fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; self.edges.len()];
        let mut open: Vec<usize> = self.entry.into_iter().collect();
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut reached[at], true) {
                open.extend(self.edges[at].iter().map(|edge| edge.to));
            }
        }
        reached
    }

    /// Orders what is reached so that every way leads onwards. There must be no circle.
    fn topological(&self, reached: &[bool]) -> Vec<usize> {
        let mut waits_for = vec![0_usize; self.edges.len()];
        for at in (0..reached.len()).filter(|at| reached[*at]) {
            self.edges[at].iter().for_each(|edge| waits_for[edge.to] += 1);
        }
        let mut order = Vec::new();
        let mut open: Vec<usize> = self.entry.into_iter().collect();
        while let Some(at) = open.pop() {
            order.push(at);
            for edge in &self.edges[at] {
                waits_for[edge.to] -= 1;
                if waits_for[edge.to] == 0 {
                    open.push(edge.to);
                }
            }
        }
        order
    }

    /// Warns where a way has more messages in a row than may stay unanswered (`W01`): at the first that is too many. An answer
    /// that a step waits for begins anew.
    fn unanswered(&self, config: &WorkflowConfig, findings: &mut Findings) {
        let most = config.caps.max_unanswered;
        let mut before = vec![0_u32; self.edges.len()];
        let mut too_many = Vec::new();
        for at in self.order.iter().flatten().copied() {
            let step = &config.steps[at];
            let after = before[at] + u32::from(step.sends());
            if step.sends() && after == most + 1 {
                too_many.push(at);
            }
            for edge in &self.edges[at] {
                let carried = if is_answer(step, edge) { 0 } else { after };
                before[edge.to] = before[edge.to].max(carried);
            }
        }
        too_many.sort_unstable();
        for at in too_many {
            let message = format!(
                "on one way this is message {} in a row without an answer, and max_unanswered is {most}: it will not \
                 be sent; wait for a reply before it, or leave messages out",
                most + 1
            );
            findings.say(Code::W01, format!("/steps/{at}"), message);
        }
    }

    /// Warns where two messages follow one another with no wait between them (`W02`): at the second. A wait of no length is
    /// none; one for a reply is a wait.
    fn gapless(&self, config: &WorkflowConfig, findings: &mut Findings) {
        let mut sent_just_now = vec![false; self.edges.len()];
        let mut second = Vec::new();
        for at in self.order.iter().flatten().copied() {
            let step = &config.steps[at];
            let waits = match step {
                Step::Wait(step) => step.wait != WaitFor::For(Period::default()),
                Step::WaitReply(step) => !step.timeout.is_zero(),
                _ => false,
            };
            if step.sends() && sent_just_now[at] {
                second.push(at);
            }
            for edge in &self.edges[at] {
                let carried = step.sends() || (sent_just_now[at] && !waits && !is_answer(step, edge));
                sent_just_now[edge.to] |= carried;
            }
        }
        second.sort_unstable();
        for at in second {
            let message = "this message follows another one at once: put a wait between the two";
            findings.say(Code::W02, format!("/steps/{at}"), message);
        }
    }

    /// Returns the first messages that somebody can get, on whatever way.
    pub(super) fn first_messages(&self, config: &WorkflowConfig) -> Vec<usize> {
        let mut seen = vec![false; self.edges.len()];
        let mut open: Vec<usize> = self.entry.into_iter().collect();
        let mut first = Vec::new();
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            if config.steps[at].sends() {
                first.push(at);
            } else {
                open.extend(self.edges[at].iter().map(|edge| edge.to));
            }
        }
        first.sort_unstable();
        first
    }

    /// Returns how many messages the longest way has; none if there is a circle.
    pub(super) fn most_messages(&self, config: &WorkflowConfig) -> Option<u64> {
        let order = self.order.as_ref()?;
        let (mut before, mut most) = (vec![0_u64; self.edges.len()], 0);
        for at in order.iter().copied() {
            let after = before[at] + u64::from(config.steps[at].sends());
            most = most.max(after);
            self.edges[at].iter().for_each(|edge| before[edge.to] = before[edge.to].max(after));
        }
        Some(most)
    }

    /// Returns the days on which messages are due by the plan, counted from the first day, if every wait is waited out; none if
    /// there is a circle. Windows and caps move them.
    pub(super) fn days(&self, config: &WorkflowConfig) -> Option<Vec<u64>> {
        let order = self.order.as_ref()?;
        // Seconds since the beginning of the first day. Days are counted as 24 hours, working days as days.
        let mut begins = vec![0_u64; self.edges.len()];
        let mut days = Vec::new();
        for at in order.iter().copied() {
            let (step, now) = (&config.steps[at], begins[at]);
            if step.sends() {
                days.push(now / DAY);
            }
            let ends = match step {
                Step::Wait(step) => match step.wait {
                    WaitFor::For(period) => now + period.nominal_seconds(),
                    WaitFor::Until(until) => {
                        let from = if until.from == CountFrom::Here { now / DAY } else { 0 };
                        let day = from + u64::from(until.day_offset);
                        now.max(day * DAY + u64::from(until.at.minute()) * 60)
                    }
                },
                Step::WaitReply(step) => now + step.timeout.nominal_seconds(),
                _ => now,
            };
            self.edges[at].iter().for_each(|edge| begins[edge.to] = begins[edge.to].max(ends));
        }
        days.sort_unstable();
        days.dedup();
        Some(days)
    }
}

fn is_answer(step: &Step, edge: &Edge) -> bool {
    matches!(step, Step::WaitReply(_)) && edge.place.ends_with("/on_reply")
}

fn double_arms(step: &Step, at: usize, findings: &mut Findings) {
    let Step::Split(split) = step else { return };
    for (arm, other) in split.arms.iter().enumerate() {
        if split.arms[..arm].iter().any(|earlier| earlier.key == other.key) {
            let message = format!(
                "another arm has the name {} too: give one of them another",
                shown(other.key.as_str())
            );
            findings.say(Code::E02, format!("/steps/{at}/arms/{arm}/key"), message);
        }
    }
}

fn circle_message(names: &[String]) -> String {
    let way = match names {
        [only] => only.clone(),
        names if names.len() > NAMED => {
            let shown = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(" → ");
            format!("{shown} → … ({} steps)", names.len())
        }
        names => names.join(" → "),
    };
    format!("this way leads back, and the plan would never end: {way}; lead it onwards, or end it with null")
}
