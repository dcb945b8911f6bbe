//! Steps for which nobody comes: the job that was to send their message, or to have it written, has died or was called off by a
//! person before it could say so. Their enrollments are looked at, and `settled` or the plan's own text does the rest.

use entropy_schema::Db;
use entropy_schema::campaigns::steps;

/// Enrollments that one pass looks at.
const BATCH: i64 = 500;

/// Has those come due whose job has ended. Any number of processes may do so at once.
pub async fn pass(db: &Db) -> entropy_schema::Result<()> {
    let woken = steps::wake_abandoned(&mut *db.conn().await?, BATCH).await?;
    if woken > 0 {
        tracing::info!(
            enrollments = woken,
            "jobs of campaigns ended without a word; their people are looked at"
        );
    }
    Ok(())
}
