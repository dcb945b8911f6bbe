//! The port to a search engine, and how it is kept up to date. The adapter behind it lives in `workers`.

use entropy_schema::Db;
use entropy_schema::search::{Document, documents};
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Documents per call.
const SLICE: i64 = 500;

/// An index over messages. Putting a document again replaces it.
pub trait MessageIndex: Send + Sync {
    /// Makes the index unless it is there.
    fn prepare(&self) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Returns the newest message of the index.
    fn newest(&self) -> BoxFuture<'_, anyhow::Result<Option<Uuid>>>;

    /// Puts documents into the index: all, or the call fails and may be repeated.
    fn put<'a>(&'a self, documents: &'a [Document]) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// Puts every message after `after` into the index, oldest first, until there is none left or `stop`. Returns how many.
///
/// `seen` hears of the last message of every slice. Safe to repeat, and to do twice at once.
pub async fn follow(
    db: &Db,
    index: &dyn MessageIndex,
    mut after: Uuid,
    stop: &CancellationToken,
    mut seen: impl FnMut(u64, Uuid),
) -> anyhow::Result<u64> {
    let mut put = 0;
    while !stop.is_cancelled() {
        let mut conn = db.conn().await?;
        let slice = documents(&mut conn, after, SLICE).await?;
        // None is held over the call.
        drop(conn);
        let Some(last) = slice.last() else { break };
        after = last.id;
        index.put(&slice).await?;
        put += slice.len() as u64;
        seen(put, after);
    }
    Ok(put)
}
