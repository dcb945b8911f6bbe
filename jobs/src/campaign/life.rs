//! A plan's life: which action is possible in which status, and where it leads. Pure.
//!
//! ```text
//!            submit           approve            start            pause
//!   DRAFT ─────────► IN_REVIEW ─────► APPROVED ───────► RUNNING ◄───────► PAUSED
//!     ▲                  │               │                 │    resume      │
//!     └──────── edit ────┴───────────────┘                 └─── stop ───────┴──► STOPPED
//!
//!   DRAFT, IN_REVIEW, APPROVED, STOPPED ── archive ──► ARCHIVED
//! ```
//!
//! A plan that runs or is paused can be edited, submitted and approved as well: it stays what it is, and its next version
//! takes the place of the old one for whoever enters from then on.

use std::fmt;
use std::str::FromStr;

/// Where a plan's life stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It is being written.
    Draft,
    /// It waits for its approval.
    InReview,
    /// It may be started.
    Approved,
    /// People enter it, and it writes to them.
    Running,
    /// Nobody enters it, and nothing is sent, until it is resumed.
    Paused,
    /// It has ended, and everybody in it with it.
    Stopped,
    /// It is kept for the record.
    Archived,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 7] = [
        Status::Draft,
        Status::InReview,
        Status::Approved,
        Status::Running,
        Status::Paused,
        Status::Stopped,
        Status::Archived,
    ];

    /// Returns the status as it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Draft => "DRAFT",
            Status::InReview => "IN_REVIEW",
            Status::Approved => "APPROVED",
            Status::Running => "RUNNING",
            Status::Paused => "PAUSED",
            Status::Stopped => "STOPPED",
            Status::Archived => "ARCHIVED",
        }
    }

    /// Tells whether the plan has begun and has not ended.
    pub fn is_live(self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no plan has this status")]
pub struct NotAStatus;

impl FromStr for Status {
    type Err = NotAStatus;

    fn from_str(text: &str) -> Result<Status, NotAStatus> {
        Status::ALL.into_iter().find(|status| status.as_str() == text).ok_or(NotAStatus)
    }
}

/// What people do with a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Change what it says. Voids a review and an approval that has not begun to run.
    Edit,
    /// Make a version of the draft and ask for its approval.
    Submit,
    /// Approve the version that waits.
    Approve,
    /// Begin.
    Start,
    /// Halt for a while.
    Pause,
    /// Go on.
    Resume,
    /// End it for everybody.
    Stop,
    /// Put it away.
    Archive,
    /// Make a new draft of it.
    Copy,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 9] = [
        Action::Edit,
        Action::Submit,
        Action::Approve,
        Action::Start,
        Action::Pause,
        Action::Resume,
        Action::Stop,
        Action::Archive,
        Action::Copy,
    ];
}

/// Why an action is not possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable name.
    pub code: &'static str,
    /// What to do instead, as a sentence.
    pub message: &'static str,
}

const fn refused(code: &'static str, message: &'static str) -> Result<Status, Refusal> {
    Err(Refusal { code, message })
}

