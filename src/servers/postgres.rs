//! What is special about Postgres.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;

use super::{
    Durability, Options,
    place::{Place, Root},
    process::Signals,
    server::Program,
};

/// Enough for the pools of a dozen processes.
const MAX_CONNECTIONS: u16 = 200;

/// A Postgres that keeps its data in `data/` and the superuser's password in `password`.
#[derive(Debug)]
pub(crate) struct Postgres {
    programs: PathBuf,
    durability: Durability,
    password: String,
}

impl Program for Postgres {
    const NAME: &'static str = "postgres";
    const ROOT: Root = Root::Refused;
    // SIGQUIT to the first process ends the others as well, without a checkpoint; after SIGKILL they
    // would linger, and block the next start.
    const SIGNALS: Signals = Signals { gentle: Signal::SIGINT, firm: Signal::SIGQUIT };

    fn prepare(place: &Place, options: &Options) -> anyhow::Result<Self> {
        let programs = find()?;
        let password = place.join("password");
        if place.join("data").exists() {
            let password = fs::read_to_string(&password).with_context(|| {
                format!("cannot read {}; without it, remove the directory", password.display())
            })?;
            forget_false_owner(&place.join("data/postmaster.pid"));
            return Ok(Self { programs, durability: options.durability, password });
        }
        place.write_private("password", &super::random_password()?)?;
        let password = fs::read_to_string(&password)?;
        let server = Self { programs, durability: options.durability, password };
        server.init(place)?;
        Ok(server)
    }

    fn command(&self, place: &Place, port: u16) -> anyhow::Result<Command> {
        let mut command = Command::new(self.programs.join("postgres"));
        command.arg("-D").arg(place.join("data"));
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        set("listen_addresses", "127.0.0.1");
        set("port", &port.to_string());
        set("unix_socket_directories", "");
        set("max_connections", &MAX_CONNECTIONS.to_string());
        set("shared_buffers", "128MB");
        set("timezone", "UTC");
        set("log_timezone", "UTC");
        set("log_destination", "stderr");
        set("logging_collector", "off");
        set("synchronous_commit", "on");
        if self.durability == Durability::TestFast {
            set("fsync", "off");
            set("full_page_writes", "off");
        }
        Ok(command)
    }

    fn answers(&self, place: &Place, port: u16, pid: u32) -> bool {
        is_announced(&place.join("data/postmaster.pid"), pid) && asks_for_password(port)
    }

    fn url(&self, port: u16) -> String {
        format!("postgres://entropy:{}@127.0.0.1:{port}/entropy", self.password)
    }
}

impl Postgres {
    /// Makes the data directory with the database in it, wholly or not at all.
    fn init(&self, place: &Place) -> anyhow::Result<()> {
        let unfinished = place.join("data.new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        let sync = self.durability == Durability::Full;

        let mut initdb = place.command(self.programs.join("initdb"));
        initdb.arg("--pgdata").arg(&unfinished).args(["--username", "entropy", "--auth", "scram-sha-256"]);
        initdb.arg("--pwfile").arg(place.join("password"));
        // The C locale is the same on every system, and sorts identifiers fast. But it knows no letters beyond ASCII, and
        // the index of messages is made of letters.
        let letters = if cfg!(target_os = "macos") { "UTF-8" } else { "C.UTF-8" };
        initdb.args(["--encoding", "UTF8", "--locale", "C", "--lc-ctype", letters]);
        initdb.args((!sync).then_some("--no-sync"));
        run(&mut initdb, "")?;

        // Single-user mode needs no port and no client.
        let mut single = place.command(self.programs.join("postgres"));
        single.args(["--single", "-D"]).arg(&unfinished).arg("-c").arg(format!("fsync={sync}"));
        let said = run(single.arg("postgres"), "CREATE DATABASE entropy\n")?;
        if said.contains("ERROR:") {
            bail!("cannot create the database `entropy`:\n{said}");
        }
        fs::rename(&unfinished, place.join("data")).context("cannot name the data directory")
    }
}

/// Finds the directory with `initdb` and `postgres`, which is rarely on the search path.
fn find() -> anyhow::Result<PathBuf> {
    let configured = Command::new("pg_config").arg("--bindir").stderr(Stdio::null()).output();
    let configured = configured.ok().filter(|output| output.status.success());
    let configured = configured.map(|output| String::from_utf8_lossy(&output.stdout).trim().into());

    let mut versions = Vec::new();
    for (parent, prefix) in
        [("/usr/lib/postgresql", ""), ("/opt/homebrew/opt", "postgresql@"), ("/usr/local/opt", "postgresql@")]
    {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix));
            if let Some(version) = version.and_then(|version| version.parse::<u32>().ok()) {
                versions.push((version, entry.path().join("bin")));
            }
        }
    }
    versions.sort();
    let newest_first = versions.into_iter().rev().map(|(_, dir)| dir);

    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path);
    let is_complete = |dir: &PathBuf| ["initdb", "postgres"].iter().all(|name| dir.join(name).is_file());
    let mut candidates = configured.into_iter().chain(newest_first).chain(on_path);
    candidates.find(is_complete).context("initdb and postgres are not installed; ./dev installs them")
}

/// Whether the server process has written that it accepts connections, as `pg_ctl --wait` asks.
fn is_announced(pid_file: &Path, pid: u32) -> bool {
    let content = fs::read_to_string(pid_file).unwrap_or_default();
    let mut lines = content.lines().map(str::trim);
    lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
}

/// Whether a server begins to talk: `R` asks for the password, `E` is one that is still starting.
fn asks_for_password(port: u16) -> bool {
    let ask = || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        // The startup message: its length, version 3.0 of the protocol, names and values.
        let names = b"user\0entropy\0database\0entropy\0\0";
        let length = u32::try_from(8 + names.len()).unwrap_or_default();
        let mut message = length.to_be_bytes().to_vec();
        message.extend(196_608_u32.to_be_bytes());
        message.extend(names);
        stream.write_all(&message)?;
        // Room for all of it: bytes left unread would be a broken connection in the server's log.
        let mut answer = [0; 512];
        let length = stream.read(&mut answer)?;
        Ok::<_, std::io::Error>(answer[..length].first() == Some(&b'R'))
    };
    ask().unwrap_or(false)
}

/// Removes a pid file whose number now belongs to another program.
///
/// We hold the directory's lock, so no server of ours is behind it. Postgres would believe in it: after
/// the restart of a container or a machine the same small numbers come again. Anything that might be a
/// Postgres is left for Postgres to judge.
fn forget_false_owner(pid_file: &Path) {
    let content = fs::read_to_string(pid_file).unwrap_or_default();
    let Some(pid) = content.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else { return };
    let program = fs::read_to_string(format!("/proc/{pid}/comm"));
    if program.is_ok_and(|program| !program.starts_with("post")) {
        tracing::debug!(pid, "the last postgres left its pid file, and another program has its number");
        let _ = fs::remove_file(pid_file);
    }
}

/// Runs a tool with `input` to its end, and returns what it said.
fn run(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let name = Path::new(command.get_program()).display().to_string();
    let mut attempt = || {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = attempt().with_context(|| format!("cannot run {name}"))?;
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if !output.status.success() {
        bail!("{name} failed ({}):\n{said}", output.status);
    }
    Ok(said)
}
