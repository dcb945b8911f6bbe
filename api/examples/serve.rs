use entropy_api::{AppConfig, AppState, serve};
use entropy_jobs::process::config;
use entropy_jobs::{enqueue::Enqueuer, wake::Waker};
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    entropy_jobs::process::telemetry::init(config::LogFormat::Text)?;
    let env: config::Lookup = &config::environment;
    let stores = config::Stores::load(env)?;
    let http = config::Http::load(env)?;
    let db = entropy_schema::Db::new(stores.database_url.expose(), stores.pool_size, entropy_schema::Profile::Api)?;
    let waker = Waker::new(&stores.redis_url, &stores.namespace)?;
    let listener = tokio::net::TcpListener::bind(http.bind).await?;
    let state = AppState::new(AppConfig {
        enqueuer: Enqueuer::new(db.clone(), waker.clone()), db, stores, ceilings: config::Ceilings::load(env)?,
        vault: config::vault(env)?, waker, registry: entropy_jobs::kinds::registry(), url_policy: Default::default(),
        has_default_token: true, http,
    })?;
    serve(listener, state, entropy_jobs::process::shutdown::on_signal()?).await
}
