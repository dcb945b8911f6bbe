//! `entropy dev`: all of it in one process, on private servers, with a demo organisation.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use entropy_jobs::process::config::{
    Ceilings, Fastgpt, Gewe, Http, Media, Registration, Search, Stores, environment, vault,
};
use entropy_jobs::process::shutdown;
use entropy_jobs::secret::Secret;
use entropy_schema::{Db, Profile};
use entropy_workers::Settings;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::demo_conversations;
use crate::servers::{Home, Options, Postgres, Redis};

/// The demo login, as it is printed.
const USERNAME: &str = "demo";
const PASSWORD: &str = "demo-password";

/// The private servers that were started because no address was given.
struct Private {
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    home: Home,
}

pub(crate) async fn run() -> anyhow::Result<()> {
    let began = Instant::now();
    let stop = shutdown::on_signal()?;
    let (private, stores) = servers().await?;
    let outcome = serve(&stores, &private, stop, began).await;
    // Postgres and Redis go last, and in good order.
    tokio::task::spawn_blocking(move || {
        if let Some(redis) = &private.redis {
            redis.stop()?;
        }
        if let Some(postgres) = &private.postgres {
            postgres.stop()?;
        }
        anyhow::Ok(())
    })
    .await??;
    outcome
}

async fn servers() -> anyhow::Result<(Private, Stores)> {
    let folder = std::env::current_dir().context("the current folder is gone")?;
    tokio::task::spawn_blocking(move || {
        let home = Home::claim(&folder)?;
        let (database_url, redis_url) = (environment("DATABASE_URL"), environment("REDIS_URL"));
        let postgres = match &database_url {
            Some(_) => None,
            None => Some(
                Postgres::start(&home.postgres(), Options::dev()).context("starting a private Postgres")?,
            ),
        };
        let redis = match &redis_url {
            Some(_) => None,
            None => Some(Redis::start(&home.redis(), Options::dev()).context("starting a private Redis")?),
        };
        let database_url = database_url.or_else(|| postgres.as_ref().map(Postgres::url)).unwrap_or_default();
        let redis_url = redis_url.or_else(|| redis.as_ref().map(Redis::url)).unwrap_or_default();
        let lookup = |name: &str| match name {
            "DATABASE_URL" => Some(database_url.clone()),
            "REDIS_URL" => Some(redis_url.clone()),
            _ => environment(name),
        };
        let stores = Stores::load(&lookup)?;
        Ok((Private { postgres, redis, home }, stores))
    })
    .await?
}

