//! The counters of a worker process.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// Buckets for times between half a millisecond and a minute, in seconds.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// What a worker counts. Exposed in Prometheus' text form.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Attempts by kind and outcome.
    pub attempts: IntCounterVec,
    /// How long attempts take, by kind.
    pub attempt_seconds: HistogramVec,
    /// From being handed out to being claimed.
    pub pickup_seconds: Histogram,
    /// Runs of models by what became of their answer.
    pub ai_runs: IntCounterVec,
    /// From a model's last byte to the call that sends its answer.
    pub reply_seconds: Histogram,
    /// Provider errors by class.
    pub provider_errors: IntCounterVec,
    /// Times a limit made an account wait, at its gate or after a send, by limit.
    pub limiter_waits: IntCounterVec,
    /// Jobs that were handed out, by queue.
    pub dispatched: IntCounterVec,
    /// Deliveries that were refused: second ones, or for attempts that are over.
    pub refused_deliveries: IntCounterVec,
    /// Leases of dead workers that were rescued, by what became of the job.
    pub rescued: IntCounterVec,
    /// Database connections in use.
    pub pool_in_use: IntGauge,
    /// 1 while Redis answers and takes no deliveries.
    pub redis_refuses: IntGauge,
}

impl Metrics {
    /// Makes a set of counters of its own, so that several workers can live in one process.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let attempts =
            counter("entropy_attempts_total", "attempts by kind and outcome", &["kind", "outcome"])?;
        let ai_runs =
            counter("entropy_ai_runs_total", "runs of models by what became of their answer", &["outcome"])?;
        let provider_errors =
            counter("entropy_provider_errors_total", "provider errors by class", &["provider", "class"])?;
        let limiter_waits = counter(
            "entropy_limiter_waits_total",
            "times a limit made an account wait, by limit",
            &["limit"],
        )?;
        let dispatched = counter("entropy_dispatched_total", "jobs handed out, by queue", &["queue"])?;
        let refused_deliveries = counter(
            "entropy_refused_deliveries_total",
            "deliveries that found no lease, by queue",
            &["queue"],
        )?;
        let rescued =
            counter("entropy_rescued_total", "jobs rescued from dead workers, by outcome", &["outcome"])?;
        let attempt_seconds = HistogramVec::new(
            HistogramOpts::new("entropy_attempt_seconds", "how long attempts take").buckets(SECONDS.to_vec()),
            &["kind"],
        )?;
        let pickup_seconds = Histogram::with_opts(
            HistogramOpts::new("entropy_pickup_seconds", "from being handed out to being claimed")
                .buckets(SECONDS.to_vec()),
        )?;
        let reply_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "entropy_reply_seconds",
                "from a model's last byte to the call that sends its answer",
            )
            .buckets(SECONDS.to_vec()),
        )?;
        let pool_in_use =
            IntGauge::new("entropy_worker_pool_in_use", "database connections in use by workers")?;
        let redis_refuses = IntGauge::new(
            "entropy_worker_redis_refuses",
            "workers for which Redis takes no deliveries: it refuses writes, or would evict them",
        )?;
        registry.register(Box::new(redis_refuses.clone()))?;
        registry.register(Box::new(attempt_seconds.clone()))?;
        registry.register(Box::new(pickup_seconds.clone()))?;
        registry.register(Box::new(pool_in_use.clone()))?;
        registry.register(Box::new(reply_seconds.clone()))?;
        Ok(Metrics {
            registry,
            attempts,
            attempt_seconds,
            pickup_seconds,
            ai_runs,
            reply_seconds,
            provider_errors,
            limiter_waits,
            dispatched,
            refused_deliveries,
            rescued,
            pool_in_use,
            redis_refuses,
        })
    }

    /// Writes everything in Prometheus' text form.
    pub fn text(&self) -> String {
        let mut buffer = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut buffer) {
            Ok(()) => String::from_utf8(buffer).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "metrics could not be written");
                String::new()
            }
        }
    }
}
