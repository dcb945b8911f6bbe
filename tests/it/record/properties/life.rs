//! Any sequence of what happens to jobs: the statements of the record against the model, step by step.

use chrono::{TimeDelta, Utc};
use diesel_async::AsyncConnection;
use entropy_schema::record::control::{self, Cancelled};
use entropy_schema::record::dispatch;
use entropy_schema::record::enqueue::{self, Enqueued, Idempotency, NewJob};
use entropy_schema::record::finish::{Becomes, Finish, LaneWait};
use entropy_schema::sends::{self, NewSend, SendEnd};
use entropy_schema::views::jobs as views;
use entropy_schema::{lanes, queues};
use entropy_workers::maintenance::rescuer::{Rescuer, Trust};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::json;
use uuid::Uuid;

use super::super::rescue::rescuer_over;
use super::model::{Ending, Job, Model, Outcome, Place, Send};
use super::try_all;
use crate::harness::Book;
use crate::harness::servers::RedisServer;

const LANES: usize = 3;
const WORKERS: usize = 3;
const HOUR_MS: i64 = 3_600_000;

/// A job to be enqueued.
#[derive(Debug, Clone)]
struct Wanted {
    lane: Option<usize>,
    key: Option<u8>,
    class: i16,
    max_attempts: i16,
    on_unknown: &'static str,
    scheduled: bool,
    unique: Option<u8>,
    idempotency: Option<(u8, u8)>,
}

