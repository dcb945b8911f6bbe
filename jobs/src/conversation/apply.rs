//! Applies an event to the record: messages, contacts, the account's state.

use uuid::Uuid;

use crate::incoming::{Event, What};
use crate::job::JobError;
use crate::services::Context;

/// What an event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The record knows it now.
    Applied,
    /// It changes nothing.
    Ignored,
    /// Nobody knows what it means.
    Unknown,
}

/// Applies an event of an account. Applying it again changes nothing.
pub async fn apply(
    _ctx: &Context,
    _account_id: Uuid,
    _event_id: Uuid,
    event: &Event,
) -> Result<Applied, JobError> {
    Ok(match event.what {
        What::Unknown => Applied::Unknown,
        _ => Applied::Ignored,
    })
}
