//! For whom a plan is, how much it may send, and when it stops.

use std::fmt;
use std::str::FromStr;

use bigdecimal::BigDecimal;
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::period::Period;

/// For whom a plan is. Who exactly is said by its targets; this narrows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audience {
    /// Friends or groups.
    pub kind: AudienceKind,
    /// Who of the targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Condition>,
    /// Whether they must have agreed.
    pub consent: Consent,
    /// Whether who is in another plan is left out.
    #[serde(default = "yes")]
    pub exclude_other_active_sop: bool,
    /// How often somebody may go through the plan. Without a word, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub re_entry: Option<ReEntry>,
    /// The plan does not start with more people than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u32>,
}

fn yes() -> bool {
    true
}

/// Friends or groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudienceKind {
    /// People, one by one.
    Friend,
    /// Groups, each as if it were one person.
    Group,
}

/// Whether people must have agreed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consent {
    /// Whether they must.
    pub required: bool,
    /// To what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// How often somebody may go through a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReEntry {
    /// How often at most.
    pub max_times: u32,
    /// How long after the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<Period>,
}

/// How much a plan may send. What the organisation allows holds besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caps {
    /// Messages to one contact on one local day, over all plans.
    pub per_contact_per_day: u32,
    /// Messages to one contact in a week, over all plans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_contact_per_week: Option<u32>,
    /// Messages of one account on one local day, over all plans.
    pub per_account_per_day: u32,
    /// The shortest time between two messages to one contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_gap: Option<Period>,
    /// Messages in a row to one contact without any answer, over all plans.
    pub max_unanswered: u32,
    /// What happens to a message that a cap stops.
    #[serde(default)]
    pub on_cap: OnCap,
    /// What models may cost for one person's way through the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ai_budget_yuan_per_enrollment: Option<Yuan>,
}

/// What happens to a message that a cap stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCap {
    /// It waits until the cap allows it.
    #[default]
    Defer,
    /// It is left out, and the plan goes on.
    Skip,
    /// The enrollment ends.
    Exit,
}

/// An amount in yuan, with at most six digits behind the point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Yuan(BigDecimal);

/// Is said of a text that is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write an amount in yuan as \"0.20\": at most 10 digits, and 6 behind the point")]
pub struct NotAnAmount;

impl Yuan {
    /// Returns the amount.
    pub fn amount(&self) -> &BigDecimal {
        &self.0
    }
}

impl FromStr for Yuan {
    type Err = NotAnAmount;

    fn from_str(text: &str) -> Result<Yuan, NotAnAmount> {
        let (whole, part) = match text.split_once('.') {
            Some((whole, part)) if !part.is_empty() => (whole, part),
            Some(_) => return Err(NotAnAmount),
            None => (text, ""),
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let fits = (1..=10).contains(&whole.len()) && part.len() <= 6 && digits(whole) && digits(part);
        if !fits {
            return Err(NotAnAmount);
        }
        BigDecimal::from_str(text).map(Yuan).map_err(|_| NotAnAmount)
    }
}

impl fmt::Display for Yuan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_plain_string())
    }
}

impl TryFrom<String> for Yuan {
    type Error = NotAnAmount;

    fn try_from(text: String) -> Result<Yuan, NotAnAmount> {
        text.parse()
    }
}

impl From<Yuan> for String {
    fn from(yuan: Yuan) -> String {
        yuan.to_string()
    }
}

/// What happens to a step that is run later than it was due. A window or a cap makes a new due time and is not lateness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Late {
    /// How late it may be.
    pub max_delay: Period,
    /// What happens beyond.
    pub on_expired: OnExpired,
}

/// What happens to a step that is too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpired {
    /// It is left out, and the plan goes on.
    Skip,
    /// The enrollment ends.
    Exit,
}

/// A rule that stops an enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// When.
    pub on: StopOn,
    /// What is done.
    #[serde(rename = "do")]
    pub action: StopAction,
    /// The tags, one of them is enough. Those that the enrollment itself has set do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// How many failures in a row. Without a word, one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// How long after the enrollment began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Period>,
    /// After which time a pause ends by itself. Without a word, a person ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_after: Option<Period>,
    /// How it came out, in the team's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// What makes a rule stop an enrollment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopOn {
    /// The customer has answered.
    Reply,
    /// The contact was given one of the tags.
    TagAdded,
    /// The plan's goal is reached.
    Goal,
    /// It has taken too long.
    Deadline,
    /// Messages could not be sent.
    SendFailures,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopAction {
    /// Ends the enrollment.
    Exit,
    /// Holds it.
    Pause,
    /// Ends it and hands the conversation to a person.
    Handoff,
}

/// A variable that texts may use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// What people call it.
    pub label: String,
    /// What stands in its place where there is no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// Who must approve a plan. The organisation may ask for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Whether somebody must.
    pub required: bool,
    /// With which role at least. Without a word, a manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ApproverRole>,
}

/// Who may approve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApproverRole {
    /// Admins and owners.
    Admin,
    /// Managers too.
    #[default]
    Manager,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_keeps_its_digits() {
        for text in ["0", "0.20", "12.000001", "1234567890.123456", "007"] {
            let yuan: Yuan = text.parse().expect(text);
            assert_eq!(yuan.to_string().parse(), Ok(yuan.clone()), "{text}");
        }
        assert_eq!("0.20".parse::<Yuan>().expect("an amount").to_string(), "0.20");
        for text in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.1234567", "12345678901", "１", " 1", "NaN"]
        {
            assert_eq!(text.parse::<Yuan>(), Err(NotAnAmount), "{text:?}");
        }
    }
}
