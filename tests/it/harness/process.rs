//! Child processes that end with the test, and their logs.
//!
//! They also end with the test run, if that is killed with `-9`: a small shell holds the list of them, and a pipe whose
//! other end only this process has.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::eventually;

/// The program under test.
pub(crate) const ENTROPY: &str = env!("CARGO_BIN_EXE_entropy");

/// Kills what is on its list when the pipe closes.
const WATCHDOG: &str = r#"
trap '' HUP INT QUIT TERM
list=""
dirs=""
while read -r op pid; do
    case "$op" in
        dir) dirs="$dirs $pid" ;;
        keep) dirs="" ;;
        add) list="$list $pid" ;;
        del) new=""; for p in $list; do [ "$p" = "$pid" ] || new="$new $p"; done; list="$new" ;;
    esac
done
for p in $list; do kill -s KILL "$p"; done
for d in $dirs; do rm -rf "$d"; done
"#;

#[expect(clippy::zombie_processes, reason = "it ends after us, so that we cannot wait for it")]
fn start_watchdog() -> ChildStdin {
    let mut watchdog = Command::new("/bin/sh")
        .args(["-c", WATCHDOG, "entropy-it-watchdog"])
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a watchdog");
    watchdog.stdin.take().expect("the watchdog's input")
}

static LIST: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| Mutex::new(start_watchdog()));

fn tell_watchdog(op: &str, what: impl Display) {
    let mut list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(list, "{op} {what}").expect("the watchdog listens");
}

/// Removes a directory without spaces in its name when the test run ends, unless [`keep_dirs`] is called.
pub(crate) fn remove_at_the_end(dir: &Path) {
    tell_watchdog("dir", dir.display());
}

/// Keeps all directories that would be removed: somebody will want to read them.
pub(crate) fn keep_dirs() {
    tell_watchdog("keep", "");
}

/// A process of the program under test. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `entropy ARGS` with nothing of our environment but `env`. Its output is appended to `dir/name.log`.
    pub(crate) fn start(name: &str, args: &[&str], env: &[(String, String)], dir: &Path) -> Process {
        Process::start_program(Path::new(ENTROPY), name, args, env, dir)
    }

    /// Starts another program in the same way.
    pub(crate) fn start_program(
        program: &Path,
        name: &str,
        args: &[&str],
        env: &[(String, String)],
        dir: &Path,
    ) -> Process {
        let log = dir.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).expect("a log file");
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .current_dir(dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log file"))
            .stderr(output)
            .spawn()
            .expect("the program starts");
        tell_watchdog("add", child.id());
        Process { name: name.to_owned(), child, log }
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: `SIGTERM` to stop it, `SIGSTOP` to freeze it, `SIGCONT` to let it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        // It is ours and not yet reaped, so the number cannot be somebody else's.
        signal::kill(pid, signal).unwrap_or_else(|error| panic!("{} gets no {signal}: {error}", self.name));
    }

    /// Ends it as `kill -9` does, and returns when it is gone.
    pub(crate) fn kill(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        tell_watchdog("del", self.child.id());
    }

    /// Returns how it ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its status")
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(&mut self, timeout: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, timeout, async || self.child.try_wait().expect("its status")).await
    }

    /// Panics with its last words if it has ended.
    pub(crate) fn assert_lives(&mut self) {
        if let Some(status) = self.child.try_wait().expect("its status") {
            let how = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
            panic!("{} has ended ({how}):\n{}", self.name, self.tail(30));
        }
    }

    /// Returns all that it has written.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns the last lines that it has written.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// A server and its child processes, none of which runs until the value is dropped.
///
/// A signal to a server's first process freezes that one alone: the backends of Postgres go on without it.
#[derive(Debug)]
pub(crate) struct Frozen {
    pids: Vec<Pid>,
}

impl Frozen {
    /// Freezes a process that is ours, and its children.
    pub(crate) fn with_children(pid: u32) -> Frozen {
        let mut frozen = Frozen { pids: Vec::new() };
        // The parent first: afterwards it starts no others.
        frozen.add(pid);
        for child in children(pid) {
            frozen.add(child);
        }
        frozen
    }

    fn add(&mut self, pid: u32) {
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
        // A child may have ended meanwhile. It is not reaped while its parent is frozen, so the number is still its own.
        if signal::kill(pid, Signal::SIGSTOP).is_ok() {
            // Whoever kills the test run must not leave a frozen server behind, which hears nothing but SIGKILL.
            tell_watchdog("add", pid);
            self.pids.push(pid);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for &pid in self.pids.iter().rev() {
            tell_watchdog("del", pid);
            let _ = signal::kill(pid, Signal::SIGCONT);
        }
    }
}

/// Returns the children of a process.
fn children(pid: u32) -> Vec<u32> {
    // Not every system has `/proc`, and not every one that has it also has `ps`.
    let list = |path: &Path| -> Option<(u32, u32)> {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        // The name of the program, in parentheses, may hold anything.
        let (before, after) = (stat.split(' ').next()?, stat.rsplit_once(") ")?.1);
        Some((before.parse().ok()?, after.split(' ').nth(1)?.parse().ok()?))
    };
    let mut all: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| list(&entry.path()))
        .collect();
    if all.is_empty() {
        let output = Command::new("ps").args(["-A", "-o", "pid=", "-o", "ppid="]).output().expect("ps runs");
        let pair = |line: &str| {
            let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
            Some((numbers.next()??, numbers.next()??))
        };
        all = String::from_utf8_lossy(&output.stdout).lines().filter_map(pair).collect();
    }
    all.into_iter().filter(|&(_, parent)| parent == pid).map(|(child, _)| child).collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
