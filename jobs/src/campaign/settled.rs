//! What became of the message of a step, as the record has it.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::campaigns::steps::{SendJob, Step as Row};

use super::say::is_writing;

/// When a message that waits in its account's lane is looked at, should its end go unnoticed.
pub(super) const LOOK_AT_WAITING: TimeDelta = TimeDelta::minutes(10);

/// The same for a message that has passed its gate.
const LOOK_AT_SENDING: TimeDelta = TimeDelta::seconds(20);

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// There is none yet.
    No,
    /// It is under way: look again then.
    Under(DateTime<Utc>, &'static str),
    /// It is over, since that moment.
    Over(DateTime<Utc>),
    /// Nothing is sent to this person any more.
    Never(&'static str),
}

/// Reads what became of the step's message, and notes it in the row where nobody has. True: the row has changed, and is to be
/// written.
pub(super) fn settled(row: &mut Row, job: Option<&SendJob>, now: DateTime<Utc>) -> (Sent, bool) {
    // While a model writes, the job is the one that writes, and there is no message yet.
    let open = matches!(row.state.as_str(), "due" | "sending") && !is_writing(row);
    if open {
        let Some((state, reason, left)) = end_of(row, job) else {
            let look = if row.state == "due" { LOOK_AT_WAITING } else { LOOK_AT_SENDING };
            return (Sent::Under(now + look, "sending"), false);
        };
        row.state = state.to_owned();
        row.reason = reason;
        row.finished_at = Some(now);
        if !left {
            row.sent_at = None;
        }
        if state == "planned" {
            (row.job_id, row.finished_at) = (None, None);
        }
    }
    let sent = match row.state.as_str() {
        "sent" | "unknown" => Sent::Over(row.sent_at.unwrap_or(now)),
        "failed" => Sent::Over(now),
        "skipped" | "canceled" => match row.reason.as_deref().unwrap_or_default() {
            "opted_out" => Sent::Never("opted_out"),
            "contact_removed" => Sent::Never("contact_removed"),
            "contact_suppressed" => Sent::Never("contact_suppressed"),
            "account_deleted" => Sent::Never("account_removed"),
            _ => Sent::Over(now),
        },
        // It is asked anew, and what is found then is what is written.
        _ => Sent::No,
    };
    (sent, open && sent != Sent::No)
}

/// Reads from the record how a message ended: the state of its step, why, and whether it may have left.
fn end_of(row: &Row, job: Option<&SendJob>) -> Option<(&'static str, Option<String>, bool)> {
    let Some(job) = job else {
        // Jobs are kept for weeks; who comes later than that does not know.
        let left = row.state == "sending";
        return Some((if left { "unknown" } else { "planned" }, None, left));
    };
    let code = job.code.clone().or_else(|| job.send_code.clone());
    match (job.final_state.as_deref(), job.send_state.as_deref()) {
        (_, Some("sent")) => Some(("sent", None, true)),
        (Some(_), Some("unknown" | "sending")) => Some(("unknown", code, true)),
        (None, _) => None,
        (Some("dead"), _) => Some(("failed", code, false)),
        (Some("cancelled"), _) => match code.as_deref() {
            Some("taken_over" | "newer_message" | "superseded") => Some(("planned", code, false)),
            _ => Some(("canceled", code, false)),
        },
        // Completed without a send: nothing of ours does that.
        _ => Some(("skipped", code, false)),
    }
}
