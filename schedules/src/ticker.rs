//! Keeps the time: apalis-cron notices the ticks, and a task beside it records them.
//!
//! ```text
//!   apalis worker (Clock) ──Start, Tick──► inbox ──► record, with retries ──► Book
//! ```
//!
//! Every two seconds the lines are read from the record. What is new there starts; what has changed is stopped and started
//! anew, with another apalis worker; what is paused or gone is stopped. Until then its ticks are let go: the book compares
//! the line with its row, under the row's lock.
//!
//! The two are apart because an apalis worker takes its running handlers with it when it ends, and apalis-cron ends it
//! whenever a poll comes late. No tick falls between two workers: each starts from a moment, ticks up to that moment
//! are looked up as missed ones, and ticks after it are the worker's.
//!
//! The clock is this machine's, as apalis-cron's is. Schedulers whose clocks differ still make one job of a tick.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use apalis::prelude::{BoxDynError, Monitor, WorkerBuilder};
use apalis_cron::{CronScheduler, Tick};
use chrono::{DateTime, Utc};
use entropy_jobs::wake::Waker;
use entropy_schema::Db;
use entropy_schema::schedules::Schedule;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::book::Book;
use crate::due::{Moment, is_overtaken};
use crate::entries::{Entry, indexing};
use crate::line::Line;

/// Runs a timetable.
#[derive(Debug, Clone)]
pub struct Ticker {
    book: Book,
}

/// How often the lines are read: so soon a change is in force.
const LOOK: Duration = Duration::from_secs(2);

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

/// Ticks that wait to be recorded: more than a minute has, after which they are given up.
const INBOX: usize = 128;

impl Ticker {
    /// Prepares a ticker that records in `db` and wakes relays through `waker`.
    pub fn new(db: Db, waker: Waker) -> Ticker {
        Ticker { book: Book::new(db, waker) }
    }

    /// Brings `entries` into the record, and enqueues a job at every tick of the lines there until `stop`.
    ///
    /// No outside failure ends it. An error means a bug: a schedule panicked, and the process had better be restarted
    /// than go on without it.
    pub async fn run(&self, entries: Vec<Entry>, stop: CancellationToken) -> anyhow::Result<()> {
        let searches = entries.iter().any(|entry| entry.name == indexing().name);
        let mut timetable = Timetable::new(self.book.clone(), searches, stop.clone());
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut brought, mut away) = (false, false);
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = timetable.tasks.join_next() => {
                    ended.context("a schedule failed")?;
                    continue;
                }
                looked = async {
                    look.tick().await;
                    if !brought {
                        self.book.bring(&entries).await?;
                        brought = true;
                    }
                    self.book.lines().await
                } => looked,
            };
            let in_vain = looked.is_err();
            match looked {
                Ok(rows) => timetable.follow(&rows),
                // What is known ticks on.
                Err(error) if !away => tracing::warn!(%error, "the timetable cannot be read"),
                Err(_) => {}
            }
            away = in_vain;
        }
        while let Some(ended) = timetable.tasks.join_next().await {
            ended.context("a schedule failed")?;
        }
        Ok(())
    }
}

/// The lines that tick in this process.
struct Timetable {
    book: Book,
    /// There is a search engine to work for.
    searches: bool,
    running: HashMap<Uuid, (Line, CancellationToken)>,
    tasks: JoinSet<()>,
    /// Rows that were complained about, so that it is done once.
    unread: HashSet<Uuid>,
    stop: CancellationToken,
}

impl Timetable {
    fn new(book: Book, searches: bool, stop: CancellationToken) -> Timetable {
        Timetable {
            book,
            searches,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            unread: HashSet::new(),
            stop,
        }
    }

    /// Makes what ticks what the rows say.
    fn follow(&mut self, rows: &[Schedule]) {
        let searches = self.searches;
        let wanted: HashMap<Uuid, Line> = rows
            .iter()
            .filter_map(|row| self.read(row))
            .filter(|line| searches || !line.task.needs_search)
            .map(|line| (line.id, line))
            .collect();
        self.running.retain(|id, (line, stop)| {
            let stays = wanted.get(id) == Some(line);
            if !stays {
                tracing::info!(schedule = line.name, "schedule stopped");
                stop.cancel();
            }
            stays
        });
        for (id, line) in wanted {
            if !self.running.contains_key(&id) {
                self.start(line);
            }
        }
    }

