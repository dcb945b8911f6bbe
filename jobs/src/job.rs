//! A job kind is a value with a name: what it needs, how it is delivered, and how it runs.

use std::future::Future;
use std::time::Duration;

use entropy_schema::record::finish::LaneWait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::lifecycle::{self, Delivery};
use crate::services::Context;

/// One kind of work.
///
/// Kinds are stored by name: never rename one that is in use. A field that is added later has a default, since older
/// rows are still in the table; a change that a default cannot express raises `ARGS_VERSION` and is translated by
/// `upgrade`.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the kind, as it is stored.
    const KIND: &'static str;
    /// Queue whose slots it uses.
    const QUEUE: &'static str;
    /// How often its work may happen.
    const DELIVERY: Delivery;
    /// Attempts before it is dead.
    const MAX_ATTEMPTS: i16 = 5;
    /// How long one attempt may take.
    const TIMEOUT: Duration = Duration::from_secs(60);
    /// Process deaths under one job after which it is not tried again: it may be what they died of.
    const QUARANTINE_AFTER: i16 = lifecycle::QUARANTINE_AFTER;
    /// Version of the form of its args.
    const ARGS_VERSION: i16 = 1;

    /// The lane that runs one job at a time; none: runs beside others.
    fn lane(&self) -> Option<Uuid> {
        None
    }

    /// Jobs of one lane, class and key keep their order.
    fn order_key(&self) -> Option<String> {
        None
    }

    /// The WeChat account that the job concerns.
    fn account(&self) -> Option<Uuid> {
        None
    }

    /// One live job at a time per key.
    fn unique_key(&self) -> Option<String> {
        None
    }

    /// Translates args of an older version to the present form.
    fn upgrade(_version: i16, args: Value) -> Value {
        args
    }

    /// Carries out one attempt. May be called again after a failure, and by `DELIVERY` also after a crash.
    fn run(&self, ctx: &Context) -> impl Future<Output = Result<Done, JobError>> + Send;
}

/// The success of an attempt.
#[derive(Debug, Default)]
pub struct Done {
    /// What came of it, for whoever asks for the job.
    pub result: Option<Value>,
    /// What the lane waits for before its next job.
    pub lane_wait: Option<LaneWait>,
}

/// Every other way in which an attempt ends.
#[derive(Debug)]
pub enum JobError {
    /// Failed; try again after a backoff, while attempts are left.
    Retry(Failure),
    /// Failed for good: the job is dead.
    Discard(Failure),
    /// Not now; no attempt is spent.
    Snooze(Snooze),
    /// Not any more: it was called off, or its deadline has passed.
    Cancel(Failure),
    /// The lease was lost: somebody else decides, and nothing is to be recorded.
    Lost,
    /// The work may have been done, and that could not be written down: the record decides, as after a crash.
    Unrecorded,
}

/// What went wrong, for people.
#[derive(Debug, Clone, Default)]
pub struct Failure {
    /// Stable code.
    pub code: String,
    /// A sentence without secrets.
    pub message: String,
    /// A result to show in spite of the failure.
    pub result: Option<Value>,
    /// What the lane waits for before its next job.
    pub lane_wait: Option<LaneWait>,
}

/// Why and until when a job is put back.
#[derive(Debug, Clone)]
pub struct Snooze {
    /// How long.
    pub delay: Duration,
    /// Stable code.
    pub code: &'static str,
    /// A sentence for whoever asks why the job waits.
    pub note: String,
    /// What waits.
    pub scope: Scope,
}

/// What a snooze concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This job only; others of its lane go on.
    Job,
    /// The whole lane: the job stays at its head.
    Lane,
}

impl Failure {
    /// A failure with a code and a sentence.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { code: code.into(), message: message.into(), ..Failure::default() }
    }

    /// The failure as it is stored.
    pub fn to_json(&self) -> Value {
        serde_json::json!({ "code": self.code, "message": self.message })
    }
}

/// `?` turns any error into a retry. Its text goes to the log; the job shows a sentence that gives nothing away.
impl<E: Into<anyhow::Error>> From<E> for JobError {
    fn from(error: E) -> JobError {
        let error = error.into();
        tracing::warn!(error = format!("{error:#}"), "attempt failed");
        JobError::Retry(Failure::new(
            "internal",
            "a fault inside the platform; the log has it under the job's trace id",
        ))
    }
}
