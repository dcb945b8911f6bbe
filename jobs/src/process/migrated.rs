//! Lets a process wait for the migrations that its statements rely on.

use std::time::Duration;

use entropy_schema::{Db, migrations};
use tokio_util::sync::CancellationToken;

/// How often the database is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How many looks go by between two lines of the log.
const SAY_AGAIN: u32 = 15;

/// Returns when the database has every migration of this program, or with false when `stop` came first.
///
/// One that was migrated by a newer version has them too. Without its migrations a worker would take jobs and fail them.
pub async fn migrated(db: &Db, stop: &CancellationToken) -> bool {
    for looks in 0.. {
        let missing = async { migrations::missing(&mut *db.conn().await?).await };
        match missing.await {
            Ok(missing) if missing.is_empty() => return true,
            Ok(missing) if looks % SAY_AGAIN == 0 => tracing::warn!(
                ?missing,
                "waiting: the database is older than this program; run `entropy migrate` of the same version"
            ),
            Err(error) if looks % SAY_AGAIN == 0 => tracing::warn!(%error, "waiting for the database"),
            _ => {}
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
    false
}
