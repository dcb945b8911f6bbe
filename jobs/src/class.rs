//! Priority classes: who waits for a job.

use serde::{Deserialize, Serialize};

/// A job's priority. A lane takes its jobs by class first, then in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A person waits in front of a screen.
    #[default]
    Interactive,
    /// A customer waits for an answer.
    Reply,
    /// Nobody waits.
    Campaign,
}

impl Class {
    /// The number that is stored; smaller goes first.
    pub fn as_i16(self) -> i16 {
        self as i16
    }

    /// Reads the stored number.
    pub fn from_i16(number: i16) -> Option<Class> {
        match number {
            0 => Some(Class::Interactive),
            1 => Some(Class::Reply),
            2 => Some(Class::Campaign),
            _ => None,
        }
    }

    /// The class's name, as it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Interactive => "interactive",
            Class::Reply => "reply",
            Class::Campaign => "campaign",
        }
    }
}
