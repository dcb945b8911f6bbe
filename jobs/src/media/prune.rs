//! Deletes what is in the folder of uploads for too long: media past their time, and what processes that died left behind.
//!
//! The folder says what there is, and the record what of it is old: so a file whose process died between the two is found
//! the next time, and no list of media is read that grows for ever. A medium is `pruned` in the record before its file is
//! deleted. Everything may be done twice, and by several at once.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::search::first_id_of;
use entropy_schema::{Db, media};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::store::{Folder, Store};

/// Files that are looked at with one statement.
const SLICE: usize = 500;

/// For how long a file may be on its way in. A download has five minutes.
const INCOMING: TimeDelta = TimeDelta::days(1);

/// How far the clock that made an id may be from the database's.
const CLOCKS_APART: TimeDelta = TimeDelta::hours(1);

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Files of media.
    pub media: u64,
    /// Files that were left on their way in.
    pub leftovers: u64,
}

/// Why it was broken off. What was deleted until then is deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record.
    #[error(transparent)]
    Record(#[from] entropy_schema::Error),
    /// The disk.
    #[error("the folder of uploads cannot be cleaned up")]
    Disk(#[from] std::io::Error),
}

/// Deletes the media of messages that came in more than `keep_days` before `now`, and files that have been on their way in
/// for more than a day.
pub async fn prune(
    db: &Db,
    store: &Store,
    keep_days: i32,
    now: DateTime<Utc>,
    stop: &CancellationToken,
) -> Result<Pruned, Error> {
    // What a person of ours looks at today is not deleted by a zero in the wrong place.
    let before = now - TimeDelta::days(keep_days.max(1).into());
    let mut pruned = Pruned { leftovers: store.sweep_incoming(now - INCOMING).await?, media: 0 };
    for folder in store.folders(before).await? {
        pruned.media += of_folder(db, store, &folder, before, stop).await?;
        if stop.is_cancelled() {
            break;
        }
        store.close(&folder).await;
    }
    Ok(pruned)
}

async fn of_folder(
    db: &Db,
    store: &Store,
    folder: &Folder,
    before: DateTime<Utc>,
    stop: &CancellationToken,
) -> Result<u64, Error> {
    let young = first_id_of(before + CLOCKS_APART);
    let mut files = store.files(folder).await?;
    files.retain(|file| file.message_id < young);
    let mut deleted = 0;
    for slice in files.chunks(SLICE) {
        if stop.is_cancelled() {
            break;
        }
        let ids: Vec<Uuid> = slice.iter().map(|file| file.message_id).collect();
        let old = media::prune(&mut *db.conn().await?, folder.organization_id, &ids, before).await?;
        for file in slice.iter().filter(|file| old.contains(&file.message_id)) {
            deleted += u64::from(store.remove(folder, &file.name).await?);
        }
    }
    Ok(deleted)
}
