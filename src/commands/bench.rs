//! `entropy bench`: the whole path on private, durable servers of its own.
//!
//! A first form: bulk enqueue, drain of plain jobs, idle pickup. Everything runs on this machine and stops by itself.

use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use entropy_jobs::class::Class;
use entropy_jobs::enqueue::{Enqueuer, NewJob, Options, new_job};
use entropy_jobs::job::{Done, Job, JobError};
use entropy_jobs::lifecycle::Delivery;
use entropy_jobs::process::config::{Ceilings, Fastgpt, Gewe, Media, Search, Stores};
use entropy_jobs::process::telemetry;
use entropy_jobs::secret::Secret;
use entropy_jobs::services::Context;
use entropy_jobs::wake::Waker;
use entropy_schema::{Db, Profile, SYSTEM_ORGANIZATION};
use entropy_workers::{Settings, Worker};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::servers;

/// What `entropy bench` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Plain jobs to enqueue and drain.
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Jobs to enqueue one by one on an idle system.
    #[arg(long, default_value_t = 300)]
    pickups: usize,
    /// Attempts at once.
    #[arg(long, default_value_t = 128)]
    slots: usize,
}

/// The zero of the times in [`Plain`].
static ZERO: LazyLock<Instant> = LazyLock::new(Instant::now);

/// How long each job took from its enqueueing to its start, in microseconds.
static PICKUPS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// A job that does nothing but say when it started.
#[derive(Debug, Serialize, Deserialize)]
struct Plain {
    enqueued_us: u64,
}

impl Job for Plain {
    const KIND: &'static str = "bench_plain";
    const QUEUE: &'static str = "bench";
    const DELIVERY: Delivery = Delivery::AtLeastOnce;

    async fn run(&self, _: &Context) -> Result<Done, JobError> {
        let took = micros().saturating_sub(self.enqueued_us);
        PICKUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(took);
        Ok(Done::default())
    }
}

fn micros() -> u64 {
    u64::try_from(ZERO.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn started() -> usize {
    PICKUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len()
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    LazyLock::force(&ZERO);
    let folder = std::env::temp_dir().join(format!("entropy-bench-{}", std::process::id()));
    let servers_folder = folder.clone();
    let (postgres, redis) = tokio::task::spawn_blocking(move || {
        let options = servers::Options {
            durability: servers::Durability::Full,
            afterwards: servers::Afterwards::Remove,
        };
        anyhow::Ok((
            servers::Postgres::start(&servers_folder.join("postgres"), options)?,
            servers::Redis::start(&servers_folder.join("redis"), options)?,
        ))
    })
    .await??;
    let stores = Stores {
        database_url: Secret::new(postgres.url()),
        redis_url: Secret::new(redis.url()),
        namespace: "bench".into(),
        pool_size: 16,
    };
    entropy_schema::migrations::run_pending(stores.database_url.expose()).await?;
    let measured = measure(&args, &stores).await;
    tokio::task::spawn_blocking(move || {
        postgres.stop()?;
        redis.stop()?;
        // The servers remove what is theirs when they are dropped.
        drop((postgres, redis));
        std::fs::remove_dir(&folder).context("removing the bench's folder")
    })
    .await??;
    measured
}

async fn measure(args: &Args, stores: &Stores) -> anyhow::Result<()> {
    let db = Db::new(stores.database_url.expose(), 8, Profile::Api)?;
    let enqueuer = Enqueuer::new(db.clone(), Waker::new(&stores.redis_url, &stores.namespace)?);

    let began = Instant::now();
    for start in (0..args.jobs).step_by(1000) {
        let jobs = (start..args.jobs.min(start + 1000)).map(|_| plain()).collect();
        enqueuer.enqueue(jobs).await?;
    }
    println!("enqueue, bulk of 1000, one caller   {:>9}", rate(args.jobs, began.elapsed()));

    let stop = CancellationToken::new();
    let worker = Worker::new(Settings {
        stores: stores.clone(),
        gewe: Gewe { endpoint: "http://127.0.0.1:9/gewe/v2/api".into(), token: None },
        fastgpt: Fastgpt::default(),
        ceilings: Ceilings { messages_per_minute: 40, api_calls_per_hour: 1000 },
        search: Search { url: None, index: "bench-messages".into() },
        vault: None,
        media: Media::load(&|_| None)?,
        slots: args.slots,
    })?
    .with_registry(entropy_jobs::kinds::registry().register::<Plain>());
    let began = Instant::now();
    let working = tokio::spawn(worker.run(stop.clone()));
    until(args.jobs, Duration::from_secs(120)).await.context("drain")?;
    println!("drain, 1 worker, {:>4} slots          {:>9}", args.slots, rate(args.jobs, began.elapsed()));

    // The last ends are still being written.
    tokio::time::sleep(Duration::from_secs(1)).await;
    PICKUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    for n in 0..args.pickups {
        enqueuer.enqueue(vec![plain()]).await?;
        until(n + 1, Duration::from_secs(10)).await.context("pickup")?;
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    let mut times = PICKUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    times.sort_unstable();
    let at = |share: f64| {
        times.get(((times.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or(0) as f64 / 1000.0
    };
    println!(
        "idle pickup, enqueue call to start  p50 {:.2} ms  p99 {:.2} ms  max {:.2} ms  (n = {})",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
    stop.cancel();
    working.await?;
    Ok(())
}

fn plain() -> NewJob {
    new_job(
        &Plain { enqueued_us: micros() },
        Options {
            organization_id: SYSTEM_ORGANIZATION,
            class: Class::Campaign,
            scheduled_at: None,
            expires_at: None,
            idempotency: None,
            trace_id: telemetry::new_trace_id(),
            created_by: None,
        },
    )
}

async fn until(jobs: usize, limit: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    while started() < jobs {
        anyhow::ensure!(
            began.elapsed() < limit,
            "only {} of {jobs} jobs had started after {limit:?}",
            started()
        );
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    Ok(())
}

fn rate(n: usize, elapsed: Duration) -> String {
    format!("{:.0}/s", n as f64 / elapsed.as_secs_f64())
}
