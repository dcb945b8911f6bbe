//! A worker process: wires the parts together, runs them, and drains them at the end.

use std::sync::Arc;
use std::time::Duration;

use entropy_jobs::job::Job;
use entropy_jobs::kinds::sop_step::SopStep;
use entropy_jobs::metrics::Metrics;
use entropy_jobs::process::config::{Ceilings, Fastgpt, Gewe, Media, Search, Stores};
use entropy_jobs::process::migrated::migrated;
use entropy_jobs::redis_health::Health;
use entropy_jobs::registry::Registry;
use entropy_jobs::search::MessageIndex;
use entropy_jobs::services::Services;
use entropy_jobs::vault::Vault;
use entropy_schema::workers::NewWorker;
use entropy_schema::{Db, Profile};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::adapters::elastic::Elastic;
use crate::adapters::fastgpt::{FastGptClient, Patience};
use crate::adapters::gewe::{GeweClient, Timeouts};
use crate::adapters::media::GeweMedia;
use crate::attempt::Runner;
use crate::broker::Broker;
use crate::guard::{AskFence, Guard};
use crate::maintenance::{campaigns, janitor, redis_watch, rescuer::Rescuer};
use crate::{heartbeat, presence, relay::Relay};

/// How long a drain waits for attempts, before it cuts them off. The process is gone within 30 s.
const DRAIN: Duration = Duration::from_secs(27);

/// What a worker process is told.
#[derive(Debug)]
pub struct Settings {
    /// The two stores.
    pub stores: Stores,
    /// The provider.
    pub gewe: Gewe,
    /// The model's host.
    pub fastgpt: Fastgpt,
    /// The install's ceilings.
    pub ceilings: Ceilings,
    /// Where messages are searched.
    pub search: Search,
    /// Opens sealed tokens.
    pub vault: Option<Vault>,
    /// Where media of messages are kept.
    pub media: Media,
    /// Attempts at once, of each queue.
    pub slots: usize,
}

/// A worker that is wired up and not yet running.
pub struct Worker {
    id: Uuid,
    slots: usize,
    services: Arc<Services>,
    registry: Registry,
    broker: Broker,
    guard: Arc<Guard>,
}

/// Attempts of campaigns at a time. Each waits for its account's lane with a connection in its hands, and others behind it: what
/// people write, and its answers, must always find a connection, and a lane whose lock few wait for.
const CAMPAIGN_SLOTS: usize = 4;

/// How long the start waits for Redis to say how it stands.
const EXAMINED_WITHIN: Duration = Duration::from_secs(3);

/// Runs a worker process until `stop`, then drains it. Takes nothing until the database is up to date.
///
/// Refuses to start on a Redis that would throw deliveries away.
pub async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let worker = Worker::new(settings)?;
    examine(&worker.broker).await?;
    if migrated(&worker.services.db, &stop).await {
        worker.run(stop).await;
    }
    Ok(())
}

/// Redis may be away: then it is examined when it is back, and nothing is handed out while it would not be kept.
async fn examine(broker: &Broker) -> anyhow::Result<()> {
    match tokio::time::timeout(EXAMINED_WITHIN, broker.examine()).await {
        Ok(health @ Health::Evicts { .. }) => anyhow::bail!("{health}"),
        Ok(health @ (Health::Silent | Health::Away(_))) => tracing::warn!("{health}"),
        Ok(Health::Fit | Health::Refuses(_)) => {}
        Err(_) => tracing::warn!("Redis does not answer"),
    }
    Ok(())
}

impl Worker {
    /// Wires a worker up. Connects to nothing yet.
    pub fn new(settings: Settings) -> anyhow::Result<Worker> {
        let Settings { stores, gewe, fastgpt, ceilings, search, vault, media, slots } = settings;
        let db = Db::new(stores.database_url.expose(), stores.pool_size, Profile::Worker)?;
        let guard = Arc::new(Guard::new(ceilings.messages_per_minute.unsigned_abs()));
        let default_token = gewe.token.map(|token| {
            // The same key as that of an account that brings this very token: one token, one window.
            let key = vault.as_ref().map_or_else(|| "install".to_owned(), |vault| vault.fingerprint(&token));
            (token, key)
        });
        let client = GeweClient::new(&gewe.endpoint, Timeouts::default())?;
        let services = Services {
            db,
            ask_guard: Arc::new(AskFence::default()),
            words: Arc::default(),
            plans: Arc::default(),
            ai: Arc::new(FastGptClient::new(fastgpt.endpoint.as_deref(), Patience::default())?),
            sender: Arc::new(client.clone()),
            media: Arc::new(GeweMedia::new(client.clone())?),
            contacts: Arc::new(client),
            store: media.store(),
            links: media.links(),
            background_gap: media.background_gap,
            guard: guard.clone(),
            vault: vault.map(Arc::new),
            default_token,
            index: Elastic::new(&search)?.map(|index| Arc::new(index) as Arc<dyn MessageIndex>),
            ceilings,
            metrics: Arc::new(Metrics::new()?),
        };
        Ok(Worker {
            id: Uuid::now_v7(),
            slots,
            services: Arc::new(services),
            registry: entropy_jobs::kinds::registry(),
            broker: Broker::new(&stores.redis_url, &stores.namespace)?,
            guard,
        })
    }

