//! A way through a plan as far as time goes: what is sent on it, and what is waited for in between. Pure.
//!
//! A plan forks at branches and splits. Whoever asks for a way says which fork is taken; an answer never comes, so a
//! wait for one takes its whole time.

use super::config::WorkflowConfig;
use super::config::key::{Next, StepId};
use super::config::step::{Branch, Split, Step, WaitFor};

/// A part of a way that takes time or sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leg {
    /// Sends a message.
    Send,
    /// Waits. The wait for an answer is one for its timeout.
    Wait(WaitFor),
}

/// A place at which a plan forks.
#[derive(Debug, Clone, Copy)]
pub enum Fork<'a> {
    /// By conditions.
    Branch(&'a Branch),
    /// By chance.
    Split(&'a Split),
}

/// A way through a plan: each leg with the step that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Way<'a> {
    /// The steps that send or wait.
    pub steps: Vec<&'a StepId>,
    /// What they are, in the same order.
    pub legs: Vec<Leg>,
}

/// Follows a plan from its entry to an end.
///
/// A plan that has not been validated may lead nowhere or in circles: the way ends there, after as many steps as the
/// plan has.
pub fn follow<'a>(plan: &'a WorkflowConfig, mut choose: impl FnMut(Fork<'a>) -> &'a Next) -> Way<'a> {
    let mut way = Way::default();
    let mut at = plan.step(&plan.entry);
    for _ in 0..plan.steps.len() {
        let Some(step) = at else { break };
        let (leg, next) = match step {
            Step::Send(send) => (Some(Leg::Send), &send.next),
            Step::AiSend(send) => (Some(Leg::Send), &send.next),
            Step::Wait(wait) => (Some(Leg::Wait(wait.wait)), &wait.next),
            Step::WaitReply(wait) => (Some(Leg::Wait(WaitFor::For(wait.timeout))), &wait.on_timeout),
            Step::Branch(branch) => (None, choose(Fork::Branch(branch))),
            Step::Split(split) => (None, choose(Fork::Split(split))),
            Step::Tag(tag) => (None, &tag.next),
            Step::Handoff(handoff) => (None, &handoff.next),
            Step::End(_) => break,
        };
        if let Some(leg) = leg {
            way.steps.push(step.id());
            way.legs.push(leg);
        }
        at = next.step().and_then(|id| plan.step(id));
    }
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> serde_json::Value {
        serde_json::from_str(include_str!("examples/new_lead_3_days.json")).expect("JSON")
    }

    fn second_arm(fork: Fork<'_>) -> &Next {
        match fork {
            Fork::Branch(branch) => &branch.otherwise,
            Fork::Split(split) => &split.arms[1].next,
        }
    }

    #[test]
    fn the_example_sends_four_times_to_who_never_answers() {
        let plan: WorkflowConfig = serde_json::from_value(example()).expect("a plan");
        let way = follow(&plan, second_arm);
        let steps: Vec<&str> = way.steps.iter().map(|id| id.as_str()).collect();
        assert_eq!(
            steps,
            [
                "d1_hello",
                "d1_gap",
                "d1_outline",
                "d1_listen",
                "d2_wait",
                "d2_ai",
                "d3_wait",
                "d3_invite",
                "d3_listen",
            ]
        );
        assert_eq!(way.legs.iter().filter(|leg| **leg == Leg::Send).count(), 4);
        assert_eq!(way.legs[3], Leg::Wait(WaitFor::For("PT20H".parse().expect("a period"))));
    }

    #[test]
    fn a_plan_in_circles_ends() {
        let mut circles = example();
        circles["steps"][1]["next"] = "d1_hello".into();
        let plan: WorkflowConfig = serde_json::from_value(circles).expect("a plan");
        assert_eq!(follow(&plan, second_arm).steps.len(), plan.steps.len());
    }
}
