//! Those who wait for an account, in the order in which the dispatcher hands them out: who came due first, of several at one
//! moment who came to the step first, and then by the enrollments' ids.
//!
//! Whoever is put off to a moment is due then together with all others who were, so among them only the last two count.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Somebody who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    /// When the message is due.
    pub(super) due: DateTime<Utc>,
    /// When the step was reached at which the enrollment stands until it is due: that of the wait before the message, if it ends
    /// at this very moment.
    pub(super) rested: DateTime<Utc>,
    /// The enrollment.
    pub(super) id: Uuid,
    /// The recipient, as its number in the list.
    pub(super) who: usize,
    /// When the message's own step was reached.
    pub(super) reached: DateTime<Utc>,
}

/// Somebody who was put off, and is due when all others are who were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PutOff {
    reached: DateTime<Utc>,
    id: Uuid,
    who: usize,
    /// When the message was due before.
    due: DateTime<Utc>,
}

/// A place in the order of a line.
pub(super) type Place = (DateTime<Utc>, DateTime<Utc>, Uuid);

/// Those who wait.
pub(super) struct Line {
    coming: BinaryHeap<Reverse<Waiting>>,
    put_off: BinaryHeap<Reverse<PutOff>>,
    /// Until when they were put off.
    until: DateTime<Utc>,
}

impl Line {
    pub(super) fn new(now: DateTime<Utc>) -> Line {
        Line { coming: BinaryHeap::new(), put_off: BinaryHeap::new(), until: now }
    }

    pub(super) fn join(&mut self, waiting: Waiting) {
        self.coming.push(Reverse(waiting));
    }

    /// Returns the place of who is first.
    pub(super) fn first(&self) -> Option<Place> {
        let put_off = self.put_off.peek().map(|Reverse(next)| (self.until, next.reached, next.id));
        let coming = self.coming.peek().map(|Reverse(next)| (next.due, next.rested, next.id));
        put_off.into_iter().chain(coming).min()
    }

    /// Takes who is first out of the line: who it is, and when the message was due, before anybody was put off.
    pub(super) fn take(&mut self) -> Option<(usize, DateTime<Utc>)> {
        let first = self.first()?;
        match self.coming.peek() {
            Some(Reverse(next)) if (next.due, next.rested, next.id) == first => {
                self.coming.pop().map(|Reverse(next)| (next.who, next.due))
            }
            _ => self.put_off.pop().map(|Reverse(next)| (next.who, next.due)),
        }
    }

    /// Puts off all who are due before a moment.
    pub(super) fn put_off(&mut self, until: DateTime<Utc>) {
        self.until = self.until.max(until);
        while let Some(Reverse(next)) = self.coming.peek().filter(|Reverse(next)| next.due < self.until) {
            let Waiting { reached, id, who, due, .. } = *next;
            self.put_off.push(Reverse(PutOff { reached, id, who, due }));
            self.coming.pop();
        }
    }

    /// Takes everybody out of the line.
    pub(super) fn leave(&mut self) -> Vec<usize> {
        let coming = self.coming.drain().map(|Reverse(next)| next.who);
        let put_off = self.put_off.drain().map(|Reverse(next)| next.who);
        coming.chain(put_off).collect()
    }
}
