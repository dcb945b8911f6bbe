//! Where a server lives, and as whom it runs.
//!
//! Postgres refuses to run as root, so root hands it to an unprivileged user. That user has to reach the
//! directory. If it cannot, as with a clone below `/root`, the data goes to `/var/lib/entropy`.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, Permissions},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use nix::unistd::{Uid, User};

/// Where the data goes that its user could not reach otherwise.
const FALLBACK: &str = "/var/lib/entropy";

/// Whether a server may run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// It may, but data of an ordinary user stays with that user.
    Allowed,
    /// It refuses.
    Refused,
}

/// A directory for one server, and the user it runs as.
#[derive(Debug)]
pub(crate) struct Place {
    dir: PathBuf,
    /// `None` is the user of this process.
    account: Option<Account>,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Place {
    /// Creates `wanted` if it is missing, closed to other users, or its stand-in if the server's user
    /// cannot reach it.
    pub(super) fn make(wanted: &Path, root: Root) -> anyhow::Result<Self> {
        let wanted = std::path::absolute(wanted)?;
        let fallback = fallback(&wanted);
        // Once moved, always moved: the data is there, even if the directory can be reached by now.
        if Uid::effective().is_root() && root == Root::Refused && fallback.exists() {
            return Self::make_exactly(fallback, root);
        }
        let place = Self::make_exactly(wanted, root)?;
        if place.is_reachable()? {
            return Ok(place);
        }
        tracing::warn!(wanted = %place.dir.display(), used = %fallback.display(),
            "the user that the server runs as cannot reach its directory, so it lives elsewhere");
        // Fails if it holds something, and then it may stay.
        let _ = fs::remove_dir(&place.dir);
        fs::create_dir_all(FALLBACK).with_context(|| format!("cannot create {FALLBACK}"))?;
        fs::set_permissions(FALLBACK, Permissions::from_mode(0o755))?;
        let place = Self::make_exactly(fallback, root)?;
        if !place.is_reachable()? {
            bail!("the server's user cannot reach {}", place.dir.display());
        }
        Ok(place)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns a command that will run in the directory, as the server's user, and with nothing of our
    /// environment but the search path.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).env_clear().stdin(Stdio::null());
        // English messages, because some are read; and Postgres on macOS insists on a locale.
        command.env("LC_ALL", "C").env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Writes a file that only the server's user can read.
    pub(super) fn write_private(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.join(name);
        let write = || {
            fs::write(&path, "")?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            fs::write(&path, content)?;
            self.own(&path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Creates a directory that only the server's user can enter.
    pub(super) fn create_private_dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.join(name);
        make_dir(&path)?;
        self.own(&path)?;
        Ok(path)
    }

    fn make_exactly(dir: PathBuf, root: Root) -> anyhow::Result<Self> {
        let account = Account::for_server(&dir, root)?;
        make_dir(&dir)?;
        let place = Self { dir, account };
        let own = place.own(&place.dir);
        own.with_context(|| format!("cannot give {} to the server's user", place.dir.display()))?;
        Ok(place)
    }

    fn is_reachable(&self) -> anyhow::Result<bool> {
        let mut command = self.command("/bin/sh");
        command.current_dir("/").args(["-c", "cd -- \"$1\"", "sh"]).arg(&self.dir).stderr(Stdio::null());
        Ok(command.status().context("cannot run a shell as the server's user")?.success())
    }

    /// Gives a file to the server's user.
    pub(super) fn own(&self, path: &Path) -> std::io::Result<()> {
        self.account.map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
    }
}

impl Account {
    fn for_server(dir: &Path, root: Root) -> anyhow::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        // Data belongs to the user who made it, and Postgres insists on that.
        if let Ok(found) = fs::metadata(dir)
            && found.uid() != 0
        {
            return Ok(Some(Self { uid: found.uid(), gid: found.gid() }));
        }
        if root == Root::Allowed {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name)? {
                return Ok(Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
            }
        }
        bail!("Postgres does not run as root, and there is neither a user `postgres` nor `nobody`")
    }
}

fn make_dir(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let make = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        DirBuilder::new().mode(0o700).create(path)
    };
    make().with_context(|| format!("cannot create {}", path.display()))
}

/// Names the stand-in after the path it stands for, so that the same clone finds its data again.
fn fallback(wanted: &Path) -> PathBuf {
    let name = wanted.to_string_lossy().replace('-', "--").replace('/', "-");
    Path::new(FALLBACK).join(name.trim_start_matches('-'))
}
