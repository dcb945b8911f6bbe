//! Conversations: what an event does to the record, who answers, and when a machine may.

pub mod apply;

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
}
