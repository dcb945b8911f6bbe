//! The port to the AI provider. The adapter behind it lives in `workers`.
//!
//! A run costs money and leaves a trace in the chat's history, so as with sends the adapter must be certain before it
//! says anything other than [`ErrorClass::Ambiguous`] about a call that may have left the machine.

use std::fmt;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use crate::secret::Secret;

/// Which app is asked.
#[derive(Debug, Clone)]
pub struct App {
    /// Its address; none: that of this install.
    pub endpoint: Option<String>,
    /// Its key.
    pub api_key: Secret,
    /// Its id; without it a run of unknown outcome cannot be looked up.
    pub app_id: Option<String>,
}

/// One call of the model.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The run; also the name of the answer in the chat's records.
    pub run_id: Uuid,
    /// The chat whose history the provider keeps.
    pub chat_id: String,
    /// The customer, for the provider's log.
    pub customer: String,
    /// What is asked: exactly one message.
    pub parts: Vec<Part>,
    /// The workflow's variables.
    pub variables: Value,
    /// Ask for a stream.
    pub stream: bool,
    /// How long the whole call may take.
    pub timeout: Duration,
    /// Ties the call to its cause.
    pub trace_id: String,
}

/// A piece of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Words.
    Text(String),
    /// A picture that the provider can fetch.
    Image {
        /// Where.
        url: String,
    },
    /// A file that the provider can fetch.
    File {
        /// Its name.
        name: String,
        /// Where.
        url: String,
    },
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The text for the customer, as the model wrote it; thinking and tools are not in it.
    pub text: String,
    /// The results of the nodes, from which the cost is read. Without quotes and histories. Empty: the answer is whole and
    /// its bill was lost, so what the run cost is to be looked up.
    pub nodes: Vec<Value>,
    /// What a node that failed said. The call itself succeeded.
    pub node_error: Option<String>,
    /// The run stopped at a node that asks the customer to choose.
    pub interactive: bool,
    /// When the last byte of the answer had come.
    pub finished: Instant,
}

/// What the records of the provider say of a run whose answer was lost.
#[derive(Debug, Clone)]
pub enum Found {
    /// It ran.
    Ran(Answer),
    /// Nothing yet: it may still be running, or never have begun.
    Nothing,
}

/// What a failed call proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Nothing ran. Safe to repeat.
    NotRun,
    /// Refused for now; safe to repeat later.
    Throttled,
    /// Refused for good: key, app or request is wrong.
    Refused,
    /// The team's points are used up: no run of this key will work.
    Quota,
    /// It ran and failed inside; repeating it is a new, paid run.
    Failed,
    /// It may have run.
    Ambiguous,
}

impl ErrorClass {
    /// Returns the stable name for rows and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::NotRun => "not_run",
            ErrorClass::Throttled => "throttled",
            ErrorClass::Refused => "refused",
            ErrorClass::Quota => "quota",
            ErrorClass::Failed => "failed",
            ErrorClass::Ambiguous => "ambiguous",
        }
    }
}

/// A call that brought no answer.
#[derive(Debug, Clone)]
pub struct AiError {
    /// What it proves.
    pub class: ErrorClass,
    /// Stable code.
    pub code: &'static str,
    /// A sentence for operators. No secret, nothing for customers.
    pub message: String,
    /// When to try again, if the provider said so.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for AiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.class.as_str(), self.message)
    }
}

impl std::error::Error for AiError {}

/// Asks a model.
pub trait AiClient: Send + Sync {
    /// Makes one call and reads it to its end. Never repeated by any layer.
    fn ask<'a>(&'a self, app: &'a App, ask: &'a Ask) -> BoxFuture<'a, Result<Answer, AiError>>;

    /// Looks for a run whose answer was lost. Safe to repeat.
    fn look_up<'a>(
        &'a self,
        app: &'a App,
        chat_id: &'a str,
        run_id: Uuid,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Found, AiError>>;
}
