//! The embedded migrations and how they are run without libpq.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::time::Duration;

use diesel::migration::{MigrationSource, Result as MigrationResult};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Bool, Text};
use diesel_async::{
    AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::{Conn, Result};

/// Every migration, in order, with its way back.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");

/// Serialises concurrent runs: every process may migrate at boot.
///
/// Asked for again and again, not waited for: a statement that waits holds a snapshot, and `CREATE INDEX CONCURRENTLY`
/// waits for every snapshot that is older than itself. The two would wait for each other.
const LOCK: &str = "SELECT pg_try_advisory_lock(hashtextextended('entropy.migrations', 0)) AS yes";

/// How often the lock is asked for.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How often a run begins anew after a migration gave up waiting for a lock on a table.
const TRIES: u32 = 10;

/// Pause before the second try; it grows by as much with each.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(QueryableByName)]
struct Yes {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = Text)]
    word: String,
}

/// Runs what has not been run yet and returns the names of what was run.
///
/// Two processes that migrate at once do it one after the other. A migration that gives up waiting for a lock, because
/// it would hold up the processes at work, is tried again for half a minute. Needs tokio's multi-thread runtime.
pub async fn run_pending(url: &str) -> anyhow::Result<Vec<String>> {
    run(url, || MIGRATIONS).await
}

/// Does the same with other migrations than the embedded ones.
pub async fn run<S: MigrationSource<Pg>>(url: &str, source: impl Fn() -> S) -> anyhow::Result<Vec<String>> {
    let mut applied = Vec::new();
    let mut tries = 1;
    loop {
        let mut conn = connect(url).await?;
        drop_unfinished_indexes(&mut conn).await?;
        match apply(AsyncMigrationHarness::new(conn), source(), &mut applied) {
            Ok(()) => return Ok(applied),
            Err(error) if tries < TRIES && gave_up_waiting(&*error) => {
                tracing::warn!(%error, "a migration found its table in use; trying again");
                tokio::time::sleep(PAUSE * tries).await;
                tries += 1;
            }
            Err(error) => anyhow::bail!("migration failed: {error}"),
        }
    }
}

/// Takes the newest migration back. Loses what its tables hold.
pub async fn revert_last(url: &str) -> anyhow::Result<String> {
    let conn = connect(url).await?;
    let mut harness = AsyncMigrationHarness::new(conn);
    let version = harness
        .revert_last_migration(MIGRATIONS)
        .map_err(|error| anyhow::anyhow!("reverting failed: {error}"))?;
    Ok(version.to_string())
}

/// Names the migrations that this program has and the database has not. One that only the database has was made by a
/// newer version, and what it made does not disturb this one.
pub async fn missing(conn: &mut Conn) -> Result<Vec<String>> {
    let any: Yes = sql_query("SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL AS yes")
        .get_result(conn)
        .await?;
    let applied: Vec<Word> = if any.yes {
        sql_query("SELECT version::text AS word FROM __diesel_schema_migrations").load(conn).await?
    } else {
        Vec::new()
    };
    let applied: HashSet<String> = applied.into_iter().map(|row| row.word).collect();
    let known = MigrationSource::<Pg>::migrations(&MIGRATIONS).unwrap_or_default();
    let mut missing: Vec<String> = known
        .iter()
        .map(|migration| migration.name())
        .filter(|name| !applied.contains(&name.version().to_string()))
        .map(ToString::to_string)
        .collect();
    missing.sort_unstable();
    Ok(missing)
}

/// Connects and waits until no other run is under way.
async fn connect(url: &str) -> anyhow::Result<AsyncPgConnection> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    while !sql_query(LOCK).get_result::<Yes>(&mut conn).await?.yes {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(conn)
}

fn apply(
    mut harness: AsyncMigrationHarness<AsyncPgConnection>,
    source: impl MigrationSource<Pg>,
    applied: &mut Vec<String>,
) -> MigrationResult<()> {
    for migration in harness.pending_migrations(source)? {
        applied.push(harness.run_migration(&migration)?.to_string());
    }
    Ok(())
}

/// Whether it was a lock that could not be had in time, or that others waited for in a circle: an older version's run
/// waits for ours in a statement. The SQLSTATE does not come through diesel.
fn gave_up_waiting(error: &(dyn StdError + 'static)) -> bool {
    let text = error.to_string();
    ["lock timeout", "deadlock detected"].iter().any(|wanted| text.contains(wanted))
}

/// Removes what an interrupted `CREATE INDEX CONCURRENTLY` left: an index that is paid for and never used, and whose
/// name is taken.
async fn drop_unfinished_indexes(conn: &mut AsyncPgConnection) -> anyhow::Result<()> {
    let unfinished: Vec<Word> = sql_query(
        "SELECT format('%I.%I', s.nspname, c.relname) AS word \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace s ON s.oid = c.relnamespace \
         WHERE NOT i.indisvalid AND s.nspname = current_schema() AND c.relkind = 'i' \
             AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)",
    )
    .load(conn)
    .await?;
    for index in unfinished {
        tracing::warn!(index = index.word, "dropping an index whose making was interrupted");
        conn.batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {}", index.word)).await?;
    }
    Ok(())
}
