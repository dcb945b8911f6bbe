//! Keeps Redis small, and the guard's memory.

use std::sync::Arc;
use std::time::Duration;

use entropy_jobs::step;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::guard::Guard;

const EVERY: Duration = Duration::from_secs(1);

/// Trims finished deliveries every second until `stop`.
pub async fn run(broker: &Broker, queues: &[&str], guard: &Arc<Guard>, stop: CancellationToken) {
    let mut rounds = 0_u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match broker.trim(queues).await {
            Ok(0) => {}
            Ok(_) => step!("janitor.trimmed"),
            Err(error) => tracing::debug!(%error, "finished deliveries not trimmed"),
        }
        rounds += 1;
        if rounds.is_multiple_of(300) {
            guard.forget_quiet();
        }
    }
}
