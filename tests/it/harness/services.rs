//! What attempts use, with an outside world that cannot be reached: tests replace what they look at.

use std::sync::Arc;
use std::time::Duration;

use entropy_jobs::media::Store;
use entropy_jobs::metrics::Metrics;
use entropy_jobs::process::config::Ceilings;
use entropy_jobs::services::Services;
use entropy_schema::Db;
use entropy_workers::adapters::fastgpt::{FastGptClient, Patience};
use entropy_workers::adapters::gewe::{GeweClient, Timeouts};
use entropy_workers::adapters::media::GeweMedia;
use entropy_workers::guard::{AskFence, Guard};

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9/gewe/v2/api";

/// The services of an attempt that runs in the test itself.
pub(crate) fn alone(db: &Db) -> Services {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = GeweClient::new(NOWHERE, Timeouts::default()).expect("a client");
    Services {
        db: db.clone(),
        sender: Arc::new(client.clone()),
        media: Arc::new(GeweMedia::new(client.clone()).expect("a client")),
        contacts: Arc::new(client),
        store: Store::new(std::env::temp_dir(), 1),
        links: None,
        background_gap: Duration::ZERO,
        guard: Arc::new(Guard::new(40)),
        ai: Arc::new(FastGptClient::new(None, Patience::default()).expect("a client")),
        ask_guard: Arc::new(AskFence::default()),
        words: Arc::default(),
        plans: Arc::default(),
        vault: None,
        default_token: None,
        index: None,
        ceilings: Ceilings { messages_per_minute: 40, api_calls_per_hour: 1000 },
        metrics: Arc::new(Metrics::new().expect("counters")),
    }
}