/// What happens. An index stands for one of the jobs to which it can happen then.
#[derive(Debug, Clone)]
enum Step {
    Enqueue(Vec<Wanted>),
    Dispatch,
    Claim(Index, usize),
    BeginSend(Index),
    EndSend(Index, bool),
    Finish(Index, Ending, Option<&'static str>),
    /// By a worker that does not hold the lease, or for an attempt that is over.
    FinishAsNobody(Index, bool),
    Die(usize),
    Cancel(Index),
    CancelWaiting(Vec<Index>),
    Revive(Index),
    Resolve(Index, &'static str),
    Due(Vec<Index>),
    LaneDue(usize),
    Expire(Index),
    PauseLane(usize),
    ResumeLane(usize),
    PauseQueue(&'static str),
    ResumeQueue(&'static str),
    Sweep,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let lane = prop_oneof![3 => (0..LANES).prop_map(Some), 1 => Just(None)];
    let key = prop_oneof![4 => (0..2_u8).prop_map(Some), 1 => Just(None)];
    let rarely = |keys: u8| prop_oneof![3 => Just(None), 1 => (0..keys).prop_map(Some)];
    let policy = select(vec!["hold", "resend", "drop"]);
    (lane, key, 0..3_i16, 1..4_i16, policy, prop::bool::weighted(0.2), rarely(2), rarely(3), 0..2_u8)
        .prop_map(|(lane, key, class, max_attempts, on_unknown, scheduled, unique, idempotency, asked)| {
            Wanted {
                lane,
                key: key.filter(|_| lane.is_some()),
                class,
                max_attempts,
                on_unknown,
                scheduled,
                unique: unique.filter(|_| lane.is_none()),
                idempotency: idempotency.map(|key| (key, asked)),
            }
        })
}

fn step() -> impl Strategy<Value = Step> {
    let endings = vec![
        Ending::Done,
        Ending::Retry,
        Ending::Retry,
        Ending::Discard,
        Ending::SnoozeJob,
        Ending::Release,
        Ending::Cancel,
    ];
    let wait = prop_oneof![
        3 => Just(None),
        1 => select(vec!["min_gap", "recipients_per_minute"]).prop_map(Some),
    ];
    let index = any::<Index>;
    let queue = || select(vec!["send", "cost"]);
    prop_oneof![
        6 => prop::collection::vec(wanted(), 1..5).prop_map(Step::Enqueue),
        8 => Just(Step::Dispatch),
        8 => (index(), 0..WORKERS).prop_map(|(job, worker)| Step::Claim(job, worker)),
        3 => index().prop_map(Step::BeginSend),
        2 => (index(), any::<bool>()).prop_map(|(job, sent)| Step::EndSend(job, sent)),
        7 => (index(), select(endings), wait).prop_map(|(job, ending, wait)| Step::Finish(job, ending, wait)),
        1 => (index(), any::<bool>()).prop_map(|(job, late)| Step::FinishAsNobody(job, late)),
        2 => (0..WORKERS).prop_map(Step::Die),
        2 => index().prop_map(Step::Cancel),
        1 => prop::collection::vec(index(), 1..4).prop_map(Step::CancelWaiting),
        2 => index().prop_map(Step::Revive),
        1 => (index(), select(vec!["sent", "failed", "resend"])).prop_map(|(job, verdict)| Step::Resolve(job, verdict)),
        3 => prop::collection::vec(index(), 1..4).prop_map(Step::Due),
        2 => (0..LANES).prop_map(Step::LaneDue),
        1 => index().prop_map(Step::Expire),
        1 => (0..LANES).prop_map(Step::PauseLane),
        2 => (0..LANES).prop_map(Step::ResumeLane),
        1 => queue().prop_map(Step::PauseQueue),
        1 => queue().prop_map(Step::ResumeQueue),
        1 => Just(Step::Sweep),
    ]
}

/// The record and the model, side by side.
struct Pair<'a> {
    book: &'a Book,
    rescuer: Rescuer,
    lanes: Vec<Uuid>,
    workers: Vec<Uuid>,
    model: Model,
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, record: T, model: T) -> Result<(), String> {
    if record == model {
        Ok(())
    } else {
        Err(format!("{what}: the record says {record:?}, the model {model:?}"))
    }
}

impl<'a> Pair<'a> {
    fn book(&self) -> &'a Book {
        self.book
    }

    /// One of the jobs that `fit`, if there are any.
    fn pick(&self, index: &Index, fit: impl Fn(&Job) -> bool) -> Option<Uuid> {
        let fitting: Vec<Uuid> = self.model.jobs.iter().filter(|job| fit(job)).map(|job| job.id).collect();
        (!fitting.is_empty()).then(|| fitting[index.index(fitting.len())])
    }

    fn running(&self, index: &Index) -> Option<Uuid> {
        self.pick(index, |job| matches!(job.place, Place::Running { .. }))
    }

    async fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Enqueue(wanted) => self.enqueue(wanted).await,
            Step::Dispatch => self.dispatch().await,
            Step::Claim(job, worker) => self.claim(job, *worker).await,
            Step::BeginSend(job) => self.begin_send(job).await,
            Step::EndSend(job, sent) => self.end_send(job, *sent).await,
            Step::Finish(job, ending, wait) => self.finish(job, *ending, *wait).await,
            Step::FinishAsNobody(job, late) => self.finish_as_nobody(job, *late).await,
            Step::Die(worker) => self.die(*worker).await,
            Step::Cancel(job) => self.cancel(job).await,
            Step::CancelWaiting(jobs) => self.cancel_waiting(jobs).await,
            Step::Revive(job) => self.revive(job).await,
            Step::Resolve(job, verdict) => self.resolve(job, verdict).await,
            Step::Due(jobs) => self.due(jobs).await,
            Step::Expire(job) => self.expire(job).await,
            Step::Sweep => {
                lanes::sweep(&mut *self.book().conn().await).await.expect("swept");
                Ok(())
            }
            switch => {
                self.switch(switch).await;
                Ok(())
            }
        }
    }

    async fn enqueue(&mut self, wanted: &[Wanted]) -> Result<(), String> {
        let book = self.book();
        let later = Utc::now() + TimeDelta::milliseconds(HOUR_MS);
        let jobs: Vec<NewJob> = wanted
            .iter()
            .map(|w| NewJob {
                kind: if w.lane.is_some() { "send_message" } else { "cost_tally" },
                queue: if w.lane.is_some() { "send" } else { "cost" },
                class: w.class,
                lane_id: w.lane.map(|lane| self.lanes[lane]),
                order_key: w.key.map(|key| format!("客户 {key}")),
                args: json!({ "on_unknown": w.on_unknown }),
                max_attempts: w.max_attempts,
                scheduled_at: w.scheduled.then_some(later),
                unique_key: w.unique.map(|unique| format!("u{unique}")),
                idempotency: w
                    .idempotency
                    .map(|(key, asked)| Idempotency { key: format!("键{key}"), request_hash: vec![asked] }),
                ..book.job()
            })
            .collect();
        let mut conn = book.conn().await;
        let answers = conn.transaction(async |conn| enqueue::enqueue(conn, &jobs).await).await;
        let answers: Vec<Enqueued> = answers.expect("enqueued");
        drop(conn);
        let mut expected = Vec::new();
        for (w, job) in wanted.iter().zip(&jobs) {
            let modelled = Job {
                id: job.id,
                lane: w.lane,
                key: w.key,
                class: w.class,
                max_attempts: w.max_attempts,
                on_unknown: w.on_unknown,
                unique: w.unique,
                place: if w.scheduled { Place::Scheduled } else { Place::Available },
                turn: 0,
                attempt: 0,
                deaths: 0,
                sends: Vec::new(),
            };
            expected.push(self.model.enqueue(modelled, w.idempotency));
        }
        same("the answers to an enqueue", answers, expected)
    }

