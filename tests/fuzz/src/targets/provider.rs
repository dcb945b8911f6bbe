//! What a provider answers, and what its stand-in is asked for.

use entropy_jobs::provider::ErrorClass;
use entropy_jobs::secret::Secret;
use serde_json::Value;

use super::{assert_is_a_short_line, head_and_rest};

/// Begins and ends with what JSON escapes.
const TOKEN: &str = "\"gewe/token\\7";

/// A status in the first line, then the body of GeWe's answer to a send.
pub fn gewe_answer(bytes: &[u8]) {
    let (head, body) = head_and_rest(bytes);
    let status = head.trim().parse().unwrap_or(200);
    let token = Secret::new(TOKEN);
    let Some(answer) = entropy_workers::adapters::gewe::fuzzing::read_answer_to_send(status, body, &token)
    else {
        return;
    };
    let accepted = says_success(body);
    // What is passed over is not read, so it need not even be text; this reader is stricter then.
    let readable = accepted.is_some() || !body.trim_ascii_start().starts_with(b"{");
    match answer {
        Ok(sent) => {
            assert!((200..300).contains(&status), "proof in an HTTP error");
            assert!(accepted == Some(true) || !readable, "proof in an answer that is no success");
            assert_ne!(sent.new_msg_id, "0");
            for id in [Some(sent.new_msg_id), sent.msg_id].into_iter().flatten() {
                // It is written to the record: a text that Postgres refuses would lose the outcome of a send.
                assert_is_a_short_line(&id, 64);
            }
        }
        Err(error) => {
            if accepted != Some(false) && readable {
                let unsure = error.class == ErrorClass::Ambiguous;
                assert!(unsure, "an answer without a refusal proves nothing: {:?}", error.code);
            }
            assert_ne!(error.class, ErrorClass::NotSent, "whoever answers was asked");
            assert_is_a_short_line(error.code, 40);
            assert_is_a_short_line(&error.message, 200);
            if let Some(detail) = error.detail {
                assert_is_a_short_line(&detail, 500);
                assert!(!detail.contains(TOKEN), "the token is in the detail: {detail}");
                let escaped = "\\\"gewe/token\\\\7";
                assert!(!detail.contains(escaped), "the escaped token is in the detail: {detail}");
            }
        }
    }
}

/// Whether the answer is GeWe's and says that it sent; none: it is not GeWe's.
fn says_success(body: &[u8]) -> Option<bool> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let ret = answer.as_object()?.get("ret")?;
    let ret = ret.as_i64().or_else(|| ret.as_str()?.trim().parse().ok())?;
    Some(ret == 200 || ret == 0)
}

/// The value of an `X-Sandbox-Failure` header.
pub fn failure_header(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok((mode, delay)) = entropy_sandbox::fuzzing::failure_header(text) {
        assert!(delay.as_secs() <= 600, "a delay of {delay:?}");
        assert!(mode.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{mode}");
        let written = format!("{mode};delay_ms={}", delay.as_millis());
        let again = entropy_sandbox::fuzzing::failure_header(&written);
        assert_eq!(again, Ok((mode, delay)), "{written}");
    }
}
