//! The map from a kind's name to what runs it: the one place where a job's type is erased.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;

use crate::job::{Done, Failure, Job, JobError};
use crate::lifecycle::Delivery;
use crate::services::Context;

/// What is known of a kind without running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindInfo {
    /// Name of the kind.
    pub kind: &'static str,
    /// Queue whose slots it uses.
    pub queue: &'static str,
    /// How often its work may happen.
    pub delivery: Delivery,
    /// Attempts before it is dead.
    pub max_attempts: i16,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Process deaths under one job after which it is not tried again.
    pub quarantine_after: i16,
}

type Run = Arc<dyn Fn(i16, Value, Context) -> BoxFuture<'static, Result<Done, JobError>> + Send + Sync>;

#[derive(Clone)]
struct Entry {
    info: KindInfo,
    run: Run,
}

/// Reads stored args, of this version or an older one.
pub fn read<K: Job>(version: i16, args: Value) -> Result<K, Failure> {
    let args = if version < K::ARGS_VERSION { K::upgrade(version, args) } else { args };
    serde_json::from_value::<K>(args).map_err(|error| {
        let why = without_values(&error.to_string());
        Failure::new(
            "args_unreadable",
            format!("the stored input does not fit this version of {}: {why}", K::KIND),
        )
    })
}

/// Takes out of a reader's complaint what it repeats of the input: args hold what customers are told.
fn without_values(complaint: &str) -> String {
    let complaint: String = complaint.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let repeats = ["invalid type: ", "invalid value: ", "unknown variant ", "unknown field "];
    let Some(what) = repeats.iter().find(|what| complaint.starts_with(**what)) else {
        // Lengths and names of our own fields are all that is left, but a type of somebody else's may say more.
        return match complaint.split_once('`') {
            Some(("missing field " | "duplicate field ", _)) => complaint.chars().take(120).collect(),
            _ => "a value is not of its form".to_owned(),
        };
    };
    // The value may hold these words too, so the last ones are taken.
    let expected = complaint.rfind(", expected ").map_or("", |at| &complaint[at..]);
    let expected: String = expected.chars().take(120).collect();
    format!("{}{expected}", what.trim_end_matches([':', ' ']))
}

/// Every kind that this build knows.
#[derive(Clone, Default)]
pub struct Registry {
    entries: BTreeMap<&'static str, Entry>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.kinds()).finish()
    }
}

impl Registry {
    /// Adds a kind.
    ///
    /// # Panics
    ///
    /// At boot, if two kinds have one name.
    #[must_use]
    pub fn register<K: Job>(mut self) -> Registry {
        let info = KindInfo {
            kind: K::KIND,
            queue: K::QUEUE,
            delivery: K::DELIVERY,
            max_attempts: K::MAX_ATTEMPTS,
            timeout: K::TIMEOUT,
            quarantine_after: K::QUARANTINE_AFTER,
        };
        let run: Run = Arc::new(|version, args, ctx| {
            Box::pin(async move {
                match read::<K>(version, args) {
                    Ok(job) => job.run(&ctx).await,
                    // Visible and final: args that do not decode now will not decode later.
                    Err(unreadable) => Err(JobError::Discard(unreadable)),
                }
            })
        });
        let previous = self.entries.insert(K::KIND, Entry { info, run });
        assert!(previous.is_none(), "two kinds are called {}", K::KIND);
        self
    }

    /// Describes a kind; none: this build does not know it.
    pub fn get(&self, kind: &str) -> Option<&KindInfo> {
        self.entries.get(kind).map(|entry| &entry.info)
    }

    /// Describes every kind, by name.
    pub fn kinds(&self) -> impl Iterator<Item = &KindInfo> {
        self.entries.values().map(|entry| &entry.info)
    }

    /// Returns the queues of all kinds, each once, by name.
    pub fn queues(&self) -> Vec<&'static str> {
        let mut queues: Vec<_> = self.kinds().map(|info| info.queue).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }

    /// Carries out one attempt of a job of `kind`.
    pub async fn run(&self, kind: &str, version: i16, args: Value, ctx: Context) -> Result<Done, JobError> {
        match self.entries.get(kind) {
            Some(entry) => (entry.run)(version, args, ctx).await,
            // Not dead: a newer worker beside this one may know it.
            None => Err(JobError::Snooze(crate::job::Snooze {
                delay: Duration::from_secs(30),
                code: "kind_unknown",
                note: format!("this worker does not know the kind {kind}; a newer one may"),
                scope: crate::job::Scope::Job,
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::cost_tally::CostTally;
    use crate::kinds::expire_keys::ExpireKeys;
    use crate::kinds::send_message::SendMessage;

    fn complaint<K: Job>(args: Value) -> String {
        let failure = read::<K>(K::ARGS_VERSION, args).err().expect("the args do not fit");
        assert_eq!(failure.code, "args_unreadable");
        failure.message
    }

    #[test]
    fn unreadable_args_are_explained_without_being_repeated() {
        let secret = "李总您好，合同在附件里, expected nothing";
        let account = "01890a5d-ac96-774b-bcce-b302099a8057";
        let send = |message: Value| json!({"account_id": account, "to_wxid": "wxid_1", "message": message});
        for said in [
            complaint::<SendMessage>(send(json!(secret))),
            complaint::<SendMessage>(send(json!({"kind": secret}))),
            complaint::<SendMessage>(send(json!({"kind": "voice", "url": "u", "duration_ms": secret}))),
            complaint::<SendMessage>(send(json!({"kind": "text", "text": "t", secret: 1}))),
            complaint::<SendMessage>(json!({"account_id": secret})),
            complaint::<CostTally>(
                json!({"request_id": "r", "account_id": null, "user_id": null, "model": "m",
                "input_tokens": 1, "output_tokens": 1, "occurred_at": secret}),
            ),
            complaint::<ExpireKeys>(json!({"keep_days": secret})),
        ] {
            assert!(!said.contains("李总"), "{said}");
            assert!(said.chars().count() < 300, "{said}");
        }
        let said = complaint::<ExpireKeys>(json!({}));
        assert!(said.ends_with("missing field `keep_days`"), "{said}");
        let said = complaint::<ExpireKeys>(json!({"keep_days": "七"}));
        assert!(said.ends_with("invalid type, expected i32"), "{said}");
    }
}
