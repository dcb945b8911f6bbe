//! The record as the documentation tells it, in plain vectors: no marks, no locks, no indexes.

use std::collections::BTreeMap;

use entropy_schema::record::control::Cancelled;
use entropy_schema::record::enqueue::Enqueued;
use uuid::Uuid;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Waits for its time.
    Scheduled,
    /// Waits for its retry, or after a snooze.
    Retryable,
    /// May run when its turn comes.
    Available,
    /// Was handed out and is on its way.
    Handed,
    /// A worker has it.
    Running { worker: usize, cancel: bool },
    /// The end.
    Ended(&'static str),
}

/// What is on record of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Sending,
    Sent,
    Failed,
    /// Nobody knows, and a person must say.
    Unknown,
    /// Nobody knows, and that is settled.
    Settled,
}

/// One send of a job: the attempt, and what came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Send {
    pub(super) id: Uuid,
    pub(super) attempt: i16,
    pub(super) state: Outcome,
}

#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) id: Uuid,
    pub(super) lane: Option<usize>,
    pub(super) key: Option<u8>,
    pub(super) class: i16,
    pub(super) max_attempts: i16,
    pub(super) on_unknown: &'static str,
    pub(super) unique: Option<u8>,
    pub(super) place: Place,
    /// Its turn among those of its class.
    pub(super) turn: u64,
    /// Attempts spent, or the one under way.
    pub(super) attempt: i16,
    pub(super) deaths: i16,
    pub(super) sends: Vec<Send>,
}

impl Job {
    pub(super) fn queue(&self) -> &'static str {
        if self.lane.is_some() { "send" } else { "cost" }
    }

    /// What the API shows.
    pub(super) fn shown(&self) -> (&'static str, i16) {
        match self.place {
            Place::Scheduled => ("scheduled", self.attempt),
            Place::Retryable => ("retryable", self.attempt),
            Place::Available => ("available", self.attempt),
            Place::Handed => ("available", self.attempt - 1),
            Place::Running { .. } => ("running", self.attempt),
            Place::Ended(state) => (state, self.attempt),
        }
    }

    fn ended(&self) -> bool {
        matches!(self.place, Place::Ended(_))
    }

    fn unsettled(&self) -> bool {
        self.sends.iter().any(|send| matches!(send.state, Outcome::Unknown | Outcome::Sending))
    }

    /// The send of the attempt under way.
    pub(super) fn send(&mut self) -> Option<&mut Send> {
        let attempt = self.attempt;
        self.sends.iter_mut().rev().find(|send| send.attempt == attempt)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Lane {
    pub(super) paused: bool,
    /// The limit that it waits for.
    pub(super) wait: Option<&'static str>,
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    Retry,
    Discard,
    SnoozeJob,
    /// For its lane, or because the process stops: the job keeps its place.
    Release,
    Cancel,
}

/// Jobs that were handed out, and their attempts.
type Deliveries = Vec<(Uuid, i16)>;

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) jobs: Vec<Job>,
    pub(super) lanes: Vec<Lane>,
    pub(super) paused_queues: Vec<&'static str>,
    /// Idempotency keys: what was asked, and the job that answers.
    keys: BTreeMap<u8, (u8, Uuid)>,
    turns: u64,
}

