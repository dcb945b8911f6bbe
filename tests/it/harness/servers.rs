//! One Postgres and one Redis for all tests, started by the first that asks; a database per test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};

use super::process::ENTROPY;
use crate::servers::{Options, Postgres, Redis};

/// The servers that tests share. Nobody flushes or stops these.
#[derive(Debug)]
struct Shared {
    postgres: Postgres,
    redis: Redis,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

async fn shared() -> &'static Shared {
    let start = || {
        SHARED.get_or_init(|| {
            let redis = start_redis();
            Shared { postgres: start_postgres(), redis }
        })
    };
    tokio::task::spawn_blocking(start).await.expect("the shared servers start")
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("entropy-it-{name}-{:016x}", fastrand::u64(..)))
}

/// Starts a Postgres whose database `entropy` is migrated.
fn start_postgres() -> Postgres {
    let postgres = Postgres::start(&scratch("postgres"), Options::test()).expect("Postgres starts");
    migrate(&postgres.url());
    postgres
}

fn start_redis() -> Redis {
    Redis::start(&scratch("redis"), Options::test()).expect("Redis starts")
}

/// Brings a database up to date as an operator does.
pub(crate) fn migrate(url: &str) {
    let output = Command::new(ENTROPY)
        .arg("migrate")
        .env_clear()
        .env("DATABASE_URL", url)
        .output()
        .expect("migrate starts");
    assert!(output.status.success(), "migrate failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// A migrated database that is dropped with the value.
#[derive(Debug)]
pub(crate) struct Database {
    url: String,
    name: String,
    /// The server, if it is this test's own.
    own: Option<Arc<Postgres>>,
}

impl Database {
    /// Copies the template on the shared server.
    pub(crate) async fn create() -> Database {
        Self::copy_of("entropy").await
    }

    /// Makes a database on the shared server in which no migration has run.
    pub(crate) async fn empty() -> Database {
        Self::copy_of("template1").await
    }

    async fn copy_of(template: &str) -> Database {
        let server = &shared().await.postgres;
        let name = format!("test_{:016x}", fastrand::u64(..));
        admin(&server.url(), &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        Database { url: with_database(&server.url(), &name), name, own: None }
    }

    /// Starts a Postgres for this test alone, which may kill it.
    pub(crate) async fn on_own_server() -> Database {
        let server = tokio::task::spawn_blocking(start_postgres).await.expect("Postgres starts");
        Database { url: server.url(), name: "entropy".into(), own: Some(Arc::new(server)) }
    }

    /// Returns the address with the password in it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the database's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the server, which is this test's own.
    pub(crate) fn server(&self) -> Arc<Postgres> {
        self.own.clone().expect("ask for a Postgres of your own: `Platform::with().own_postgres()`")
    }

    /// Returns what the server has logged.
    pub(crate) async fn server_log(&self) -> String {
        let path = match &self.own {
            Some(server) => server.log().to_owned(),
            None => shared().await.postgres.log().to_owned(),
        };
        String::from_utf8_lossy(&std::fs::read(path).expect("the server's log")).into_owned()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (None, Some(shared)) = (&self.own, SHARED.get()) else { return };
        let (url, name) = (shared.postgres.url(), self.name.clone());
        // A thread of its own: the test's runtime is busy dropping us.
        let dropping = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(admin(&url, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        let _ = dropping.join();
    }
}

/// A Redis: the shared one, or one for this test alone, which may kill and flush it.
#[derive(Debug, Clone)]
pub(crate) enum RedisServer {
    /// Everybody's.
    Shared,
    /// This test's.
    Own(Arc<Redis>),
}

impl RedisServer {
    /// Returns the shared server.
    pub(crate) async fn shared() -> RedisServer {
        shared().await;
        RedisServer::Shared
    }

    /// Starts a server for this test alone.
    pub(crate) async fn own() -> RedisServer {
        let server = tokio::task::spawn_blocking(start_redis).await.expect("Redis starts");
        RedisServer::Own(Arc::new(server))
    }

    /// Returns the address with the password in it.
    pub(crate) fn url(&self) -> String {
        match self {
            RedisServer::Shared => SHARED.get().expect("it was started").redis.url(),
            RedisServer::Own(server) => server.url(),
        }
    }

    /// Returns the server, which is this test's own.
    pub(crate) fn server(&self) -> Arc<Redis> {
        match self {
            RedisServer::Shared => panic!("ask for a Redis of your own: `Platform::with().own_redis()`"),
            RedisServer::Own(server) => server.clone(),
        }
    }

    /// Sends one command.
    pub(crate) async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).expect("an address");
        // A paused Redis answers late, and that is no failure.
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(30)))
            .set_response_timeout(Some(Duration::from_secs(30)));
        let connection = client.get_multiplexed_async_connection_with_config(&patient);
        let mut connection = connection.await.expect("Redis answers");
        let (name, arguments) = words.split_first().expect("a command");
        redis::cmd(name).arg(arguments).query_async(&mut connection).await.expect("Redis obeys")
    }
}

/// Replaces the database in an address.
fn with_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("an address of Postgres");
    format!("{server}/{name}")
}

async fn admin(url: &str, statement: &str) {
    let mut conn =
        AsyncPgConnection::establish(&with_database(url, "postgres")).await.expect("Postgres answers");
    conn.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}
