//! One running server process that does not outlive us.
//!
//! Beside each server runs a watchdog, a small shell that waits for a line on a pipe which only this
//! process holds. If the pipe closes without one, because this process crashed or was killed with `-9`,
//! the watchdog stops the server. (Linux can signal a child when its parent dies, but only through
//! unsafe code, and macOS cannot.) The server itself starts as a shell that waits for the watchdog to be
//! there and then becomes the server, so there is no moment in which nobody watches.
//!
//! Both are in process groups of their own, out of reach of the terminal's Ctrl-C.

use std::{
    fs::{File, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a server may take to stop before it is told so more firmly.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a condition is looked at that gives no signal.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A log beyond this size starts anew with the server.
const LARGEST_LOG: u64 = 16 << 20;

/// Becomes the server (its arguments) when a line arrives, and ends when the pipe does.
const SERVER: &str = r#"read -r _ || exit 0; exec "$@" </dev/null"#;

/// Arguments: the server's process id, the gentle and the firm signal, the directory to remove or "".
const WATCHDOG: &str = r#"
trap '' HUP INT QUIT TERM
read -r _ && exit 0
kill -s "$2" "$1"; kill -s CONT "$1"
n=0
while kill -0 "$1" && [ "$n" -lt 75 ]; do
    n=$((n + 1))
    [ "$n" -eq 50 ] && kill -s "$3" "$1"
    [ "$n" -eq 70 ] && kill -s KILL "$1"
    sleep 0.2
done
[ -z "$4" ] || rm -rf -- "$4"
"#;

/// The signals a server understands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signals {
    /// Finish what matters and exit.
    pub(super) gentle: Signal,
    /// Exit now, as in a crash, leaving no process behind.
    pub(super) firm: Signal,
}

/// A server and its watchdog. To be stopped or killed; only then it is reaped.
#[derive(Debug)]
pub(super) struct Process {
    server: Child,
    watchdog: Child,
    /// Closing it without a word is what wakes the watchdog.
    lifeline: ChildStdin,
    signals: Signals,
}

impl Process {
    /// Starts `server`, with its output going to `log`.
    ///
    /// `remove` is a directory to delete if this process ends without stopping the server.
    pub(super) fn spawn(
        server: &Command,
        mut gate: Command,
        log: &Log,
        signals: Signals,
        remove: Option<&Path>,
    ) -> anyhow::Result<Self> {
        gate.args(["-c", SERVER, "sh"]).arg(server.get_program()).args(server.get_args());
        gate.stdin(Stdio::piped())
            .stdout(log.file.try_clone()?)
            .stderr(log.file.try_clone()?)
            .process_group(0);
        let mut server = gate.spawn().context("cannot start a process as the server's user")?;
        // From here on an error closes the gate, and the shell behind it ends.
        let mut go = server.stdin.take().context("the server has no standard input")?;

        let mut watchdog = Command::new("/bin/sh");
        watchdog.args(["-c", WATCHDOG, "entropy-watchdog"]).arg(server.id().to_string());
        watchdog.args([signals.gentle, signals.firm].map(|signal| signal.as_str().trim_start_matches("SIG")));
        watchdog.arg(remove.unwrap_or(Path::new(""))).current_dir("/").process_group(0);
        watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut watchdog = watchdog.spawn().context("cannot start a watchdog")?;
        let lifeline = watchdog.stdin.take().context("the watchdog has no standard input")?;

        go.write_all(b"go\n").context("the server ended before it began")?;
        Ok(Self { server, watchdog, lifeline, signals })
    }

    pub(super) fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Returns how the server ended, if it has.
    pub(super) fn try_wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.server.try_wait().context("cannot ask after the server")
    }

    /// Stops the server gently, or less so if that takes too long.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        let Signals { gentle, firm } = self.signals;
        self.end(&[gentle, firm, Signal::SIGKILL])
    }

    /// Ends the server at once, as in a crash.
    pub(super) fn kill(self) -> anyhow::Result<()> {
        let firm = self.signals.firm;
        self.end(&[firm, Signal::SIGKILL])
    }

    fn end(mut self, signals: &[Signal]) -> anyhow::Result<()> {
        let ended = self.end_server(signals);
        // Only now: a server that we could not stop is still the watchdog's.
        if ended.is_ok() {
            let _ = self.lifeline.write_all(b"done\n");
            self.watchdog.wait().context("cannot wait for the watchdog")?;
        }
        ended
    }

    fn end_server(&mut self, signals: &[Signal]) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.server.id())?);
        for &signal in signals {
            if self.try_wait()?.is_some() {
                return Ok(());
            }
            // The process is ours and not yet reaped, so the number cannot be somebody else's.
            kill(pid, signal).with_context(|| format!("cannot send {signal} to process {pid}"))?;
            // A server that was suspended would not hear it.
            kill(pid, Signal::SIGCONT)?;
            let deadline = Instant::now() + PATIENCE;
            while Instant::now() < deadline {
                if self.try_wait()?.is_some() {
                    return Ok(());
                }
                sleep(LOOK_AGAIN);
            }
            tracing::warn!(%pid, %signal, "the server does not stop");
        }
        bail!("process {pid} does not end")
    }
}

/// The file that takes a server's output, and which locks its directory.
///
/// The lock belongs to the open file, which the server inherits as its standard output. So the kernel
/// keeps it locked until we, the server and every process of the server have ended.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log once nobody else writes to it, which may be an old server on its way out.
    pub(super) fn open(path: PathBuf, patience: Duration) -> anyhow::Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOOK_AGAIN),
                Err(TryLockError::WouldBlock) => {
                    bail!("another server uses the directory of {}", path.display())
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
        if file.metadata()?.len() > LARGEST_LOG {
            file.set_len(0)?;
        }
        Ok(Self { path, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the place that the next line will be written to.
    pub(super) fn end(&self) -> anyhow::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Returns what was written since `start`.
    pub(super) fn since(&self, start: u64) -> String {
        let read = || {
            // An own handle, for the place to write must not move.
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(LARGEST_LOG).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }
}
