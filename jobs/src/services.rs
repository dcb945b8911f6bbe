//! What an attempt can use: the database, and the ports behind which the outside world stands.

use std::sync::Arc;
use std::time::Duration;

use entropy_schema::Db;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ai::port::AiClient;
use crate::ai::words;
use crate::campaign::plan::Plans;
use crate::contact_source::ContactSource;
use crate::media::{Links, MediaSource, Store};
use crate::metrics::Metrics;
use crate::process::config::Ceilings;
use crate::provider::MessageSender;
use crate::search::MessageIndex;
use crate::secret::Secret;
use crate::vault::Vault;

/// What all attempts of a process share.
#[derive(Clone)]
pub struct Services {
    /// The record.
    pub db: Db,
    /// Sends messages through the provider.
    pub sender: Arc<dyn MessageSender>,
    /// Reads address books.
    pub contacts: Arc<dyn ContactSource>,
    /// Where media come from.
    pub media: Arc<dyn MediaSource>,
    /// Where they are kept.
    pub store: Store,
    /// Makes links to them; none: there is no key to sign with.
    pub links: Option<Links>,
    /// The gap between calls of an account for which nobody waits.
    pub background_gap: Duration,
    /// Stops a flood from this process, whatever else fails.
    pub guard: Arc<dyn FloodGuard>,
    /// Asks a model.
    pub ai: Arc<dyn AiClient>,
    /// Stops a flood of runs of one key from this process.
    pub ask_guard: Arc<dyn AskGuard>,
    /// The organisations' sensitive words, compiled.
    pub words: Arc<words::Cache>,
    /// The versions of campaigns' plans, read.
    pub plans: Arc<Plans>,
    /// Opens sealed provider tokens; none: no key is configured.
    pub vault: Option<Arc<Vault>>,
    /// The token of accounts that have none of their own, and the key of its window.
    pub default_token: Option<(Secret, String)>,
    /// The search engine; none: Postgres searches.
    pub index: Option<Arc<dyn MessageIndex>>,
    /// Ceilings of this install.
    pub ceilings: Ceilings,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The limiter inside the process, in front of every call to the provider.
///
/// It is a second fence: the limits that count are in the send records.
pub trait FloodGuard: Send + Sync {
    /// Asks for one call of `wxid`. Err: how long to wait.
    fn check(&self, wxid: &str) -> Result<(), Duration>;
}

/// The limiter inside the process, in front of every call of a model.
///
/// It is a second fence: the limit that counts is in the record of the runs.
pub trait AskGuard: Send + Sync {
    /// Asks for one call with a key that may make `per_minute`. Err: how long to wait.
    fn check(&self, key_hash: &str, per_minute: u32) -> Result<(), Duration>;
}

/// One attempt's identity and tools.
#[derive(Clone)]
pub struct Context {
    /// What all attempts share.
    pub services: Arc<Services>,
    /// The job.
    pub job_id: Uuid,
    /// The attempt, counted from 1.
    pub attempt: i16,
    /// The worker that holds the lease.
    pub worker_id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The person who asked for the job.
    pub created_by: Option<Uuid>,
    /// Ties the attempt to the request that caused it.
    pub trace_id: String,
    /// Cancelled when a person called the job off, the lease was lost, or the process must stop now.
    pub stop: CancellationToken,
}

impl Context {
    /// Lends a database connection.
    pub async fn conn(&self) -> Result<entropy_schema::PooledConn, entropy_schema::Error> {
        self.services.db.conn().await
    }
}
