//! The steps of a plan.

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::key::{ArmKey, Next, StepId};
use super::period::Period;
use super::window::LocalTime;

/// One step: a node of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Step {
    /// Sends one message.
    Send(Send),
    /// Has a model write one message, and sends it.
    AiSend(AiSend),
    /// Waits for a length of time, or until a time of day.
    Wait(Wait),
    /// Waits for the customer's answer.
    WaitReply(WaitReply),
    /// Goes the way of the first condition that is true.
    Branch(Branch),
    /// Goes one of several ways by chance, always the same for an enrollment.
    Split(Split),
    /// Adds tags to the contact and removes tags.
    Tag(Tag),
    /// Hands the conversation to a person.
    Handoff(Handoff),
    /// Completes the enrollment.
    End(End),
}

/// Sends one message. It is rendered when it is due, not before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// The step's name.
    pub id: StepId,
    /// What people call the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What is sent.
    pub message: Message,
    /// What happens if a value is missing that a text needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_missing_variable: Option<OnMissingVariable>,
    /// Where it goes on.
    #[serde(deserialize_with = "Next::required")]
    pub next: Next,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// A text, perhaps with placeholders.
    Text(Text),
    /// A picture.
    Image(Material),
    /// A file.
    File(Material),
    /// A link with a card.
    Link(Material),
    /// A mini program's page.
    MiniProgram(Material),
}

/// A text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The text, in which `{{name}}` stands for a variable.
    pub text: String,
}

/// Something of the organisation's materials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Material {
    /// Its id. The revision is pinned when the plan is approved.
    pub material_id: String,
}

/// The kinds of material.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaterialKind {
    /// A picture.
    Image,
    /// A file.
    File,
    /// A link with a card.
    Link,
    /// A mini program's page.
    MiniProgram,
}

impl MaterialKind {
    /// Returns the name that a plan uses.
    pub fn name(self) -> &'static str {
        match self {
            MaterialKind::Image => "image",
            MaterialKind::File => "file",
            MaterialKind::Link => "link",
            MaterialKind::MiniProgram => "mini_program",
        }
    }
}

impl Message {
    /// Returns the material that is sent, unless it is a text.
    pub fn material(&self) -> Option<(MaterialKind, &str)> {
        let (kind, material) = match self {
            Message::Text(_) => return None,
            Message::Image(material) => (MaterialKind::Image, material),
            Message::File(material) => (MaterialKind::File, material),
            Message::Link(material) => (MaterialKind::Link, material),
            Message::MiniProgram(material) => (MaterialKind::MiniProgram, material),
        };
        Some((kind, &material.material_id))
    }

    /// Returns the text, unless it is a material.
    pub fn text(&self) -> Option<&str> {
        match self {
            Message::Text(text) => Some(&text.text),
            _ => None,
        }
    }
}

/// What happens if a value is missing that a text needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMissingVariable {
    /// The variable's default is taken; a variable without one skips the step.
    #[default]
    Default,
    /// The step is skipped, unless the variable has a default.
    Skip,
    /// The enrollment ends, unless the variable has a default.
    Exit,
}

/// Has a model write one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AiSend {
    /// The step's name.
    pub id: StepId,
    /// What people call the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The alias of the workflow that writes. Never a key.
    pub workflow: String,
    /// What it is asked for.
    pub instruction: String,
    /// The longest text that is taken, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_chars: Option<u32>,
    /// Whether a person looks at the text first. Without a word, nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<Review>,
    /// What is sent if the model gives nothing that can be.
    pub fallback_text: String,
    /// Where it goes on.
    #[serde(deserialize_with = "Next::required")]
    pub next: Next,
}

/// Who looks at a model's text before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Review {
    /// Nobody.
    #[default]
    None,
    /// A person.
    Human,
}

/// Waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawWait", into = "RawWait")]
pub struct Wait {
    /// The step's name.
    pub id: StepId,
    /// What people call the step.
    pub label: Option<String>,
    /// For how long, or until when.
    pub wait: WaitFor,
    /// Where it goes on.
    pub next: Next,
}

/// How long a step waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitFor {
    /// For a length of time.
    For(Period),
    /// Until a time of a day.
    Until(Until),
}

/// A time of a day, counted from another day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Until {
    /// The day from which is counted.
    #[serde(default)]
    pub from: CountFrom,
    /// How many days later.
    pub day_offset: u16,
    /// At which time of that day.
    pub at: LocalTime,
    /// Which days are counted.
    #[serde(default)]
    pub count: Count,
}

/// The day from which is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountFrom {
    /// The local day on which the step is reached.
    #[default]
    Here,
    /// The local day on which the enrollment's first step was due, so that an offset of 1 is the second day.
    Start,
}

/// Which days are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// All of them.
    #[default]
    CalendarDay,
    /// Working days.
    Workday,
}

/// A wait as it is written: `for` or `until`, and not both.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWait {
    id: StepId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    period: Option<Period>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Until>,
    #[serde(deserialize_with = "Next::required")]
    next: Next,
}

impl TryFrom<RawWait> for Wait {
    type Error = &'static str;

    fn try_from(raw: RawWait) -> Result<Wait, &'static str> {
        let wait = match (raw.period, raw.until) {
            (Some(period), None) => WaitFor::For(period),
            (None, Some(until)) => WaitFor::Until(until),
            _ => return Err("a wait needs either `for` or `until`"),
        };
        Ok(Wait { id: raw.id, label: raw.label, wait, next: raw.next })
    }
}

