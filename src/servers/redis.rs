//! What is special about Redis.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use super::{
    Durability, Options,
    place::{Place, Root},
    process::Signals,
    server::{Program, Server},
};

/// A Redis that keeps its data in `data/`.
#[derive(Debug)]
pub(crate) struct Redis {
    program: &'static str,
    fsync: &'static str,
    password: String,
}

impl Program for Redis {
    const NAME: &'static str = "redis";
    const ROOT: Root = Root::Allowed;
    const SIGNALS: Signals = Signals { gentle: Signal::SIGTERM, firm: Signal::SIGKILL };

    fn prepare(place: &Place, options: &Options) -> anyhow::Result<Self> {
        place.create_private_dir("data")?;
        let fsync = match options.durability {
            Durability::Full => "everysec",
            Durability::TestFast => "no",
        };
        Ok(Self { program: find()?, fsync, password: super::random_password()? })
    }

    fn command(&self, place: &Place, port: u16) -> anyhow::Result<Command> {
        // A file and not arguments, which everybody could read. `dir` is relative to the server's own
        // directory, so that no path has to be quoted.
        let Self { fsync, password, .. } = self;
        let config = format!(
            "bind 127.0.0.1\nport {port}\nrequirepass {password}\ndaemonize no\ndir ./data\n\
             save \"\"\nappendonly yes\nappendfsync {fsync}\nmaxmemory-policy noeviction\n"
        );
        place.write_private("redis.conf", &config)?;
        let mut command = Command::new(self.program);
        command.arg(place.join("redis.conf"));
        Ok(command)
    }

    fn answers(&self, _place: &Place, port: u16, _pid: u32) -> bool {
        // The password is new with every start, so no other server can give this answer.
        let ask = || {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            write!(stream, "AUTH {}\r\nPING\r\n", self.password)?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        ask().is_ok_and(|answer| answer == *b"+OK\r\n+PONG\r\n")
    }

    fn url(&self, port: u16) -> String {
        format!("redis://:{}@127.0.0.1:{port}/", self.password)
    }
}

impl Server<Redis> {
    /// Removes what the server has stored, as a lost disk would: it starts again empty. It must not run.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        if self.pid().is_some() {
            bail!("redis runs; stop it before its file is removed");
        }
        for entry in fs::read_dir(self.dir().join("data"))? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

/// Finds Redis, or the fork that some distributions ship in its place.
fn find() -> anyhow::Result<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = ["redis-server", "valkey-server"]
        .into_iter()
        .find(|name| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    match found {
        Some(name) => Ok(name),
        None => bail!("redis-server is not on the PATH; ./dev installs it"),
    }
}
