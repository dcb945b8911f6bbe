//! The life of a server: start, restart, stop, kill.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{
    Afterwards, Options, free_port,
    place::{Place, Root},
    process::{LOOK_AGAIN, Log, Process, Signals},
};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many ports are tried, each of which somebody else may take before the server does.
const PORTS: usize = 10;

/// What one kind of server needs to know about itself.
pub(crate) trait Program: Sized {
    /// The name in messages and of the log file.
    const NAME: &'static str;
    /// Whether it may run as root.
    const ROOT: Root;
    /// The signals that it understands.
    const SIGNALS: Signals;

    /// Prepares an empty directory for the first start, or takes up the one of the last time.
    fn prepare(place: &Place, options: &Options) -> anyhow::Result<Self>;

    /// Returns the program and the arguments that start it in the foreground.
    fn command(&self, place: &Place, port: u16) -> anyhow::Result<Command>;

    /// Whether it is really this process that serves, and answers.
    fn answers(&self, place: &Place, port: u16, pid: u32) -> bool;

    /// Returns the address for clients, with the password in it.
    fn url(&self, port: u16) -> String;
}

/// A server of our own, which ends with the value or with the process, whichever is first.
#[derive(Debug)]
pub(crate) struct Server<P: Program> {
    program: P,
    place: Place,
    log: Log,
    options: Options,
    port: u16,
    /// `None` between a stop and a restart.
    process: Mutex<Option<Process>>,
}

impl<P: Program> Server<P> {
    /// Starts a server in `dir`, a directory for nothing else, and returns when it answers.
    ///
    /// Creates what is missing, and waits a while for a server that is just leaving the directory.
    /// As root, the directory may be another one, see [`Server::dir`].
    pub(crate) fn start(dir: &Path, options: Options) -> anyhow::Result<Self> {
        Self::try_start(dir, options).with_context(|| format!("cannot start {}", P::NAME))
    }

    fn try_start(dir: &Path, options: Options) -> anyhow::Result<Self> {
        let place = Place::make(dir, P::ROOT)?;
        if options.afterwards == Afterwards::Remove && fs::read_dir(place.dir())?.next().is_some() {
            bail!("{} is not empty, and would be removed afterwards", place.dir().display());
        }
        let log = Log::open(place.join(&format!("{}.log", P::NAME)), PATIENCE)?;
        // The next time, the user may run this without root.
        place.own(log.path())?;
        let program = P::prepare(&place, &options)?;
        let mut server = Self { program, place, log, options, port: 0, process: Mutex::new(None) };
        for _ in 0..PORTS {
            server.port = free_port();
            if let Launch::Running(process) = server.launch()? {
                *server.process() = Some(process);
                return Ok(server);
            }
        }
        bail!("{PORTS} ports in a row were taken as soon as they were chosen")
    }

    /// Returns the address for clients. It holds a password, and stays the same over restarts.
    pub(crate) fn url(&self) -> String {
        self.program.url(self.port)
    }

    /// Returns the port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory that the server really lives in.
    pub(crate) fn dir(&self) -> &Path {
        self.place.dir()
    }

    /// Returns the file with the server's output.
    pub(crate) fn log(&self) -> &Path {
        self.log.path()
    }

    /// Returns the process id, for tests that suspend it; `None` if the server does not run.
    pub(crate) fn pid(&self) -> Option<u32> {
        let mut process = self.process();
        let process = process.as_mut()?;
        matches!(process.try_wait(), Ok(None)).then(|| process.pid())
    }

    /// Stops the server, gently at first. Stopping it twice does no harm.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        let process = self.process().take();
        process.map_or(Ok(()), Process::stop).with_context(|| format!("cannot stop {}", P::NAME))
    }

    /// Ends the server as a crash would, and returns when it is gone.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        let process = self.process().take();
        process.map_or(Ok(()), Process::kill).with_context(|| format!("cannot kill {}", P::NAME))
    }

    /// Starts the server again on the same port, after stopping it if it runs.
    pub(crate) fn restart(&self) -> anyhow::Result<()> {
        self.stop()?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let launch = self.launch().with_context(|| format!("cannot restart {}", P::NAME))?;
            if let Launch::Running(process) = launch {
                *self.process() = Some(process);
                return Ok(());
            }
            sleep(Duration::from_millis(200));
        }
        bail!("cannot restart {}: something else listens on port {}", P::NAME, self.port)
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let start = self.log.end()?;
        let command = self.program.command(&self.place, self.port)?;
        let remove = (self.options.afterwards == Afterwards::Remove).then(|| self.place.dir());
        let gate = self.place.command("/bin/sh");
        let mut process = Process::spawn(&command, gate, &self.log, P::SIGNALS, remove)?;
        let deadline = Instant::now() + PATIENCE;
        let problem = loop {
            if let Some(status) = process.try_wait()? {
                if self.log.since(start).contains("Address already in use") {
                    process.kill()?;
                    return Ok(Launch::PortTaken);
                }
                break format!("it ended ({status})");
            }
            if self.program.answers(&self.place, self.port, process.pid()) {
                tracing::debug!(server = P::NAME, port = self.port, pid = process.pid(), "server started");
                return Ok(Launch::Running(process));
            }
            if Instant::now() > deadline {
                break format!("it does not answer after {} s", PATIENCE.as_secs());
            }
            sleep(LOOK_AGAIN);
        };
        process.kill()?;
        let log = self.log.since(start);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        bail!("{problem}; the end of {}:\n{tail}", self.log.path().display())
    }

    /// A panic in one test must not keep another from stopping the server.
    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Program> Drop for Server<P> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(error = format!("{error:#}"), "a server is left to its watchdog");
        } else if self.options.afterwards == Afterwards::Remove
            && let Err(error) = fs::remove_dir_all(self.dir())
        {
            tracing::warn!(%error, dir = %self.dir().display(), "cannot remove the server's directory");
        }
    }
}

enum Launch {
    Running(Process),
    PortTaken,
}
