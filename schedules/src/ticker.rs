//! Keeps the time: apalis-cron notices the ticks, and a task beside it records them.
//!
//! ```text
//!   apalis worker (Clock) ──Start, Tick──► inbox ──► record, with retries ──► Book
//! ```
//!
//! The two are apart because an apalis worker takes its running handlers with it when it ends, and apalis-cron ends it
//! whenever a poll comes late. No tick falls between two workers: each starts from a moment, ticks up to that moment
//! are looked up as missed ones, and ticks after it are the worker's.
//!
//! The clock is this machine's, as apalis-cron's is. Schedulers whose clocks differ still make one job of a tick.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use apalis::prelude::{BoxDynError, Monitor, WorkerBuilder};
use apalis_cron::{CronScheduler, Tick};
use chrono::{DateTime, Utc};
use entropy_jobs::wake::Waker;
use entropy_schema::Db;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::book::Book;
use crate::due::{Moment, is_overtaken};
use crate::entries::Entry;

/// Runs a timetable.
#[derive(Debug, Clone)]
pub struct Ticker {
    book: Book,
}

/// How long one worker keeps the time. The next one asks the clock anew: timers do not notice that a machine slept or
/// that its clock was set.
const SHIFT: Duration = Duration::from_secs(600);

/// Pause before a worker that ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// How long an ending worker may take. Its handler only passes ticks on.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Wait after a first failed try to record; it doubles up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// Ticks that wait to be recorded. They are drained at the pace of ticks, so this is never reached in practice.
const INBOX: usize = 16;

impl Ticker {
    /// Prepares a ticker that records in `db` and wakes relays through `waker`.
    pub fn new(db: Db, waker: Waker) -> Ticker {
        Ticker { book: Book::new(db, waker) }
    }

    /// Enqueues a job at every tick of `entries` until `stop`.
    ///
    /// No outside failure ends it. An error means a bug: a schedule panicked, and the process had better be restarted
    /// than go on without it.
    pub async fn run(&self, entries: Vec<Entry>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut running = JoinSet::new();
        for entry in entries {
            tracing::info!(schedule = entry.name, next = ?entry.next_after(Utc::now()), "schedule started");
            let (inbox, moments) = mpsc::channel(INBOX);
            running.spawn(unless_stopped(stop.clone(), record(self.book.clone(), entry.clone(), moments)));
            running.spawn(keep_time(entry, inbox, stop.clone()));
        }
        while let Some(ended) = running.join_next().await {
            ended.context("a schedule failed")?;
        }
        Ok(())
    }
}

/// Passes the moments of `entry` on until `stop`, one apalis worker after the other.
async fn keep_time(entry: Entry, inbox: mpsc::Sender<Moment>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let start = Utc::now();
        if inbox.send(Moment::Start(start)).await.is_err() {
            return;
        }
        let ended_by_itself = work(&entry, start, &inbox, &stop).await;
        if ended_by_itself {
            unless_stopped(stop.clone(), tokio::time::sleep(RESTART_PAUSE)).await;
        }
    }
}

/// Runs one apalis worker for a shift, or until `stop`. Tells whether it ended before that.
async fn work(
    entry: &Entry,
    start: DateTime<Utc>,
    inbox: &mpsc::Sender<Moment>,
    stop: &CancellationToken,
) -> bool {
    let clock = Clock { entry: entry.clone(), last: start };
    let (name, inbox) = (entry.name, inbox.clone());
    let build = move |_restarts| {
        let inbox = inbox.clone();
        WorkerBuilder::new(name).backend(CronScheduler::new(clock.clone())).build(move |tick: Tick| {
            let inbox = inbox.clone();
            async move {
                if let Some(fire_at) = fire_time(&tick) {
                    inbox.send(Moment::Tick(fire_at)).await?;
                }
                Ok::<_, BoxDynError>(())
            }
        })
    };
    let shift_over = CancellationToken::new();
    let over = shift_over.clone();
    let stopping = stop.clone();
    let ran = Monitor::new()
        // Without a time limit the monitor waits for its signal even when its worker is dead.
        .shutdown_timeout(SHUTDOWN)
        .should_restart(move |_, error| {
            // Restarting is ours: the monitor would do it at once, and with the old start.
            tracing::warn!(schedule = name, %error, "the clock ended; starting it again");
            false
        })
        .register(build)
        .run_with_signal(async move {
            unless_stopped(stopping, tokio::time::sleep(SHIFT)).await;
            over.cancel();
            Ok(())
        })
        .await;
    if let Err(error) = ran {
        tracing::warn!(schedule = name, %error, "the monitor of the clock ended badly");
    }
    !shift_over.is_cancelled()
}

/// Records moments in their order, each until it is written or a later tick stands for it.
async fn record(book: Book, entry: Entry, mut moments: mpsc::Receiver<Moment>) {
    while let Some(moment) = moments.recv().await {
        let mut pause = FIRST_RETRY;
        loop {
            if is_overtaken(&entry, moment, Utc::now()) {
                tracing::warn!(schedule = entry.name, ?moment, "given up for a later tick");
                break;
            }
            match book.settle(&entry, moment).await {
                Ok(()) => break,
                Err(error) => tracing::warn!(schedule = entry.name, ?moment, %error, "not recorded yet"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }
}

/// Names the ticks to apalis-cron, one after the other.
///
/// The crate's own way asks for the first tick after now at each call: it would leave out what came due between two
/// calls, and in the hour that a clock repeats it answers with times that are past. This one leaves out nothing; a
/// tick that is past by the time it is polled ends the worker, and its successor looks the tick up.
#[derive(Debug, Clone)]
struct Clock {
    entry: Entry,
    last: DateTime<Utc>,
}

impl apalis_cron::Schedule<Utc> for Clock {
    fn next_tick(&mut self, _: &Utc) -> Option<Tick> {
        self.last = self.entry.next_after(self.last)?;
        u64::try_from(self.last.timestamp()).ok().map(Tick::new)
    }
}

fn fire_time(tick: &Tick) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(i64::try_from(tick.get_timestamp()).ok()?, 0)
}

async fn unless_stopped(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}
