//! No window holds more than it may, wherever it starts.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Arrival, Fault, Rules, micros};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A window that holds more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    /// When it starts.
    pub(super) from_us: i64,
    /// How much it holds.
    pub(super) count: usize,
}

/// Adds a fault for every limit that was broken.
pub(super) fn kept(arrived: &[Arrival], rules: &Rules, faults: &mut Vec<Fault>) {
    let mut by_account: HashMap<&str, Vec<(i64, &str)>> = HashMap::new();
    for arrival in arrived {
        let message = &arrival.message;
        by_account.entry(&message.app_id).or_default().push((arrival.at_us, &message.to_wxid));
    }
    let mut accounts: Vec<_> = by_account.iter_mut().collect();
    accounts.sort_unstable_by_key(|(app_id, _)| **app_id);
    for (app_id, sent) in accounts {
        sent.sort_unstable();
        let Some(limits) = rules.accounts.get(*app_id) else { continue };
        let app_id = || (*app_id).to_owned();
        let times: Vec<i64> = sent.iter().map(|(at_us, _)| *at_us).collect();
        for Full { from_us, count } in apart(overfull(&times, MINUTE, limits.per_minute), MINUTE) {
            faults.push(Fault::TooMany { app_id: app_id(), from_us, count });
        }
        if let Some(per_day) = limits.per_day {
            for Full { from_us, count } in apart(overfull(&times, DAY, per_day), DAY) {
                faults.push(Fault::TooManyInDay { app_id: app_id(), from_us, count });
            }
        }
        if let Some(most) = limits.recipients_per_minute {
            for Full { from_us, count } in apart(crowded(sent, MINUTE, most), MINUTE) {
                faults.push(Fault::TooManyRecipients { app_id: app_id(), from_us, count });
            }
        }
        for pair in times.windows(2) {
            let gap_us = pair[1] - pair[0];
            if gap_us < micros(limits.min_gap) {
                faults.push(Fault::TooClose { app_id: app_id(), at_us: pair[1], gap_us });
            }
        }
    }
    for token in &rules.tokens {
        let users: HashSet<&str> = token.app_ids.iter().map(String::as_str).collect();
        let mut times: Vec<i64> = by_account
            .iter()
            .filter(|(app_id, _)| users.contains(**app_id))
            .flat_map(|(_, sent)| sent.iter().map(|(at_us, _)| *at_us))
            .collect();
        times.sort_unstable();
        for Full { from_us, count } in apart(overfull(&times, HOUR, token.per_hour), HOUR) {
            faults.push(Fault::TooManyOfToken { app_ids: token.app_ids.clone(), from_us, count });
        }
    }
}

/// Returns the most that any window of this length holds, wherever it starts. `times` ascend.
pub(crate) fn worst(times: &[i64], period: Duration) -> usize {
    overfull(times, period, 0).into_iter().map(|window| window.count).max().unwrap_or(0)
}

/// Returns the windows that begin with one of `times` and hold more than `limit`. `times` ascend.
///
/// A window is half open: what comes a whole period after its start is in the next one.
pub(super) fn overfull(times: &[i64], period: Duration, limit: usize) -> Vec<Full> {
    let mut end = 0;
    let mut found = Vec::new();
    for (start, &from_us) in times.iter().enumerate() {
        while end < times.len() && times[end] < from_us + micros(period) {
            end += 1;
        }
        let count = end - start;
        if count > limit {
            found.push(Full { from_us, count });
        }
    }
    found
}

/// The same for different people.
pub(super) fn crowded(sent: &[(i64, &str)], period: Duration, limit: usize) -> Vec<Full> {
    let mut people: HashMap<&str, usize> = HashMap::new();
    let mut end = 0;
    let mut found = Vec::new();
    for &(from_us, leaving) in sent {
        while end < sent.len() && sent[end].0 < from_us + micros(period) {
            *people.entry(sent[end].1).or_default() += 1;
            end += 1;
        }
        let count = people.len();
        if count > limit {
            found.push(Full { from_us, count });
        }
        if let Some(times) = people.get_mut(leaving) {
            *times -= 1;
            if *times == 0 {
                people.remove(leaving);
            }
        }
    }
    found
}

/// Leaves out the windows that overlap one before them, so that one excess is told once.
fn apart(windows: Vec<Full>, period: Duration) -> Vec<Full> {
    let mut free_from_us = i64::MIN;
    let mut kept = windows;
    kept.retain(|window| {
        let free = window.from_us >= free_from_us;
        if free {
            free_from_us = window.from_us + micros(period);
        }
        free
    });
    kept
}
