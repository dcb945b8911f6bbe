//! Reading failures: which class a broken call or a refusing answer belongs to.
//!
//! FastGPT's numbers move between versions and its messages are keys of a dictionary, so its stable name for an error
//! comes first, then the few numbers that stayed, and of the messages only those that it has written out. The sentences
//! are ours alone: what FastGPT says may quote the customer.

use std::time::Duration;

use entropy_jobs::ai::port::{AiError, ErrorClass};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::adapters::outgoing::Fate;

/// The statuses by which a gateway says that a call was lost on the way or took too long.
const LOST_CALL: [u16; 4] = [408, 502, 503, 504];

/// How long a limit may keep us away.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The limiter's own refusals. It stands before the run.
const LIMITER: [&str; 2] = ["rate limit exceeded. maximum", "rate limit service unavailable"];

/// What FastGPT finds wrong with a request before it runs anything.
const BAD_REQUEST: [&str; 6] = [
    "messages is not array",
    "messages is empty",
    "user question is empty",
    "app is empty",
    "appid is empty",
    "chatid is empty",
];

/// FastGPT's own words for a failure.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    code: i64,
    status_text: String,
    message: String,
}

impl Envelope {
    /// Tells whether a JSON value is a failure in one of its shapes.
    pub(super) fn is_one(value: &Value) -> bool {
        let says = |field: &str| value.get(field).is_some_and(|value| !value.is_null());
        says("error") || (says("code") && (says("statusText") || says("message"))) || says("statusText")
    }

    /// Reads a failure: `{"code","statusText","message"}`, `{"message"}`, `{"error":…}` or a text.
    pub(super) fn of(value: &Value) -> Envelope {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = match value.get("code") {
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        let mut envelope = Envelope {
            code: code.unwrap_or_default(),
            status_text: text("statusText"),
            message: text("message"),
        };
        match value {
            Value::String(text) => envelope.message.clone_from(text),
            Value::Object(fields) => match fields.get("error") {
                Some(Value::String(text)) if envelope.message.is_empty() => envelope.message.clone_from(text),
                Some(inner @ Value::Object(_)) if envelope.status_text.is_empty() => {
                    let inner = Envelope { ..Envelope::flat(inner) };
                    if envelope.code == 0 || envelope.message.is_empty() {
                        envelope = inner;
                    }
                }
                _ => {}
            },
            _ => {}
        }
        envelope
    }

    /// Reads the data of an event, which need not be JSON.
    pub(super) fn of_text(text: &str) -> Envelope {
        match serde_json::from_str(text) {
            Ok(value) => Envelope::of(&value),
            Err(_) => Envelope { message: text.to_owned(), ..Envelope::default() },
        }
    }

    /// Reads the innermost object of an OpenAI-like error.
    fn flat(value: &Value) -> Envelope {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = value.get("code");
        Envelope {
            code: code.and_then(Value::as_i64).unwrap_or_default(),
            status_text: Some(text("statusText"))
                .filter(|text| !text.is_empty())
                .or_else(|| code.and_then(Value::as_str).map(str::to_owned))
                .unwrap_or_default(),
            message: text("message"),
        }
    }

    /// Classes the failure. `begun`: something of the run was seen, so it cannot have been refused.
    pub(super) fn error(&self, begun: bool, retry_after: Option<Duration>) -> AiError {
        let verdict = if begun { FAILED } else { self.verdict() };
        let mut error = verdict.error();
        if error.class == ErrorClass::Throttled {
            error.retry_after = retry_after.or_else(|| self.seconds_named()).map(bounded);
        }
        error
    }

    /// Tells that FastGPT says it is well.
    pub(super) fn is_success(&self) -> bool {
        self.code == 200 && self.status_text.is_empty()
    }

    fn verdict(&self) -> Verdict {
        match self.status_text.as_str() {
            "unAuthorization" | "unAuthApiKey" | "openapiUnExist" | "openapiUnAuth"
            | "openapiExceedLimit" => {
                return KEY_REFUSED;
            }
            "tooManyRequest" => return THROTTLED,
            "insufficientQuota" | "aiPointsNotEnough" => return POINTS_USED_UP,
            "unAuthModel" => return MODEL_REFUSED,
            "appUnExist" | "unAuthApp" | "invalidOwner" | "invalidAppType" => return APP_REFUSED,
            "unAuthChat" => return CHAT_REFUSED,
            _ => {}
        }
        match self.code {
            429 => return THROTTLED,
            403 | 514 => return KEY_REFUSED,
            510 => return POINTS_USED_UP,
            511 => return MODEL_REFUSED,
            502_000..=502_999 => return APP_REFUSED,
            504_000..=504_999 => return CHAT_REFUSED,
            501 | 513 | 500_000..=509_999 => return REFUSED,
            _ => {}
        }
        let message = self.message.trim().to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if says(&LIMITER) {
            THROTTLED
        } else if says(&["key is error."]) {
            KEY_REFUSED
        } else if says(&["您的工作流版本过低"]) {
            WORKFLOW_OUTDATED
        } else if BAD_REQUEST.contains(&message.as_str()) {
            REFUSED
        } else if message == "网络连接异常" {
            UPSTREAM_LOST
        } else {
            FAILED
        }
    }

    /// `… Please try again in 12 seconds.`
    fn seconds_named(&self) -> Option<Duration> {
        let message = self.message.to_lowercase();
        let (_, rest) = message.split_once("try again in ")?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).take(6).collect();
        digits.parse().ok().map(Duration::from_secs)
    }
}

