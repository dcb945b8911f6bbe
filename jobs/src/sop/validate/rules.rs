//! What a plan says about itself: `E07`, `E12` to `E17`, `W03`, and rules that lack what they need (`E01`).

use std::collections::HashSet;

use super::Findings;
use crate::sop::condition::{Fact, problem};
use crate::sop::config::WorkflowConfig;
use crate::sop::config::condition::{Condition, Test};
use crate::sop::config::cron_expression;
use crate::sop::config::key::StepId;
use crate::sop::config::rules::{AudienceKind, StopOn};
use crate::sop::config::step::{Review, Step};
use crate::sop::config::trigger::{Event, Trigger};
use crate::sop::finding::Code;

/// How many tests one condition may have.
const MOST_TESTS: usize = 100;

/// Says what is wrong.
pub(super) fn check(config: &WorkflowConfig, findings: &mut Findings) {
    trigger(config, findings);
    stop(config, findings);
    ranges(config, findings);
    conditions(config, findings);
    for (at, step) in config.steps.iter().enumerate() {
        let path = format!("/steps/{at}");
        match step {
            Step::Split(split) => {
                let sum: u32 = split.arms.iter().map(|arm| u32::from(arm.weight)).sum();
                if sum != 100 {
                    let message =
                        format!("the weights add up to {sum}: change them so that they add up to 100");
                    findings.say(Code::E12, format!("{path}/arms"), message);
                }
            }
            Step::AiSend(step) if step.review.unwrap_or_default() != Review::Human => {
                let path = if step.review.is_some() { format!("{path}/review") } else { path.clone() };
                let message =
                    "nobody looks at the model's text before it is sent: set review to human, or accept it";
                findings.say(Code::W03, path, message);
            }
            _ => {}
        }
        if config.audience.kind == AudienceKind::Group
            && matches!(step, Step::WaitReply(_) | Step::Tag(_) | Step::Handoff(_))
        {
            let message = format!(
                "the step {} is not for groups: use send, ai_send, wait, branch, split and end only",
                step.type_name()
            );
            findings.say(Code::E14, format!("{path}/type"), message);
        }
    }
}

fn trigger(config: &WorkflowConfig, findings: &mut Findings) {
    match &config.trigger {
        Trigger::Cron { cron, .. } => {
            if let Err(error) = cron_expression::schedule(cron) {
                findings.say(Code::E13, "/trigger/cron", error.to_string());
            }
        }
        Trigger::Event { event: Event::TagAdded, tags: None, .. } => {
            let message = "every tag would begin the plan: say which tags do";
            findings.say(Code::E15, "/trigger/tags", message);
        }
        Trigger::Event { event: Event::KeywordReceived, keywords: None, .. } => {
            let message = "every message would begin the plan: say which keywords do";
            findings.say(Code::E15, "/trigger/keywords", message);
        }
        Trigger::Manual {} | Trigger::Once { .. } | Trigger::Event { .. } => {}
    }
}

fn stop(config: &WorkflowConfig, findings: &mut Findings) {
    for (at, rule) in config.stop.iter().enumerate() {
        match rule.on {
            StopOn::TagAdded if rule.tags.is_none() => {
                let message = "this rule has no tags: say which tags stop the plan";
                findings.say(Code::E15, format!("/stop/{at}/tags"), message);
            }
            // A rule that can never act looks like a fence and is none.
            StopOn::Deadline if rule.after.is_none() => {
                let message = "the field after is missing: say after which time the plan stops";
                findings.say(Code::E01, format!("/stop/{at}/after"), message);
            }
            StopOn::Goal if config.goal.is_none() => {
                let message = "the plan has no goal: add one, or remove this rule";
                findings.say(Code::E01, format!("/stop/{at}/on"), message);
            }
            _ => {}
        }
    }
    let friends = config.audience.kind == AudienceKind::Friend;
    let answered = config.stop.iter().any(|rule| rule.on == StopOn::Reply)
        || config.steps.iter().any(|step| matches!(step, Step::WaitReply(_)));
    if friends && !answered {
        let message = "nothing says what happens when the customer answers: add a stop rule on reply, or a step wait_reply";
        findings.say(Code::E17, "/stop", message);
    }
}

fn ranges(config: &WorkflowConfig, findings: &mut Findings) {
    for (at, range) in config.send_window.ranges.iter().enumerate() {
        if range.to <= range.from {
            let message = format!(
                "{} is not after {}: a range does not cross midnight, so use two, or change one of the times",
                range.to, range.from
            );
            findings.say(Code::E16, format!("/send_window/ranges/{at}/to"), message);
        }
    }
}

fn conditions(config: &WorkflowConfig, findings: &mut Findings) {
    let splits: HashSet<&StepId> =
        config.steps.iter().filter(|step| matches!(step, Step::Split(_))).map(Step::id).collect();
    let mut look = |condition: &Condition, path: &str, in_group_branch: bool| {
        let mut tests = Vec::new();
        collect(condition, path.to_owned(), &mut tests);
        if tests.len() > MOST_TESTS {
            let message =
                format!("the condition has {} tests, and at most {MOST_TESTS} are allowed", tests.len());
            return findings.say(Code::E07, path, message);
        }
        for (test, path) in tests {
            if let Some(message) = wrong(test, &splits) {
                findings.say(Code::E07, path.clone(), message);
            }
            let in_groups = test.fact == "contact.tags" || test.fact.starts_with("time.");
            if in_group_branch && !in_groups {
                let message =
                    format!("{} is not known of groups: branch on time or on contact.tags only", test.fact);
                findings.say(Code::E14, format!("{path}/fact"), message);
            }
        }
    };
    if let Some(filter) = &config.audience.filter {
        look(filter, "/audience/filter", false);
    }
    if let Some(goal) = &config.goal {
        look(goal, "/goal", false);
    }
    let groups = config.audience.kind == AudienceKind::Group;
    for (at, step) in config.steps.iter().enumerate() {
        let Step::Branch(branch) = step else { continue };
        for (case_at, case) in branch.cases.iter().enumerate() {
            look(&case.when, &format!("/steps/{at}/cases/{case_at}/when"), groups);
        }
    }
}

fn wrong(test: &Test, splits: &HashSet<&StepId>) -> Option<String> {
    if let Some(message) = problem(test) {
        return Some(message);
    }
    match Fact::parse(&test.fact) {
        Some(Fact::Arm(step)) if !splits.contains(&step) => {
            Some(format!("the step {step} is no split and has no arms: name a split"))
        }
        _ => None,
    }
}

/// Collects the tests of a condition with their places. Its form bounds the depth.
fn collect<'a>(condition: &'a Condition, path: String, tests: &mut Vec<(&'a Test, String)>) {
    match condition {
        Condition::All(all) => {
            all.all
                .iter()
                .enumerate()
                .for_each(|(at, inner)| collect(inner, format!("{path}/all/{at}"), tests));
        }
        Condition::Any(any) => {
            any.any
                .iter()
                .enumerate()
                .for_each(|(at, inner)| collect(inner, format!("{path}/any/{at}"), tests));
        }
        Condition::Not(not) => collect(&not.not, format!("{path}/not"), tests),
        Condition::Test(test) => tests.push((test, path)),
    }
}
