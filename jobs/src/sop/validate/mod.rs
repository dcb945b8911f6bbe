//! Whether a plan is sound: everything that is wrong with it (`E01` to `E18`), and what may be (`W01` to `W06`), at once.
//!
//! The form comes first ([`WorkflowConfig::parse`]): a plan whose form is wrong has no meaning to be looked at. What the
//! outside knows is handed in as [`Surroundings`].

mod outside;
mod rules;
mod shape;
mod texts;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::NaiveDate;
use serde_json::Value;

use self::shape::Shape;
use super::config::WorkflowConfig;
use super::config::step::MaterialKind;
use super::config::window::Range;
use super::finding::{Code, Finding, MOST_FINDINGS};
use crate::ai::words::Words;

/// What a plan is held against. What is `None` is not looked at.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The organisation's materials by their id.
    pub materials: &'a BTreeMap<String, Material>,
    /// The aliases of its workflows.
    pub workflows: &'a BTreeSet<String>,
    /// When it lets campaigns write, as clocks show it.
    pub window: Option<Range>,
    /// How much it lets campaigns write.
    pub caps: OrganizationCaps,
    /// Its sensitive words.
    pub words: Option<&'a Words>,
    /// Words with which its customers opt out, besides those that always do.
    pub opt_out_words: &'a [String],
    /// Names under which it writes: its own, its brands', its advisers'.
    pub sender_names: &'a [String],
    /// For how many people the plan is, account by account; empty before that is known.
    pub accounts: &'a [AccountLoad],
    /// The day from which on the times of a trigger are looked at.
    pub today: NaiveDate,
    /// Tells whether a day is a holiday.
    pub is_holiday: &'a dyn Fn(NaiveDate) -> bool,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("window", &self.window)
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}

/// A material, as far as a plan asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Material {
    /// Its kind.
    pub kind: MaterialKind,
    /// Whether a revision of it is approved.
    pub approved: bool,
}

/// How much an organisation lets campaigns write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrganizationCaps {
    /// Messages to one contact on one day.
    pub per_contact_per_day: Option<u32>,
    /// Messages to one contact in a week.
    pub per_contact_per_week: Option<u32>,
    /// Messages of one account on one day.
    pub per_account_per_day: Option<u32>,
    /// Messages in a row without an answer.
    pub max_unanswered: Option<u32>,
}

/// How many people of a plan one account writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountLoad {
    /// What people call the account.
    pub name: String,
    /// How many people.
    pub recipients: u64,
    /// How many messages it may send on a day.
    pub per_day: u32,
}

/// What is to be said about a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What must be changed before it can be submitted.
    pub errors: Vec<Finding>,
    /// What somebody should look at.
    pub warnings: Vec<Finding>,
}

/// Looks at a plan as it was written. The plan itself is returned if its form is right, whatever else is said.
pub fn check(config: &Value, around: &Surroundings<'_>) -> (Report, Option<WorkflowConfig>) {
    match WorkflowConfig::parse(config) {
        Ok(config) => (validate(&config, around), Some(config)),
        Err(errors) => (Report { errors, warnings: Vec::new() }, None),
    }
}

/// Looks at a plan whose form is right.
pub fn validate(config: &WorkflowConfig, around: &Surroundings<'_>) -> Report {
    let mut findings = Findings::default();
    let shape = Shape::of(config, &mut findings);
    rules::check(config, &mut findings);
    texts::check(config, &shape, around, &mut findings);
    outside::check(config, around, &mut findings);
    volume::check(config, &shape, around, &mut findings);
    findings.report()
}

/// Findings as they are made.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn say(&mut self, code: Code, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding::new(code, path, message));
    }

    /// Puts them in order: by code, and within one as they stand in the plan.
    fn report(mut self) -> Report {
        // Stable, so that places keep the order in which they were looked at.
        self.0.sort_by_key(|finding| finding.code);
        let (mut errors, mut warnings): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|finding| finding.code.is_error());
        errors.truncate(MOST_FINDINGS);
        warnings.truncate(MOST_FINDINGS);
        Report { errors, warnings }
    }
}

#[cfg(test)]
mod tests;
