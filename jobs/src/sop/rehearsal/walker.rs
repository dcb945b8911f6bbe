//! Somebody on the way through a campaign that is played.

use chrono::{DateTime, NaiveDate, TimeDelta, Timelike, Utc};

use super::super::calendar::Calendar;
use super::super::caps::{Counts, Week};
use super::super::condition::Facts;
use super::super::config::step::Tag;
use super::{Recipient, reason};
use crate::calendar::Zone;

/// A recipient on the way.
pub(super) struct Walker {
    /// The step at which they stand, as its number; none: at the end.
    pub(super) step: Option<usize>,
    /// When they came there.
    pub(super) reached: DateTime<Utc>,
    /// The day from which the campaign's days count.
    pub(super) start: NaiveDate,
    /// When it is over for them, whatever happens.
    pub(super) deadline: Option<DateTime<Utc>>,
    /// What conditions ask about.
    pub(super) facts: Facts,
    /// When they answered last.
    pub(super) answered_at: Option<DateTime<Utc>>,
    /// Messages of this campaign so far.
    pub(super) sent: u32,
    /// What the next message has waited for so far.
    pub(super) waited: u16,
    day: NaiveDate,
    contact: Week,
    contact_last: Option<DateTime<Utc>>,
    unanswered: u32,
}

impl Walker {
    pub(super) fn new(recipient: &Recipient, step: Option<usize>, today: NaiveDate) -> Walker {
        Walker {
            step,
            reached: recipient.enters_at,
            start: today,
            deadline: None,
            facts: recipient.facts.clone(),
            answered_at: recipient.answered_at,
            sent: 0,
            waited: 0,
            day: today,
            contact: recipient.contact,
            contact_last: recipient.contact_last,
            unanswered: recipient.unanswered,
        }
    }

    /// Notes what the next message waits for.
    pub(super) fn waits_for(&mut self, code: &'static str) {
        self.waited |= reason::bit(code);
    }

    /// Lets days pass over the counts.
    pub(super) fn turn_to(&mut self, today: NaiveDate) {
        let days = usize::try_from((today - self.day).num_days()).unwrap_or_default();
        if days > 0 {
            let new = days.min(self.contact.len());
            self.contact.rotate_right(new);
            self.contact[..new].fill(0);
            self.day = today;
        }
    }

    /// Whether they were written to on a day.
    pub(super) fn was_written_to(&self, on: NaiveDate) -> bool {
        self.day == on && self.contact[0] > 0
    }

    /// Adds what they have had to what is known of the account.
    pub(super) fn counted(&self, counts: Counts) -> Counts {
        Counts {
            contact: self.contact,
            contact_last: self.contact_last,
            unanswered: self.unanswered,
            answered_before: self.answered_at.is_some(),
            ..counts
        }
    }

    /// A message has left.
    pub(super) fn is_sent(&mut self, now: DateTime<Utc>) {
        self.contact[0] += 1;
        self.contact_last = Some(now);
        self.unanswered += 1;
        self.sent += 1;
        self.facts.sent_count = self.sent;
    }

    /// They answer.
    pub(super) fn answers(&mut self, now: DateTime<Utc>) {
        self.answered_at = Some(now);
        self.unanswered = 0;
        self.facts.replied = true;
    }

    /// A step changes their tags.
    pub(super) fn tag(&mut self, tag: &Tag) {
        for added in tag.add.iter().flatten() {
            if !self.facts.tags.contains(added) {
                self.facts.tags.push(added.clone());
            }
        }
        let removed: Vec<&String> = tag.remove.iter().flatten().collect();
        self.facts.tags.retain(|other| !removed.contains(&other));
    }

    /// Brings what conditions ask about to a moment.
    pub(super) fn facts_at(
        &mut self,
        now: DateTime<Utc>,
        recipient: &Recipient,
        zone: Zone,
        calendar: &Calendar,
    ) -> &Facts {
        let local = now.with_timezone(&zone);
        let facts = &mut self.facts;
        facts.added_days = recipient.added_at.map(|at| (now - at).num_days());
        facts.hour = u8::try_from(local.hour()).ok();
        facts.is_workday = Some(calendar.is_workday(local.date_naive()));
        #[expect(clippy::cast_precision_loss, reason = "hours are asked about, and not parts of a second")]
        let hours = |since: TimeDelta| since.num_seconds().max(0) as f64 / 3600.0;
        facts.last_reply_age_hours = self.answered_at.map(|at| hours(now - at));
        facts
    }
}
