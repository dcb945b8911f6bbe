//! A stand-in for GeWe, the service that drives WeChat accounts.
//!
//! It speaks GeWe's wire protocol as `protocols/gewe.md` documents it, keeps a ledger of what "the
//! phone" received, and fails in every listed way when asked to.
//! It is reached only over HTTP, exactly as the real one, and knows nothing of the platform: it
//! depends on no other crate of ours, so it cannot share a misunderstanding with the client under
//! test.
//!
//! Everything is in memory; a restart or `POST /_sandbox/reset` empties it.
//!
//! Start reading at [`Sandbox`]. `gewe` is the protocol, `control` the switches under `/_sandbox`,
//! `phone` the page for people, `failures` the list of ways to fail.

mod accounts;
mod books;
mod connection;
mod control;
mod customer;
mod failures;
mod fastgpt;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gewe;
mod gzip;
mod ledger;
mod media;
mod mix;
mod phone;
mod sandbox;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use poem::{EndpointExt, IntoEndpoint, Route, Server, get, handler, web::Json};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use sandbox::Sandbox;

/// How long a stopping sandbox waits for answers that are still being written.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What a sandbox is told when it starts; the rest is set over HTTP while it runs.
#[derive(Clone, Default)]
pub struct Config {
    /// The tokens that are accepted in `X-GEWE-TOKEN`.
    ///
    /// An empty list accepts every token that is not blank, but refuses those that begin with
    /// `bad` or `expired`, so that a token failure can be had without any configuration.
    pub tokens: Vec<String>,
}

impl fmt::Debug for Config {
    /// Tells how many tokens there are, never which.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("tokens", &self.tokens.len()).finish()
    }
}

/// Serves a new sandbox on `listener` until `shutdown` resolves.
///
/// Takes no new connection after that, gives running answers two seconds, then returns.
/// Fails only if the listener itself cannot be served.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    Sandbox::new(config).serve(listener, shutdown).await
}

impl Sandbox {
    /// Serves this sandbox on `listener` until `shutdown` resolves; see [`serve`].
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let address = listener.local_addr().context("sandbox listener has no address")?;
        tracing::info!(%address, "sandbox listens");
        let acceptor = connection::ResettableAcceptor::new(listener, self.connections().clone());
        let outcome = Server::new_with_acceptor(acceptor)
            .run_with_graceful_shutdown(routes(self.clone()), shutdown, Some(DRAIN_LIMIT))
            .await
            .context("sandbox server failed");
        self.stop_tasks().await;
        outcome
    }
}

fn routes(sandbox: Sandbox) -> impl IntoEndpoint<Endpoint = impl poem::Endpoint + 'static> {
    Route::new()
        .at("/", get(phone::page))
        .at("/healthz", get(healthz))
        .nest("/_sandbox", control::routes())
        .nest(fastgpt::PREFIX, fastgpt::routes())
        .at(format!("{}/*route", gewe::HOSTED_PREFIX), gewe::call)
        .at(format!("{}/*route", gewe::SELF_HOSTED_PREFIX), gewe::call)
        .data(sandbox)
}

#[handler]
fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}
