//! Brings callbacks to their address, and writes down how each attempt went.
//!
//! An attempt is given three seconds, as the provider gives. By default nothing is delivered again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use serde::Serialize;

use super::shown;
use crate::Sandbox;

/// How long an address may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// How many attempts are kept before the oldest make room.
const KEPT: usize = 100_000;

/// One delivery that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub(crate) app_id: String,
    /// The provider's word for the event.
    pub(crate) event: String,
    pub(crate) new_msg_id: Option<String>,
    /// Which copy, from 1.
    pub(crate) copy: u32,
    pub(crate) url: Arc<str>,
    pub(crate) authorization: Option<Arc<str>>,
    pub(crate) body: Arc<str>,
    pub(crate) retries: u32,
    pub(crate) retry: Duration,
}

/// How one attempt went.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Attempt {
    pub(crate) seq: u64,
    pub(crate) at: String,
    pub(crate) app_id: String,
    pub(crate) event: String,
    pub(crate) new_msg_id: Option<String>,
    pub(crate) copy: u32,
    /// From 1.
    pub(crate) attempt: u32,
    /// Absent if there was no answer.
    pub(crate) status: Option<u16>,
    pub(crate) ms: f64,
    /// `timeout`, `connect` or `broken`.
    pub(crate) error: Option<&'static str>,
}

/// All attempts, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    list: VecDeque<Attempt>,
    last: u64,
    /// Deliveries that have not ended.
    pub(crate) pending: u64,
    /// How many attempts ended in which way.
    pub(crate) outcomes: BTreeMap<String, u64>,
}

impl Attempts {
    fn add(&mut self, mut attempt: Attempt) {
        self.last += 1;
        attempt.seq = self.last;
        let outcome = attempt.status.map(|status| status.to_string());
        *self
            .outcomes
            .entry(outcome.unwrap_or_else(|| attempt.error.unwrap_or("broken").to_owned()))
            .or_default() += 1;
        if self.list.len() >= KEPT {
            self.list.pop_front();
        }
        self.list.push_back(attempt);
    }

    /// Returns the first `limit` attempts after `since` of this account, and how many there are in all.
    pub(crate) fn list(&self, app_id: Option<&str>, since: u64, limit: usize) -> (Vec<Attempt>, usize) {
        let passing =
            |attempt: &&Attempt| attempt.seq > since && app_id.is_none_or(|app_id| attempt.app_id == app_id);
        let total = self.list.iter().filter(passing).count();
        (self.list.iter().filter(passing).take(limit).cloned().collect(), total)
    }
}

/// Delivers parcels in a task, each not before its time and none before the one in front of it.
pub(crate) fn in_order(sandbox: &Sandbox, parcels: Vec<(Duration, Parcel)>) {
    let era = expect(sandbox, parcels.len());
    let task = sandbox.clone();
    sandbox.spawn(async move {
        let began = Instant::now();
        for (after, parcel) in parcels {
            tokio::time::sleep(after.saturating_sub(began.elapsed())).await;
            deliver(&task, &parcel, era).await;
        }
    });
}

/// Delivers parcels each in a task of its own, not before its time.
pub(crate) fn at_once(sandbox: &Sandbox, parcels: Vec<(Duration, Parcel)>) {
    for parcel in parcels {
        in_order(sandbox, vec![parcel]);
    }
}

/// Counts deliveries that are to come and returns the era that they belong to.
pub(super) fn expect(sandbox: &Sandbox, count: usize) -> u64 {
    let mut state = sandbox.state();
    state.customer.attempts.pending += count as u64;
    state.customer.era
}

/// Delivers one parcel, again if it asks for that; returns its last status and how long that took.
///
/// Nothing is delivered that a reset came before.
pub(super) async fn deliver(sandbox: &Sandbox, parcel: &Parcel, era: u64) -> Option<(Option<u16>, Duration)> {
    let mut outcome = None;
    for number in 1..=parcel.retries + 1 {
        if sandbox.state().customer.era != era {
            return None;
        }
        if number > 1 {
            tokio::time::sleep(parcel.retry).await;
        }
        let (status, error, took) = post(sandbox.http(), parcel).await;
        let mut state = sandbox.state();
        if state.customer.era != era {
            return None;
        }
        state.customer.attempts.add(Attempt {
            seq: 0,
            at: shown(Utc::now()),
            app_id: parcel.app_id.clone(),
            event: parcel.event.clone(),
            new_msg_id: parcel.new_msg_id.clone(),
            copy: parcel.copy,
            attempt: number,
            status,
            ms: took.as_micros() as f64 / 1000.0,
            error,
        });
        outcome = Some((status, took));
        if status.is_some_and(|status| (200..300).contains(&status)) {
            break;
        }
    }
    let mut state = sandbox.state();
    if state.customer.era == era {
        state.customer.attempts.pending = state.customer.attempts.pending.saturating_sub(1);
    }
    outcome
}

async fn post(client: &reqwest::Client, parcel: &Parcel) -> (Option<u16>, Option<&'static str>, Duration) {
    let began = Instant::now();
    let mut request = client
        .post(parcel.url.as_ref())
        .header("content-type", "application/json")
        .body(parcel.body.to_string());
    if let Some(authorization) = &parcel.authorization {
        request = request.header("authorization", authorization.as_ref());
    }
    let answer = request.timeout(PATIENCE).send().await;
    let took = began.elapsed();
    match answer {
        Ok(answer) => (Some(answer.status().as_u16()), None, took),
        Err(error) if error.is_timeout() => (None, Some("timeout"), took),
        Err(error) if error.is_connect() => (None, Some("connect"), took),
        Err(_) => (None, Some("broken"), took),
    }
}
