//! Answers by FastGPT, hosted or self-hosted.
//!
//! A run costs money, and FastGPT has no idempotency key, so as with sends the adapter's hard duty is to tell "surely did
//! not run" from "nobody knows". Start at [`FastGptClient`] in `client.rs`; `../outgoing.rs` is where it is decided whether
//! a request left the machine, `request.rs` how a question looks, `stream.rs` and `answer.rs` how the two forms of an
//! answer are read, `reading.rs` which of them it is and when it is whole, `nodes.rs` what is kept of the nodes' results,
//! `errors.rs` where failures are classed, and `records.rs` how a run is found whose answer was lost.

mod answer;
mod client;
mod errors;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod nodes;
mod reading;
mod records;
mod request;
mod stream;

#[cfg(test)]
mod tests;

pub use client::{FastGptClient, Patience};
