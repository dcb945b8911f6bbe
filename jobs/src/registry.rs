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
}

type Run = Arc<dyn Fn(i16, Value, Context) -> BoxFuture<'static, Result<Done, JobError>> + Send + Sync>;

#[derive(Clone)]
struct Entry {
    info: KindInfo,
    run: Run,
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
        };
        let run: Run = Arc::new(|version, args, ctx| {
            Box::pin(async move {
                let args = if version < K::ARGS_VERSION { K::upgrade(version, args) } else { args };
                match serde_json::from_value::<K>(args) {
                    Ok(job) => job.run(&ctx).await,
                    // Visible and final: args that do not decode now will not decode later.
                    Err(error) => Err(JobError::Discard(Failure::new(
                        "args_unreadable",
                        format!("the stored input does not fit this version of {}: {error}", K::KIND),
                    ))),
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