    /// Replaces the kinds that the worker knows: all of [`entropy_jobs::kinds::registry`], unless told otherwise.
    #[must_use]
    pub fn with_registry(mut self, registry: Registry) -> Worker {
        self.registry = registry;
        self
    }

    /// Runs until `stop`; then stops taking work, lets what runs finish, and returns within 30 s.
    pub async fn run(self, stop: CancellationToken) {
        let Worker { id, slots, services, registry, broker, guard } = self;
        let queues = registry.queues();
        let ended = Arc::new(Notify::new());
        let runner = Runner::new(services.clone(), registry.clone(), id, ended.clone());
        let attempts = TaskTracker::new();
        let parts = TaskTracker::new();
        let gone = CancellationToken::new();
        tracing::info!(worker_id = %id, slots, ?queues, "worker started");

        let relay = Relay {
            db: services.db.clone(),
            broker: broker.clone(),
            queues: queues.clone(),
            ended: ended.clone(),
            metrics: services.metrics.clone(),
        };
        parts.spawn({
            let stop = stop.clone();
            async move { relay.run(stop).await }
        });
        parts.spawn({
            let (db, ended, stop) = (services.db.clone(), ended.clone(), stop.clone());
            async move { campaigns::run(&db, &ended, stop).await }
        });
        let rescuer = Rescuer {
            worker: id,
            services: services.clone(),
            registry,
            broker: broker.clone(),
            queues: queues.clone(),
            ended,
        };
        parts.spawn({
            let stop = stop.clone();
            async move { rescuer.run(stop).await }
        });
        parts.spawn({
            let (broker, queues, stop) = (broker.clone(), queues.clone(), stop.clone());
            async move { janitor::run(&broker, &queues, &guard, stop).await }
        });
        parts.spawn({
            let (broker, metrics, stop) = (broker.clone(), services.metrics.clone(), stop.clone());
            async move { redis_watch::run(&broker, &metrics, stop).await }
        });
        parts.spawn({
            let (broker, queues, stop) = (broker.clone(), queues.clone(), stop.clone());
            async move { broker.listen(&queues, stop).await }
        });
        for queue in queues {
            let slots = if queue == SopStep::QUEUE { slots.min(CAMPAIGN_SLOTS) } else { slots };
            let handle = handler(queue, &broker, &runner, &attempts, slots);
            let (broker, stop) = (broker.clone(), stop.clone());
            parts.spawn(async move { broker.receive(queue, slots, handle, stop).await });
        }
        let beating = {
            let (services, runner, stop, gone) =
                (services.clone(), runner.clone(), stop.clone(), gone.clone());
            tokio::spawn(async move {
                let host = host_name();
                let worker = NewWorker {
                    id,
                    host: &host,
                    pid: i32::try_from(std::process::id()).unwrap_or(0),
                    version: env!("CARGO_PKG_VERSION"),
                    slots: i32::try_from(slots).unwrap_or(i32::MAX),
                    state: "running",
                };
                let announced = Notify::new();
                let beats = heartbeat::run(&services, &runner, worker, &announced, stop, gone.clone());
                futures::join!(beats, presence::run(&services, id, &announced, gone));
            })
        };

        stop.cancelled().await;
        attempts.close();
        tracing::info!(running = attempts.len(), "draining");
        if tokio::time::timeout(DRAIN, attempts.wait()).await.is_err() {
            tracing::warn!(running = attempts.len(), "attempts took too long; cutting them off");
            runner.cut_off();
            let _ = tokio::time::timeout(Duration::from_secs(2), attempts.wait()).await;
        }
        gone.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(1), beating).await;
        tracing::info!(worker_id = %id, "worker stopped");
    }
}

/// Returns what is done with each delivery of `queue`.
///
/// The attempt runs in a task of its own: apalis drops its handlers when Redis throws its worker out, and a provider
/// call that is under way must not be dropped with them. The slots are counted here for the same reason.
fn handler(
    queue: &'static str,
    broker: &Broker,
    runner: &Runner,
    attempts: &TaskTracker,
    slots: usize,
) -> impl Fn(crate::broker::Delivery) -> futures::future::BoxFuture<'static, ()> + Clone + Send + Sync + 'static
{
    let (broker, runner, attempts) = (broker.clone(), runner.clone(), attempts.clone());
    let free = Arc::new(tokio::sync::Semaphore::new(slots));
    move |delivery| {
        let (broker, runner) = (broker.clone(), runner.clone());
        let (attempts, free) = (attempts.clone(), free.clone());
        Box::pin(async move {
            let Ok(slot) = free.acquire_owned().await else { return };
            if attempts.is_closed() {
                // Draining: another worker shall have it, and at once.
                if let Err(error) = broker.give_back(queue, delivery).await {
                    tracing::debug!(%error, "a delivery was not given back; it will be sent again");
                }
                return;
            }
            let attempt = attempts.spawn(async move {
                runner.execute(queue, delivery).await;
                drop(slot);
            });
            if let Err(error) = attempt.await {
                tracing::error!(%error, "an attempt's task failed");
            }
        })
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "unknown".into())
}
