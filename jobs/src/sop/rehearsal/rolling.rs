//! A limit over any stretch of time of a length: so many messages in any day, or calls in any hour.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

/// Such a limit, and what was used of it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Messages in any stretch.
    pub most: usize,
    /// How long it is.
    pub period: TimeDelta,
    /// Messages before, with their times, oldest first.
    pub used: Vec<(DateTime<Utc>, usize)>,
}

/// The limit while messages are sent.
#[derive(Debug)]
pub(super) struct Rolling {
    most: usize,
    period: TimeDelta,
    /// The latest messages, as many as the limit has room for, oldest first.
    latest: VecDeque<DateTime<Utc>>,
}

impl Rolling {
    pub(super) fn new(limit: &Limit) -> Rolling {
        let most = limit.most.max(1);
        let times = limit.used.iter().flat_map(|(at, count)| std::iter::repeat_n(*at, (*count).min(most)));
        let mut latest: VecDeque<DateTime<Utc>> = times.collect();
        while latest.len() > most {
            latest.pop_front();
        }
        Rolling { most, period: limit.period, latest }
    }

    /// Returns when there is room again; nothing, if there is.
    pub(super) fn opens_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let fills = self.latest.front().filter(|_| self.latest.len() >= self.most)?;
        Some(*fills + self.period).filter(|at| *at > now)
    }

    pub(super) fn take(&mut self, now: DateTime<Utc>) {
        if self.latest.len() >= self.most {
            self.latest.pop_front();
        }
        self.latest.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_has_room_when_its_oldest_message_lies_a_whole_length_back() {
        let at = |minutes| DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes);
        let limit = Limit { most: 3, period: TimeDelta::hours(1), used: vec![(at(0), 5), (at(10), 1)] };
        let mut rolling = Rolling::new(&limit);
        // Of the five the last two count, and the one after them.
        assert_eq!(rolling.opens_after(at(20)), Some(at(60)));
        assert_eq!(rolling.opens_after(at(60)), None);
        rolling.take(at(60));
        assert_eq!(rolling.opens_after(at(60)), None);
        rolling.take(at(60));
        assert_eq!(rolling.opens_after(at(61)), Some(at(70)));
    }
}
