//! `entropy api` and `entropy openapi`.

use anyhow::Context;
use entropy_api::{AppConfig, AppState};
use entropy_jobs::enqueue::Enqueuer;
use entropy_jobs::outbound_url::UrlPolicy;
use entropy_jobs::process::config::{
    Callbacks, Ceilings, Http, Lookup, Media, Search, Stores, environment, vault,
};
use entropy_jobs::process::shutdown;
use entropy_jobs::vault::Vault;
use entropy_jobs::wake::Waker;
use entropy_schema::{Db, Profile};

pub(crate) async fn run() -> anyhow::Result<()> {
    let (stores, http) = (Stores::load(&environment)?, Http::load(&environment)?);
    let bind = http.bind;
    let has_default_token = environment("GEWE_TOKEN_ID").is_some();
    let (ceilings, vault) = (Ceilings::load(&environment)?, vault(&environment)?);
    let state = state(&environment, stores, http, ceilings, vault, has_default_token)?;
    let listener =
        tokio::net::TcpListener::bind(bind).await.with_context(|| format!("cannot listen on {bind}"))?;
    tracing::info!(address = %listener.local_addr()?, "api listening");
    entropy_api::serve(listener, state, shutdown::on_signal()?).await
}

/// Puts together what the API serves from.
pub(crate) fn state(
    env: Lookup<'_>,
    stores: Stores,
    http: Http,
    ceilings: Ceilings,
    vault: Option<Vault>,
    has_default_token: bool,
) -> anyhow::Result<AppState> {
    let db = Db::new(stores.database_url.expose(), stores.pool_size, Profile::Api)?;
    let waker = Waker::new(&stores.redis_url, &stores.namespace)?;
    AppState::new(AppConfig {
        enqueuer: Enqueuer::new(db.clone(), waker.clone()),
        db,
        stores,
        http,
        callbacks: Callbacks::load(env)?,
        search: Search::load(env)?,
        media: Media::load(env)?,
        ceilings,
        vault,
        waker,
        registry: entropy_jobs::kinds::registry(),
        url_policy: UrlPolicy { allow_private: false },
        has_default_token,
    })
}

pub(crate) fn print_openapi() -> anyhow::Result<()> {
    print!("{}", entropy_api::openapi_document());
    Ok(())
}
