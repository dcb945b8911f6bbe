//! The envelopes that GeWe answers with.

use poem::http::StatusCode;
use serde_json::{Map, Value, json};

use super::routes::{Media, SendRoute};
use crate::ledger::{Outcome, Receipt};

/// An answer before a failure mode bends it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) outcome: Outcome,
    pub(crate) status: StatusCode,
    pub(crate) envelope: Value,
}

/// Why GeWe says no. Nothing reaches the phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    TokenMissing,
    TokenRefused,
    /// Holds the whole text.
    BadRequest(String),
    /// Holds the `appId`.
    UnknownDevice(String),
    Offline,
    Risk,
    UnknownError,
}

impl Reply {
    /// Says that a call that sends nothing has worked.
    pub(crate) fn answered(data: Option<Value>) -> Self {
        Self { outcome: Outcome::Answered, status: StatusCode::OK, envelope: success(data) }
    }

    /// Says that a message was accepted.
    pub(crate) fn accepted(route: &SendRoute, to_wxid: &str, receipt: Receipt) -> Self {
        let outcome = if receipt.delivered { Outcome::Delivered } else { Outcome::Dropped };
        let data = message_data(route, to_wxid, receipt);
        Self { outcome, status: StatusCode::OK, envelope: success(Some(data)) }
    }

    /// Says no; HTTP is content all the same, as observed.
    pub(crate) fn refused(refusal: &Refusal, failed: &str) -> Self {
        Self { outcome: refusal.outcome(), status: StatusCode::OK, envelope: refusal.envelope(failed) }
    }

    /// Stands for an answer that the failure mode replaces wholly.
    pub(crate) fn not_accepted(failed: &str) -> Self {
        Self {
            outcome: Outcome::NotAccepted,
            status: StatusCode::OK,
            envelope: Refusal::UnknownError.envelope(failed),
        }
    }

    /// Answers a path that GeWe does not have. The body is our guess at its framework's.
    pub(crate) fn not_found(path: &str) -> Self {
        Self::http_error(Outcome::NotFound, StatusCode::NOT_FOUND, path)
    }

    /// Answers a call that is not a POST; likewise.
    pub(crate) fn method_not_allowed(path: &str) -> Self {
        Self::http_error(Outcome::MethodNotAllowed, StatusCode::METHOD_NOT_ALLOWED, path)
    }

    pub(crate) fn body_too_large(path: &str) -> Self {
        Self::http_error(Outcome::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE, path)
    }

    /// Answers a failure header that cannot be read: the test is at fault, not GeWe.
    pub(crate) fn bad_failure_header(problem: &str) -> Self {
        let envelope = json!({ "error": format!("X-Sandbox-Failure: {problem}") });
        Self { outcome: Outcome::BadRequest, status: StatusCode::BAD_REQUEST, envelope }
    }

    fn http_error(outcome: Outcome, status: StatusCode, path: &str) -> Self {
        let reason = status.canonical_reason().unwrap_or_default();
        let envelope = json!({ "status": status.as_u16(), "error": reason, "path": path });
        Self { outcome, status, envelope }
    }
}

impl Refusal {
    fn outcome(&self) -> Outcome {
        match self {
            Self::TokenMissing => Outcome::TokenMissing,
            Self::TokenRefused => Outcome::TokenRefused,
            Self::BadRequest(_) => Outcome::BadRequest,
            Self::UnknownDevice(_) => Outcome::UnknownDevice,
            Self::Offline => Outcome::Offline,
            Self::Risk => Outcome::Risk,
            Self::UnknownError => Outcome::UnknownError,
        }
    }

    /// `failed` is the route's own text for "it did not work".
    fn envelope(&self, failed: &str) -> Value {
        match self {
            Self::TokenMissing => failure("header:X-GEWE-TOKEN 不可为空", None),
            Self::TokenRefused => failure("token不可用或已过期", None),
            Self::BadRequest(text) => failure(text, None),
            Self::UnknownDevice(app_id) => failure(failed, Some(("-1", &format!("[{app_id}]设备不存在")))),
            Self::Offline => failure(failed, Some(("-1", "微信已离线"))),
            // No body of a risk refusal was ever published; this has the words that clients look for.
            Self::Risk => failure(failed, Some(("-1", "操作过于频繁，请稍后再试"))),
            Self::UnknownError => {
                json!({ "ret": 500, "msg": failed, "data": { "code": "-4013", "msg": null } })
            }
        }
    }
}

fn success(data: Option<Value>) -> Value {
    let mut envelope = json!({ "ret": 200, "msg": "操作成功" });
    if let Some(data) = data {
        envelope["data"] = data;
    }
    envelope
}

fn failure(msg: &str, data: Option<(&str, &str)>) -> Value {
    match data {
        Some((code, detail)) => json!({ "ret": 500, "msg": msg, "data": { "code": code, "msg": detail } }),
        None => json!({ "ret": 500, "msg": msg }),
    }
}

fn message_data(route: &SendRoute, to_wxid: &str, receipt: Receipt) -> Value {
    let id = receipt.new_msg_id;
    // Text to a group sometimes comes back without a local id: here, every other time.
    let hides_id = route.kind == "text" && to_wxid.ends_with("@chatroom") && id.is_multiple_of(2);
    let mut data = Map::new();
    data.insert("toWxid".to_owned(), json!(to_wxid));
    data.insert("createTime".to_owned(), json!(route.has_time.then(|| receipt.at.timestamp())));
    data.insert("msgId".to_owned(), json!(if hides_id { 0 } else { receipt.msg_id }));
    data.insert("newMsgId".to_owned(), json!(id));
    data.insert("type".to_owned(), json!(route.answer_type));
    if route.media != Media::None {
        data.insert("aesKey".to_owned(), json!(format!("{id:032x}")));
        data.insert("fileId".to_owned(), json!(format!("3057020100044b{id:032x}")));
        data.insert("length".to_owned(), json!(40_960 + id % 1_000_000));
    }
    if route.media == Media::Image {
        data.insert("width".to_owned(), json!(1080));
        data.insert("height".to_owned(), json!(1920));
        data.insert("md5".to_owned(), json!(format!("{:032x}", u128::from(id) * 0x9e37_79b9_7f4a_7c15)));
    }
    Value::Object(data)
}
