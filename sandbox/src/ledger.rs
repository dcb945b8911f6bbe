//! What the phone received, and every call that was made.
//!
//! Both lists are in the order of their times and numbered without gaps.
//! Each keeps its last [`KEPT`] entries; the totals go on counting.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use poem::http::StatusCode;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::failures::Mode;
use crate::gewe::Message;

/// How many entries of each list are kept before the oldest make room.
const KEPT: usize = 500_000;

/// Message ids begin here plus the microseconds of the clock: beyond 2^53, and still growing and
/// unique after a restart.
const FIRST_NEW_MSG_ID: u64 = 7_300_000_000_000_000_000;

/// A moment, shown as text with microseconds and as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(pub(crate) DateTime<Utc>);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown {
            received_at: String,
            received_at_ms: f64,
            received_at_us: i64,
        }
        let micros = self.0.timestamp_micros();
        Shown {
            received_at: self.0.to_rfc3339_opts(SecondsFormat::Micros, true),
            received_at_ms: micros as f64 / 1000.0,
            received_at_us: micros,
        }
        .serialize(serializer)
    }
}

/// One message that GeWe said yes to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    #[serde(flatten)]
    pub(crate) at: Stamp,
    pub(crate) token: String,
    pub(crate) app_id: String,
    pub(crate) to_wxid: String,
    pub(crate) route: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) body: Value,
    /// Text, since JavaScript cannot hold the number.
    #[serde(serialize_with = "as_text")]
    pub(crate) new_msg_id: u64,
    pub(crate) trace_id: Option<String>,
    /// False for a message that was dropped in silence.
    pub(crate) delivered: bool,
}

/// What GeWe tells the sender about an accepted message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    pub(crate) msg_id: u32,
    pub(crate) new_msg_id: u64,
    pub(crate) at: DateTime<Utc>,
    pub(crate) delivered: bool,
}

/// What is known of a call when it comes in.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) method: String,
    /// The whole path as asked for.
    pub(crate) path: String,
    pub(crate) app_id: Option<String>,
    pub(crate) to_wxid: Option<String>,
    pub(crate) trace_id: Option<String>,
}

/// How a call ended, as far as the message is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Still running.
    Pending,
    /// The message is on the phone.
    Delivered,
    /// Answered as accepted, and dropped.
    Dropped,
    /// A call that sends nothing was answered.
    Answered,
    /// Failed on its way in, as planned.
    NotAccepted,
    TokenMissing,
    TokenRefused,
    BadRequest,
    BodyTooLarge,
    UnknownDevice,
    Offline,
    Risk,
    UnknownError,
    NotFound,
    MethodNotAllowed,
    /// A client followed the redirect that it should have refused.
    RedirectFollowed,
}

/// One HTTP call to the GeWe half.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Call {
    pub(crate) seq: u64,
    #[serde(flatten)]
    at: Stamp,
    method: String,
    path: String,
    app_id: Option<String>,
    to_wxid: Option<String>,
    trace_id: Option<String>,
    outcome: Outcome,
    failure: Option<Mode>,
    /// Absent if no answer was given.
    http_status: Option<u16>,
    /// The client hung up before its answer was ready.
    client_gone: bool,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    pub(crate) failure: Option<Mode>,
    /// `None` if no answer was given.
    pub(crate) status: Option<StatusCode>,
    pub(crate) client_gone: bool,
}

impl Ending {
    /// An ending with an answer and without a planned failure.
    pub(crate) fn answered(outcome: Outcome, status: StatusCode) -> Self {
        Self { outcome, failure: None, status: Some(status), client_gone: false }
    }
}

/// What was counted for one account.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Counts {
    /// Every call, also those that failed.
    calls: u64,
    delivered: u64,
}

/// Which entries to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) app_id: Option<String>,
    pub(crate) to_wxid: Option<String>,
    pub(crate) since: Option<Since>,
    pub(crate) delivered: Option<bool>,
}

/// Where a list begins: after a number, or at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Since {
    Seq(u64),
    Time(DateTime<Utc>),
}

