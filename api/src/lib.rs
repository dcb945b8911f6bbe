//! The HTTP API: takes work, shows where it stands, lets people step in.
//!
//! A handler checks, writes one transaction, and answers; nothing slow happens here. This crate knows HTTP and the
//! rules of who may do what; it does not know how a job is run. Every query is bound to the caller's organisation.
//!
//! Start reading at `routes`, one file per resource; `http` holds what happens around every request.

mod addressees;
mod auth;
mod backlog;
mod callbacks;
mod explain;
mod fresh;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod material_files;
mod media;
mod metrics;
mod one_each;
mod ops;
mod page;
mod problem;
mod routes;
mod search;
mod state;

use anyhow::Context;
use poem::listener::TcpAcceptor;
use poem::{Endpoint, EndpointExt, Response, Route, Server};
use tokio_util::sync::CancellationToken;

pub use crate::auth::passwords::hash as hash_password;
pub use crate::auth::passwords::{problem as password_problem, username_problem};
pub use crate::auth::role::Role;
pub use crate::routes::openapi_document;
pub use crate::state::{AppConfig, AppState};

/// How long requests that are under way may go on after the shutdown began.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Returns everything that this process serves, as one endpoint.
pub fn app(state: AppState) -> impl Endpoint<Output = Response> + 'static {
    let routes = Route::new()
        .nest("/api/v1", routes::endpoint())
        .at("/callbacks/gewe/:secret", poem::post(callbacks::gewe))
        .at("/media/:id", poem::get(media::serve))
        .at("/media/materials/:id/:revision", poem::get(material_files::serve))
        .at("/healthz", poem::get(ops::healthz))
        .at("/readyz", poem::get(ops::readyz))
        .at("/metrics", poem::get(ops::metrics))
        .at("/", poem::get(ops::home))
        .at("/docs", poem::get(routes::docs()));
    http::layer::Layer { inner: routes.map_to_response(), state }
}

/// Serves the API on `listener` until `shutdown`, then finishes what is under way.
pub async fn serve(
    listener: tokio::net::TcpListener,
    state: AppState,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let acceptor = TcpAcceptor::from_tokio(listener).context("reading the address of the listener")?;
    Server::new_with_acceptor(acceptor)
        .name("api")
        .idle_timeout(std::time::Duration::from_secs(120))
        .run_with_graceful_shutdown(app(state), shutdown.cancelled_owned(), Some(DRAIN))
        .await
        .context("serving HTTP")
}
