//! Conditions as data: three ways to combine, and tests of single facts.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How deep conditions may stand in one another.
pub const MOST_DEPTH: usize = 10;

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Condition {
    /// True if all of them are.
    All(All),
    /// True if one of them is.
    Any(Any),
    /// True if the other is not.
    Not(Not),
    /// Asks about one fact.
    Test(Test),
}

/// All of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct All {
    /// At least one condition.
    pub all: Vec<Condition>,
}

/// One of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Any {
    /// At least one condition.
    pub any: Vec<Condition>,
}

/// Not this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Not {
    /// The condition.
    pub not: Box<Condition>,
}

/// A question about one fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// The fact's name; see [`crate::sop::condition::Fact`]. Validation refuses what it does not know.
    pub fact: String,
    /// How the fact is compared.
    pub op: Operator,
    /// With what. `null` is the same as nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// How a fact is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Is it this?
    Eq,
    /// Is it something else?
    Ne,
    /// Is it one of these?
    In,
    /// Has it this?
    Contains,
    /// Has it one of these?
    ContainsAny,
    /// Is it more?
    Gt,
    /// Is it as much or more?
    Gte,
    /// Is it less?
    Lt,
    /// Is it as much or less?
    Lte,
    /// Is there anything?
    Exists,
}

impl Operator {
    /// Returns the name that a plan uses.
    pub fn name(self) -> &'static str {
        match self {
            Operator::Eq => "eq",
            Operator::Ne => "ne",
            Operator::In => "in",
            Operator::Contains => "contains",
            Operator::ContainsAny => "contains_any",
            Operator::Gt => "gt",
            Operator::Gte => "gte",
            Operator::Lt => "lt",
            Operator::Lte => "lte",
            Operator::Exists => "exists",
        }
    }
}
