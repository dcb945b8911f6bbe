//! Doors for `tests/fuzz`: the readers of FastGPT's answers, which are nobody else's business.

use std::time::Instant;

use entropy_jobs::ai::port::{AiError, Answer};

use super::reading::{End, Reading};

/// Reads an answer that comes in such chunks and then ends; `None` if `status` is none of HTTP's.
///
/// `stream`: the head calls it a stream of events. `cut`: the connection breaks at its end.
pub fn read_answer(
    status: u16,
    stream: bool,
    chunks: &[&[u8]],
    cut: bool,
) -> Option<Result<Answer, AiError>> {
    let mut reading = Reading::new(reqwest::StatusCode::from_u16(status).ok()?, stream, None);
    for chunk in chunks {
        reading.feed(chunk);
    }
    Some(reading.end(if cut { End::Cut } else { End::Closed }, Instant::now()))
}
