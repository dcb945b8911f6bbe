//! Keeps the leases of what this process runs, and its own row. That the process is there at all is said more often, by
//! [`presence`](crate::presence).

use std::collections::HashMap;
use std::time::Duration;

use entropy_schema::record::claim;
use entropy_schema::workers::{self, NewWorker};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::attempt::{LEASE, Runner, Stop};
use entropy_jobs::services::Services;

/// Five heartbeats fit into a lease: one that is late costs nothing.
const EVERY: Duration = Duration::from_secs(3);

/// Beats until `stop`. `worker.state` is what the row says; `draining` once that token is cancelled. Tells `announced` when
/// the row is there.
pub(crate) async fn run(
    services: &Services,
    runner: &Runner,
    worker: NewWorker<'_>,
    announced: &Notify,
    draining: CancellationToken,
    stop: CancellationToken,
) {
    loop {
        let state = if draining.is_cancelled() { "draining" } else { "running" };
        match beat(services, runner, &NewWorker { state, ..worker.clone() }).await {
            Ok(()) => announced.notify_one(),
            Err(error) => tracing::warn!(%error, "heartbeat failed"),
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    let last = NewWorker { state: "stopped", ..worker };
    if let Err(error) = beat(services, runner, &last).await {
        tracing::debug!(%error, "last heartbeat failed");
    }
}

async fn beat(services: &Services, runner: &Runner, worker: &NewWorker<'_>) -> entropy_schema::Result<()> {
    let running = runner.running();
    let mut conn = services.db.conn().await?;
    if !running.is_empty() {
        let lease_ms = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
        let kept: HashMap<_, _> = claim::keep(&mut conn, &running, worker.id, lease_ms)
            .await?
            .into_iter()
            .map(|kept| (kept.job_id, kept.cancel_requested))
            .collect();
        for job in &running {
            match kept.get(job) {
                Some(true) => runner.stop(*job, Stop::Cancelled),
                Some(false) => {}
                None => runner.stop(*job, Stop::LeaseLost),
            }
        }
    }
    services.metrics.pool_in_use.set(services.db.usage().0 as i64);
    let count = i32::try_from(running.len()).unwrap_or(i32::MAX);
    workers::beat(&mut conn, worker, count, &services.metrics.text()).await
}
