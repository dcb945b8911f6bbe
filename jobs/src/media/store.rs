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

    /// Deletes files that were last written before `before` on their way in, and returns how many.
    pub async fn sweep_incoming(&self, before: DateTime<Utc>) -> io::Result<u64> {
        let mut deleted = 0;
        let incoming = self.root.join("incoming");
        for name in names(&incoming).await? {
            let path = incoming.join(name);
            let Some(found) = unless_gone(fs::metadata(&path).await)? else { continue };
            if found.is_file() && DateTime::<Utc>::from(found.modified()?) < before {
                deleted += u64::from(unless_gone(fs::remove_file(&path).await)?.is_some());
            }
        }
        Ok(deleted)
    }

    /// Returns the folders in which there may be media of messages that came in before `before`.
    pub async fn folders(&self, before: DateTime<Utc>) -> io::Result<Vec<Folder>> {
        let last = (before.year(), before.month());
        let mut found = Vec::new();
        for organization in names(&self.root).await? {
            let Ok(organization_id) = organization.parse::<Uuid>() else { continue };
            let of_organization = self.root.join(&organization);
            for year in names(&of_organization).await? {
                let Some(of_year) = number(&year, 4) else { continue };
                for month in names(&of_organization.join(&year)).await? {
                    let Some(of_month) = number(&month, 2) else { continue };
                    if (i32::try_from(of_year).unwrap_or(i32::MAX), of_month) <= last {
                        let path = format!("{organization}/{year}/{month}");
                        found.push(Folder { organization_id, path });
                    }
                }
            }
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// Returns the media in a folder, in the order of their messages. Files that are none of ours are left out.
    pub async fn files(&self, folder: &Folder) -> io::Result<Vec<File>> {
        let mut files: Vec<File> = names(&self.root.join(&folder.path))
            .await?
            .into_iter()
            .filter_map(|name| {
                let message_id = name.split_once('.')?.0.parse().ok()?;
                Some(File { message_id, name })
            })
            .collect();
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(files)
    }

    /// Deletes a file. False: it was not there any more.
    pub async fn remove(&self, folder: &Folder, name: &str) -> io::Result<bool> {
        let removed = fs::remove_file(self.root.join(&folder.path).join(name)).await;
        Ok(unless_gone(removed)?.is_some())
    }

    /// Deletes a folder and those around it, as far as they are empty.
    pub async fn close(&self, folder: &Folder) {
        let mut path = Path::new(&folder.path);
        // The disk refuses what is not empty.
        while !path.as_os_str().is_empty() && fs::remove_dir(self.root.join(path)).await.is_ok() {
            let Some(around) = path.parent() else { return };
            path = around;
        }
    }

    /// Returns where a kept file is. None: the name leads out of the folder.
    pub fn locate(&self, path: &str) -> Option<PathBuf> {
        let path = Path::new(path);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        inside.then(|| self.root.join(path))
    }
}

/// A folder with the media of one organisation and month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The tenant.
    pub organization_id: Uuid,
    path: String,
}

/// A file in a [`Folder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The message whose medium it is.
    pub message_id: Uuid,
    /// Its name.
    pub name: String,
}

/// Returns the names in a folder that are texts; none if there is no such folder.
async fn names(folder: &Path) -> io::Result<Vec<String>> {
    let listed = match fs::read_dir(folder).await {
        // A file where a folder would be is none of ours.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
        listed => unless_gone(listed)?,
    };
    let Some(mut listed) = listed else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    while let Some(entry) = listed.next_entry().await? {
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

/// Somebody else may delete as well.
fn unless_gone<Found>(found: io::Result<Found>) -> io::Result<Option<Found>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn number(name: &str, digits: usize) -> Option<u32> {
    (name.len() == digits && name.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.parse().ok())?
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
        // It is not there any more if it was kept. What a process that dies leaves behind is deleted a day later.
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

    #[tokio::test]
    async fn what_was_left_on_its_way_in_is_deleted_when_it_is_old_and_not_before() {
        let root = std::env::temp_dir().join(format!("entropy-store-{}", Uuid::now_v7()));
        let store = Store::new(&root, 100);
        let written = Utc::now();
        assert_eq!(store.sweep_incoming(written).await.expect("nothing there"), 0);
        let file = store.write(b"half a pict").await.expect("written");
        let earlier = written - chrono::TimeDelta::minutes(5);
        assert_eq!(store.sweep_incoming(earlier).await.expect("swept"), 0, "somebody is at it");
        assert!(file.path().exists());
        let later = Utc::now() + chrono::TimeDelta::minutes(5);
        assert_eq!(store.sweep_incoming(later).await.expect("swept"), 1);
        assert_eq!(store.sweep_incoming(later).await.expect("swept"), 0);
        assert!(!file.path().exists());
        std::fs::remove_dir_all(root).expect("removed");
    }

    #[tokio::test]
    async fn folders_of_months_are_found_up_to_a_time_and_closed_when_they_are_empty() {
        let root = std::env::temp_dir().join(format!("entropy-store-{}", Uuid::now_v7()));
        let store = Store::new(&root, 100);
        let organization = Uuid::from_u128(1);
        for folder in ["2026/05", "2026/06", "2025/12", "2026/x", "26/01"] {
            std::fs::create_dir_all(root.join(organization.to_string()).join(folder)).expect("a folder");
        }
        std::fs::create_dir_all(root.join("incoming/2020/01")).expect("a folder");
        let name = format!("{}.png", Uuid::from_u128(2));
        for name in [name.as_str(), "notes.txt"] {
            let file = root.join(organization.to_string()).join("2025/12").join(name);
            std::fs::write(file, "x").expect("a file");
        }
        let before: DateTime<Utc> = "2026-05-20T00:00:00Z".parse().expect("a time");
        let folders = store.folders(before).await.expect("listed");
        let paths: Vec<&str> = folders.iter().map(|folder| &folder.path[37..]).collect();
        assert_eq!(paths, ["2025/12", "2026/05"]);
        let files = store.files(&folders[0]).await.expect("listed");
        assert_eq!(files, [File { message_id: Uuid::from_u128(2), name }]);
        assert!(store.remove(&folders[0], &files[0].name).await.expect("removed"));
        assert!(!store.remove(&folders[0], &files[0].name).await.expect("not there"));
        for folder in &folders {
            store.close(folder).await;
        }
        assert!(root.join(&folders[0].path).exists(), "what is none of ours stays");
        assert!(!root.join(&folders[1].path).exists());
        std::fs::remove_dir_all(root).expect("removed");
    }
}