    fn read(&mut self, row: &Schedule) -> Option<Line> {
        match Line::read(row) {
            Ok(line) => {
                self.unread.remove(&row.id);
                Some(line)
            }
            Err(error) => {
                if self.unread.insert(row.id) {
                    let schedule = &row.name;
                    tracing::warn!(schedule, error = format!("{error:#}"), "this program cannot run it");
                }
                None
            }
        }
    }

    fn start(&mut self, line: Line) {
        tracing::info!(schedule = line.name, next = ?line.next_after(Utc::now()), "schedule started");
        let stop = self.stop.child_token();
        let (inbox, moments) = mpsc::channel(INBOX);
        // What a line noticed before it changed is still looked at, so only the process's end cuts the recording off.
        let recording = record(self.book.clone(), line.clone(), moments);
        self.tasks.spawn(unless_stopped(self.stop.clone(), recording));
        self.tasks.spawn(keep_time(line.clone(), inbox, stop.clone()));
        self.running.insert(line.id, (line, stop));
    }
}

/// Passes the moments of `line` on until `stop`, one apalis worker after the other.
async fn keep_time(line: Line, inbox: mpsc::Sender<Moment>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let start = Utc::now();
        if inbox.send(Moment::Start(start)).await.is_err() {
            return;
        }
        let ended_by_itself = work(&line, start, &inbox, &stop).await;
        if ended_by_itself {
            unless_stopped(stop.clone(), tokio::time::sleep(RESTART_PAUSE)).await;
        }
    }
}

/// Runs one apalis worker for a shift, or until `stop`. Tells whether it ended before that.
async fn work(
    line: &Line,
    start: DateTime<Utc>,
    inbox: &mpsc::Sender<Moment>,
    stop: &CancellationToken,
) -> bool {
    let clock = Clock { line: line.clone(), last: start };
    let (name, inbox) = (line.name.clone(), inbox.clone());
    let build = move |_restarts| {
        let inbox = inbox.clone();
        WorkerBuilder::new(name.as_str()).backend(CronScheduler::new(clock.clone())).build(
            move |tick: Tick| {
                let inbox = inbox.clone();
                async move {
                    if let Some(fire_at) = fire_time(&tick) {
                        inbox.send(Moment::Tick(fire_at)).await?;
                    }
                    Ok::<_, BoxDynError>(())
                }
            },
        )
    };
    let shift_over = CancellationToken::new();
    let over = shift_over.clone();
    let stopping = stop.clone();
    let schedule = line.name.clone();
    let ran = Monitor::new()
        // Without a time limit the monitor waits for its signal even when its worker is dead.
        .shutdown_timeout(SHUTDOWN)
        .should_restart(move |_, error| {
            // Restarting is ours: the monitor would do it at once, and with the old start.
            tracing::warn!(schedule, %error, "the clock ended; starting it again");
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
        tracing::warn!(schedule = line.name, %error, "the monitor of the clock ended badly");
    }
    !shift_over.is_cancelled()
}

/// Records moments in their order, each until it is written or a later tick stands for it.
async fn record(book: Book, line: Line, mut moments: mpsc::Receiver<Moment>) {
    while let Some(moment) = moments.recv().await {
        let mut pause = FIRST_RETRY;
        loop {
            if is_overtaken(&line.timing, moment, Utc::now()) {
                tracing::warn!(schedule = line.name, ?moment, "given up for a later tick");
                break;
            }
            match book.settle(&line, moment).await {
                Ok(()) => break,
                Err(error) => tracing::warn!(schedule = line.name, ?moment, %error, "not recorded yet"),
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
    line: Line,
    last: DateTime<Utc>,
}

impl apalis_cron::Schedule<Utc> for Clock {
    fn next_tick(&mut self, _: &Utc) -> Option<Tick> {
        self.last = self.line.next_after(self.last)?;
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