/// The two lists and their counters.
pub(crate) struct Ledger {
    entries: VecDeque<Arc<Entry>>,
    calls: VecDeque<Call>,
    counts: BTreeMap<String, Counts>,
    next_entry: u64,
    next_call: u64,
    next_new_msg_id: u64,
    latest: DateTime<Utc>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let now = Utc::now();
        Self {
            entries: VecDeque::new(),
            calls: VecDeque::new(),
            counts: BTreeMap::new(),
            next_entry: 1,
            next_call: 1,
            next_new_msg_id: FIRST_NEW_MSG_ID + now.timestamp_micros().unsigned_abs(),
            latest: now,
        }
    }

    /// Empties both lists. Numbers and message ids go on, so none is ever given twice.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.calls.clear();
        self.counts.clear();
    }

    /// Reads the clock, which never goes back here even if the machine's does.
    pub(crate) fn now(&mut self) -> DateTime<Utc> {
        self.latest = self.latest.max(Utc::now());
        self.latest
    }

    /// Writes a message down. `now` must come from [`Ledger::now`] under the same lock.
    pub(crate) fn record(&mut self, message: Message, now: DateTime<Utc>, delivered: bool) -> Receipt {
        let new_msg_id = self.next_new_msg_id;
        let seq = self.next_entry;
        self.next_new_msg_id += 1;
        self.next_entry += 1;
        if delivered {
            self.counts.entry(message.app_id.clone()).or_default().delivered += 1;
        }
        make_room(&mut self.entries);
        self.entries.push_back(Arc::new(Entry {
            seq,
            at: Stamp(now),
            token: message.token,
            app_id: message.app_id,
            to_wxid: message.to_wxid,
            route: message.route,
            kind: message.kind,
            body: message.body,
            new_msg_id,
            trace_id: message.trace_id,
            delivered,
        }));
        // Local ids are 32 bits wide and positive; they may repeat, the 64-bit ones never do.
        let msg_id = 510_000_000 + (seq % 1_000_000_000) as u32;
        Receipt { msg_id, new_msg_id, at: now, delivered }
    }

    /// Returns ids for a message that did not come through a call: a local one and a global one.
    pub(crate) fn new_ids(&mut self) -> (u32, u64) {
        let new_msg_id = self.next_new_msg_id;
        self.next_new_msg_id += 1;
        (610_000_000 + (new_msg_id % 1_000_000_000) as u32, new_msg_id)
    }

    pub(crate) fn begin_call(&mut self, arrival: Arrival) -> u64 {
        let at = Stamp(self.now());
        let seq = self.next_call;
        self.next_call += 1;
        self.counts.entry(arrival.app_id.clone().unwrap_or_default()).or_default().calls += 1;
        make_room(&mut self.calls);
        self.calls.push_back(Call {
            seq,
            at,
            method: arrival.method,
            path: arrival.path,
            app_id: arrival.app_id,
            to_wxid: arrival.to_wxid,
            trace_id: arrival.trace_id,
            outcome: Outcome::Pending,
            failure: None,
            http_status: None,
            client_gone: false,
        });
        seq
    }

    /// Completes a call. One that a reset has removed meanwhile stays removed.
    pub(crate) fn finish_call(&mut self, seq: u64, ending: Ending) {
        let Some(first) = self.calls.front().map(|call| call.seq) else { return };
        let Some(index) = seq.checked_sub(first) else { return };
        if let Some(call) = self.calls.get_mut(index as usize) {
            call.outcome = ending.outcome;
            call.failure = ending.failure;
            call.http_status = ending.status.map(|status| status.as_u16());
            call.client_gone = ending.client_gone;
        }
    }

    /// Returns the first `limit` entries that pass, and how many pass in all.
    pub(crate) fn entries(&self, filter: &Filter, limit: usize) -> (Vec<Arc<Entry>>, usize) {
        let passing = self.entries.iter().filter(|entry| {
            filter.passes(entry.seq, entry.at, Some(&entry.app_id), Some(&entry.to_wxid))
                && filter.delivered.is_none_or(|wanted| wanted == entry.delivered)
        });
        first_and_total(passing, limit)
    }

    /// Returns the last `limit` messages on the phone, oldest first.
    pub(crate) fn latest(&self, limit: usize) -> Vec<Arc<Entry>> {
        let mut latest: Vec<_> =
            self.entries.iter().rev().filter(|entry| entry.delivered).take(limit).cloned().collect();
        latest.reverse();
        latest
    }

    /// Returns the first `limit` calls that pass, and how many pass in all.
    pub(crate) fn calls(&self, filter: &Filter, limit: usize) -> (Vec<Call>, usize) {
        let passing = self
            .calls
            .iter()
            .filter(|call| filter.passes(call.seq, call.at, call.app_id.as_deref(), call.to_wxid.as_deref()));
        first_and_total(passing, limit)
    }

    /// Returns the counters by `appId`; calls that named none are under the empty one.
    pub(crate) fn counts(&self) -> BTreeMap<String, Counts> {
        self.counts.clone()
    }

    /// Returns how many messages have reached the phone since the last reset.
    pub(crate) fn delivered(&self) -> u64 {
        self.counts.values().map(|counts| counts.delivered).sum()
    }
}

impl Filter {
    fn passes(&self, seq: u64, at: Stamp, app_id: Option<&str>, to_wxid: Option<&str>) -> bool {
        let matches = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        let recent = match self.since {
            None => true,
            Some(Since::Seq(after)) => seq > after,
            Some(Since::Time(from)) => at.0 >= from,
        };
        recent && matches(&self.app_id, app_id) && matches(&self.to_wxid, to_wxid)
    }
}

fn first_and_total<'a, T: Clone + 'a>(passing: impl Iterator<Item = &'a T>, limit: usize) -> (Vec<T>, usize) {
    let mut first = Vec::new();
    let mut total = 0;
    for item in passing {
        total += 1;
        if first.len() < limit {
            first.push(item.clone());
        }
    }
    (first, total)
}

fn make_room<T>(list: &mut VecDeque<T>) {
    if list.len() >= KEPT {
        list.pop_front();
    }
}

fn as_text<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}
