//! What a dry run has found.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::costs::Bill;
use super::gather::Gathered;
use super::texts;
use crate::sop::config::step::Step;
use crate::sop::rehearsal::Load;

/// What happens, or would have happened, at a step of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The contact.
    pub contact_id: Uuid,
    /// The step; none: the plan does not take them in.
    pub step: Option<usize>,
    /// When it is sent; none: it is not.
    pub at: Option<DateTime<Utc>>,
    /// Why it is not sent, or not at once.
    pub reasons: Vec<&'static str>,
    /// `sent`, `skipped`, `exited` or `blocked`.
    pub outcome: &'static str,
    /// Whose it is, as a number in the list of people.
    pub(super) person: usize,
}

/// What an account has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLoad {
    /// The account.
    pub account_id: Uuid,
    /// Its part.
    pub load: Load,
}

/// A campaign that was played.
#[derive(Debug)]
pub struct Played {
    /// People whom the plan is meant for.
    pub targets: usize,
    /// Those to whom something is sent.
    pub recipients: usize,
    /// The others, by the weightiest reason.
    pub blocked: BTreeMap<&'static str, usize>,
    /// Messages that are sent.
    pub messages: usize,
    /// Those of them that a person must look at first.
    pub to_review: usize,
    /// When the last is sent.
    pub ends_at: Option<DateTime<Utc>>,
    /// When the last way ends, waits behind the last message included.
    pub finishes_at: Option<DateTime<Utc>>,
    /// What it costs.
    pub bill: Bill,
    /// The account that holds up the end.
    pub bottleneck: Option<Uuid>,
    /// The accounts, by id.
    pub accounts: Vec<AccountLoad>,
    pub(super) items: Vec<Item>,
    pub(super) gathered: Gathered,
}

impl Played {
    /// Returns what happens, from the `from`-th item on, `limit` at most, and how many there are. Items are in the order of
    /// contacts' ids, and of one contact in the order of time.
    pub fn page(&self, from: usize, limit: usize) -> (&[Item], usize) {
        let from = from.min(self.items.len());
        let to = (from + limit).min(self.items.len());
        (&self.items[from..to], self.items.len())
    }

    /// Returns the step of an item by its name: that of the plan's first step for whoever is not taken in.
    pub fn step_id(&self, item: &Item) -> &str {
        self.step(item).map_or(self.gathered.plan.config.entry.as_str(), |step| step.id().as_str())
    }

    /// Returns what the message of an item says to its recipient, words that are minded masked; of a model's message, what is said
    /// in its place. Of one that is left out for its words, what it would have said.
    pub fn text(&self, item: &Item) -> Option<String> {
        let known = self.gathered.people[item.person].known.as_ref()?;
        texts::shown(&self.gathered.situation(known), self.step(item).filter(|step| step.sends())?)
    }

    fn step(&self, item: &Item) -> Option<&Step> {
        let config = &self.gathered.plan.config;
        match item.step {
            Some(number) => config.steps.get(number),
            None => config.step(config.entry.as_str()),
        }
    }
}
