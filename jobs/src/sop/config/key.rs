//! Names of steps and arms, and where a step leads.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name, in characters.
const LONGEST: usize = 40;

fn is_key(text: &str) -> bool {
    text.len() <= LONGEST
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Is said of a name that cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is a small letter and then at most 39 small letters, digits or underscores")]
pub struct NotAName;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Reads a name.
            pub fn parse(text: &str) -> Result<$name, NotAName> {
                if is_key(text) { Ok($name(text.to_owned())) } else { Err(NotAName) }
            }

            /// Returns the name as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAName;

            fn try_from(text: String) -> Result<$name, NotAName> {
                if is_key(&text) { Ok($name(text)) } else { Err(NotAName) }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

key! {
    /// The name of a step, unique in its plan: a small letter, then small letters, digits and underscores, 40 at most.
    StepId
}

key! {
    /// The name of an arm of a split, unique in its step; written as a [`StepId`] is.
    ArmKey
}

/// Where a step leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Next {
    /// To another step.
    Step(StepId),
    /// Nowhere: the enrollment is completed. Written as `null`.
    End,
}

impl Next {
    /// Returns the step, unless the way ends.
    pub fn step(&self) -> Option<&StepId> {
        match self {
            Next::Step(id) => Some(id),
            Next::End => None,
        }
    }

    /// Reads a way that may be left out, which is not the same as `null`.
    pub(super) fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Next>, D::Error> {
        Next::deserialize(deserializer).map(Some)
    }

    /// Reads a way that must stand there. Serde would take a missing field for `null`.
    pub(super) fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Next, D::Error> {
        Next::deserialize(deserializer)
    }
}

impl Serialize for Next {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.step().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Next {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Next, D::Error> {
        Ok(Option::<StepId>::deserialize(deserializer)?.map_or(Next::End, Next::Step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_schema_says() {
        let longest = "a".repeat(40);
        for name in ["a", "d1_hello", "a_", longest.as_str()] {
            assert_eq!(StepId::parse(name).expect(name).as_str(), name);
        }
        let too_long = "a".repeat(41);
        for name in ["", "1a", "_a", "A", "a-b", "步骤", "a\n", "a ", too_long.as_str()] {
            assert_eq!(StepId::parse(name), Err(NotAName), "{name:?}");
        }
    }
}