    async fn dispatch(&mut self) -> Result<(), String> {
        let dispatched = self.book().dispatch().await;
        let (mut heads, mut plain) = (Vec::new(), Vec::new());
        for one in dispatched {
            let list = if one.queue == "send" { &mut heads } else { &mut plain };
            list.push((one.job_id, one.attempt));
        }
        heads.sort_unstable();
        same("what is handed out", (heads, plain), self.model.dispatch())
    }

    async fn claim(&mut self, index: &Index, worker: usize) -> Result<(), String> {
        let leased = |job: &Job| matches!(job.place, Place::Handed | Place::Running { .. });
        let Some(id) = self.pick(index, leased) else { return Ok(()) };
        let (lane, job) = (self.workers[worker], self.model.job(id).clone());
        let mut conn = self.book().conn().await;
        // An older attempt's delivery comes late, this one's comes twice.
        for (attempt, good) in
            [(job.attempt - 1, false), (job.attempt, job.place == Place::Handed), (job.attempt, false)]
        {
            let claimed =
                entropy_schema::record::claim::claim(&mut conn, &[(id, attempt)], lane, HOUR_MS).await;
            same("a claim", claimed.expect("claimed").len(), usize::from(good))?;
        }
        if job.place == Place::Handed {
            self.model.job(id).place = Place::Running { worker, cancel: false };
        }
        Ok(())
    }

    async fn begin_send(&mut self, index: &Index) -> Result<(), String> {
        // As the gate does: one call at a time, none that is called off, and no second one without a person's word.
        let may_send = |job: &Job| {
            matches!(job.place, Place::Running { cancel: false, .. })
                && job.lane.is_some()
                && !job
                    .sends
                    .iter()
                    .any(|s| matches!(s.state, Outcome::Sending | Outcome::Sent | Outcome::Unknown))
                && !job.sends.iter().any(|s| s.attempt == job.attempt)
        };
        let Some(id) = self.pick(index, may_send) else { return Ok(()) };
        let job = self.model.job(id).clone();
        let lane = self.lanes[job.lane.expect("a lane")];
        let send = NewSend {
            id: Uuid::now_v7(),
            organization_id: self.book().organization,
            account_id: lane,
            token_key: "install",
            job_id: id,
            attempt: job.attempt,
            to_wxid: "wxid_1",
            message_kind: "text",
            message: None,
        };
        let begun = sends::begin(&mut *self.book().conn().await, &send).await.expect("asked");
        let may_begin = !self.model.paused_queues.contains(&job.queue());
        if may_begin {
            self.model.job(id).sends.push(Send {
                id: send.id,
                attempt: job.attempt,
                state: Outcome::Sending,
            });
        }
        same("the beginning of a send", begun, may_begin)
    }

    async fn end_send(&mut self, index: &Index, sent: bool) -> Result<(), String> {
        let under_way = |job: &Job| job.sends.iter().any(|send| send.state == Outcome::Sending);
        let Some(id) = self.pick(index, under_way) else { return Ok(()) };
        let end = SendEnd {
            state: if sent { "sent" } else { "failed" },
            counts: true,
            msg_id: None,
            new_msg_id: sent.then(|| "7300000000000000001".into()),
            create_time: None,
            error_class: None,
            error_code: None,
            error_message: None,
            settled_as: None,
        };
        let send = self.model.job(id).send().expect("it is under way");
        let send_id = send.id;
        send.state = if sent { Outcome::Sent } else { Outcome::Failed };
        let ended = sends::end(&mut *self.book().conn().await, send_id, &end).await.expect("recorded");
        same("the end of a send", ended, sends::Ended::InTime)
    }

