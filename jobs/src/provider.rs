//! The port to the messaging provider: what a send needs, and what it can come to.
//!
//! The kinds call [`MessageSender`]; the adapter behind it lives in `workers`. The promise that a message is
//! never sent twice rests on [`ErrorClass`], so an adapter must be certain before it says anything other than
//! [`ErrorClass::Ambiguous`] about a request that may have left the machine.

use std::fmt;
use std::time::Instant;

use futures::future::BoxFuture;

use crate::message::Message;
use crate::secret::Secret;

/// One call's target: which device of which tenant credential.
#[derive(Debug, Clone)]
pub struct Device {
    /// The provider's device slot; replaceable, unlike the wxid that is logged in on it.
    pub app_id: String,
    /// The tenant credential that owns the device.
    pub token: Secret,
}

/// The provider's proof that it accepted a message. All three values are needed to recall it.
///
/// The ids exceed what JavaScript can count, so they stay text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The local id; may be `0` for text to groups.
    pub msg_id: Option<String>,
    /// The id on WeChat's server: the reference for recalls, quotes and duplicates.
    pub new_msg_id: String,
    /// Seconds since 1970 by the provider's clock; absent or 0 for several kinds.
    pub create_time: Option<i64>,
}

/// What a failed call proves, and so what may be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Not a byte of the request was written. A retry is safe.
    NotSent,
    /// The provider answered that it did not send this message. Repeating it gives the same answer.
    Refused,
    /// The provider did not send, because the account is not logged in. Pauses the account, not the job.
    AccountOffline,
    /// WeChat limits the account. Nothing more may be sent on it until a person has looked.
    RiskControl,
    /// The credential is wrong or expired. Stops every account that uses it.
    Token,
    /// The request may have arrived, and nobody can know. Never repeated without a person's decision.
    Ambiguous,
}

impl ErrorClass {
    /// Returns the stable name for rows, metrics and API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Refused => "refused",
            Self::AccountOffline => "account_offline",
            Self::RiskControl => "risk_control",
            Self::Token => "token",
            Self::Ambiguous => "ambiguous",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that did not end in [`Sent`].
///
/// Prints without its `detail`, both ways, so that it may be logged whole.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({class}: {code})")]
pub struct SendError {
    /// What may be done about it.
    pub class: ErrorClass,
    /// The stable name of the cause.
    pub code: &'static str,
    /// A sentence for people. Ours alone: nothing of the answer, no message text, no secret; fit for a log.
    pub message: String,
    /// The provider's raw answer or the transport's error, cut to 500 characters and without the token.
    ///
    /// For the attempt's row only. It may repeat what the message said, so it does not belong in a log.
    pub detail: Option<String>,
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError")
            .field("class", &self.class)
            .field("code", &self.code)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// Sends messages through one provider.
pub trait MessageSender: Send + Sync {
    /// Sends one message once.
    ///
    /// Never repeats a call by itself. Looks at `deadline` again as the last thing before the request is
    /// written, so that a process that was frozen after its gate does not send late, and then answers
    /// [`ErrorClass::NotSent`] with the code `deadline_before_send`. Ends within its own timeout whatever the
    /// provider does. A caller that drops the future must treat the outcome as unknown; a request that had
    /// not been written by then never is.
    fn send<'a>(
        &'a self,
        device: &'a Device,
        to_wxid: &'a str,
        message: &'a Message,
        deadline: Instant,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Sent, SendError>>;

    /// Asks whether the device is logged in. Safe to repeat.
    fn check_online<'a>(
        &'a self,
        device: &'a Device,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<bool, SendError>>;
}
