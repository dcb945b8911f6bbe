//! Wakes the relays after a commit.
//!
//! A wake-up is a hint: it never blocks its caller and may be lost. What it would have announced is found by the
//! relay's next look, a second or two later.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::sync::Notify;

use crate::secret::Secret;

/// Tells every relay that something became available.
#[derive(Clone)]
pub struct Waker {
    signal: Arc<Notify>,
}

/// Returns the name of the channel on which relays listen.
pub fn channel(namespace: &str) -> String {
    format!("{namespace}:wake")
}

/// Returns a connection that connects when it is first used and again whenever it was lost.
pub fn redis_connection(redis_url: &Secret) -> anyhow::Result<ConnectionManager> {
    let client = redis::Client::open(redis_url.expose()).context("REDIS_URL is not an address of Redis")?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(2)))
        // Redis may be paused for seconds; redis-rs' half second would turn each pause into errors.
        .set_response_timeout(Some(Duration::from_secs(15)))
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(500));
    ConnectionManager::new_lazy_with_config(client, config).context("preparing the connection to Redis")
}

impl Waker {
    /// Starts the task that publishes. Works without Redis; then nobody is woken.
    pub fn new(redis_url: &Secret, namespace: &str) -> anyhow::Result<Waker> {
        let mut connection = redis_connection(redis_url)?;
        let channel = channel(namespace);
        let signal = Arc::new(Notify::new());
        let waiting = Arc::downgrade(&signal);
        tokio::spawn(async move {
            // Ends when the last `Waker` is dropped: the weak reference cannot be taken any more.
            while let Some(signal) = waiting.upgrade() {
                if tokio::time::timeout(Duration::from_secs(60), signal.notified()).await.is_err() {
                    continue;
                }
                drop(signal);
                let published: redis::RedisResult<i64> =
                    redis::cmd("PUBLISH").arg(&channel).arg("").query_async(&mut connection).await;
                if let Err(error) = published {
                    tracing::debug!(%error, "wake-up not published");
                }
            }
        });
        Ok(Waker { signal })
    }

    /// Wakes every relay, soon. Many calls at once become one wake-up.
    pub fn wake(&self) {
        self.signal.notify_one();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}
