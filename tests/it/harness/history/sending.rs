//! Every message once, in order, and never when it must not be sent.

use std::collections::{HashMap, HashSet};

use super::{Arrival, Ask, Fault, Message, Outcome, Pause, Rules, micros};

/// Adds a fault for every message that did not arrive as often as the record says.
pub(super) fn counted(asked: &[Ask], arrived: &[Arrival], rules: &Rules, faults: &mut Vec<Fault>) {
    let mut counts: HashMap<&Message, (usize, i64)> = HashMap::new();
    for arrival in arrived {
        let seen = counts.entry(&arrival.message).or_insert((0, arrival.at_us));
        seen.0 += 1;
    }
    for ask in asked {
        let Some((count, first_us)) = counts.remove(&ask.message) else {
            if ask.outcome == Outcome::Sent {
                faults.push(Fault::Lost(ask.message.clone()));
            }
            continue;
        };
        if count > 1 {
            faults.push(Fault::Repeated(ask.message.clone(), count));
        }
        // What was sent against a cancel is a fault of its own; it is not told twice.
        if ask.is_denied() && sent_after(ask, Some(first_us), ask.cancelled_us, rules).is_none() {
            faults.push(Fault::Denied(ask.message.clone()));
        }
    }
    let mut unasked: Vec<Message> = counts.into_keys().cloned().collect();
    unasked.sort_unstable_by(|a, b| a.text.cmp(&b.text));
    faults.extend(unasked.into_iter().map(Fault::Unasked));
}

/// Adds a fault for every message that was overtaken in its conversation.
///
/// Only what was sent for certain has a place: what comes after a message of unknown outcome does not wait for it.
pub(super) fn ordered(asked: &[Ask], arrived: &[Arrival], faults: &mut Vec<Fault>) {
    let places: HashMap<&Message, usize> = asked
        .iter()
        .enumerate()
        .filter(|(_, ask)| ask.outcome == Outcome::Sent)
        .map(|(place, ask)| (&ask.message, place))
        .collect();
    let mut furthest: HashMap<(&str, &str, u8), usize> = HashMap::new();
    let mut seen = HashSet::new();
    for arrival in arrived {
        let message = &arrival.message;
        // What came twice or was never asked for is a fault of its own.
        let Some(&place) = places.get(message).filter(|_| seen.insert(message)) else { continue };
        let conversation = (message.app_id.as_str(), message.to_wxid.as_str(), asked[place].class);
        let last = furthest.entry(conversation).or_insert(place);
        if place < *last {
            let by = asked[*last].message.text.clone();
            faults.push(Fault::Overtaken { late: message.clone(), by });
        } else {
            *last = place;
        }
    }
}

/// Adds a fault for every message that was sent when it must not be.
pub(super) fn timed(asked: &[Ask], arrived: &[Arrival], rules: &Rules, faults: &mut Vec<Fault>) {
    let mut arrivals: HashMap<&Message, i64> = HashMap::new();
    for arrival in arrived {
        arrivals.entry(&arrival.message).or_insert(arrival.at_us);
    }
    let mut pauses: HashMap<&str, Vec<&Pause>> = HashMap::new();
    for pause in &rules.pauses {
        pauses.entry(&pause.app_id).or_default().push(pause);
    }
    for ask in asked {
        let arrived_us = arrivals.get(&ask.message).copied();
        let message = || ask.message.clone();
        if let Some(at_us) = sent_before(ask, arrived_us) {
            faults.push(Fault::SentTooEarly { message: message(), at_us });
        }
        if let Some(at_us) = sent_after(ask, arrived_us, ask.cancelled_us, rules) {
            faults.push(Fault::SentAfterCancel { message: message(), at_us });
        }
        if let Some(at_us) = sent_after(ask, arrived_us, ask.expires_us, rules) {
            faults.push(Fault::SentAfterExpiry { message: message(), at_us });
        }
        for pause in pauses.get(ask.message.app_id.as_str()).into_iter().flatten() {
            if let Some(at_us) = sent_during(ask, arrived_us, pause, rules) {
                faults.push(Fault::SentWhilePaused { message: message(), at_us });
            }
        }
    }
}

fn sent_before(ask: &Ask, arrived_us: Option<i64>) -> Option<i64> {
    let not_before_us = ask.not_before_us?;
    ask.gates_us.iter().copied().chain(arrived_us).find(|&at_us| at_us < not_before_us)
}

/// Returns when a gate let it pass after `end_us`, or when it arrived later than anything that passed before.
fn sent_after(ask: &Ask, arrived_us: Option<i64>, end_us: Option<i64>, rules: &Rules) -> Option<i64> {
    let end_us = end_us?;
    let passed_us = ask.gates_us.iter().copied().find(|&at_us| at_us > end_us);
    passed_us.or(arrived_us.filter(|&at_us| at_us > end_us + micros(rules.allowance)))
}

fn sent_during(ask: &Ask, arrived_us: Option<i64>, pause: &Pause, rules: &Rules) -> Option<i64> {
    let passed_us =
        ask.gates_us.iter().copied().find(|at_us| (pause.from_us..=pause.until_us).contains(at_us));
    let late_from_us = pause.from_us + micros(rules.allowance);
    passed_us.or(arrived_us.filter(|&at_us| at_us > late_from_us && at_us < pause.until_us))
}
