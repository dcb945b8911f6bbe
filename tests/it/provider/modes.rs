//! The sandbox's failures in mixes that leave room for success, and what a call that meets one must be recorded as.

use serde_json::{Value, json};

/// The connection breaks, or is slow within what a call may take.
pub(super) const CONNECTION: &[&str] = &[
    "reset_before_accept",
    "reset_after_accept",
    "truncated_body",
    "header_flood",
    "delay_after_accept",
    "delay_before_accept",
    "late_accept",
    "slow_drip",
];

/// Something in between answers in GeWe's place.
pub(super) const GATEWAY: &[&str] = &[
    "bad_gateway_html",
    "bad_gateway_html_after_accept",
    "not_json",
    "wrong_content_type",
    "redirect",
    "redirect_to_itself",
    "server_error_envelope",
    "empty_answer",
];

/// GeWe itself answers what it should not.
pub(super) const ANSWERS: &[&str] = &[
    "huge_body",
    "huge_garbage",
    "gzip_body",
    "no_message_id",
    "unstorable_id",
    "upstream_lost",
    "unknown_error",
    "echoing_refusal",
];

/// It is the account that is at fault, and an operator has to see to it; or nobody can know.
pub(super) const ACCOUNT: &[&str] = &["offline", "risk", "token", "silent_drop"];

/// Beyond what a call may take.
pub(super) const SLOW: [&str; 4] =
    ["endless_drip", "delay_after_accept", "delay_before_accept", "late_accept"];

/// What a call must be recorded as, and what must have become of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fate {
    /// The state of the send.
    pub(super) state: &'static str,
    /// The code of its error.
    pub(super) code: Option<&'static str>,
    /// What the sandbox says.
    pub(super) outcome: &'static str,
}

/// Returns the fate of a call that met a failure, or none. `slow`: the failure was longer than the call's limit.
pub(super) fn fate(mode: Option<&str>, slow: bool) -> Fate {
    let sent = Fate { state: "sent", code: None, outcome: "delivered" };
    let unknown = |code, outcome| Fate { state: "unknown", code: Some(code), outcome };
    let failed = |code, outcome| Fate { state: "failed", code: Some(code), outcome };
    match mode {
        Some("endless_drip") => unknown("timeout", "delivered"),
        Some("delay_before_accept") if slow => unknown("timeout", "not_accepted"),
        Some("delay_after_accept" | "late_accept") if slow => unknown("timeout", "delivered"),
        None
        | Some(
            "delay_after_accept" | "delay_before_accept" | "late_accept" | "slow_drip" | "wrong_content_type",
        ) => sent,
        Some("reset_before_accept") => unknown("connection_lost", "not_accepted"),
        Some("reset_after_accept" | "header_flood") => unknown("connection_lost", "delivered"),
        Some("truncated_body") => unknown("answer_incomplete", "delivered"),
        Some("bad_gateway_html") => unknown("http_server_error", "not_accepted"),
        Some("bad_gateway_html_after_accept") => unknown("http_server_error", "delivered"),
        Some("not_json" | "empty_answer" | "gzip_body") => unknown("answer_unreadable", "delivered"),
        Some("redirect" | "redirect_to_itself") => unknown("http_redirect", "not_accepted"),
        Some("huge_body" | "huge_garbage") => unknown("answer_too_large", "delivered"),
        Some("no_message_id" | "unstorable_id") => unknown("no_message_id", "delivered"),
        Some("upstream_lost") => unknown("upstream_lost", "delivered"),
        Some("server_error_envelope" | "echoing_refusal") => failed("refused", "not_accepted"),
        Some("unknown_error") => failed("refused", "unknown_error"),
        Some("offline") => failed("account_offline", "offline"),
        Some("risk") => failed("risk_control", "risk"),
        Some("token") => failed("token_rejected", "token_refused"),
        // The one lie that nobody can see through: it counts as sent, and the document says so.
        Some("silent_drop") => Fate { outcome: "dropped", ..sent },
        Some(other) => panic!("what should {other} come to?"),
    }
}

/// Whether an account that is asked about under this failure is still seen to be online.
pub(super) fn tells_the_truth(mode: &str) -> bool {
    let ids_only = matches!(mode, "silent_drop" | "unstorable_id");
    ids_only || fate(Some(mode), false).state == "sent"
}

/// A failure as an entry of a mix: a delay that a call can bear, or one that it cannot.
pub(super) fn card(mode: &str, slow_media: Option<bool>) -> Value {
    let delay_ms = match (mode, slow_media) {
        ("slow_drip", _) => 1,
        ("endless_drip", _) => 20,
        (_, Some(true)) => 62_000,
        (_, Some(false)) => 22_000,
        (mode, None) if mode.contains("accept") && !mode.contains("reset") && !mode.contains("html") => 200,
        _ => 0,
    };
    json!({"mode": mode, "delay_ms": delay_ms})
}