async fn serve(
    stores: &Stores,
    private: &Private,
    stop: CancellationToken,
    began: Instant,
) -> anyhow::Result<()> {
    entropy_schema::migrations::run_pending(stores.database_url.expose()).await.context("migrating")?;
    // A login that everybody knows has no place in a database that people already use.
    let demo = private.postgres.is_some() || nobody_can_log_in(stores).await?;
    let listener = listen(environment("BIND"), 8000).await?;
    let api = listener.local_addr()?;
    let mut parts: JoinSet<anyhow::Result<()>> = JoinSet::new();

    let mut phone = None;
    let endpoint = match environment("GEWE_API_ENDPOINT") {
        Some(endpoint) => endpoint,
        None => {
            let listener = listen(None, 8001).await?;
            let address = listener.local_addr()?;
            let stop = stop.clone();
            parts.spawn(async move {
                let config = entropy_sandbox::Config::default();
                entropy_sandbox::serve(listener, config, async move { stop.cancelled().await }).await
            });
            phone = Some(address);
            format!("http://{address}/gewe/v2/api")
        }
    };
    let token = environment("GEWE_TOKEN_ID").or_else(|| phone.map(|_| "sandbox-token".to_owned()));
    let secret = demo_secret(private.home.dir())?;
    // The sandbox is told the address anew at every start, so it needs no place on disk.
    let callback_secret = environment("GEWE_CALLBACK_SECRET")
        .or_else(|| phone.map(|_| uuid::Uuid::new_v4().simple().to_string()));
    let lookup = |name: &str| match name {
        "JWT_SECRET_KEY" => environment(name).or_else(|| Some(secret.clone())),
        "GEWE_API_ENDPOINT" => Some(endpoint.clone()),
        "GEWE_TOKEN_ID" => token.clone(),
        // The sandbox plays FastGPT too.
        "FASTGPT_API_ENDPOINT" => {
            environment(name).or_else(|| phone.map(|phone| format!("http://{phone}/fastgpt/api")))
        }
        "GEWE_CALLBACK_SECRET" => callback_secret.clone(),
        _ => environment(name),
    };
    let ceilings = Ceilings::load(&lookup)?;
    let mut http = Http::load(&lookup)?;
    if demo {
        // The demo organisation registers itself.
        http.registration = Registration::Open;
    }
    let state = super::api::state(&lookup, stores.clone(), http, ceilings, vault(&lookup)?, token.is_some())?;
    parts.spawn(entropy_api::serve(listener, state, stop.clone()));
    let settings = Settings {
        stores: stores.clone(),
        gewe: Gewe::load(&lookup)?,
        fastgpt: Fastgpt::load(&lookup)?,
        ceilings,
        search: Search::load(&environment)?,
        vault: vault(&lookup)?,
        media: Media::load(&lookup)?,
        slots: 32,
    };
    parts.spawn(entropy_workers::run(settings, stop.clone()));
    parts.spawn({
        let (stores, stop) = (stores.clone(), stop.clone());
        async move { entropy_schedules::run(&stores, stop).await }
    });

    let welcome = tokio::select! {
        seeded = welcome_demo(demo, api, phone.zip(callback_secret.as_deref())) => Some(seeded),
        () = stop.cancelled() => None,
    };
    match welcome {
        Some(Ok(demo)) => print_welcome(api, phone, demo.as_ref(), began.elapsed()),
        Some(Err(error)) => {
            stop.cancel();
            while parts.join_next().await.is_some() {}
            return Err(error);
        }
        None => {}
    }

    let mut outcome = Ok(());
    while let Some(ended) = parts.join_next().await {
        let ended = ended.map_err(anyhow::Error::from).and_then(|result| result);
        if let (Ok(()), Err(error)) = (&outcome, ended) {
            outcome = Err(error);
        }
        // One part cannot do without the others.
        stop.cancel();
    }
    outcome
}

/// Takes the address that was asked for, or the usual port, or, if that is taken, any free one.
async fn listen(asked: Option<String>, usual_port: u16) -> anyhow::Result<TcpListener> {
    if let Some(asked) = asked {
        let address: SocketAddr = asked.parse().context("BIND must be an address such as 127.0.0.1:8000")?;
        return TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"));
    }
    match TcpListener::bind(("127.0.0.1", usual_port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind("127.0.0.1:0").await.context("no free port"),
    }
}

/// Returns the secret that signs the demo's logins: made once, kept beside the data.
fn demo_secret(home: &Path) -> anyhow::Result<String> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = home.join("jwt-secret");
    if let Ok(secret) = std::fs::read_to_string(&path) {
        return Ok(secret.trim().to_owned());
    }
    let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(secret.as_bytes())?;
    Ok(secret)
}

/// The demo organisation, as a newcomer meets it.
struct Demo {
    token: Secret,
    /// The account as the API shows it.
    account: Value,
}

/// Makes the demo organisation, if there is to be one, and connects the sandbox to it.
async fn welcome_demo(
    demo: bool,
    api: SocketAddr,
    phone: Option<(SocketAddr, &str)>,
) -> anyhow::Result<Option<Demo>> {
    if !demo {
        return Ok(None);
    }
    let demo = seed(api).await?;
    if let Some((phone, secret)) = phone {
        demo_conversations::connect(phone, &demo.account, &format!("http://{api}/callbacks/gewe/{secret}"))
            .await?;
        let key = environment("FASTGPT_API_KEY");
        demo_conversations::answer(api, demo.token.expose(), &demo.account, key.as_deref()).await?;
    }
    demo_conversations::plans(api, demo.token.expose()).await?;
    Ok(Some(demo))
}

