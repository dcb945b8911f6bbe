//! A door for `tests/fuzz`: the reader of GeWe's answers, which is nobody else's business.

use entropy_jobs::provider::{SendError, Sent};
use entropy_jobs::secret::Secret;

use super::errors;

/// Reads a whole answer to a send as [`GeweClient`](super::GeweClient) does; `None` if `status` is none of HTTP's.
pub fn read_answer_to_send(status: u16, body: &[u8], token: &Secret) -> Option<Result<Sent, SendError>> {
    let status = reqwest::StatusCode::from_u16(status).ok()?;
    let answer = errors::read_answer(status, body, token);
    Some(answer.and_then(|envelope| envelope.sent().ok_or_else(|| errors::no_proof(body, token))))
}