impl Model {
    /// An empty record.
    pub(super) fn with_lanes(lanes: usize) -> Model {
        Model { lanes: vec![Lane::default(); lanes], ..Model::default() }
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    pub(super) fn job(&mut self, id: Uuid) -> &mut Job {
        self.jobs.iter_mut().find(|job| job.id == id).expect("a known job")
    }

    fn holder(&self, unique: u8) -> Option<Uuid> {
        self.jobs.iter().find(|job| job.unique == Some(unique) && !job.ended()).map(|job| job.id)
    }

    /// One by one, in their order: the same key is the same job, and one live job holds a unique key.
    pub(super) fn enqueue(&mut self, mut job: Job, idempotency: Option<(u8, u8)>) -> Enqueued {
        if let Some(lane) = job.lane.map(|lane| &mut self.lanes[lane])
            && job.class < 2
            && lane.wait == Some("recipients_per_minute")
        {
            lane.wait = None;
        }
        if let Some((key, asked)) = idempotency
            && let Some((before, id)) = self.keys.get(&key)
        {
            return if *before == asked { Enqueued::Existing(*id) } else { Enqueued::KeyReused };
        }
        let holder = job.unique.and_then(|unique| self.holder(unique));
        if let Some((key, asked)) = idempotency {
            self.keys.insert(key, (asked, holder.unwrap_or(job.id)));
        }
        if let Some(holder) = holder {
            return Enqueued::Existing(holder);
        }
        job.turn = self.next_turn();
        self.jobs.push(job);
        Enqueued::Created(self.jobs.last().expect("just pushed").id)
    }

    fn held_back(&self, job: &Job) -> bool {
        let before = |other: &&Job| {
            other.lane == job.lane
                && other.class == job.class
                && other.key == job.key
                && other.turn < job.turn
        };
        job.key.is_some() && self.jobs.iter().filter(before).any(|other| other.place == Place::Retryable)
    }

    fn may_run(&self, job: &Job) -> bool {
        job.place == Place::Available && !self.paused_queues.contains(&job.queue())
    }

    fn busy(&self, lane: usize) -> bool {
        let holds = |job: &&Job| job.lane == Some(lane);
        self.jobs.iter().filter(holds).any(|job| matches!(job.place, Place::Handed | Place::Running { .. }))
    }

    /// The next job of a lane, by class, then by turn.
    fn head(&self, lane: usize) -> Option<Uuid> {
        let state = &self.lanes[lane];
        if state.paused || state.wait.is_some() || self.busy(lane) {
            return None;
        }
        let of_lane = self.jobs.iter().filter(|job| job.lane == Some(lane));
        let candidates = of_lane.filter(|job| self.may_run(job) && !self.held_back(job));
        candidates.min_by_key(|job| (job.class, job.turn)).map(|job| job.id)
    }

    /// What a relay hands out: one job of each lane, and all that have no lane, in their order.
    pub(super) fn dispatch(&mut self) -> (Deliveries, Deliveries) {
        let heads: Vec<Uuid> = (0..self.lanes.len()).filter_map(|lane| self.head(lane)).collect();
        let mut plain: Vec<&Job> =
            self.jobs.iter().filter(|job| job.lane.is_none() && self.may_run(job)).collect();
        plain.sort_by_key(|job| (job.class, job.turn));
        let plain: Vec<Uuid> = plain.into_iter().map(|job| job.id).collect();
        let mut hand_out = |id: Uuid| {
            let job = self.job(id);
            job.place = Place::Handed;
            job.attempt += 1;
            (id, job.attempt)
        };
        let mut heads: Vec<_> = heads.into_iter().map(&mut hand_out).collect();
        let plain = plain.into_iter().map(&mut hand_out).collect();
        heads.sort_unstable();
        (heads, plain)
    }

    /// The times of these have come, in this order.
    pub(super) fn due(&mut self, ids: &[Uuid]) {
        for id in ids {
            let scheduled = self.job(*id).place == Place::Scheduled;
            let turn = if scheduled { self.next_turn() } else { self.job(*id).turn };
            let job = self.job(*id);
            (job.place, job.turn) = (Place::Available, turn);
        }
    }

    /// The end of an attempt; `wait` is what the lane waits for then.
    pub(super) fn finish(&mut self, id: Uuid, ending: Ending, wait: Option<&'static str>) {
        let job = self.job(id);
        let Place::Running { cancel, .. } = job.place else { panic!("{id} does not run") };
        let spent = !matches!(ending, Ending::SnoozeJob | Ending::Release);
        job.place = match ending {
            Ending::Done => Place::Ended("completed"),
            Ending::Discard => Place::Ended("dead"),
            Ending::Cancel => Place::Ended("cancelled"),
            _ if cancel => Place::Ended("cancelled"),
            Ending::Retry | Ending::SnoozeJob => Place::Retryable,
            Ending::Release => Place::Available,
        };
        if !spent && !job.ended() {
            job.attempt -= 1;
        }
        if let Some(lane) = job.lane {
            self.lanes[lane].wait = wait;
        }
    }

    /// The process died under the job.
    pub(super) fn lose(&mut self, id: Uuid) {
        let job = self.job(id);
        job.deaths += 1;
        let policy = job.on_unknown;
        let (left, deaths) = (job.attempt < job.max_attempts, job.deaths);
        let cancel = matches!(job.place, Place::Running { cancel: true, .. });
        let again = if deaths >= 2 || !left {
            Place::Ended("dead")
        } else if cancel {
            Place::Ended("cancelled")
        } else {
            Place::Available
        };
        let place = match job.send() {
            Some(send) if send.state == Outcome::Sent => Place::Ended("completed"),
            Some(send) if send.state == Outcome::Sending => {
                send.state = if policy == "hold" { Outcome::Unknown } else { Outcome::Settled };
                match policy {
                    "hold" => Place::Ended("dead"),
                    "drop" => Place::Ended("completed"),
                    _ => again,
                }
            }
            _ => again,
        };
        job.place = place;
        if let Some(lane) = job.lane {
            self.lanes[lane].wait = None;
        }
    }

    pub(super) fn cancel(&mut self, id: Uuid) -> Cancelled {
        let job = self.job(id);
        match job.place {
            Place::Ended(_) => return Cancelled::Ended,
            Place::Running { worker, .. } => {
                if job.send().is_some_and(|send| send.state != Outcome::Failed) {
                    return Cancelled::TooLate;
                }
                job.place = Place::Running { worker, cancel: true };
                return Cancelled::Requested;
            }
            Place::Handed => {
                job.attempt -= 1;
                if let Some(lane) = job.lane {
                    self.lanes[lane].wait = None;
                }
            }
            Place::Scheduled | Place::Retryable | Place::Available => {}
        }
        self.job(id).place = Place::Ended("cancelled");
        Cancelled::Now
    }

    pub(super) fn revive(&mut self, id: Uuid) -> bool {
        let job = self.job(id).clone();
        let key_is_free = job.unique.is_none_or(|unique| self.holder(unique).is_none());
        if job.place != Place::Ended("dead") || job.unsettled() || !key_is_free {
            return false;
        }
        let turn = self.next_turn();
        let job = self.job(id);
        (job.place, job.turn, job.deaths) = (Place::Available, turn, 0);
        job.max_attempts = job.max_attempts.max(job.attempt + 1);
        true
    }

    /// A person says what became of an unknown send: `sent`, `failed` or `resend`.
    pub(super) fn resolve(&mut self, id: Uuid, verdict: &str) -> bool {
        let job = self.job(id);
        let Some(send) = job.sends.iter_mut().find(|send| send.state == Outcome::Unknown) else {
            return false;
        };
        match verdict {
            "sent" => {
                send.state = Outcome::Sent;
                job.place = Place::Ended("completed");
                true
            }
            "failed" => {
                send.state = Outcome::Failed;
                true
            }
            _ => {
                send.state = Outcome::Settled;
                self.revive(id)
            }
        }
    }

    pub(super) fn resume_lane(&mut self, lane: usize) {
        self.lanes[lane].paused = false;
        if !self.busy(lane) {
            self.lanes[lane].wait = None;
        }
    }

    pub(super) fn resume_queue(&mut self, queue: &'static str) {
        self.paused_queues.retain(|paused| *paused != queue);
        for lane in 0..self.lanes.len() {
            let waiting =
                |job: &Job| job.lane == Some(lane) && job.place == Place::Available && job.queue() == queue;
            if !self.busy(lane) && self.jobs.iter().any(waiting) {
                self.lanes[lane].wait = None;
            }
        }
    }
}