/// Returns the status that follows from an action, or why the action is not possible.
///
/// Approving a plan that is live needs, besides, that a version waits; the status does not tell that.
pub fn after(status: Status, action: Action) -> Result<Status, Refusal> {
    use Status::{Approved, Archived, Draft, InReview, Paused, Running, Stopped};
    match (action, status) {
        (Action::Copy, status) => Ok(status),
        (_, Archived) => refused("plan_archived", "The plan is archived. Copy it, and go on with the copy."),
        (Action::Edit, Draft | InReview | Approved) => Ok(Draft),
        (Action::Edit | Action::Submit, status @ (Running | Paused)) => Ok(status),
        (Action::Submit, Draft) => Ok(InReview),
        (Action::Submit, InReview) => refused(
            "already_in_review",
            "The plan waits for its approval already. Approve it, or change it first.",
        ),
        (Action::Submit, Approved) => {
            refused("already_approved", "The plan is approved. Start it, or change it first.")
        }
        (Action::Approve, InReview) => Ok(Approved),
        (Action::Approve, status @ (Running | Paused)) => Ok(status),
        (Action::Approve, Draft) => refused("not_in_review", "The plan is a draft. Submit it first."),
        (Action::Approve, Approved) => refused("already_approved", "The plan is approved already. Start it."),
        (Action::Start, Approved) => Ok(Running),
        (Action::Start, Draft | InReview) => {
            refused("not_approved", "The plan is not approved. Have it approved first.")
        }
        (Action::Start, Running) => refused("already_running", "The plan runs already."),
        (Action::Start, Paused) => refused("plan_paused", "The plan is paused. Resume it instead."),
        (Action::Pause, Running) => Ok(Paused),
        (Action::Pause, Paused) => refused("plan_paused", "The plan is paused already."),
        (Action::Resume, Paused) => Ok(Running),
        (Action::Resume, Running) => refused("already_running", "The plan runs already."),
        (Action::Stop, Running | Paused) => Ok(Stopped),
        (Action::Pause | Action::Resume | Action::Stop, Draft | InReview | Approved) => {
            refused("not_running", "The plan was not started.")
        }
        (Action::Archive, Draft | InReview | Approved | Stopped) => Ok(Archived),
        (Action::Archive, Running | Paused) => {
            refused("still_running", "People are on their way through the plan. Stop it first.")
        }
        (_, Stopped) => refused("plan_stopped", "The plan was stopped. Copy it, and go on with the copy."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair: a row an action, a column a status, in the order of [`Status::ALL`]. `.` is refused.
    const TABLE: [(Action, [&str; 7]); 9] = [
        (Action::Edit, ["DRAFT", "DRAFT", "DRAFT", "RUNNING", "PAUSED", ".", "."]),
        (Action::Submit, ["IN_REVIEW", ".", ".", "RUNNING", "PAUSED", ".", "."]),
        (Action::Approve, [".", "APPROVED", ".", "RUNNING", "PAUSED", ".", "."]),
        (Action::Start, [".", ".", "RUNNING", ".", ".", ".", "."]),
        (Action::Pause, [".", ".", ".", "PAUSED", ".", ".", "."]),
        (Action::Resume, [".", ".", ".", ".", "RUNNING", ".", "."]),
        (Action::Stop, [".", ".", ".", "STOPPED", "STOPPED", ".", "."]),
        (Action::Archive, ["ARCHIVED", "ARCHIVED", "ARCHIVED", ".", ".", "ARCHIVED", "."]),
        (Action::Copy, ["DRAFT", "IN_REVIEW", "APPROVED", "RUNNING", "PAUSED", "STOPPED", "ARCHIVED"]),
    ];

    #[test]
    fn every_pair_of_status_and_action_has_its_answer() {
        for (action, row) in TABLE {
            for (status, expected) in Status::ALL.into_iter().zip(row) {
                match after(status, action) {
                    Ok(next) => assert_eq!(next.as_str(), expected, "{action:?} at {status}"),
                    Err(refusal) => {
                        assert_eq!(".", expected, "{action:?} at {status}: {refusal}");
                        assert!(refusal.message.ends_with('.') && !refusal.code.is_empty());
                    }
                }
            }
        }
        assert_eq!(TABLE.map(|(action, _)| action), Action::ALL);
    }

    #[test]
    fn nothing_leads_out_of_the_archive_and_nothing_runs_without_an_approval() {
        for action in Action::ALL {
            let next = after(Status::Archived, action);
            assert!(next.is_err() || action == Action::Copy);
            for status in [Status::Draft, Status::InReview] {
                assert!(!after(status, action).is_ok_and(Status::is_live), "{action:?} at {status}");
            }
        }
    }

    #[test]
    fn a_status_is_read_as_it_is_written() {
        for status in Status::ALL {
            assert_eq!(status.to_string().parse(), Ok(status));
        }
        assert_eq!("running".parse::<Status>(), Err(NotAStatus));
    }
}
