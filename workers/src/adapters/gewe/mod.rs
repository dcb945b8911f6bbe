//! WeChat through GeWe, hosted or self-hosted.
//!
//! GeWe has no idempotency key and no way to ask what became of a send, so the adapter's one hard duty is to
//! tell "surely not sent" from "nobody knows". Start at [`GeweClient`] in `client.rs`; `outgoing.rs` is where it
//! is decided whether a request left the machine, `errors.rs` where an answer is classed, `wire.rs` how each
//! message looks, `answer.rs` what is read of an answer at all, and `profile.rs` how the two deployments differ.

mod answer;
mod client;
mod errors;
mod outgoing;
mod profile;
mod wire;

#[cfg(test)]
mod tests;

pub use client::{GeweClient, Timeouts};
pub use profile::Profile;

use entropy_jobs::provider::{SendError, Sent};
use entropy_jobs::secret::Secret;

/// Reads a whole answer to a send as [`GeweClient`] does; `None` if `status` is none of HTTP's. For `tests/fuzz`.
#[doc(hidden)]
pub fn read_answer_to_send(status: u16, body: &[u8], token: &Secret) -> Option<Result<Sent, SendError>> {
    let status = reqwest::StatusCode::from_u16(status).ok()?;
    let answer = errors::read_answer(status, body, token);
    Some(answer.and_then(|envelope| envelope.sent().ok_or_else(|| errors::no_proof(body, token))))
}
