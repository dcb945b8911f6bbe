//! WeChat through GeWe, hosted or self-hosted.
//!
//! GeWe has no idempotency key and no way to ask what became of a send, so the adapter's one hard duty is to
//! tell "surely not sent" from "nobody knows". Start at [`GeweClient`] in `client.rs`; `../outgoing.rs` is where it
//! is decided whether a request left the machine, `errors.rs` where an answer is classed, `wire.rs` how each
//! message looks, `answer.rs` what is read of an answer at all, `reads.rs` what is asked for beside sends, and `profile.rs` how the two deployments differ.

mod answer;
mod client;
mod errors;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod profile;
mod reads;
mod wire;

#[cfg(test)]
mod tests;

pub use client::{GeweClient, Timeouts};
pub use profile::Profile;
