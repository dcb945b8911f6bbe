//! Pauses and resumes accounts and queues.

use std::time::{Duration, Instant};

use chrono::Utc;

use super::asker::Asker;
use crate::harness::client::Account;
use crate::harness::history::Pause;

/// What was switched.
#[derive(Debug, Default)]
pub(super) struct Switched {
    /// Every pause that can be relied upon.
    pub(super) pauses: Vec<Pause>,
    /// Pauses of accounts.
    pub(super) accounts: usize,
    /// Pauses of queues.
    pub(super) queues: usize,
    /// Pauses about which nothing can be said: an older switch was given up, and may have come between.
    pub(super) uncertain: usize,
}

impl Switched {
    pub(super) fn merge(&mut self, other: Switched) {
        self.pauses.extend(other.pauses);
        self.accounts += other.accounts;
        self.queues += other.queues;
        self.uncertain += other.uncertain;
    }
}

/// A pause, as it was answered.
struct Held {
    from_us: i64,
    until_us: i64,
    given_up: bool,
}

/// Pauses one account after the other.
pub(super) async fn accounts(
    accounts: Vec<Account>,
    mut asker: Asker,
    mut random: fastrand::Rng,
    until: Instant,
    for_: Duration,
) -> Switched {
    let mut switched = Switched::default();
    let mut uncertain = vec![false; accounts.len()];
    if accounts.is_empty() {
        return switched;
    }
    while wait(random.u64(300..2500), until).await {
        let number = random.usize(..accounts.len());
        let account = &accounts[number];
        // Long enough, now and then, to tell late arrivals from those that were under way.
        let long = for_ > Duration::from_secs(30) && random.u8(..10) == 0;
        let hold_ms = if long { random.u64(8000..12_000) } else { random.u64(100..2500) };
        let thing = if random.bool() { "wechat-accounts" } else { "lanes" };
        let held = hold(&mut asker, &format!("/{thing}/{}", account.id), hold_ms).await;
        switched.accounts += 1;
        uncertain[number] |= held.given_up;
        if uncertain[number] {
            switched.uncertain += 1;
        } else {
            let (from_us, until_us) = (held.from_us, held.until_us);
            switched.pauses.push(Pause { app_id: account.app_id.clone(), from_us, until_us });
        }
    }
    switched
}

/// Pauses the queue of an organisation: all its accounts.
pub(super) async fn queue(
    accounts: Vec<Account>,
    mut asker: Asker,
    mut random: fastrand::Rng,
    until: Instant,
) -> Switched {
    let mut switched = Switched::default();
    let mut uncertain = false;
    while wait(random.u64(800..6000), until).await {
        let held = hold(&mut asker, "/queues/send", random.u64(100..1000)).await;
        switched.queues += 1;
        uncertain |= held.given_up;
        if uncertain {
            switched.uncertain += 1;
        } else {
            let (from_us, until_us) = (held.from_us, held.until_us);
            let pause = |account: &Account| Pause { app_id: account.app_id.clone(), from_us, until_us };
            switched.pauses.extend(accounts.iter().map(pause));
        }
    }
    switched
}

async fn hold(asker: &mut Asker, path: &str, hold_ms: u64) -> Held {
    let paused = asker.switch(&format!("{path}/pause")).await;
    tokio::time::sleep(Duration::from_millis(hold_ms)).await;
    let until_us = Utc::now().timestamp_micros();
    let resumed = asker.switch(&format!("{path}/resume")).await;
    Held { from_us: paused.reply.at_us, until_us, given_up: paused.given_up || resumed.given_up }
}

/// Lets time pass; false: the time is over.
async fn wait(pause_ms: u64, until: Instant) -> bool {
    let next = Instant::now() + Duration::from_millis(pause_ms);
    tokio::time::sleep_until(next.min(until).into()).await;
    next < until
}