    async fn finish(
        &mut self,
        index: &Index,
        ending: Ending,
        wait: Option<&'static str>,
    ) -> Result<(), String> {
        let Some(id) = self.running(index) else { return Ok(()) };
        let job = self.model.job(id);
        let ending = match (job.send().map(|send| send.state), ending) {
            // An attempt does not end while its call is under way, and one that has sent is done.
            (Some(Outcome::Sending), _) => return Ok(()),
            (Some(Outcome::Sent), _) => Ending::Done,
            // The last attempt is not repeated.
            (_, Ending::Retry) if job.attempt >= job.max_attempts => Ending::Discard,
            (_, ending) => ending,
        };
        let end = self.end_of(id, ending, wait);
        let ours = self.book().finish(end.clone()).await;
        same("the end of an attempt", ours, true)?;
        self.model.finish(id, ending, wait);
        same("the same end once more", self.book().finish(end).await, false)
    }

    fn end_of(&mut self, id: Uuid, ending: Ending, wait: Option<&'static str>) -> Finish {
        let job = self.model.job(id).clone();
        let Place::Running { worker, .. } = job.place else { panic!("it runs") };
        let waiting = |code: &str| Becomes::Waiting {
            delay_ms: HOUR_MS,
            code: code.to_owned(),
            note: "稍后再试".into(),
        };
        let (outcome, becomes) = match ending {
            Ending::Done => (Some("completed"), Becomes::Final("completed")),
            Ending::Retry => (Some("retry"), waiting("retry")),
            Ending::Discard => (Some("dead"), Becomes::Final("dead")),
            Ending::SnoozeJob => (None, waiting("kind_unknown")),
            Ending::Release => (None, Becomes::Available),
            Ending::Cancel => (Some("cancelled"), Becomes::Final("cancelled")),
        };
        Finish {
            job_id: id,
            attempt: job.attempt,
            worker_id: self.workers[worker],
            outcome,
            becomes,
            result: None,
            error: None,
            crashed: false,
            lane_wait: wait.map(|code| LaneWait { delay_ms: HOUR_MS, code }),
        }
    }

    async fn finish_as_nobody(&mut self, index: &Index, late: bool) -> Result<(), String> {
        let Some(id) = self.running(index) else { return Ok(()) };
        let mut end = self.end_of(id, Ending::Done, None);
        if late {
            end.attempt -= 1;
        } else {
            end.worker_id = Uuid::now_v7();
        }
        same("the end of somebody else's attempt", self.book().finish(end).await, false)
    }

    async fn die(&mut self, worker: usize) -> Result<(), String> {
        let id = self.workers[worker];
        self.book()
            .run(&format!(
                "UPDATE leases SET lease_until = now() - interval '1 second' WHERE worker_id = '{id}'"
            ))
            .await;
        self.rescuer.pass(Trust::Leases).await.expect("rescued");
        let held = |job: &&Job| matches!(job.place, Place::Running { worker: by, .. } if by == worker);
        let lost: Vec<Uuid> = self.model.jobs.iter().filter(held).map(|job| job.id).collect();
        for id in lost {
            self.model.lose(id);
        }
        Ok(())
    }

    async fn cancel(&mut self, index: &Index) -> Result<(), String> {
        let Some(id) = self.pick(index, |_| true) else { return Ok(()) };
        let (mut conn, organization) = (self.book().conn().await, self.book().organization);
        let error = json!({ "code": "cancelled", "message": "不用了" });
        let stranger = control::cancel(&mut conn, Uuid::now_v7(), id, &error).await.expect("asked");
        same("a cancel by another organisation", stranger, None)?;
        let found = conn
            .transaction(async |conn| control::cancel(conn, organization, id, &error).await)
            .await
            .expect("cancelled");
        same("a cancel", found, Some(self.model.cancel(id)))
    }