/// Waits for the API and makes the demo organisation through it, as anybody else would.
async fn seed(api: SocketAddr) -> anyhow::Result<Demo> {
    let base = format!("http://{api}/api/v1");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let credentials = json!({ "username": USERNAME, "password": PASSWORD });
    let mut login = call(client.post(format!("{base}/auth/login")).json(&credentials)).await?;
    if login.0 == 401 {
        let registration = json!({ "organization": "演示公司", "username": USERNAME, "password": PASSWORD });
        login = call(client.post(format!("{base}/auth/register")).json(&registration)).await?;
    }
    let Some(token) = login.1["access_token"].as_str().map(str::to_owned) else {
        bail!("the demo login did not work: {} {}", login.0, login.1["detail"]);
    };
    let accounts = call(client.get(format!("{base}/wechat-accounts")).bearer_auth(&token)).await?;
    if accounts.1["items"][0]["id"].is_string() {
        return Ok(Demo { token: Secret::new(token), account: accounts.1["items"][0].clone() });
    }
    let account = json!({
        "wxid": format!("wxid_demo{}", &uuid::Uuid::new_v4().simple().to_string()[..12]),
        "nickname": "演示账号",
        "gewe_app_id": format!("wx_demo{}", &uuid::Uuid::new_v4().simple().to_string()[..14]),
    });
    let created =
        call(client.post(format!("{base}/wechat-accounts")).bearer_auth(&token).json(&account)).await?;
    match created.1["id"].is_string() {
        true => Ok(Demo { token: Secret::new(token), account: created.1 }),
        false => bail!("the demo account could not be made: {} {}", created.0, created.1["detail"]),
    }
}

pub(super) async fn call(request: reqwest::RequestBuilder) -> anyhow::Result<(u16, Value)> {
    let answer = request.timeout(Duration::from_secs(15)).send().await.context("calling the API")?;
    let status = answer.status().as_u16();
    Ok((status, answer.json().await.unwrap_or(Value::Null)))
}

/// Tells whether the database has no people in it yet.
async fn nobody_can_log_in(stores: &Stores) -> anyhow::Result<bool> {
    let db = Db::new(stores.database_url.expose(), 1, Profile::Api)?;
    let mut conn = db.conn().await?;
    let strangers = entropy_schema::users::any_but(&mut conn, USERNAME).await?;
    Ok(!strangers)
}

fn print_welcome(api: SocketAddr, phone: Option<SocketAddr>, demo: Option<&Demo>, took: Duration) {
    let phone_page = match phone {
        Some(address) => format!("http://{address}/   (you are the customer: write, and the AI answers)"),
        None => "none: messages go to GEWE_API_ENDPOINT".into(),
    };
    let login = match demo {
        Some(_) => format!("{USERNAME} / {PASSWORD}"),
        None => "yours: the database of DATABASE_URL already has people, so no demo login was made".into(),
    };
    println!(
        "
Entropy is ready ({:.1} s).

  API      http://{api}/api/v1
  Docs     http://{api}/docs
  Login    {login}
  Phone    {phone_page}",
        took.as_secs_f64()
    );
    if let Some(Demo { token, account }) = demo {
        let (token, account_id) = (token.expose(), account["id"].as_str().unwrap_or_default());
        println!(
            "
Send the first message:

  curl -sS http://{api}/api/v1/jobs/send-message -H 'Content-Type: application/json' -H 'Authorization: Bearer {token}' \
-d '{{\"account_id\":\"{account_id}\",\"to_wxid\":\"wxid_first_customer\",\"message\":{{\"kind\":\"text\",\"text\":\"你好，世界\"}},\"priority\":\"interactive\"}}'"
        );
    }
    println!("\nCtrl-C stops everything; the data stays for next time.\n");
}
