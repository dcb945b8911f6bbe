//! The conveyor: deliveries through Redis. The only file that names apalis-redis.
//!
//! A delivery says "this attempt of this job may run". It carries no truth: Postgres decides whether it still holds.
//! apalis-redis is used inside an envelope that was measured (docs/ARCHITECTURE.md, "The broker"):
//!
//! - we push into the `active` list ourselves and publish, so that an idle worker wakes within a millisecond;
//! - nothing is ever put into apalis' scheduled set, and every handler answers `Ok`: retries are ours, in Postgres;
//! - no locks and no events, unique worker names, a response timeout of seconds, an orphan timeout far beyond any
//!   lease of ours;
//! - the finished deliveries that apalis keeps for ever are trimmed by [`Broker::trim`].

use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use apalis::layers::WorkerBuilderExt;
use apalis::prelude::{BackendExt, BoxDynError, Monitor, PollSnapshot, PollStrategy, WorkerBuilder};
use apalis_redis::{Config, RedisStorage};
use entropy_jobs::redis_health::{self, Health};
use entropy_jobs::secret::Secret;
use entropy_jobs::step;
use entropy_jobs::wake;
use entropy_schema::record::dispatch::Dispatched;
use futures::{Stream, StreamExt};
use redis::Script;
use redis::aio::ConnectionManager;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The Redis message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The job.
    pub job_id: Uuid,
    /// The attempt that may run.
    pub attempt: i16,
}

/// Sends deliveries and receives them.
#[derive(Clone)]
pub struct Broker {
    connection: ConnectionManager,
    client: redis::Client,
    namespace: String,
    signals: watch::Sender<u64>,
    wakes: watch::Sender<u64>,
    /// Redis answers, but takes no deliveries, or would not keep them.
    closed: watch::Sender<bool>,
}

/// How long a worker may be silent before apalis hands its deliveries to another. Leases in Postgres do that within
/// seconds; this is only garbage collection.
const ORPHANED_AFTER_HEARTBEATS: usize = 360;
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often an idle worker looks although nobody has called it.
const FALLBACK_POLL: Duration = Duration::from_millis(500);

/// Pause before a worker that Redis has thrown out comes back. It doubles while Redis throws it out again, as one does that
/// is out of memory and takes no registration.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_RESTART_PAUSE: Duration = Duration::from_secs(2);

/// A worker that has run for so long was not thrown out again.
const RAN_WELL: Duration = Duration::from_secs(5);

/// Finished deliveries removed per script call.
const TRIM_SLICE: usize = 1000;

/// KEYS: active list, data hash. ARGV: prefix of the meta hashes, channel, then id, body, front (0 or 1) of each.
static PUSH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
for i = 3, #ARGV, 3 do
    redis.call('hset', KEYS[2], ARGV[i], ARGV[i + 1])
    redis.call('hset', ARGV[1] .. ':' .. ARGV[i], 'attempts', 0, 'max_attempts', 1, 'status', 'Pending')
    if ARGV[i + 2] == '1' then
        redis.call('lpush', KEYS[1], ARGV[i])
    else
        redis.call('rpush', KEYS[1], ARGV[i])
    end
end
redis.call('publish', ARGV[2], '')
return redis.call('llen', KEYS[1])",
    )
});

/// KEYS: done set, data hash. ARGV: prefix of the meta hashes, how many.
static TRIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local ids = redis.call('spop', KEYS[1], ARGV[2])
if #ids == 0 then return 0 end
local keys = {}
for i, id in ipairs(ids) do keys[i] = ARGV[1] .. ':' .. id end
redis.call('unlink', unpack(keys))
redis.call('hdel', KEYS[2], unpack(ids))
return #ids",
    )
});

impl Broker {
    /// Prepares the conveyor. Connects when it is first used.
    pub fn new(redis_url: &Secret, namespace: &str) -> anyhow::Result<Broker> {
        Ok(Broker {
            connection: wake::redis_connection(redis_url)?,
            client: redis::Client::open(redis_url.expose())?,
            namespace: namespace.to_owned(),
            signals: watch::Sender::new(0),
            wakes: watch::Sender::new(0),
            closed: watch::Sender::new(false),
        })
    }

