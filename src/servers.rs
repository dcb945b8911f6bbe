//! Private Postgres and Redis servers for `entropy dev` and for the tests.
//!
//! This module starts servers of its own on free ports of 127.0.0.1, watches over them and stops them.
//! It never touches a server that it did not start, and it knows nothing of jobs, tables or queues.
//! [`Server`] has the life of a server in it; `postgres` and `redis` say what is special about each.
//!
//! Three things hold for both servers:
//!
//! - They live no longer than the process that started them, even if that is killed with `-9`
//!   (see `process`).
//! - Ctrl-C in the terminal does not reach them, so that the caller decides who stops first.
//! - A directory is used by one server at a time; the next one waits until the last has let go.
//!
//! All calls block, at worst for some seconds: from async code use `tokio::task::spawn_blocking`.
//! The module is self-contained because the integration tests include it by path.

// `entropy dev` and the tests each use a part of what is here.
#![allow(dead_code, reason = "included by two crates, and each leaves something unused")]

// With explicit paths the files are found from `tests/it` too.
#[path = "servers/home.rs"]
mod home;
#[path = "servers/place.rs"]
mod place;
#[path = "servers/postgres.rs"]
mod postgres;
#[path = "servers/process.rs"]
mod process;
#[path = "servers/redis.rs"]
mod redis;
#[path = "servers/server.rs"]
mod server;

use std::{
    fs::File,
    io::{ErrorKind, Read},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use anyhow::Context;

#[allow(unused_imports, reason = "the tests need no home, and `entropy dev` needs no name for a server")]
pub(crate) use self::{home::Home, server::Server};

/// A private Postgres with an empty database `entropy` owned by the superuser `entropy`.
pub(crate) type Postgres = Server<postgres::Postgres>;

/// A private Redis that keeps an append-only file and never evicts.
pub(crate) type Redis = Server<redis::Redis>;

/// How a server treats its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// What survives a power cut.
    pub(crate) durability: Durability,
    /// What becomes of the directory when the server goes for good.
    pub(crate) afterwards: Afterwards,
}

/// What survives a power cut.
///
/// Both survive the death of any process: Postgres always answers a commit after the write, and Redis
/// writes every command to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// As in production: Postgres syncs every commit, Redis once a second.
    Full,
    /// Nothing is synced, which is several times faster.
    TestFast,
}

/// What becomes of the directory when the server goes for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// The data waits for the next start.
    Keep,
    /// The whole directory is removed, also when the process was killed.
    ///
    /// It must be empty or absent at the start.
    Remove,
}

impl Options {
    /// Durable, and kept for next time.
    pub(crate) fn dev() -> Self {
        Self { durability: Durability::Full, afterwards: Afterwards::Keep }
    }

    /// Quick, and gone afterwards.
    pub(crate) fn test() -> Self {
        Self { durability: Durability::TestFast, afterwards: Afterwards::Remove }
    }
}

/// Returns a TCP port of 127.0.0.1 that nobody listens on at this moment.
///
/// Somebody else may take it before the caller does; the servers here then try another one.
/// The port lies below the range from which systems take the ports of outgoing connections. A client
/// that keeps trying to reach a stopped server in that range may end up connected to itself, and
/// occupy the port for good.
pub(crate) fn free_port() -> u16 {
    // Listening on the port would be the surer question. But a process that another thread is just
    // starting holds a copy of the socket for a moment, in which the port is not free.
    let is_free = |port: &u16| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        let answer = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    // One after the other, so that two callers of one process never get the same port before one of them listens.
    let mut candidates =
        std::iter::repeat_with(|| PORTS.start + NEXT_PORT.fetch_add(1, Ordering::Relaxed) % PORTS_LEN);
    candidates.find(is_free).unwrap_or_default()
}

/// The ports that [`free_port`] gives out.
const PORTS: Range<u16> = 20_000..32_000;
const PORTS_LEN: u16 = PORTS.end - PORTS.start;

/// Begins anywhere, so that programs that start at once seldom meet.
static NEXT_PORT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..PORTS_LEN)));

/// Makes a password that keeps other users of the machine out, of characters that no URL has to escape.
fn random_password() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 20];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("no randomness")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
