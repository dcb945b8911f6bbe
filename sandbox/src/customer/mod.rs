//! The customer's side: what people write to the accounts, and the callbacks that tell of it.
//!
//! `events` makes the provider's bodies in each of its formats, `requests` reads what is asked for,
//! `delivery` brings the bodies to the callback address, `flood` does so by the thousand, and
//! `control` is the switches under `/_sandbox/customer`.

mod control;
pub(crate) mod delivery;
mod events;
mod flood;
mod requests;
mod xml;

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

pub(crate) use control::echo;
pub(crate) use control::routes as control_routes;
use delivery::Attempts;
pub(crate) use delivery::Parcel;
pub(crate) use requests::Kind;

/// How many lines of all chats are kept before the oldest make room.
const KEPT: usize = 100_000;

/// In which form an event is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// Nested, with `Data`.
    #[default]
    Classic,
    /// Nested, with lower-case keys at the top.
    Lowercase,
    /// The newer one, flat.
    Flat,
}

/// What holds for every callback.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    pub(crate) format: Format,
    /// Sent as `Authorization` with every callback but the probes.
    #[serde(skip_serializing)]
    pub(crate) authorization: Option<String>,
    /// Sends over the API are called back too, which the real one is said not to do.
    pub(crate) echo_api_sends: bool,
}

/// Who wrote a line of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Author {
    Customer,
    /// The account's owner, on the phone.
    Owner,
}

/// One line of a chat, as the phones show it; what was sent over the API is in the ledger.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) app_id: String,
    /// The other person, or the group.
    pub(crate) peer: String,
    pub(crate) sender: String,
    pub(crate) author: Author,
    pub(crate) text: String,
    pub(crate) new_msg_id: String,
    pub(crate) msg_id: u32,
    pub(crate) recalled: bool,
    pub(crate) at: DateTime<Utc>,
}

/// Everything that the customers' side remembers.
#[derive(Default)]
pub(crate) struct Customer {
    pub(crate) settings: Settings,
    pub(crate) lines: VecDeque<Line>,
    pub(crate) attempts: Attempts,
    pub(crate) flood: flood::Progress,
    /// Names that customers gave themselves, by wxid.
    pub(crate) names: BTreeMap<String, String>,
    last_sequence: u32,
    /// Grows with every reset: a flood of an earlier one stops.
    pub(crate) era: u64,
}

impl Customer {
    pub(crate) fn reset(&mut self) {
        let era = self.era + 1;
        *self = Self { era, ..Self::default() };
    }

    /// Returns the next `MsgSeq`.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.last_sequence += 1;
        810_000_000 + self.last_sequence
    }

    pub(crate) fn note(&mut self, line: Line) {
        if self.lines.len() >= KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Finds the last line that the customer can still take back, or the one that is named.
    pub(crate) fn last_line(&self, app_id: &str, peer: &str, new_msg_id: Option<&str>) -> Option<Line> {
        let fits = |line: &&Line| {
            line.app_id == app_id
                && line.peer == peer
                && match new_msg_id {
                    Some(wanted) => line.new_msg_id == wanted,
                    None => line.author == Author::Customer && !line.recalled,
                }
        };
        self.lines.iter().rev().find(fits).cloned()
    }

    pub(crate) fn mark_recalled(&mut self, new_msg_id: &str) {
        for line in self.lines.iter_mut().filter(|line| line.new_msg_id == new_msg_id) {
            line.recalled = true;
        }
    }
}

/// A time with microseconds.
pub(crate) fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
