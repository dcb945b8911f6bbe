//! The connection pool, with the session settings that the statements of this crate rely on.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures::FutureExt;

use crate::error::{Error, Result};

/// A connection on loan from the pool.
pub type PooledConn = Object<AsyncPgConnection>;

/// How long a caller waits for a connection before the database counts as away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a pool is for; it decides the session settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Lists and filters: the planner chooses.
    Api,
    /// The queue's own statements.
    ///
    /// A queue is the table whose statistics are always stale, and with stale statistics the planner reads whole
    /// tables. These statements are written for one plan (index lookups in nested loops), so the session rules the
    /// others out and plans each statement once.
    Worker,
}

/// The database as a process sees it: a pool that connects lazily and recovers by itself.
#[derive(Clone)]
pub struct Db {
    pool: Pool<AsyncPgConnection>,
    url: Arc<str>,
    profile: Profile,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("status", &self.pool.status()).finish()
    }
}

impl Db {
    /// Prepares a pool of at most `max_connections`. Connects when the first connection is asked for.
    pub fn new(url: &str, max_connections: usize, profile: Profile) -> Result<Db> {
        let mut config = ManagerConfig::default();
        // The default asks `SELECT 1` before every loan: a round trip on every hot path.
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(move |url| establish(url, profile).boxed());
        let manager = AsyncDieselConnectionManager::<AsyncPgConnection>::new_with_config(url, config);
        let pool = Pool::builder(manager)
            .max_size(max_connections)
            .build()
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(Db { pool, url: url.into(), profile })
    }

    /// Lends a connection, waiting up to three seconds for one.
    pub async fn conn(&self) -> Result<PooledConn> {
        match tokio::time::timeout(ACQUIRE_TIMEOUT, self.pool.get()).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(error)) => Err(Error::Unavailable(error.to_string())),
            Err(_) => Err(Error::Unavailable("no free connection within 3 s".into())),
        }
    }

    /// Opens a connection outside of the pool, with the same settings, waiting up to three seconds for it.
    pub(crate) async fn apart(&self) -> Result<AsyncPgConnection> {
        match tokio::time::timeout(ACQUIRE_TIMEOUT, establish(&self.url, self.profile)).await {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(error)) => Err(Error::Unavailable(error.to_string())),
            Err(_) => Err(Error::Unavailable("no connection within 3 s".into())),
        }
    }

    /// Returns connections in use and connections allowed.
    pub fn usage(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.size.saturating_sub(status.available), status.max_size)
    }
}

async fn establish(url: &str, profile: Profile) -> diesel::ConnectionResult<AsyncPgConnection> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    conn.batch_execute(settings(profile))
        .await
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// Each timeout turns into an error that is [unavailable](Error::is_unavailable), and its statement is tried again.
///
/// - A person waits for the API: a lock that is not free within two seconds is not waited for. Our own are held for
///   milliseconds.
/// - Workers wait longer: the gates of all accounts of a token queue for one lock.
/// - Only a frozen process is idle in a transaction. It must not keep its locks.
///
/// The messages must be English, since [`Error`] reads them. Setting that takes a right which the server's own default
/// mostly makes unnecessary, so a refusal is passed over.
fn settings(profile: Profile) -> &'static str {
    match profile {
        Profile::Api => {
            "SET statement_timeout = '10s'; SET lock_timeout = '2s'; \
             SET idle_in_transaction_session_timeout = '10s'; SET jit = off; SET timezone = 'UTC'; \
             DO $$ BEGIN SET lc_messages = 'C'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$"
        }
        Profile::Worker => {
            "SET statement_timeout = '10s'; SET lock_timeout = '5s'; \
             SET idle_in_transaction_session_timeout = '10s'; SET jit = off; SET timezone = 'UTC'; \
             DO $$ BEGIN SET lc_messages = 'C'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$; \
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; \
             SET enable_bitmapscan = off; SET plan_cache_mode = force_generic_plan"
        }
    }
}
