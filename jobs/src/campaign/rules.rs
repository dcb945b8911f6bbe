//! The rules of a plan that stop an enrollment, whatever step it is at.

use chrono::{DateTime, Utc};

use super::situation::Situation;
use crate::sop::config::rules::{Stop, StopOn};
use crate::sop::config::step::Step;

/// A rule that has come true.
#[derive(Debug, Clone, Copy)]
pub struct Stopped<'a> {
    /// The rule.
    pub rule: &'a Stop,
    /// The reason, as it is stored.
    pub reason: &'static str,
}

/// Returns the first rule of the plan that has come true.
///
/// An answer counts for the step at which it came: one that a `wait_reply` has taken is not held against the steps after it.
/// `taken_by_next`: the message just sent is followed by a `wait_reply` that has a way of its own for answers.
pub fn stopped<'a>(
    situation: &'a Situation<'_>,
    step: Option<&Step>,
    taken_by_next: bool,
) -> Option<Stopped<'a>> {
    let (config, enrollment) = (&situation.plan.config, &situation.enrollment);
    let own_way = matches!(step, Some(Step::WaitReply(step)) if step.on_reply.is_some());
    let met = |rule: &Stop| -> Option<&'static str> {
        let (met, reason) = match rule.on {
            StopOn::Deadline => {
                (enrollment.deadline_at.is_some_and(|deadline| deadline <= situation.now), "deadline")
            }
            StopOn::Goal => (goal(situation), "goal"),
            StopOn::Reply => {
                let replied = enrollment.replied_at.is_some_and(|replied| replied >= enrollment.reached_at);
                (replied && !own_way && !taken_by_next, "replied")
            }
            StopOn::TagAdded => (given(situation, rule), "tag_rule"),
            StopOn::SendFailures => {
                let most = rule.count.unwrap_or(1);
                (enrollment.failures > 0 && enrollment.failures.unsigned_abs() >= most, "send_failures")
            }
        };
        met.then_some(reason)
    };
    config.stop.iter().find_map(|rule| met(rule).map(|reason| Stopped { rule, reason }))
}

/// Tells whether the plan has reached what it is for.
pub fn goal(situation: &Situation<'_>) -> bool {
    let goal = situation.plan.config.goal.as_ref();
    goal.is_some_and(|goal| situation.for_conditions().meet(goal))
}

fn given(situation: &Situation<'_>, rule: &Stop) -> bool {
    let own = &situation.enrollment.own_tags;
    let tags = rule.tags.iter().flatten();
    let mut tags = tags.filter(|tag| !own.contains(tag));
    tags.any(|tag| situation.tags().contains(tag))
}

/// Returns when an enrollment ends that begins at a moment, by the earliest rule with a deadline.
pub fn deadline(stops: &[Stop], begins: DateTime<Utc>, zone: crate::calendar::Zone) -> Option<DateTime<Utc>> {
    let rules = stops.iter().filter(|rule| rule.on == StopOn::Deadline);
    rules.filter_map(|rule| rule.after).map(|after| crate::sop::moment::deadline(begins, after, zone)).min()
}
