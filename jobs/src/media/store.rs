//! The folder of uploads: files come in whole or not at all, under names of our own.

use std::io;
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Datelike, Utc};
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::sniff::{Dangerous, Found, HEAD, fits, sniff};

/// The folder of uploads, and how long a file in it may be.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    most: u64,
}

/// Why a file was not kept.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It would run when it is opened.
    #[error("it is a program or a page")]
    Dangerous,
    /// It is not what its message says it is, or empty.
    #[error("it is not what the message says it is")]
    Wrong,
    /// The disk.
    #[error("the folder of uploads cannot be written")]
    Disk(#[from] io::Error),
}

/// A file that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where it is, below the folder of uploads.
    pub path: String,
    /// What it is.
    pub found: Found,
    /// How long it is.
    pub bytes: u64,
}

/// Whose file it is, which gives its name.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The tenant.
    pub organization_id: Uuid,
    /// The message.
    pub message_id: Uuid,
    /// The message's kind.
    pub kind: &'a str,
    /// When the message came in.
    pub at: DateTime<Utc>,
}

impl Store {
    /// Keeps files of up to `most` bytes in `root`.
    pub fn new(root: impl Into<PathBuf>, most: u64) -> Store {
        Store { root: root.into(), most }
    }

    /// The longest file that is kept.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Returns the name of a new file beside the kept ones, on the same disk.
    pub async fn temporary(&self) -> io::Result<Temporary> {
        let folder = self.root.join("incoming");
        fs::create_dir_all(&folder).await?;
        Ok(Temporary { path: folder.join(Uuid::now_v7().to_string()) })
    }

    /// Writes `bytes` to a new file.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<Temporary> {
        let temporary = self.temporary().await?;
        let mut file = fs::File::create_new(temporary.path()).await?;
        file.write_all(bytes).await?;
        file.sync_all().await?;
        Ok(temporary)
    }

    /// Looks at a file and puts it in its place, which is the same each time.
    pub async fn keep(&self, temporary: Temporary, owner: Owner<'_>) -> Result<Kept, Refused> {
        let mut file = fs::File::open(temporary.path()).await?;
        let bytes = file.metadata().await?.len();
        let mut head = Vec::with_capacity(HEAD);
        (&mut file).take(HEAD as u64).read_to_end(&mut head).await?;
        let found = sniff(&head).map_err(|Dangerous| Refused::Dangerous)?;
        if bytes == 0 || !fits(owner.kind, found) {
            return Err(Refused::Wrong);
        }
        let (year, month) = (owner.at.year(), owner.at.month());
        let folder = format!("{}/{year:04}/{month:02}", owner.organization_id);
        let path = format!("{folder}/{}.{}", owner.message_id, found.extension);
        fs::create_dir_all(self.root.join(&folder)).await?;
        // The content first, then its name: a machine that stops in between has neither.
        file.sync_all().await?;
        fs::rename(temporary.path(), self.root.join(&path)).await?;
        fs::File::open(self.root.join(&folder)).await?.sync_all().await?;
        Ok(Kept { path, found, bytes })
    }

    /// Returns where a kept file is. None: the name leads out of the folder.
    pub fn locate(&self, path: &str) -> Option<PathBuf> {
        let path = Path::new(path);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| self.root.join(path))
    }
}

/// A file that nobody serves. It goes with the value, unless it was kept.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is not there any more if it was kept. A process that dies leaves it behind, a few megabytes at worst.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(kind: &str) -> Owner<'_> {
        Owner {
            organization_id: Uuid::from_u128(1),
            message_id: Uuid::from_u128(2),
            kind,
            at: DateTime::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_file_is_kept_whole_under_a_name_of_ours_or_not_at_all() {
        let root = std::env::temp_dir().join(format!("entropy-store-{}", Uuid::now_v7()));
        let store = Store::new(&root, 100);
        for _ in 0..2 {
            let file = store.write(b"\x89PNG\r\n\x1a\n....").await.expect("written");
            let kept = store.keep(file, owner("image")).await.expect("kept");
            assert_eq!(kept.path, format!("{}/1970/01/{}.png", Uuid::from_u128(1), Uuid::from_u128(2)));
            assert_eq!(kept.bytes, 12);
            assert_eq!(std::fs::read(store.locate(&kept.path).expect("inside")).expect("there").len(), 12);
        }
        for (bytes, kind) in [(b"<html>".as_slice(), "file"), (b"alert(1)", "image"), (b"", "file")] {
            let file = store.write(bytes).await.expect("written");
            assert!(store.keep(file, owner(kind)).await.is_err(), "{kind}");
        }
        assert_eq!(std::fs::read_dir(root.join("incoming")).expect("the folder").count(), 0);
        for outside in ["../a", "/etc/passwd", "a/../../b"] {
            assert_eq!(store.locate(outside), None, "{outside}");
        }
        std::fs::remove_dir_all(root).expect("removed");
    }
}