/// A class, a code and a sentence.
#[derive(Clone, Copy)]
struct Verdict(ErrorClass, &'static str, &'static str);

const KEY_REFUSED: Verdict =
    Verdict(ErrorClass::Refused, "key_refused", "FastGPT does not accept the workflow's key; enter it again");
const THROTTLED: Verdict = Verdict(
    ErrorClass::Throttled,
    "throttled",
    "FastGPT takes no more calls of this team for now; nothing ran",
);
const POINTS_USED_UP: Verdict = Verdict(
    ErrorClass::Quota,
    "points_used_up",
    "the points of the FastGPT team are used up; no workflow of this key can run",
);
const MODEL_REFUSED: Verdict =
    Verdict(ErrorClass::Refused, "model_refused", "the FastGPT team may not use the app's model");
const APP_REFUSED: Verdict = Verdict(
    ErrorClass::Refused,
    "app_refused",
    "the FastGPT app does not exist or does not belong to the workflow's key",
);
const CHAT_REFUSED: Verdict =
    Verdict(ErrorClass::Refused, "chat_refused", "this chat belongs to another team of FastGPT");
const WORKFLOW_OUTDATED: Verdict = Verdict(
    ErrorClass::Refused,
    "workflow_outdated",
    "the FastGPT app was published by an old version; publish it again",
);
const REFUSED: Verdict = Verdict(ErrorClass::Refused, "refused", "FastGPT refused the request; nothing ran");
const UPSTREAM_LOST: Verdict = Verdict(
    ErrorClass::Failed,
    "upstream_lost",
    "FastGPT lost its own connection to the model; the run may have been charged",
);
const FAILED: Verdict = Verdict(ErrorClass::Failed, "run_failed", "the run failed inside FastGPT");

impl Verdict {
    fn error(self) -> AiError {
        let Self(class, code, message) = self;
        AiError { class, code, message: message.to_owned(), retry_after: None }
    }
}

/// No address is known.
pub(super) fn no_endpoint() -> AiError {
    Verdict(
        ErrorClass::Refused,
        "no_endpoint",
        "the workflow has no FastGPT address, and FASTGPT_API_ENDPOINT is not set",
    )
    .error()
}

/// The workflow's own address cannot be one.
pub(super) fn bad_endpoint() -> AiError {
    Verdict(ErrorClass::Refused, "endpoint_malformed", "the workflow's FastGPT address is not one").error()
}

/// An encrypted address, and no certificates to check it by.
pub(super) fn no_certificates() -> AiError {
    Verdict(
        ErrorClass::Refused,
        "no_certificates",
        "this machine has no root certificates, so no https address can be asked; install them",
    )
    .error()
}

/// The key cannot stand in an HTTP header.
pub(super) fn malformed_key() -> AiError {
    Verdict(
        ErrorClass::Refused,
        "key_malformed",
        "the workflow's key contains characters that a key cannot have; enter it again",
    )
    .error()
}

/// There is nothing to ask.
pub(super) fn empty_question() -> AiError {
    Verdict(ErrorClass::Refused, "empty_question", "there is nothing to ask").error()
}

/// The body is longer than FastGPT takes.
pub(super) fn question_too_large() -> AiError {
    Verdict(
        ErrorClass::Refused,
        "question_too_large",
        "the question is larger than the 20 MB that FastGPT takes",
    )
    .error()
}