    async fn cancel_waiting(&mut self, indices: &[Index]) -> Result<(), String> {
        let mut ids: Vec<Uuid> = indices.iter().filter_map(|index| self.pick(index, |_| true)).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut conn = self.book().conn().await;
        let error = json!({ "code": "cancelled", "message": "不用了" });
        let cancelled = control::cancel_waiting(&mut conn, self.book().organization, &ids, &error).await;
        drop(conn);
        let mut cancelled = cancelled.expect("cancelled");
        cancelled.sort_unstable();
        let waits = |job: &Job| matches!(job.place, Place::Scheduled | Place::Retryable | Place::Available);
        ids.retain(|id| waits(self.model.job(*id)));
        for id in &ids {
            same("a waiting job", self.model.cancel(*id), Cancelled::Now)?;
        }
        same("the jobs that a bulk cancel finds", cancelled, ids)
    }

    async fn revive(&mut self, index: &Index) -> Result<(), String> {
        let Some(id) = self.pick(index, |job| matches!(job.place, Place::Ended(_))) else { return Ok(()) };
        let organization = self.book().organization;
        let revived =
            control::revive(&mut *self.book().conn().await, organization, &[id]).await.expect("asked");
        same("a revival", !revived.is_empty(), self.model.revive(id))
    }

    async fn resolve(&mut self, index: &Index, verdict: &str) -> Result<(), String> {
        let Some(id) = self.pick(index, |job| matches!(job.place, Place::Ended(_))) else { return Ok(()) };
        let (mut conn, organization) = (self.book().conn().await, self.book().organization);
        let resolved = conn
            .transaction(async |conn| match verdict {
                "resend" => control::resolve_resend(conn, organization, id, None).await,
                _ => control::resolve_as(conn, organization, id, verdict, None).await,
            })
            .await
            .expect("asked");
        drop(conn);
        same("a person's verdict", resolved, self.model.resolve(id, verdict))
    }

    async fn due(&mut self, indices: &[Index]) -> Result<(), String> {
        let waits = |job: &Job| matches!(job.place, Place::Scheduled | Place::Retryable);
        let mut ids: Vec<Uuid> = Vec::new();
        for index in indices {
            if let Some(id) = self.pick(index, waits).filter(|id| !ids.contains(id)) {
                ids.push(id);
            }
        }
        for (place, id) in ids.iter().enumerate() {
            let ago = 10 - place;
            self.book()
                .run(&format!(
                    "UPDATE pending SET due_at = now() - interval '{ago} seconds' WHERE job_id = '{id}'"
                ))
                .await;
        }
        let promoted = dispatch::promote(&mut *self.book().conn().await, 500).await.expect("promoted");
        self.model.due(&ids);
        same("jobs whose time has come", usize::try_from(promoted).expect("few"), ids.len())
    }

    async fn expire(&mut self, index: &Index) -> Result<(), String> {
        let waits = |job: &Job| matches!(job.place, Place::Scheduled | Place::Retryable | Place::Available);
        let Some(id) = self.pick(index, waits) else { return Ok(()) };
        self.book()
            .run(&format!(
                "UPDATE pending SET expires_at = now() - interval '1 second' WHERE job_id = '{id}'"
            ))
            .await;
        let error = json!({ "code": "expired", "message": "过期" });
        let expired = control::expire(&mut *self.book().conn().await, 100, &error).await.expect("expired");
        same("jobs that expire", expired, 1)?;
        same("an expiry", self.model.cancel(id), Cancelled::Now)
    }

    async fn switch(&mut self, step: &Step) {
        let (mut conn, organization) = (self.book().conn().await, self.book().organization);
        match step {
            Step::LaneDue(lane) => {
                let id = self.lanes[*lane];
                self.book()
                    .run(&format!(
                        "UPDATE lanes SET runnable_at = now() WHERE id = '{id}' AND runnable_at > now()"
                    ))
                    .await;
                self.model.lanes[*lane].wait = None;
            }
            Step::PauseLane(lane) => {
                lanes::pause(&mut conn, organization, self.lanes[*lane], "放假").await.expect("paused");
                self.model.lanes[*lane].paused = true;
            }
            Step::ResumeLane(lane) => {
                lanes::resume(&mut conn, organization, self.lanes[*lane]).await.expect("resumed");
                self.model.resume_lane(*lane);
            }
            Step::PauseQueue(queue) => {
                queues::pause(&mut conn, organization, queue).await.expect("paused");
                self.model.paused_queues.push(queue);
            }
            Step::ResumeQueue(queue) => {
                queues::resume(&mut conn, organization, queue).await.expect("resumed");
                self.model.resume_queue(queue);
            }
            other => unreachable!("{other:?} is no switch"),
        }
    }

