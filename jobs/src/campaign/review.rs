//! Texts of campaigns that wait for a person, who lets them be sent, changes them first, or rejects them.
//!
//! A text is decided under its enrollment's lock: of two people, or of a person and the end of its time, one comes first. What is
//! approved is not sent by that: its enrollment is looked at at once, and everything that may speak against the message is asked.

use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::campaigns::enrollments::{self, Enrollment};
use entropy_schema::campaigns::steps::{self, Step as Row};
use entropy_schema::{Conn, Result};
use serde_json::json;
use uuid::Uuid;

use super::clock;
use super::say::HELD;
use crate::ai::words::{Action, Words};
use crate::message::MAX_TEXT_CHARS;

/// What a person has decided.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'a> {
    /// It may be sent: as it is, or with these words instead.
    Approve(Option<&'a str>),
    /// It is not sent; the campaign goes on without it.
    Reject,
}

/// Why nothing could be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// The organisation has no such step.
    Unknown,
    /// It does not wait for a person any more: somebody was faster, the customer has answered, the campaign went on.
    MovedOn,
    /// Its time has passed.
    Expired,
    /// It holds a word that must not be said.
    BlockedWord,
    /// It is longer than a message may be.
    TooLong,
}

/// Decides about a text that waits, and has its enrollment looked at at once. Call it in a transaction.
pub async fn decide(
    conn: &mut Conn,
    organization: Uuid,
    enrollment: Uuid,
    step: &str,
    by: Uuid,
    decision: Decision<'_>,
) -> Result<std::result::Result<Row, Undecided>> {
    let locked = enrollments::lock(conn, enrollment).await?;
    let Some(enrollment) = locked.filter(|one| one.organization_id == organization) else {
        return Ok(Err(Undecided::Unknown));
    };
    let Some(row) = steps::get(conn, enrollment.id, step).await? else { return Ok(Err(Undecided::Unknown)) };
    let stands = enrollment.finished_at.is_none() && enrollment.step_id.as_deref() == Some(step);
    if row.state != HELD || !stands {
        return Ok(Err(Undecided::MovedOn));
    }
    let now = clock::now(conn).await?;
    if row.review_until.is_some_and(|until| until <= now) {
        return Ok(Err(Undecided::Expired));
    }
    let row = match decision {
        Decision::Reject => Row {
            state: "skipped".to_owned(),
            reason: Some("rejected".to_owned()),
            finished_at: Some(now),
            next_try_at: None,
            decided_by: Some(by),
            ..row
        },
        Decision::Approve(text) => {
            let text = text.map(str::to_owned).or_else(|| row.text.clone()).unwrap_or_default();
            let words = Words::new(&entropy_schema::replies::sensitive_words(conn, organization).await?);
            let found = words.check(&text);
            if found.action == Some(Action::Block) {
                return Ok(Err(Undecided::BlockedWord));
            }
            if found.text.chars().count() > MAX_TEXT_CHARS {
                return Ok(Err(Undecided::TooLong));
            }
            Row {
                state: "planned".to_owned(),
                reason: Some("approved".to_owned()),
                text: Some(found.text),
                next_try_at: None,
                decided_by: Some(by),
                ..row
            }
        }
    };
    steps::put(conn, std::slice::from_ref(&row)).await?;
    if enrollment.state != "paused" {
        enrollments::put_off(conn, &[enrollment.id], 0).await?;
    }
    Ok(Ok(row))
}

/// Tells people that texts of a plan wait for them: once a day.
pub(super) async fn tell(conn: &mut Conn, enrollment: &Enrollment) -> Result<()> {
    let day = entropy_schema::clock::now(conn).await?.date_naive();
    alerts::raise(
        conn,
        &NewAlert {
            organization_id: enrollment.organization_id,
            kind: "sop_review_waiting",
            severity: Severity::Info,
            dedupe_key: &format!("sop_review:{}:{day}", enrollment.sop_id),
            text: "texts of a campaign wait for a person to look at them",
            account_id: None,
            conversation_id: None,
            details: Some(json!({ "sop_id": enrollment.sop_id, "enrollment_id": enrollment.id })),
        },
    )
    .await?;
    Ok(())
}
