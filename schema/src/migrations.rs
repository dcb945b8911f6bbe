//! The embedded migrations and how they are run without libpq.

use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

/// Every migration, in order, with its way back.
pub const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");

/// Serialises concurrent runs: every process may migrate at boot.
const LOCK: &str = "SELECT pg_advisory_lock(hashtextextended('entropy.migrations', 0))";

/// Runs what has not been run yet and returns the names of what was run.
///
/// Two processes that migrate at once do it one after the other. Needs tokio's multi-thread runtime.
pub async fn run_pending(url: &str) -> anyhow::Result<Vec<String>> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    conn.batch_execute(LOCK).await?;
    let mut harness = AsyncMigrationHarness::new(conn);
    let versions = harness
        .run_pending_migrations(MIGRATIONS)
        .map_err(|error| anyhow::anyhow!("migration failed: {error}"))?;
    Ok(versions.iter().map(ToString::to_string).collect())
}

/// Takes the newest migration back. Loses what its tables hold.
pub async fn revert_last(url: &str) -> anyhow::Result<String> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    conn.batch_execute(LOCK).await?;
    let mut harness = AsyncMigrationHarness::new(conn);
    let version = harness
        .revert_last_migration(MIGRATIONS)
        .map_err(|error| anyhow::anyhow!("reverting failed: {error}"))?;
    Ok(version.to_string())
}
