//! Reading failures: which class a broken call or a refusing answer belongs to.
//!
//! The vendor publishes no codes, so refusals are told apart by their words, as gathered in
//! `protocols/gewe.md` section 4. The sentences for people are ours; what GeWe said goes into `detail` alone.

use entropy_jobs::provider::{ErrorClass, SendError};
use entropy_jobs::risk::{VERIFICATION_CODE, asks_for_verification};
use entropy_jobs::secret::Secret;
use reqwest::StatusCode;

use super::wire::Envelope;
use crate::adapters::outgoing::Fate;

/// The statuses, HTTP's and GeWe's own, which say that a call was lost on the way or timed out there.
const LOST_CALL: [i64; 4] = [408, 502, 503, 504];

/// The same in words: those of the transport below GeWe, which it passes on.
const LOST_CALL_WORDS: [&str; 10] = [
    "eof",
    "timeout",
    "timed out",
    "超时",
    "deadline exceeded",
    "connection reset",
    "broken pipe",
    "maximum retries",
    "invalid character",
    "i/o error",
];

/// How much of a raw answer is kept, in characters.
const MAX_DETAIL_CHARS: usize = 500;

/// An error in the making, before it got its detail.
struct Verdict(ErrorClass, &'static str, &'static str);

impl Verdict {
    fn with_detail(self, raw: &str, token: &Secret) -> SendError {
        let Self(class, code, message) = self;
        SendError { class, code, message: message.to_owned(), detail: detail(raw, token) }
    }
}

/// The token cannot stand in an HTTP header, so no request was made.
pub(super) fn malformed_token() -> SendError {
    SendError {
        class: ErrorClass::Token,
        code: "token_malformed",
        message: "the GeWe token contains characters that a token cannot have; enter it again".to_owned(),
        detail: None,
    }
}

/// The deadline passed before the request was written.
pub(super) fn late() -> SendError {
    SendError {
        class: ErrorClass::NotSent,
        code: "deadline_before_send",
        message: "the time to send had passed before the request was written".to_owned(),
        detail: None,
    }
}

/// The call took longer than its limit.
pub(super) fn timed_out(fate: Fate) -> SendError {
    let (class, code, message) = match fate {
        Fate::Late => return late(),
        Fate::CalledBack => {
            (ErrorClass::NotSent, "connect_timeout", "GeWe could not be reached in time; nothing was sent")
        }
        Fate::Written => (
            ErrorClass::Ambiguous,
            "timeout",
            "GeWe did not answer in time after the request was written; the message may have been sent",
        ),
    };
    SendError { class, code, message: message.to_owned(), detail: None }
}

/// The connection failed before the head of an answer came.
pub(super) fn no_answer(fate: Fate, error: reqwest::Error, token: &Secret) -> SendError {
    let verdict = match fate {
        Fate::Late => return late(),
        Fate::CalledBack if error.is_timeout() => return timed_out(fate),
        Fate::CalledBack => Verdict(
            ErrorClass::NotSent,
            "connect_failed",
            "the connection to GeWe could not be made; nothing was sent",
        ),
        Fate::Written => Verdict(
            ErrorClass::Ambiguous,
            "connection_lost",
            "the connection to GeWe broke before an answer came; the message may have been sent",
        ),
    };
    verdict.with_detail(&chain(&error.without_url()), token)
}

/// The connection failed in the middle of an answer.
pub(super) fn half_an_answer(error: reqwest::Error, token: &Secret) -> SendError {
    Verdict(
        ErrorClass::Ambiguous,
        "answer_incomplete",
        "the connection to GeWe broke in the middle of the answer; the message may have been sent",
    )
    .with_detail(&chain(&error.without_url()), token)
}

/// The answer was longer than any answer of GeWe's; reading stopped.
pub(super) fn too_long(start: &[u8], token: &Secret) -> SendError {
    Verdict(
        ErrorClass::Ambiguous,
        "answer_too_large",
        "the answer was too long to be GeWe's; the message may have been sent",
    )
    .with_detail(&String::from_utf8_lossy(start), token)
}

/// The answer says success and lacks what every success of this call carries.
pub(super) fn no_proof(body: &[u8], token: &Secret) -> SendError {
    Verdict(
        ErrorClass::Ambiguous,
        "no_message_id",
        "GeWe accepted the request without naming the message; it may have been sent",
    )
    .with_detail(&String::from_utf8_lossy(body), token)
}

