//! Conversations: what an event does to the record, who answers, and when a machine may.
//!
//! | module | what it owns |
//! |---|---|
//! | [`apply`] | what an event of the provider does to the record |
//! | [`arrive`] | a message that comes in, from its row to its turn |
//! | [`typed`] | what the owner types on the phone, and what is only our own echo |
//! | [`events`] | contacts, groups, requests, the account's own state |
//! | [`control`] | words that do something: opting out, asking for a person |
//! | [`decide`] | who answers a message: a pure function |
//! | [`turn`] | turns: what is collected, and when it is answered |
//! | [`mode`] | who answers in a conversation: taking over, handing back, handing off |
//! | [`opt_out`] | wanting no more messages |
//! | [`unsaid`] | answers that may not have arrived, of which people are told |
//! | [`guard`] | whether a machine may say something, at the gate |
//!
//! Whoever changes the mode or a turn holds the conversation's row. Where jobs are enqueued, their lanes are locked
//! before it: see [`entropy_schema::conversations`].

pub mod apply;
pub mod arrive;
pub mod control;
pub mod decide;
pub mod events;
pub mod guard;
pub mod mode;
pub mod opt_out;
pub mod turn;
pub mod typed;
pub mod unsaid;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Who a message is from, as it is stored and shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The other side.
    Customer,
    /// The account's owner, on the phone.
    Phone,
    /// A person of ours, over the API.
    #[default]
    Person,
    /// The model.
    Ai,
    /// A campaign.
    Sop,
}

impl Origin {
    /// Tells whether a person of ours asked for it. Also keeps the args of plain sends as they always were.
    pub fn is_person(&self) -> bool {
        *self == Origin::Person
    }

    /// Returns the word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Customer => "customer",
            Origin::Phone => "phone",
            Origin::Person => "person",
            Origin::Ai => "ai",
            Origin::Sop => "sop",
        }
    }
}

/// Ties a send to the turn that it answers. The gate drops it when the conversation has moved on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The conversation.
    pub conversation_id: Uuid,
    /// The turn.
    pub turn_id: Uuid,
    /// The run of the model that wrote it; an older run's answer is not sent.
    pub run: i16,
    /// The epoch under which it was made.
    pub epoch: i64,
    /// Which message of the answer it is, from 0. A later one says nothing without the first.
    #[serde(default, skip_serializing_if = "is_first")]
    pub part: u8,
    /// When the model's last byte had come, by the clock of the machine that read it; of the first message only. It is
    /// there to be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<DateTime<Utc>>,
}

/// Keeps the args of an answer's first message as they always were.
fn is_first(part: &u8) -> bool {
    *part == 0
}
