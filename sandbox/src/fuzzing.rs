//! Doors for `tests/fuzz`: readers of outside bytes that are nobody else's business. Not part of the crate's promise.

use std::time::Duration;

use crate::failures::Failure;

/// Reads the value of an `X-Sandbox-Failure` header: the mode's name and the delay.
pub fn failure_header(value: &str) -> Result<(String, Duration), String> {
    let Failure { mode, delay } = Failure::from_header(value)?;
    let name = serde_json::to_value(mode).map_err(|error| error.to_string())?;
    Ok((name.as_str().unwrap_or_default().to_owned(), delay))
}
