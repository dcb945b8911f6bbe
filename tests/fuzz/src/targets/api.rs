//! What the API reads: requests, tokens, cursors, keys.

use std::sync::LazyLock;

use entropy_api::fuzzing::{self, Answer, Api};
use serde_json::Value;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::assert_is_a_short_line;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

static API: LazyLock<Api> = LazyLock::new(|| {
    let _inside = RUNTIME.enter();
    Api::new().expect("an API")
});

/// An HTTP request as text: method and address, headers, an empty line, the body.
pub fn http(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let Some((method, uri)) = first.trim().split_once(' ') else { return };
    let mut headers = Vec::new();
    let mut used = first.len() + 1;
    for line in lines {
        used += line.len() + 1;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        headers.push((line[..colon].trim_ascii(), line[colon + 1..].trim_ascii()));
    }
    let body = bytes.get(used..).unwrap_or_default();
    if let Some(answer) = RUNTIME.block_on(API.call(method, uri, &headers, body)) {
        check(&answer);
    }
}

fn check(answer: &Answer) {
    let said = String::from_utf8_lossy(&answer.body);
    let id = &answer.trace_id;
    assert!(id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    // Nothing can be stored here, so nothing is, and a batch is accepted only if each of its jobs was refused. 307 is the way to the documentation. 500 is
    // nobody's mistake but ours.
    let known = [200, 202, 307, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 503];
    assert!(known.contains(&answer.status), "{} {said}", answer.status);
    // The two probes and the page of numbers are for machines and say it in their own way.
    if answer.status < 400 || !answer.content_type.starts_with("application/problem+json") {
        assert!(
            answer.status < 400 || answer.status == 503,
            "{} {}: {said}",
            answer.status,
            answer.content_type
        );
        return;
    }
    assert!(answer.body.len() <= 64 * 1024, "{} bytes", answer.body.len());
    let problem: Value = serde_json::from_slice(&answer.body).expect("a problem is JSON");
    assert_eq!(problem["status"], answer.status);
    assert_eq!(problem["trace_id"], answer.trace_id.as_str());
    let code = problem["code"].as_str().expect("a code");
    assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{code}");
    assert_is_a_short_line(problem["detail"].as_str().expect("a detail"), 500);
    for error in problem["errors"].as_array().into_iter().flatten() {
        assert_is_a_short_line(error["message"].as_str().expect("a message"), 300);
        let path = error["path"].as_str().expect("a path");
        assert!(path.chars().count() <= 300 && !path.chars().any(char::is_control), "{path:?}");
    }
}

/// An `Authorization` header. `{}` stands for a good token, so that a change around it is tried as well.
pub fn authorization(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let user = Uuid::from_u128(0x1234);
    static GOOD: LazyLock<String> =
        LazyLock::new(|| fuzzing::token_of(Uuid::from_u128(0x1234)).expect("a token"));
    let header = text.replacen("{}", &GOOD, 1);
    match fuzzing::authorize(&header) {
        Ok(found) => {
            assert_eq!(found, user);
            assert!(header.contains(&*GOOD), "accepted without our signature: {header}");
        }
        Err(code) => assert!(["no_token", "unauthenticated", "token_expired"].contains(&code), "{code}"),
    }
}

/// The cursor of a list.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert_eq!(fuzzing::decode_cursor(&fuzzing::encode_cursor(text)).as_deref(), Ok(text));
    match fuzzing::decode_cursor(text) {
        Ok(inside) => assert_eq!(fuzzing::encode_cursor(&inside), text, "two cursors of one place"),
        Err(said) => assert_is_a_short_line(&said, 200),
    }
    match fuzzing::page_before(text) {
        Ok(before) => assert!(before.is_some(), "a cursor that leads to the start"),
        Err(said) => assert_is_a_short_line(&said, 200),
    }
}

/// An `Idempotency-Key`.
pub fn idempotency_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match fuzzing::idempotency_key(text) {
        Ok(key) => {
            // As it was given: trimmed or folded, two requests of the caller would be one.
            assert_eq!(key.as_deref(), Some(text));
            assert!((1..=255).contains(&text.chars().count()) && !text.contains('\0'));
        }
        Err(said) => assert_is_a_short_line(&said, 200),
    }
}
