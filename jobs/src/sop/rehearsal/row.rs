//! An account at work: who waits for it, and what it has done today.

use chrono::{DateTime, NaiveDate, Utc};

use super::super::slot;
use super::line::Line;
use super::{Account, Load};

/// An account at work.
pub(super) struct Row {
    /// Who has answered before, or was written to on the day on which the message is due.
    pub(super) known: Line,
    /// Everybody else.
    pub(super) strangers: Line,
    /// When the account can send again.
    pub(super) free_at: DateTime<Utc>,
    /// Since when it sends again after it had sent enough for a day, or after the window was shut: who has waited for
    /// that is due then. With what they waited for.
    pub(super) due_from: (DateTime<Utc>, &'static str),
    /// The same, for strangers.
    pub(super) strangers_from: DateTime<Utc>,
    /// What it waited for last that is no part of the plan.
    pub(super) held_by: Option<(DateTime<Utc>, &'static str)>,
    pub(super) day: NaiveDate,
    pub(super) sent: u32,
    pub(super) new_contacts: u32,
    pub(super) load: Load,
}

impl Row {
    pub(super) fn new(account: &Account, now: DateTime<Utc>, today: NaiveDate) -> Row {
        Row {
            known: Line::new(now),
            strangers: Line::new(now),
            free_at: now,
            due_from: (now, slot::WINDOW),
            strangers_from: now,
            held_by: None,
            day: today,
            sent: account.sent,
            new_contacts: account.new_contacts,
            load: Load::default(),
        }
    }

    /// Returns when the account serves next, and whether that is for a stranger.
    pub(super) fn next(&self) -> Option<(DateTime<Utc>, bool)> {
        let known = self.known.first().map(|place| (place, false));
        let stranger = self.strangers.first().map(|place| (place, true));
        let (place, is_stranger) = known.into_iter().chain(stranger).min()?;
        Some((place.0.max(self.free_at), is_stranger))
    }

    /// Nobody is served before a moment.
    pub(super) fn put_off(&mut self, until: DateTime<Utc>) {
        self.free_at = until;
        self.known.put_off(until);
        self.strangers.put_off(until);
    }

    pub(super) fn of(&mut self, stranger: bool) -> &mut Line {
        if stranger { &mut self.strangers } else { &mut self.known }
    }
}
