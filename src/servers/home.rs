//! The directory in which one `entropy dev` keeps its servers.

use std::{
    fs::{self, File, Permissions, TryLockError},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// The number of `entropy dev` that may run in one folder.
const MOST: usize = 32;

/// A directory that belongs to this process until the value is dropped.
#[derive(Debug)]
pub(crate) struct Home {
    dir: PathBuf,
    _lock: File,
}

impl Home {
    /// Claims `.entropy` below `folder`, or `.entropy/2`, `.entropy/3` and so on if it is taken.
    ///
    /// The claim ends with the process, however it ends.
    pub(crate) fn claim(folder: &Path) -> anyhow::Result<Self> {
        let first = folder.join(".entropy");
        for number in 1..=MOST {
            let dir = if number == 1 { first.clone() } else { first.join(number.to_string()) };
            if let Some(home) = Self::try_claim(dir)? {
                return Ok(home);
            }
        }
        bail!("{MOST} other processes use {}", first.display())
    }

    /// Returns the claimed directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns where Postgres belongs in it.
    pub(crate) fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }

    /// Returns where Redis belongs in it.
    pub(crate) fn redis(&self) -> PathBuf {
        self.dir.join("redis")
    }

    fn try_claim(dir: PathBuf) -> anyhow::Result<Option<Self>> {
        if !dir.exists() {
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            // Whatever the umask: the user that Postgres runs as has to pass through. The servers'
            // own directories are closed to others.
            fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
        }
        let path = dir.join("lock");
        let lock =
            File::options().create(true).truncate(false).write(true).open(&path).with_context(|| {
                format!("cannot write {}; does it belong to another user?", path.display())
            })?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { dir, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}
