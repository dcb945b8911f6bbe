//! What begins a plan.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::period::Period;

/// What begins a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Trigger {
    /// A person.
    Manual {},
    /// A moment.
    Once {
        /// The moment.
        at: DateTime<Utc>,
    },
    /// Times that repeat, in the plan's zone.
    Cron {
        /// The times; see [`crate::sop::config::cron_expression`].
        cron: String,
        /// What happens to a time that nobody was there for.
        #[serde(default)]
        catch_up: CatchUp,
    },
    /// Something that happens to a contact.
    Event {
        /// What happens.
        event: Event,
        /// With which tags, one of them is enough.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tags: Option<Vec<String>>,
        /// With which words, one of them is enough.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keywords: Option<Vec<String>>,
        /// How long after it the first step is due.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delay: Option<Period>,
    },
}

/// What happens to times that nobody was there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are left out.
    #[default]
    Skip,
    /// One run makes all of them good.
    RunOnce,
}

/// What happens to a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Became a friend.
    FriendAdded,
    /// Was given a tag.
    TagAdded,
    /// A group took our account in.
    GroupJoined,
    /// Wrote a word.
    KeywordReceived,
}
