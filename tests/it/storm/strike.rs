//! Carries a plan out, and watches that nothing dies which was not struck.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::plan::{APIS, Action, LEAVES_WITHIN, SCHEDULERS, Strike, Victim, WORKERS};
use crate::harness::process::{Frozen, Process};
use crate::harness::servers::RedisServer;
use crate::harness::{Platform, eventually, secs};
use crate::servers::Postgres;

/// How often it looks whether everybody lives who should.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// What a machine that is busy may add to the time in which a process leaves.
const LENIENCE: Duration = secs(2);

/// How long a store may take to come back.
const STORE_RETURNS: Duration = secs(30);

/// A platform under a storm.
#[derive(Debug)]
pub(crate) struct Storm<'a> {
    platform: RefCell<&'a mut Platform>,
    redis: RedisServer,
    postgres: Arc<Postgres>,
    began: Instant,
    /// Who is down, frozen or on its way out at this moment.
    struck: RefCell<BTreeSet<Victim>>,
    seen: RefCell<Seen>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What must not be: a process that died by itself, or that did not leave as it should.
    pub(crate) faults: Vec<String>,
    /// How long processes took to leave after SIGTERM.
    pub(crate) leaving: Vec<Duration>,
    /// Strikes that were carried out.
    pub(crate) strikes: usize,
    /// How long all workers were down or frozen at once.
    pub(crate) no_worker: Duration,
}