    fn config(&self, queue: &str) -> Config {
        Config::default()
            .queue(format!("{}-{queue}", self.namespace))
            .lock_tasks(false)
            .emit_events(false)
            // Without results apalis never acknowledges, and what it keeps of a delivery is never released.
            .persist_results(true)
            .heartbeat_interval(HEARTBEAT)
            .missed_heartbeats(ORPHANED_AFTER_HEARTBEATS)
    }

    fn channel(&self, queue: &str) -> String {
        format!("tasks:{}:available", self.config(queue).active_jobs_list())
    }

    /// Sends deliveries, each under a fresh id. A person's message goes to the front of its queue.
    pub async fn push(&self, dispatched: &[Dispatched]) -> redis::RedisResult<()> {
        let mut queues: Vec<&str> = dispatched.iter().map(|d| d.queue.as_str()).collect();
        queues.sort_unstable();
        queues.dedup();
        for queue in queues {
            let config = self.config(queue);
            let mut call = PUSH.key(config.active_jobs_list());
            call.key(config.job_data_hash()).arg(config.job_meta_hash()).arg(self.channel(queue));
            for one in dispatched.iter().filter(|one| one.queue == queue) {
                let body = Delivery { job_id: one.job_id, attempt: one.attempt };
                call.arg(Uuid::new_v4().simple().to_string())
                    .arg(serde_json::to_vec(&body).unwrap_or_default())
                    .arg(i32::from(one.class == 0));
            }
            if let Err(error) = call.invoke_async::<i64>(&mut self.connection.clone()).await {
                if redis_health::refuses(&error) {
                    self.note(&Health::Refuses(error.to_string()));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Tells whether deliveries may be sent, as far as is known. While they may not, jobs wait in Postgres.
    pub fn is_open(&self) -> bool {
        !*self.closed.borrow()
    }

    /// Asks Redis how it stands, and takes note of it.
    pub async fn examine(&self) -> Health {
        let health = redis_health::examine(&mut self.connection.clone(), &self.namespace).await;
        self.note(&health);
        health
    }

    fn note(&self, health: &Health) {
        let closed = match health {
            Health::Fit | Health::Silent => false,
            Health::Refuses(_) | Health::Evicts { .. } => true,
            // Deliveries are tried, and fail by themselves.
            Health::Away(_) => return,
        };
        let changed = self.closed.send_if_modified(|was| std::mem::replace(was, closed) != closed);
        if changed && closed {
            tracing::error!(redis = health.word(), "{health}; jobs wait in Postgres until then");
        } else if changed {
            tracing::info!("Redis takes deliveries again");
        }
    }

    /// Puts a delivery that this process will not carry out back to the front of its queue.
    pub async fn give_back(&self, queue: &str, delivery: Delivery) -> redis::RedisResult<()> {
        let Delivery { job_id, attempt } = delivery;
        self.push(&[Dispatched { job_id, attempt, queue: queue.to_owned(), class: 0 }]).await
    }

    /// Returns how many deliveries wait in each of `queues`.
    pub async fn lengths(&self, queues: &[&str]) -> redis::RedisResult<Vec<usize>> {
        let mut pipe = redis::pipe();
        for queue in queues {
            pipe.llen(self.config(queue).active_jobs_list());
        }
        pipe.query_async(&mut self.connection.clone()).await
    }

    /// Removes what apalis keeps of finished deliveries, in slices. Returns how many were removed.
    pub async fn trim(&self, queues: &[&str]) -> redis::RedisResult<usize> {
        let mut removed = 0;
        for queue in queues {
            let config = self.config(queue);
            for finished in [config.done_jobs_set(), config.dead_jobs_set()] {
                loop {
                    let mut call = TRIM.key(&finished);
                    call.key(config.job_data_hash()).arg(config.job_meta_hash()).arg(TRIM_SLICE);
                    let slice: usize = call.invoke_async(&mut self.connection.clone()).await?;
                    removed += slice;
                    if slice < TRIM_SLICE {
                        break;
                    }
                }
            }
        }
        Ok(removed)
    }

    /// Returns a receiver that changes whenever somebody has enqueued something.
    pub fn wakes(&self) -> watch::Receiver<u64> {
        self.wakes.subscribe()
    }

    /// Listens for wake-ups and deliveries until `stop`, reconnecting for ever.
    pub async fn listen(&self, queues: &[&str], stop: CancellationToken) {
        let wake_channel = wake::channel(&self.namespace);
        while !stop.is_cancelled() {
            let mut subscription = match self.subscribe(queues, &wake_channel).await {
                Ok(subscription) => subscription,
                Err(error) => {
                    tracing::debug!(%error, "not listening to Redis");
                    pause(&stop, FALLBACK_POLL).await;
                    continue;
                }
            };
            // Something may have been announced while nobody listened.
            self.signal();
            self.wakes.send_modify(bump);
            let mut messages = subscription.on_message();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    message = messages.next() => match message {
                        Some(message) if message.get_channel_name() == wake_channel => self.wakes.send_modify(bump),
                        Some(_) => self.signal(),
                        None => break,
                    },
                }
            }
        }
    }

    async fn subscribe(&self, queues: &[&str], wake_channel: &str) -> redis::RedisResult<redis::aio::PubSub> {
        let mut subscription = self.client.get_async_pubsub().await?;
        subscription.subscribe(wake_channel).await?;
        for queue in queues {
            subscription.subscribe(self.channel(queue)).await?;
        }
        Ok(subscription)
    }

    fn signal(&self) {
        self.signals.send_modify(bump);
    }

    /// Receives the deliveries of `queue`, at most `slots` at a time, until `stop`; then waits for `handle` to return.
    ///
    /// `handle` must not fail: whatever comes of a delivery is recorded in Postgres. Comes back by itself when Redis was
    /// restarted, paused or flushed.
    pub async fn receive<H, Fut>(&self, queue: &str, slots: usize, handle: H, stop: CancellationToken)
    where
        H: Fn(Delivery) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut restart_pause = RESTART_PAUSE;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let (broker, handle, queue_name) = (self.clone(), handle.clone(), queue.to_owned());
            let config = self.config(queue).batch_size(slots.clamp(1, 32));
            let build = move |_restarts| {
                // A new name at every start: apalis refuses one that it has seen lately.
                let name = format!("{queue_name}-{}", Uuid::new_v4().simple());
                let storage =
                    RedisStorage::<Delivery>::new(broker.connection.clone()).with_config(config.clone());
                let handle = handle.clone();
                WorkerBuilder::new(name)
                    .backend(storage.poll_with_strategy(Signal::new(broker.signals.subscribe())))
                    .concurrency(slots)
                    .build(move |delivery: Delivery| {
                        let handled = handle(delivery);
                        async move {
                            handled.await;
                            step!("worker.acknowledging");
                            Ok::<_, BoxDynError>(())
                        }
                    })
            };
            let stopping = stop.clone();
            let ran = Monitor::new()
                .shutdown_timeout(Duration::from_secs(60))
                .register(build)
                .run_with_signal(async move {
                    stopping.cancelled().await;
                    Ok(())
                })
                .await;
            if !stop.is_cancelled() {
                tracing::warn!(
                    queue,
                    error = ran.err().map(|e| e.to_string()),
                    "the apalis worker ended; starting it again"
                );
                if began.elapsed() > RAN_WELL {
                    restart_pause = RESTART_PAUSE;
                }
                pause(&stop, restart_pause).await;
                restart_pause = (restart_pause * 2).min(LONGEST_RESTART_PAUSE);
            }
        }
    }
}

fn bump(n: &mut u64) {
    *n = n.wrapping_add(1);
}

async fn pause(stop: &CancellationToken, duration: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(duration) => {}
    }
}

/// Makes an idle apalis worker look when it is called, and twice a second anyway.
///
/// apalis' own strategies can lose their wake-up: they answer "ready" without asking to be called again. This one
/// always leaves a waker behind.
struct Signal {
    calls: Pin<Box<dyn Stream<Item = ()> + Send + Sync>>,
}

impl Signal {
    fn new(signals: watch::Receiver<u64>) -> Signal {
        let calls = futures::stream::unfold(signals, |mut signals| async move {
            match tokio::time::timeout(FALLBACK_POLL, signals.changed()).await {
                Ok(Err(_)) => None,
                Ok(Ok(())) | Err(_) => Some(((), signals)),
            }
        });
        Signal { calls: Box::pin(calls) }
    }
}

impl PollStrategy for Signal {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        let mut called = false;
        loop {
            match self.calls.as_mut().poll_next(cx) {
                Poll::Ready(Some(())) => called = true,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if called => return Poll::Ready(Some(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