    /// Compares what the API shows of every job.
    async fn compare(&self) -> Result<(), String> {
        let (mut conn, book) = (self.book().conn().await, self.book());
        let all = views::list(&mut conn, book.organization, &views::Filter::default(), None, 1000).await;
        let mut record: Vec<(Uuid, String, i16)> =
            all.expect("a list").into_iter().map(|job| (job.id, job.state, job.attempt)).collect();
        record.sort();
        let shown = |job: &Job| (job.id, job.shown().0.to_owned(), job.shown().1);
        let mut model: Vec<_> = self.model.jobs.iter().map(shown).collect();
        model.sort();
        for (one, other) in record.iter().zip(&model) {
            same("a job", one, other)?;
        }
        same("the number of jobs", record.len(), model.len())
    }
}

#[test]
fn any_life_of_jobs_is_as_documented() {
    let steps = prop::collection::vec(step(), 1..40);
    try_all("any life of jobs is as documented", 32, &steps, async |book, steps| {
        let mut pair = open(book).await;
        for (number, step) in steps.iter().enumerate() {
            let at = |said: String| format!("step {number}, {step:?}: {said}");
            pair.take(step).await.map_err(at)?;
            pair.compare().await.map_err(at)?;
            book.assert_sound().await;
        }
        Ok(())
    });
}

/// Opens the record and the model, both empty.
async fn open(book: &Book) -> Pair<'_> {
    let rescuer = rescuer_over(book, &RedisServer::shared().await, "it-properties");
    let workers = (0..WORKERS).map(|_| Uuid::now_v7()).collect();
    let mut pair = Pair { book, rescuer, lanes: Vec::new(), workers, model: Model::with_lanes(LANES) };
    for _ in 0..LANES {
        pair.lanes.push(book.lane().await);
    }
    pair
}

/// A message in the first lane.
fn message() -> Wanted {
    Wanted {
        lane: Some(0),
        key: Some(0),
        class: 2,
        max_attempts: 3,
        on_unknown: "hold",
        scheduled: false,
        unique: None,
        idempotency: None,
    }
}

/// Lets somebody interfere after two messages were enqueued, and returns what the comparison says of it.
async fn interfered(statement: &str) -> Result<(), String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let book = Book::open().await;
    let mut pair = open(&book).await;
    pair.take(&Step::Enqueue(vec![message(), message()])).await?;
    book.run(statement).await;
    pair.take(&Step::Dispatch).await?;
    pair.compare().await
}

#[tokio::test]
async fn a_record_that_goes_its_own_way_is_noticed() {
    assert_eq!(interfered("SELECT 1").await, Ok(()));
    let backwards = interfered("UPDATE pending SET seq = -seq").await;
    assert!(backwards.is_err_and(|said| said.contains("what is handed out")));
    let gone = interfered(
        "DELETE FROM pending WHERE seq = (SELECT max(seq) FROM pending); \
         UPDATE jobs SET final_state = 'completed', finalized_at = now() WHERE id NOT IN (SELECT job_id FROM pending)",
    );
    assert!(gone.await.is_err_and(|said| said.contains("a job:")));
}

/// Two requests with one key in one statement, while another job holds what they may have once only.
#[tokio::test]
async fn a_key_that_stands_for_another_job_does_so_within_one_statement_too() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let book = Book::open().await;
    let mut pair = open(&book).await;
    let tally = |idempotency| Wanted { lane: None, key: None, unique: Some(0), idempotency, ..message() };
    pair.take(&Step::Enqueue(vec![tally(None)])).await.expect("the holder");
    let twice = Step::Enqueue(vec![tally(Some((0, 0))), tally(Some((0, 0)))]);
    pair.take(&twice).await.expect("both are answered with the holder");
    book.assert_sound().await;
}