impl Storm<'_> {
    /// Prepares a storm that begins now.
    pub(crate) fn over(platform: &mut Platform) -> Storm<'_> {
        Storm {
            redis: platform.redis.clone(),
            postgres: platform.database.server(),
            platform: RefCell::new(platform),
            began: Instant::now(),
            struck: RefCell::default(),
            seen: RefCell::default(),
        }
    }

    /// Carries out `plan`, and returns when everybody is up again.
    pub(crate) async fn rage(self, plan: &[Strike]) -> Seen {
        let victims: BTreeSet<Victim> = plan.iter().map(|strike| strike.victim).collect();
        let suffering =
            futures::future::join_all(victims.into_iter().map(|victim| self.suffer(victim, plan)));
        tokio::select! {
            _ = suffering => {}
            () = self.watch() => {}
        }
        for victim in everybody() {
            self.look_after(victim);
        }
        self.seen.into_inner()
    }

    /// Carries out the strikes against one victim, one after the other.
    async fn suffer(&self, victim: Victim, plan: &[Strike]) {
        for strike in plan.iter().filter(|strike| strike.victim == victim) {
            tokio::time::sleep_until((self.began + strike.at).into()).await;
            self.look_after(victim);
            self.struck.borrow_mut().insert(victim);
            match victim {
                Victim::Redis => self.strike_redis(strike.action).await,
                Victim::Postgres => self.strike_postgres(strike.action).await,
                Victim::Api(_) | Victim::Worker(_) | Victim::Scheduler(_) => {
                    self.strike_process(victim, strike.action).await;
                }
            }
            self.struck.borrow_mut().remove(&victim);
            self.seen.borrow_mut().strikes += 1;
        }
    }

    async fn strike_process(&self, victim: Victim, action: Action) {
        match action {
            Action::Kill(down) => {
                self.with(victim, Process::kill);
                tokio::time::sleep(down).await;
                self.start(victim);
            }
            Action::Freeze(time) => {
                self.with(victim, |process| process.signal(Signal::SIGSTOP));
                tokio::time::sleep(time).await;
                self.with(victim, |process| process.signal(Signal::SIGCONT));
            }
            Action::Stop(pause) => {
                // Before its first word it does not listen for the signal yet.
                let spoken = || self.with(victim, |process| !process.log().is_empty());
                eventually(&format!("{victim} has said something"), STORE_RETURNS, async || spoken()).await;
                self.with(victim, |process| process.signal(Signal::SIGTERM));
                self.leave(victim).await;
                tokio::time::sleep(pause).await;
                self.start(victim);
            }
            Action::Crash(_) | Action::Forget(_) | Action::Flush => {
                unreachable!("only stores are dealt these")
            }
        }
    }

    /// Waits until a process has left that was asked to.
    async fn leave(&self, victim: Victim) {
        let asked = Instant::now();
        let status = loop {
            let status = self.with(victim, Process::status);
            if status.is_some() || asked.elapsed() > LEAVES_WITHIN + LENIENCE {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.seen.borrow_mut().leaving.push(asked.elapsed());
        match status {
            Some(status) if status.success() => {}
            Some(status) => self.fault(victim, &format!("answered SIGTERM with {}", words(status))),
            None => self.fault(victim, &format!("had not left {:?} after SIGTERM", asked.elapsed())),
        }
    }

    async fn strike_redis(&self, action: Action) {
        let server = self.redis.server();
        match action {
            Action::Kill(down) => {
                blocking(move || server.kill()).await;
                tokio::time::sleep(down).await;
                self.bring_back_redis().await;
            }
            Action::Forget(down) => {
                blocking(move || server.kill().and_then(|()| server.forget())).await;
                tokio::time::sleep(down).await;
                self.bring_back_redis().await;
            }
            Action::Freeze(time) => freeze(server.pid(), time).await,
            Action::Flush => {
                self.redis.command::<String>(&["FLUSHALL"]).await;
            }
            Action::Stop(_) | Action::Crash(_) => unreachable!("Redis is not dealt these"),
        }
    }

    async fn bring_back_redis(&self) {
        let server = self.redis.server();
        blocking(move || server.restart()).await;
    }

    async fn strike_postgres(&self, action: Action) {
        let server = self.postgres.clone();
        match action {
            Action::Kill(down) => {
                blocking(move || {
                    if let Some(pid) = server.pid() {
                        signal::kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
                    }
                    // It is gone; this lets go of it.
                    server.kill()
                })
                .await;
                tokio::time::sleep(down).await;
                self.bring_back_postgres().await;
            }
            Action::Crash(down) => {
                blocking(move || server.kill()).await;
                tokio::time::sleep(down).await;
                self.bring_back_postgres().await;
            }
            Action::Freeze(time) => freeze(server.pid(), time).await,
            Action::Stop(_) | Action::Forget(_) | Action::Flush => {
                unreachable!("Postgres is not dealt these")
            }
        }
    }

    /// Starts Postgres, which refuses for as long as a backend of the killed one lingers.
    async fn bring_back_postgres(&self) {
        let server = self.postgres.clone();
        blocking(move || {
            let deadline = Instant::now() + STORE_RETURNS;
            loop {
                match server.restart() {
                    Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(200)),
                    answer => return answer,
                }
            }
        })
        .await;
    }

    fn start(&self, victim: Victim) {
        let mut platform = self.platform.borrow_mut();
        match victim {
            Victim::Api(n) => platform.restart_api(n),
            Victim::Worker(n) => platform.replace_worker(n),
            Victim::Scheduler(n) => platform.replace_scheduler(n),
            Victim::Redis | Victim::Postgres => unreachable!("stores are started by their own servers"),
        }
    }

    fn with<T>(&self, victim: Victim, act: impl FnOnce(&mut Process) -> T) -> T {
        let mut platform = self.platform.borrow_mut();
        act(match victim {
            Victim::Api(n) => &mut platform.apis[n],
            Victim::Worker(n) => &mut platform.workers[n],
            Victim::Scheduler(n) => &mut platform.schedulers[n],
            Victim::Redis | Victim::Postgres => unreachable!("stores are not among the processes"),
        })
    }

    /// Looks for ever after those who are not struck.
    async fn watch(&self) {
        let workers: BTreeSet<Victim> = (0..WORKERS).map(Victim::Worker).collect();
        loop {
            for victim in everybody() {
                self.look_after(victim);
            }
            if self.struck.borrow().is_superset(&workers) {
                self.seen.borrow_mut().no_worker += WATCH_EVERY;
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    /// Notes it as a fault if somebody who was not struck has died, and starts it again.
    fn look_after(&self, victim: Victim) {
        if self.struck.borrow().contains(&victim) {
            return;
        }
        match victim {
            Victim::Api(_) | Victim::Worker(_) | Victim::Scheduler(_) => {
                if let Some(status) = self.with(victim, Process::status) {
                    self.fault(victim, &format!("died by itself: {}", words(status)));
                    self.start(victim);
                }
            }
            Victim::Redis => assert!(self.redis.server().pid().is_some(), "Redis died by itself"),
            Victim::Postgres => assert!(self.postgres.pid().is_some(), "Postgres died by itself"),
        }
    }

    fn fault(&self, victim: Victim, what: &str) {
        let (name, tail) = self.with(victim, |process| (process.name().to_owned(), process.tail(15)));
        let at = self.began.elapsed().as_secs_f64();
        self.seen.borrow_mut().faults.push(format!("{at:.1} s: {victim} ({name}) {what}\n{tail}"));
    }
}

fn everybody() -> impl Iterator<Item = Victim> {
    let apis = (0..APIS).map(Victim::Api);
    let workers = (0..WORKERS).map(Victim::Worker);
    let schedulers = (0..SCHEDULERS).map(Victim::Scheduler);
    apis.chain(workers).chain(schedulers).chain([Victim::Redis, Victim::Postgres])
}

async fn freeze(pid: Option<u32>, time: Duration) {
    let frozen = Frozen::with_children(pid.expect("a server that is not struck runs"));
    tokio::time::sleep(time).await;
    drop(frozen);
}

async fn blocking(act: impl FnOnce() -> anyhow::Result<()> + Send + 'static) {
    let done = tokio::task::spawn_blocking(act).await.expect("a store is struck");
    done.unwrap_or_else(|error| panic!("a store does not come back: {error:#}"));
}

fn words(status: ExitStatus) -> String {
    status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"))
}
