//! What reads bytes from outside, and what must hold for any bytes. Start at [`TARGETS`].
//!
//! A target panics when a promise is broken. It is run by libFuzzer (`tests/fuzz/run`), and by the ordinary tests, which
//! include this folder (`tests/it/fuzz.rs`): they replay the seeds in `tests/fuzz/corpus` and change them at random.

#![allow(unreachable_pub, reason = "part of a library for libFuzzer, and of a binary for the tests")]

mod api;
mod callbacks;
mod campaigns;
mod jobs;
mod model;
mod provider;
mod settings;

pub use api::{authorization, cursor, http, idempotency_key};
pub use callbacks::callback;
pub use campaigns::workflow_config;
pub use jobs::{KINDS, delivery, job_args, message, outbound_url, traceparent};
pub use model::{fastgpt_answer, fastgpt_stream};
pub use provider::{failure_header, gewe_answer};
pub use settings::config;

/// A target.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in `corpus` and of its file in `fuzz_targets`.
pub const TARGETS: [(&str, Target); 16] = [
    ("authorization", authorization),
    ("callback", callback),
    ("config", config),
    ("cursor", cursor),
    ("delivery", delivery),
    ("failure_header", failure_header),
    ("fastgpt_answer", fastgpt_answer),
    ("fastgpt_stream", fastgpt_stream),
    ("gewe_answer", gewe_answer),
    ("http", http),
    ("idempotency_key", idempotency_key),
    ("job_args", job_args),
    ("message", message),
    ("outbound_url", outbound_url),
    ("traceparent", traceparent),
    ("workflow_config", workflow_config),
];

/// Splits off the first line, which tells a target how to read the rest.
fn head_and_rest(bytes: &[u8]) -> (&str, &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (std::str::from_utf8(&bytes[..at]).unwrap_or_default(), &bytes[at + 1..]),
        None => ("", bytes),
    }
}

/// Panics unless `text` is one short line for people.
fn assert_is_a_short_line(text: &str, most_chars: usize) {
    assert!(!text.trim().is_empty(), "an empty sentence");
    let chars = text.chars().count();
    assert!(chars <= most_chars, "{chars} characters: {text:?}");
    assert!(!text.chars().any(char::is_control), "control characters: {text:?}");
}
