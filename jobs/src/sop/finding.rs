//! What is to be said about a plan: a code, the place in the JSON, and a sentence for the person in the flow editor.

use std::fmt;

use serde::{Serialize, Serializer};

/// How many findings are told at once. A plan with more is no plan; the first ones are enough to begin with.
pub const MOST_FINDINGS: usize = 200;

/// What is wrong (`E`), or may be wrong (`W`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The form: a field that is missing, unknown, of another type, or out of its bounds.
    E01,
    /// Two steps, or two arms of a split, have the same name.
    E02,
    /// A step that is named does not exist.
    E03,
    /// A way leads back to a step that it comes from.
    E04,
    /// No way leads to a step.
    E05,
    /// A text names a variable that is not declared, or has a placeholder that cannot be read.
    E06,
    /// A condition asks about something unknown, or in a way that does not fit it.
    E07,
    /// A material does not exist, is not approved, or is of another kind.
    E08,
    /// No workflow has this alias.
    E09,
    /// The send window never opens, or reaches beyond the organisation's.
    E10,
    /// A cap is above the organisation's.
    E11,
    /// The weights of a split do not add up to 100.
    E12,
    /// A cron expression cannot be read, never fires, or fires more than once an hour.
    E13,
    /// A step is not for groups.
    E14,
    /// An event needs tags or keywords and has none.
    E15,
    /// A range of the send window ends before it begins.
    E16,
    /// Nothing says what happens when the customer answers.
    E17,
    /// The first message does not say who writes, or how to opt out.
    E18,
    /// A path has more messages in a row than may stay unanswered.
    W01,
    /// Two messages have no wait between them.
    W02,
    /// Nobody looks at a text of the model before it is sent.
    W03,
    /// The accounts may not send as many messages as the plan has.
    W04,
    /// Every date of the plan is a holiday.
    W05,
    /// A text has a sensitive word.
    W06,
}

impl Code {
    /// Every code, in order.
    pub const ALL: [Code; 24] = [
        Code::E01,
        Code::E02,
        Code::E03,
        Code::E04,
        Code::E05,
        Code::E06,
        Code::E07,
        Code::E08,
        Code::E09,
        Code::E10,
        Code::E11,
        Code::E12,
        Code::E13,
        Code::E14,
        Code::E15,
        Code::E16,
        Code::E17,
        Code::E18,
        Code::W01,
        Code::W02,
        Code::W03,
        Code::W04,
        Code::W05,
        Code::W06,
    ];

    /// Tells whether a plan with this finding cannot be submitted.
    pub fn is_error(self) -> bool {
        self < Code::W01
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The names of the variants are the codes.
        fmt::Debug::fmt(self, f)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing to be said about a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// Where it is: a JSON pointer, such as `/steps/3/next`; the whole is the empty text.
    pub path: String,
    /// What is wrong and what to change, in one sentence without a full stop.
    pub message: String,
}

impl Finding {
    /// Makes a finding.
    pub fn new(code: Code, path: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { code, path: path.into(), message: message.into() }
    }
}

/// Returns a text from outside as it is shown in a sentence: in quotes, short, and without what cannot be seen.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// Writes one part of a JSON pointer. A key that no editor wrote is cut.
pub(crate) fn child(path: &str, part: impl fmt::Display) -> String {
    let part: String = part.to_string().chars().take(100).collect();
    format!("{path}/{}", part.replace('~', "~0").replace('/', "~1"))
}
