//! What every handler may use.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, SubsecRound, Utc};
use entropy_jobs::campaign::plan::Plans;
use entropy_jobs::enqueue::Enqueuer;
use entropy_jobs::incoming::intake::Intake;
use entropy_jobs::media::{Links, Store};
use entropy_jobs::outbound_url::UrlPolicy;
use entropy_jobs::process::config::{Callbacks, Ceilings, Http, Media, Search, Stores};
use entropy_jobs::registry::Registry;
use entropy_jobs::vault::Vault;
use entropy_jobs::wake::{self, Waker};
use entropy_schema::Db;
use entropy_schema::clock::Clock;
use entropy_schema::views::queues::Counts;
use redis::aio::ConnectionManager;
use uuid::Uuid;

use crate::addressees::Addressees;
use crate::auth::caller::Caller;
use crate::auth::passwords::Passwords;
use crate::auth::tokens::Tokens;
use crate::backlog::Backlog;
use crate::fresh::Fresh;
use crate::metrics::Metrics;
use crate::one_each::OneEach;
use crate::routes::{Funnel, FunnelKey};
use crate::search::{self, MessageSearch};

/// What the API is built from. It starts while Postgres and Redis are away, and answers when they are back.
#[derive(Debug)]
pub struct AppConfig {
    /// The database, with [`Profile::Api`](entropy_schema::Profile::Api).
    pub db: Db,
    /// For the question whether Redis can be reached.
    pub stores: Stores,
    /// Tokens and registration.
    pub http: Http,
    /// How the provider proves itself.
    pub callbacks: Callbacks,
    /// Where messages are searched.
    pub search: Search,
    /// What no account's limits may exceed.
    pub ceilings: Ceilings,
    /// Seals provider tokens; none: accounts cannot bring their own.
    pub vault: Option<Vault>,
    /// Creates jobs.
    pub enqueuer: Enqueuer,
    /// Wakes the relays.
    pub waker: Waker,
    /// Every kind that this build knows.
    pub registry: Registry,
    /// Which URLs a message may carry.
    pub url_policy: UrlPolicy,
    /// Where media of messages are kept.
    pub media: Media,
    /// The install has a provider token for accounts that bring none (`GEWE_TOKEN_ID`).
    pub has_default_token: bool,
}

/// The API's state: cheap to clone, shared by all requests.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Inner>);

/// See [`AppState`], which stands for it.
pub struct Inner {
    pub(crate) db: Db,
    pub(crate) http: Http,
    pub(crate) callbacks: Callbacks,
    pub(crate) ceilings: Ceilings,
    pub(crate) vault: Option<Vault>,
    pub(crate) enqueuer: Enqueuer,
    pub(crate) waker: Waker,
    pub(crate) registry: Registry,
    pub(crate) url_policy: UrlPolicy,
    pub(crate) has_default_token: bool,
    /// Media of messages.
    pub(crate) store: Store,
    /// Links to them.
    pub(crate) links: Links,
    pub(crate) redis: ConnectionManager,
    /// Begins every key there.
    pub(crate) namespace: String,
    /// The database's clock, which decides; this machine's may be wrong.
    clock: Clock,
    /// The database was seen to have every migration of this program.
    pub(crate) migrated: AtomicBool,
    pub(crate) tokens: Tokens,
    pub(crate) passwords: Passwords,
    pub(crate) backlog: Backlog,
    pub(crate) metrics: Metrics,
    /// People whose token was checked lately.
    pub(crate) callers: Fresh<Uuid, Caller>,
    /// Accounts that were looked up lately: account and organisation.
    pub(crate) accounts: Fresh<(Uuid, Uuid), ()>,
    /// Whom devices and wxids belong to, as callbacks name them.
    pub(crate) addressees: Addressees,
    /// Takes in what the provider tells us.
    pub(crate) intake: Intake,
    /// Finds messages.
    pub(crate) search: Arc<dyn MessageSearch>,
    /// A search engine is configured, and its index to be kept.
    pub(crate) has_search_engine: bool,
    /// The versions of campaigns' plans, read.
    pub(crate) plans: Plans,
    /// Who has a plan played just now.
    pub(crate) dry_runs: OneEach,
    /// The numbers of plans, as they were counted lately: organisation, plan, version, by what.
    pub(crate) funnels: Fresh<FunnelKey, Funnel>,
    /// What organisations have in their queues.
    pub(crate) queue_counts: Fresh<Uuid, Vec<Counts>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("db", &self.db).finish_non_exhaustive()
    }
}

impl Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl AppState {
    /// Puts the state together. Fails only on a configuration that can never work.
    pub fn new(config: AppConfig) -> anyhow::Result<AppState> {
        let redis = wake::redis_connection(&config.stores.redis_url)?;
        Ok(AppState(Arc::new(Inner {
            tokens: Tokens::new(&config.http)?,
            passwords: Passwords::default(),
            backlog: Backlog::default(),
            metrics: Metrics::new().context("setting up the counters")?,
            callers: Fresh::new(Duration::from_secs(10)),
            accounts: Fresh::new(Duration::from_secs(2)),
            addressees: Addressees::new(config.db.clone()),
            intake: Intake::new(config.db.clone(), config.waker.clone()),
            search: search::of(&config.db, &config.search)?,
            has_search_engine: config.search.url.is_some(),
            plans: Plans::default(),
            dry_runs: OneEach::default(),
            funnels: Fresh::new(Duration::from_secs(5)),
            queue_counts: Fresh::new(Duration::from_secs(2)),
            redis,
            namespace: config.stores.namespace,
            clock: Clock::default(),
            migrated: AtomicBool::new(false),
            store: config.media.store(),
            links: Links::new(&config.http.jwt_secret, config.media.public_url),
            db: config.db,
            http: config.http,
            callbacks: config.callbacks,
            ceilings: config.ceilings,
            vault: config.vault,
            enqueuer: config.enqueuer,
            waker: config.waker,
            registry: config.registry,
            url_policy: config.url_policy,
            has_default_token: config.has_default_token,
        })))
    }

    /// Returns the time by the database's clock, as exact as the database stores it.
    pub(crate) async fn now(&self) -> DateTime<Utc> {
        self.clock.now(&self.db).await.trunc_subsecs(6)
    }
}