/// The answer to a yes-or-no question is neither.
pub(super) fn no_truth(body: &[u8], token: &Secret) -> SendError {
    Verdict(ErrorClass::Ambiguous, "answer_unreadable", "GeWe answered with neither yes nor no")
        .with_detail(&String::from_utf8_lossy(body), token)
}

/// The answer to a question is in no form that we know.
pub(super) fn unreadable(body: &[u8], token: &Secret) -> SendError {
    Verdict(ErrorClass::Ambiguous, "answer_unreadable", "GeWe's answer is not in the documented form")
        .with_detail(&String::from_utf8_lossy(body), token)
}

/// Reads a whole answer: the envelope of a success, or the class of the failure.
pub(super) fn read_answer(status: StatusCode, body: &[u8], token: &Secret) -> Result<Envelope, SendError> {
    let envelope = if speaks_for_gewe(status) { Envelope::parse(body) } else { None };
    let verdict = match envelope {
        Some(envelope) if envelope.is_success() && status.is_success() => return Ok(envelope),
        Some(envelope) if envelope.is_success() => Verdict(
            ErrorClass::Ambiguous,
            "contradictory_answer",
            "GeWe answered with success inside an HTTP error; the message may have been sent",
        ),
        Some(envelope) => refusal(&envelope),
        None => foreign(status),
    };
    Err(verdict.with_detail(&format!("HTTP {}: {}", status.as_u16(), String::from_utf8_lossy(body)), token))
}

/// Tells whether an answer under this status can be GeWe's own word, should it look like it.
///
/// Redirects and the statuses by which a gateway reports a lost call are not: a gateway may well dress its page up as
/// an envelope, and its "no" says nothing of what GeWe did with the request.
fn speaks_for_gewe(status: StatusCode) -> bool {
    !status.is_redirection() && !LOST_CALL.contains(&status.as_u16().into())
}

/// An answer that is not GeWe's own. Whether GeWe saw the request is known to nobody.
fn foreign(status: StatusCode) -> Verdict {
    let (code, message) = if status.is_success() {
        ("answer_unreadable", "the answer was not one of GeWe's; the message may have been sent")
    } else if status.is_redirection() {
        // Following it would send the request a second time, and the token to another host.
        ("http_redirect", "a gateway redirected the request; check the GeWe address; it may have been sent")
    } else if status.is_client_error() {
        ("http_client_error", "a gateway refused the request; check the GeWe address; it may have been sent")
    } else {
        ("http_server_error", "a gateway in front of GeWe failed; the message may have been sent")
    };
    Verdict(ErrorClass::Ambiguous, code, message)
}

/// GeWe says that it did not send, and its words say why, or that it does not know either.
fn refusal(envelope: &Envelope) -> Verdict {
    // "Cover" shares its first character with "banned"; a missing cover must not stop an account.
    let reason = envelope.reason().replace("封面", "").to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if says(&["设备不存在"]) {
        return Verdict(
            ErrorClass::AccountOffline,
            "device_not_found",
            "GeWe does not know this device; check its app id or log the account in again",
        );
    }
    // Before the token, because a login that expired says so with the same word.
    if says(&["离线", "未登录", "登录过期", "登录已过期"]) {
        return Verdict(
            ErrorClass::AccountOffline,
            "account_offline",
            "the WeChat account is offline; log it in again",
        );
    }
    // Behind the offline ones only: everything below ends in a "no", and this is none.
    if LOST_CALL.contains(&envelope.ret) || says(&LOST_CALL_WORDS) {
        return Verdict(
            ErrorClass::Ambiguous,
            "upstream_lost",
            "GeWe lost the call on its own way to WeChat; the message may have been sent",
        );
    }
    if matches!(envelope.ret, 401 | 403) || says(&["token", "不可用", "已过期"]) {
        return Verdict(
            ErrorClass::Token,
            "token_rejected",
            "GeWe rejected the token; check that it is right and not expired",
        );
    }
    if asks_for_verification(&reason) {
        return Verdict(
            ErrorClass::RiskControl,
            VERIFICATION_CODE,
            "WeChat asks the account to prove who it is; look at the phone",
        );
    }
    if says(&["频繁", "限制", "风控", "封"]) {
        return Verdict(
            ErrorClass::RiskControl,
            "risk_control",
            "WeChat limits this account; let it rest and look at the phone",
        );
    }
    if envelope.ret == 400 || says(&["不可为空", "参数"]) {
        return Verdict(
            ErrorClass::Refused,
            "bad_request",
            "GeWe found the request incomplete or wrong; nothing was sent",
        );
    }
    Verdict(ErrorClass::Refused, "refused", "GeWe refused to send this message")
}

