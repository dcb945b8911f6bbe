//! Watches whether Redis is fit to carry deliveries. While it is not, nothing is handed out.

use std::time::Duration;

use entropy_jobs::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;

const EVERY: Duration = Duration::from_secs(2);

/// Looks every two seconds until `stop`.
pub async fn run(broker: &Broker, metrics: &Metrics, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = broker.examine() => {}
        }
        metrics.redis_refuses.set(i64::from(!broker.is_open()));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
