//! Every call of the model, for those who compare what was asked with what was booked.

use std::collections::VecDeque;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;

use super::Profile;

/// How many runs are kept before the oldest make room.
const KEPT: usize = 200_000;

/// What became of a run, as its client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Running,
    Answered,
    /// Refused before it began; nothing was run.
    Refused,
    /// It ran, and its client was not given the whole answer.
    Lost,
}

/// One call.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) seq: u64,
    pub(crate) app_id: String,
    /// The last four characters of the key.
    pub(crate) key_end: String,
    pub(crate) chat_id: String,
    pub(crate) data_id: String,
    pub(crate) custom_uid: Option<String>,
    pub(crate) stream: bool,
    pub(crate) detail: bool,
    pub(crate) profile: Profile,
    /// The last message, its texts joined.
    pub(crate) question: String,
    /// The messages as they were sent.
    pub(crate) messages: Value,
    pub(crate) variables: Value,
    pub(crate) trace_id: Option<String>,
    pub(crate) script: Option<u64>,
    pub(crate) answer: Option<String>,
    pub(crate) nodes: Vec<Value>,
    pub(crate) outcome: Outcome,
    pub(crate) http_status: Option<u16>,
    /// The answer is in the chat's records.
    pub(crate) saved: bool,
    pub(crate) client_gone: bool,
    pub(crate) started_at: String,
    pub(crate) started_at_us: i64,
    /// When the last byte was handed to the socket.
    pub(crate) finished_at: Option<String>,
    pub(crate) finished_at_us: Option<i64>,
}

/// All runs, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: VecDeque<Run>,
    last: u64,
}

impl Runs {
    /// Adds a run, which gets its number here.
    pub(crate) fn begin(&mut self, mut run: Run) -> u64 {
        self.last += 1;
        run.seq = self.last;
        if self.runs.len() >= KEPT {
            self.runs.pop_front();
        }
        self.runs.push_back(run);
        self.last
    }

    /// Changes a run, unless a reset has removed it.
    pub(crate) fn update(&mut self, seq: u64, change: impl FnOnce(&mut Run)) {
        let Some(first) = self.runs.front().map(|run| run.seq) else { return };
        let index = seq.checked_sub(first).map(|index| index as usize);
        if let Some(run) = index.and_then(|index| self.runs.get_mut(index)) {
            change(run);
        }
    }

    /// Returns the first `limit` runs after `since` of this chat, and how many there are in all.
    pub(crate) fn list(&self, chat_id: Option<&str>, since: u64, limit: usize) -> (Vec<Run>, usize) {
        let passing = |run: &&Run| run.seq > since && chat_id.is_none_or(|chat_id| run.chat_id == chat_id);
        let total = self.runs.iter().filter(passing).count();
        (self.runs.iter().filter(passing).take(limit).cloned().collect(), total)
    }

    /// Empties the list; numbers go on.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }
}

impl Run {
    /// Notes that the last byte has left.
    pub(crate) fn finish(&mut self, outcome: Outcome, status: Option<u16>) {
        let now = Utc::now();
        self.outcome = outcome;
        self.http_status = status;
        self.finished_at = Some(shown(now));
        self.finished_at_us = Some(now.timestamp_micros());
    }
}

/// A time with microseconds.
pub(crate) fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