/// Makes raw text fit to be kept: without the token, on one line, cut.
fn detail(raw: &str, token: &Secret) -> Option<String> {
    let mut text = raw.to_owned();
    let token = token.expose();
    // The plain form and the forms in which JSON may write it.
    let escaped = serde_json::Value::from(token).to_string();
    let escaped = escaped.trim_matches('"');
    for form in [token, escaped, &escaped.replace('/', "\\/")] {
        if !form.is_empty() {
            text = text.replace(form, "***");
        }
    }
    // Scrubbed before it is cut, so that the cut leaves no half of a token. Postgres refuses NUL in a text, and
    // a failed write of an outcome would lose it.
    let kept: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_DETAIL_CHARS).collect();
    Some(kept.trim().to_owned()).filter(|kept| !kept.is_empty())
}

/// Writes out an error with its causes, which is where the transport says what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(body: &str) -> (&'static str, &'static str) {
        let error = read_answer(StatusCode::OK, body.as_bytes(), &Secret::new("tok")).unwrap_err();
        (error.class.as_str(), error.code)
    }

    #[test]
    fn known_refusals_are_classed_by_their_words() {
        let check = |body: &str, class: &str, code: &str| assert_eq!(class_of(body), (class, code), "{body}");
        check(r#"{"ret":500,"msg":"header:X-GEWE-TOKEN 不可为空"}"#, "token", "token_rejected");
        check(r#"{"ret":500,"msg":"token不可用或已过期"}"#, "token", "token_rejected");
        check(r#"{"ret":401,"msg":""}"#, "token", "token_rejected");
        check(r#"{"ret":403}"#, "token", "token_rejected");
        check(
            r#"{"ret":500,"msg":"发送消息失败","data":{"code":"-1","msg":"微信已离线"}}"#,
            "account_offline",
            "account_offline",
        );
        check(r#"{"ret":500,"msg":"登录已过期"}"#, "account_offline", "account_offline");
        check(r#"{"ret":500,"msg":"x","data":{"msg":"未登录"}}"#, "account_offline", "account_offline");
        check(
            r#"{"ret":500,"msg":"失败","data":{"code":"-1","msg":"[wx_a]设备不存在"}}"#,
            "account_offline",
            "device_not_found",
        );
        check(r#"{"ret":500,"msg":"操作过于频繁"}"#, "risk_control", "risk_control");
        check(r#"{"ret":500,"msg":"失败","data":{"msg":"账号被限制"}}"#, "risk_control", "risk_control");
        check(r#"{"ret":500,"msg":"账号已被封"}"#, "risk_control", "risk_control");
        check(
            r#"{"ret":500,"msg":"失败","data":{"msg":"请先完成安全验证"}}"#,
            "risk_control",
            "login_verification",
        );
        check(r#"{"ret":500,"msg":"参数验证失败"}"#, "refused", "bad_request");
        check(r#"{"ret":500,"msg":"封面下载失败"}"#, "refused", "refused");
        check(r#"{"ret":500,"msg":"imgUrls不可为空"}"#, "refused", "bad_request");
        check(r#"{"ret":400,"msg":"?"}"#, "refused", "bad_request");
        check(r#"{"ret":500,"msg":"发布视频失败","data":{"code":"-4013","msg":null}}"#, "refused", "refused");
        check(r#"{"ret":500,"data":{"content":"token 离线 频繁"}}"#, "refused", "refused");
        check(r#"{"ret":-1}"#, "refused", "refused");
    }

    #[test]
    fn a_detail_is_one_short_line_without_the_token() {
        let token = Secret::new("to/k\"en");
        let kept = |raw: &str| detail(raw, &token).unwrap_or_default();
        assert_eq!(kept("a to/k\"en b to/k\\\"en c to\\/k\\\"en d"), "a *** b *** c *** d");
        assert_eq!(kept("a\0b\r\nc"), "a b  c");
        assert_eq!(kept(&"好".repeat(600)).chars().count(), 500);
        assert!(!kept(&format!("{}to/k\"en", "a".repeat(497))).contains("to/"));
        assert_eq!(detail(" \n", &token), None);
        assert_eq!(detail("abc", &Secret::new("")), Some("abc".to_owned()));
    }
}
