//! What the phone received against what was asked for. Pure.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A message that was asked for. Its text is unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Message {
    /// The device that sends.
    pub(crate) app_id: String,
    /// The recipient.
    pub(crate) to_wxid: String,
    /// What it says.
    pub(crate) text: String,
}

/// A message that the phone received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// What was received.
    pub(crate) message: Message,
    /// When, in microseconds.
    pub(crate) at_us: i64,
    /// The trace that it was sent under.
    pub(crate) trace_id: Option<String>,
}

/// The limits of every account in a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Messages in any rolling minute.
    pub(crate) per_minute: usize,
    /// Time between two messages.
    pub(crate) min_gap: Duration,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Asked for and not received.
    Lost(Message),
    /// Received more than once.
    Repeated(Message, usize),
    /// Received and never asked for.
    Unasked(Message),
    /// Received after a message of the same conversation that was asked for later.
    Overtaken {
        /// The late one.
        late: Message,
        /// The text that came before it.
        by: String,
    },
    /// A rolling minute that starts here holds more than the limit.
    TooMany {
        /// The account.
        app_id: String,
        /// When the minute starts.
        from_us: i64,
        /// How many it holds.
        count: usize,
    },
    /// Two messages of one account are too close.
    TooClose {
        /// The account.
        app_id: String,
        /// When the second one came.
        at_us: i64,
        /// How long after the first.
        gap_us: i64,
    },
}

const MINUTE_US: i64 = 60_000_000;

/// Returns every fault. `asked` is in the order of each conversation, `arrived` in the order of arrival.
pub(crate) fn faults(asked: &[Message], arrived: &[Arrival], limits: Limits) -> Vec<Fault> {
    let mut faults = Vec::new();
    counted(asked, arrived, &mut faults);
    ordered(asked, arrived, &mut faults);
    limited(arrived, limits, &mut faults);
    faults
}

fn counted(asked: &[Message], arrived: &[Arrival], faults: &mut Vec<Fault>) {
    let mut counts: HashMap<&Message, usize> = HashMap::new();
    for arrival in arrived {
        *counts.entry(&arrival.message).or_default() += 1;
    }
    for message in asked {
        match counts.remove(message) {
            None => faults.push(Fault::Lost(message.clone())),
            Some(1) => {}
            Some(n) => faults.push(Fault::Repeated(message.clone(), n)),
        }
    }
    faults.extend(counts.into_keys().cloned().map(Fault::Unasked));
}

fn ordered(asked: &[Message], arrived: &[Arrival], faults: &mut Vec<Fault>) {
    let places: HashMap<&Message, usize> =
        asked.iter().enumerate().map(|(n, message)| (message, n)).collect();
    let mut furthest: HashMap<(&str, &str), usize> = HashMap::new();
    let mut seen = HashSet::new();
    for arrival in arrived {
        let message = &arrival.message;
        // What came twice or was never asked for is a fault of its own.
        let Some(&place) = places.get(message).filter(|_| seen.insert(message)) else { continue };
        let last = furthest.entry((&message.app_id, &message.to_wxid)).or_insert(place);
        if place < *last {
            faults.push(Fault::Overtaken { late: message.clone(), by: asked[*last].text.clone() });
        } else {
            *last = place;
        }
    }
}

fn limited(arrived: &[Arrival], limits: Limits, faults: &mut Vec<Fault>) {
    let mut times: HashMap<&str, Vec<i64>> = HashMap::new();
    for arrival in arrived {
        times.entry(&arrival.message.app_id).or_default().push(arrival.at_us);
    }
    let min_gap_us = i64::try_from(limits.min_gap.as_micros()).expect("a small gap");
    for (app_id, mut times) in times {
        times.sort_unstable();
        for (n, &from_us) in times.iter().enumerate() {
            let count = times[n..].iter().take_while(|&&at| at < from_us + MINUTE_US).count();
            if count > limits.per_minute {
                faults.push(Fault::TooMany { app_id: app_id.to_owned(), from_us, count });
            }
        }
        for pair in times.windows(2) {
            let gap_us = pair[1] - pair[0];
            if gap_us < min_gap_us {
                faults.push(Fault::TooClose { app_id: app_id.to_owned(), at_us: pair[1], gap_us });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { per_minute: 2, min_gap: Duration::from_millis(10) };

    fn message(to: &str, text: &str) -> Message {
        Message { app_id: "wx_a".into(), to_wxid: to.into(), text: text.into() }
    }

    fn asked() -> Vec<Message> {
        vec![
            message("wxid_1", "1-1"),
            message("wxid_2", "2-1"),
            message("wxid_1", "1-2"),
            message("wxid_2", "2-2"),
        ]
    }

    /// One arrival per half minute: within the limits.
    fn arrived(messages: &[Message]) -> Vec<Arrival> {
        let arrival = |(n, message): (i64, &Message)| Arrival {
            message: message.clone(),
            at_us: n * MINUTE_US / 2,
            trace_id: None,
        };
        (0..).zip(messages).map(arrival).collect()
    }

    #[test]
    fn a_good_history_has_no_fault() {
        assert_eq!(faults(&asked(), &arrived(&asked()), LIMITS), []);
    }

    #[test]
    fn conversations_may_overtake_each_other() {
        let [a1, b1, a2, b2] = asked().try_into().unwrap();
        assert_eq!(faults(&asked(), &arrived(&[b1, b2, a1, a2]), LIMITS), []);
    }

    #[test]
    fn a_lost_a_repeated_and_an_unasked_message_are_told_apart() {
        let [a1, b1, a2, b2] = asked().try_into().unwrap();
        let stranger = message("wxid_1", "?");
        let found = faults(&asked(), &arrived(&[a1, a2.clone(), a2.clone(), b2, stranger.clone()]), LIMITS);
        assert_eq!(found, [Fault::Lost(b1), Fault::Repeated(a2, 2), Fault::Unasked(stranger)]);
    }

    #[test]
    fn a_message_behind_a_later_one_of_its_conversation_is_out_of_order() {
        let [a1, b1, a2, b2] = asked().try_into().unwrap();
        let found = faults(&asked(), &arrived(&[a2, b1, a1.clone(), b2]), LIMITS);
        assert_eq!(found, [Fault::Overtaken { late: a1, by: "1-2".into() }]);
    }

    #[test]
    fn a_rolling_minute_is_found_wherever_it_starts() {
        let mut history = arrived(&asked());
        // 0, 30, 60 and 89.999999 s: the third and the fourth share a minute with the second.
        history[3].at_us -= 1;
        let found = faults(&asked(), &history, LIMITS);
        assert_eq!(found, [Fault::TooMany { app_id: "wx_a".into(), from_us: MINUTE_US / 2, count: 3 }]);
    }

    #[test]
    fn a_full_minute_apart_is_far_enough() {
        let mut history = arrived(&asked());
        for (n, arrival) in (0..).zip(&mut history) {
            arrival.at_us = n / 2 * MINUTE_US + n % 2 * 10_000;
        }
        assert_eq!(faults(&asked(), &history, LIMITS), []);
    }

    #[test]
    fn a_gap_that_is_too_small_is_found() {
        let mut history = arrived(&asked());
        history[1].at_us = 9_999;
        let found = faults(&asked(), &history, LIMITS);
        assert_eq!(found, [Fault::TooClose { app_id: "wx_a".into(), at_us: 9_999, gap_us: 9_999 }]);
    }
}
