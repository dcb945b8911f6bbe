//! An answer of the AI that left and may not have arrived, or was refused: it is not repeated, so people are told.

use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::{Conn, Result, messages};
use serde_json::json;
use uuid::Uuid;

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody can know whether it arrived.
    Unknown,
    /// The provider says that it did not.
    Refused,
}

/// Raises an alert for the send of an answer, once, in the caller's transaction or by itself. Other sends have their own
/// ways to people.
pub async fn tell(conn: &mut Conn, send: Uuid, why: Why) -> Result<()> {
    let Some(answering) = messages::answering(conn, send).await? else { return Ok(()) };
    let (status, text) = match why {
        Why::Unknown => (
            "unknown",
            "nobody can know whether an answer of the AI has arrived, and it is not sent again; a person should look",
        ),
        Why::Refused => {
            ("failed", "the provider refused an answer of the AI; a person should answer this customer")
        }
    };
    let alert = NewAlert {
        organization_id: answering.organization_id,
        kind: "answer_not_sent",
        severity: Severity::Warning,
        dedupe_key: &format!("answer_not_sent:{send}"),
        text,
        account_id: Some(answering.account_id),
        conversation_id: Some(answering.conversation_id),
        details: Some(json!({ "send_id": send, "send_status": status })),
    };
    alerts::raise(conn, &alert).await?;
    Ok(())
}