impl From<Wait> for RawWait {
    fn from(wait: Wait) -> RawWait {
        let (period, until) = match wait.wait {
            WaitFor::For(period) => (Some(period), None),
            WaitFor::Until(until) => (None, Some(until)),
        };
        RawWait { id: wait.id, label: wait.label, period, until, next: wait.next }
    }
}

/// Waits for the customer's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitReply {
    /// The step's name.
    pub id: StepId,
    /// What people call the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How long.
    pub timeout: Period,
    /// Where it goes on with an answer. Left out, the plan's stop rule for replies decides; written as `null`, the
    /// enrollment is completed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Next::given")]
    pub on_reply: Option<Next>,
    /// Where it goes on without one.
    #[serde(deserialize_with = "Next::required")]
    pub on_timeout: Next,
}

/// Goes the way of the first condition that is true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// The step's name.
    pub id: StepId,
    /// What people call the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The ways, the first true one is taken.
    pub cases: Vec<Case>,
    /// The way if none is true.
    #[serde(rename = "else", deserialize_with = "Next::required")]
    pub otherwise: Next,
}

/// A way of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it is taken.
    pub when: Condition,
    /// Where it leads.
    #[serde(deserialize_with = "Next::required")]
    pub next: Next,
}

/// Goes one of several ways. Which one: [`crate::sop::split`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The step's name.
    pub id: StepId,
    /// What people call the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The ways. Their weights add up to 100.
    pub arms: Vec<Arm>,
}

/// A way of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name.
    pub key: ArmKey,
    /// How many of a hundred go this way.
    pub weight: u8,
    /// Where it leads.
    #[serde(deserialize_with = "Next::required")]
    pub next: Next,
}

/// Adds tags to the contact and removes tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// The step's name.
    pub id: StepId,
    /// What people call the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<Vec<String>>,
    /// What is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Vec<String>>,
    /// Where it goes on.
    #[serde(deserialize_with = "Next::required")]
    pub next: Next,
}

/// Hands the conversation to a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    /// The step's name.
    pub id: StepId,
    /// What people call the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// To whom.
    pub to: HandoffTo,
    /// The team, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    /// What the person should know.
    pub note: String,
    /// Where it goes on, normally to an end.
    #[serde(deserialize_with = "Next::required")]
    pub next: Next,
}

/// Who takes a conversation over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandoffTo {
    /// The person to whom the account belongs.
    Owner,
    /// A team.
    Team,
}

/// Completes the enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The step's name.
    pub id: StepId,
    /// What people call the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How it came out, in the team's own words.
    pub outcome: String,
}

/// A way out of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way<'a> {
    /// Where it stands in the step, as a part of a JSON pointer: `/next`, `/cases/0/next`.
    pub place: String,
    /// Where it leads.
    pub next: &'a Next,
}

impl Step {
    /// Returns the step's name.
    pub fn id(&self) -> &StepId {
        match self {
            Step::Send(step) => &step.id,
            Step::AiSend(step) => &step.id,
            Step::Wait(step) => &step.id,
            Step::WaitReply(step) => &step.id,
            Step::Branch(step) => &step.id,
            Step::Split(step) => &step.id,
            Step::Tag(step) => &step.id,
            Step::Handoff(step) => &step.id,
            Step::End(step) => &step.id,
        }
    }

    /// Returns what people call the step, if they call it anything.
    pub fn label(&self) -> Option<&str> {
        match self {
            Step::Send(step) => step.label.as_deref(),
            Step::AiSend(step) => step.label.as_deref(),
            Step::Wait(step) => step.label.as_deref(),
            Step::WaitReply(step) => step.label.as_deref(),
            Step::Branch(step) => step.label.as_deref(),
            Step::Split(step) => step.label.as_deref(),
            Step::Tag(step) => step.label.as_deref(),
            Step::Handoff(step) => step.label.as_deref(),
            Step::End(step) => step.label.as_deref(),
        }
    }

    /// Returns the type's name as a plan writes it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Step::Send(_) => "send",
            Step::AiSend(_) => "ai_send",
            Step::Wait(_) => "wait",
            Step::WaitReply(_) => "wait_reply",
            Step::Branch(_) => "branch",
            Step::Split(_) => "split",
            Step::Tag(_) => "tag",
            Step::Handoff(_) => "handoff",
            Step::End(_) => "end",
        }
    }

    /// Tells whether the step sends a message.
    pub fn sends(&self) -> bool {
        matches!(self, Step::Send(_) | Step::AiSend(_))
    }

    /// Returns every way out of the step, in the order in which the plan names them.
    pub fn ways(&self) -> Vec<Way<'_>> {
        let way = |place: &str, next| Way { place: place.to_owned(), next };
        match self {
            Step::Send(step) => vec![way("/next", &step.next)],
            Step::AiSend(step) => vec![way("/next", &step.next)],
            Step::Wait(step) => vec![way("/next", &step.next)],
            Step::WaitReply(step) => {
                let reply = step.on_reply.iter().map(|next| way("/on_reply", next));
                reply.chain([way("/on_timeout", &step.on_timeout)]).collect()
            }
            Step::Branch(step) => {
                let cases = step.cases.iter().enumerate();
                let cases = cases.map(|(at, case)| way(&format!("/cases/{at}/next"), &case.next));
                cases.chain([way("/else", &step.otherwise)]).collect()
            }
            Step::Split(step) => {
                let arms = step.arms.iter().enumerate();
                arms.map(|(at, arm)| way(&format!("/arms/{at}/next"), &arm.next)).collect()
            }
            Step::Tag(step) => vec![way("/next", &step.next)],
            Step::Handoff(step) => vec![way("/next", &step.next)],
            Step::End(_) => Vec::new(),
        }
    }
}
