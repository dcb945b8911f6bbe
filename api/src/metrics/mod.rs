//! What is counted: requests by this process, work by the workers, backlogs by the record.
//!
//! One page shows all three. Workers have no HTTP; each leaves its counters in its row, and [`merge`] sums them. What
//! is read from the database is bounded, and read at most every five seconds.

mod merge;

use std::time::Duration;

use entropy_schema::Db;
use entropy_schema::views::{depths, workers};
use prometheus::{
    Encoder, Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::AppState;
use crate::fresh::Fresh;

const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// How old what was read from the database may be.
const LIFETIME: Duration = Duration::from_secs(5);

/// The counters of this process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    callbacks: IntCounterVec,
    pool_in_use: IntGauge,
    pool_size: IntGauge,
    record: Record,
    read: Fresh<(), String>,
}

/// Gauges that are read from the database.
#[derive(Debug)]
struct Record {
    registry: Registry,
    runnable: IntGaugeVec,
    waiting: IntGaugeVec,
    oldest_runnable: Gauge,
    leased: IntGauge,
    dead: IntGauge,
    unknown_sends: IntGauge,
}

impl Metrics {
    /// Sets up the counters.
    pub(crate) fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("entropy_http_requests_total", "requests by method, route and status"),
            &["method", "route", "status"],
        )?;
        let request_seconds = HistogramVec::new(
            HistogramOpts::new("entropy_http_request_seconds", "how long requests take")
                .buckets(SECONDS.to_vec()),
            &["method", "route"],
        )?;
        let callbacks = IntCounterVec::new(
            Opts::new("entropy_callbacks_total", "callbacks of the provider, by what became of them"),
            &["outcome"],
        )?;
        registry.register(Box::new(callbacks.clone()))?;
        let pool_in_use = IntGauge::new("entropy_api_pool_in_use", "database connections in use by the api")?;
        let pool_size = IntGauge::new("entropy_api_pool_size", "database connections that the api may use")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(request_seconds.clone()))?;
        registry.register(Box::new(pool_in_use.clone()))?;
        registry.register(Box::new(pool_size.clone()))?;
        Ok(Metrics {
            registry,
            requests,
            request_seconds,
            callbacks,
            pool_in_use,
            pool_size,
            record: Record::new()?,
            read: Fresh::new(LIFETIME),
        })
    }

    /// Counts a request.
    pub(crate) fn answered(&self, method: &str, route: &str, status: u16, elapsed: Duration) {
        // A method is whatever the caller wrote; only known ones become a label.
        let known = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
        let method = known.into_iter().find(|known| *known == method).unwrap_or("other");
        self.requests.with_label_values(&[method, route, &status.to_string()]).inc();
        self.request_seconds.with_label_values(&[method, route]).observe(elapsed.as_secs_f64());
    }

    /// Counts a callback of the provider.
    pub(crate) fn called_back(&self, outcome: &str) {
        self.callbacks.with_label_values(&[outcome]).inc();
    }
}

impl Record {
    fn new() -> Result<Record, prometheus::Error> {
        let registry = Registry::new();
        let by_queue = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["queue"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let runnable =
            by_queue("entropy_jobs_runnable", "jobs that nothing holds back but those before them")?;
        let waiting =
            by_queue("entropy_jobs_waiting", "jobs that wait for a time, a retry, a limit or a person")?;
        let single = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let leased = single("entropy_jobs_leased", "jobs that are handed out or running")?;
        let dead = single("entropy_jobs_dead", "jobs that cannot go on by themselves")?;
        let unknown_sends = single("entropy_sends_unknown", "sends whose outcome a person must decide")?;
        let oldest_runnable = Gauge::new(
            "entropy_oldest_runnable_seconds",
            "seconds that the job that waited longest could have been started for",
        )?;
        registry.register(Box::new(oldest_runnable.clone()))?;
        Ok(Record { registry, runnable, waiting, oldest_runnable, leased, dead, unknown_sends })
    }

    async fn read(&self, db: &Db) -> Result<String, entropy_schema::Error> {
        let mut conn = db.conn().await?;
        let depths = depths::by_queue(&mut conn).await?;
        let attention = depths::attention(&mut conn).await?;
        let workers = workers::metrics(&mut conn).await?;
        drop(conn);
        // A queue that ran empty is missing from the answer and must not keep its last value.
        self.runnable.reset();
        self.waiting.reset();
        for depth in depths {
            self.runnable.with_label_values(&[&depth.queue]).set(depth.runnable);
            self.waiting.with_label_values(&[&depth.queue]).set(depth.waiting);
        }
        self.oldest_runnable.set(attention.oldest_runnable_s);
        self.leased.set(attention.leased);
        self.dead.set(attention.dead);
        self.unknown_sends.set(attention.unknown_sends);
        let mut text = encode(&self.registry);
        let alive = workers.iter().filter(|worker| worker.alive).count();
        text.push_str(&format!(
            "# HELP entropy_workers_alive worker processes with a fresh heartbeat\n\
             # TYPE entropy_workers_alive gauge\nentropy_workers_alive {alive}\n"
        ));
        text.push_str(&merge::merge(workers.iter().map(|worker| (worker.metrics.as_str(), worker.alive))));
        Ok(text)
    }
}

/// Writes the page. Without the database it shows what this process counts alone.
pub(crate) async fn page(state: &AppState) -> String {
    let metrics = &state.metrics;
    let (in_use, size) = state.db.usage();
    metrics.pool_in_use.set(i64::try_from(in_use).unwrap_or(i64::MAX));
    metrics.pool_size.set(i64::try_from(size).unwrap_or(i64::MAX));
    let mut text = encode(&metrics.registry);
    let read = match metrics.read.get(&()) {
        Some(read) => Some(read),
        None => match metrics.record.read(&state.db).await {
            Ok(read) => {
                metrics.read.put((), read.clone());
                Some(read)
            }
            Err(error) => {
                tracing::warn!(%error, "metrics of the record not read");
                None
            }
        },
    };
    let up = u8::from(read.is_some());
    text.push_str(&format!(
        "# HELP entropy_record_up the database could be read for this page\n\
         # TYPE entropy_record_up gauge\nentropy_record_up {up}\n"
    ));
    text.push_str(&read.unwrap_or_default());
    text
}

fn encode(registry: &Registry) -> String {
    let mut buffer = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut buffer) {
        Ok(()) => String::from_utf8_lossy(&buffer).into_owned(),
        Err(error) => {
            tracing::warn!(%error, "metrics not encoded");
            String::new()
        }
    }
}