/// The connection failed before the head of an answer came.
pub(super) fn no_answer(fate: Fate, timed_out: bool) -> AiError {
    match fate {
        Fate::Written if timed_out => timed_out_after_writing(),
        Fate::Written => Verdict(
            ErrorClass::Ambiguous,
            "connection_lost",
            "the connection to FastGPT broke before an answer came; the workflow may have run",
        )
        .error(),
        Fate::CalledBack | Fate::Late if timed_out => Verdict(
            ErrorClass::NotRun,
            "connect_timeout",
            "FastGPT could not be reached in time; nothing ran",
        )
        .error(),
        Fate::CalledBack | Fate::Late => Verdict(
            ErrorClass::NotRun,
            "connect_failed",
            "the connection to FastGPT could not be made; nothing ran",
        )
        .error(),
    }
}

/// The time was over after the request had been written.
pub(super) fn timed_out_after_writing() -> AiError {
    Verdict(
        ErrorClass::Ambiguous,
        "timeout",
        "FastGPT did not finish its answer in time; the workflow may have run",
    )
    .error()
}

/// Nothing came for longer than FastGPT's heartbeat allows.
pub(super) fn silent() -> AiError {
    Verdict(ErrorClass::Ambiguous, "silence", "FastGPT fell silent in the middle of its answer").error()
}

/// The connection ended in the middle of an answer.
pub(super) fn incomplete() -> AiError {
    Verdict(
        ErrorClass::Ambiguous,
        "answer_incomplete",
        "the connection to FastGPT broke in the middle of the answer",
    )
    .error()
}

/// More came than any answer can be.
pub(super) fn too_long() -> AiError {
    Verdict(ErrorClass::Ambiguous, "answer_too_large", "the answer was too long to be FastGPT's").error()
}

/// The answer is not FastGPT's, or has a hole.
pub(super) fn unreadable() -> AiError {
    Verdict(
        ErrorClass::Ambiguous,
        "answer_unreadable",
        "the answer was not one of FastGPT's; check its address; the workflow may have run",
    )
    .error()
}

/// An answer inside an HTTP error.
pub(super) fn contradictory() -> AiError {
    Verdict(ErrorClass::Ambiguous, "contradictory_answer", "FastGPT answered inside an HTTP error").error()
}

/// What an HTTP status says before anything of the body is believed; none: the body decides.
pub(super) fn of_status(status: StatusCode) -> Option<AiError> {
    let number = status.as_u16();
    if number == 429 {
        Some(THROTTLED.error())
    } else if LOST_CALL.contains(&number) {
        // A gateway may well dress its page up as an envelope; what FastGPT did with the request, it does not know.
        Some(
            Verdict(ErrorClass::Ambiguous, "gateway_lost", "a gateway in front of FastGPT lost the call")
                .error(),
        )
    } else if status.is_redirection() {
        // Following it would ask a second time, and show the key to another host.
        Some(
            Verdict(
                ErrorClass::Refused,
                "http_redirect",
                "the FastGPT address redirects; enter the address that it leads to",
            )
            .error(),
        )
    } else {
        None
    }
}

/// What is left when neither the status nor the body was FastGPT's word.
pub(super) fn foreign(status: StatusCode) -> AiError {
    match status.as_u16() {
        401 | 403 => KEY_REFUSED.error(),
        404 | 405 => {
            Verdict(ErrorClass::Refused, "not_found", "there is no FastGPT at this address; check it").error()
        }
        400..=499 => REFUSED.error(),
        500..=599 => Verdict(
            ErrorClass::Ambiguous,
            "http_server_error",
            "a gateway in front of FastGPT failed; the workflow may have run",
        )
        .error(),
        _ => unreadable(),
    }
}

/// Reads how long a limit lasts from the head of an answer. `now` is in seconds since 1970.
pub(super) fn retry_after(headers: &HeaderMap, now: u64) -> Option<Duration> {
    let seconds = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let wait = seconds("retry-after").or_else(|| {
        let reset = seconds("x-ratelimit-reset")?;
        // Seconds to wait, or the moment at which the window ends, in seconds or milliseconds.
        Some(match reset {
            reset if reset > 1e12 => reset / 1000.0 - now as f64,
            reset if reset > 1e9 => reset - now as f64,
            reset => reset,
        })
    })?;
    Duration::try_from_secs_f64(wait.clamp(0.0, 1e6).ceil()).ok().map(bounded)
}

fn bounded(wait: Duration) -> Duration {
    wait.clamp(Duration::from_secs(1), MAX_RETRY_AFTER)
}
