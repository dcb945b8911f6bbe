//! What may run now, and in which order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use diesel_async::SimpleAsyncConnection;
use entropy_jobs::metrics::Metrics;
use entropy_jobs::secret::Secret;
use entropy_schema::record::dispatch;
use entropy_schema::record::enqueue::NewJob;
use entropy_schema::{lanes, queues};
use entropy_workers::broker::Broker;
use entropy_workers::relay::Relay;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::harness::book::{end_of, retry_of};
use crate::harness::servers::RedisServer;
use crate::harness::{Book, eventually, secs};

#[tokio::test]
async fn a_lane_hands_out_one_job_at_a_time_and_in_order() {
    let book = Book::open().await;
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    let jobs: Vec<NewJob> = (0..3).map(|_| book.job_in(lane, "a", 2)).collect();
    book.enqueue(&jobs).await;
    for job in &jobs {
        let claimed = book.take(worker).await;
        assert_eq!(claimed.job_id, job.id);
        assert_eq!(book.dispatch().await, [], "the lane is busy");
        book.assert_sound().await;
        book.finish(end_of(&claimed, worker)).await;
    }
    assert_eq!(book.dispatch().await, []);
    book.assert_sound().await;
}

#[tokio::test]
async fn a_lane_picks_by_class_before_order() {
    let book = Book::open().await;
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    let [campaign, reply, person] = [2, 1, 0].map(|class| book.job_in(lane, "a", class));
    book.enqueue(&[campaign.clone(), reply.clone(), person.clone()]).await;
    for expected in [person, reply, campaign] {
        let claimed = book.take(worker).await;
        assert_eq!(claimed.job_id, expected.id);
        book.finish(end_of(&claimed, worker)).await;
    }
}

#[tokio::test]
async fn a_retry_holds_back_its_conversation_and_no_other() {
    let book = Book::open().await;
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    let [first, later, other] = ["a", "a", "b"].map(|key| book.job_in(lane, key, 2));
    book.enqueue(&[first.clone(), later.clone(), other.clone()]).await;
    let claimed = book.take(worker).await;
    assert_eq!(claimed.job_id, first.id);
    book.finish(retry_of(&claimed, worker, 60_000)).await;
    assert_eq!(book.state(first.id).await, "retryable");

    let claimed = book.take(worker).await;
    assert_eq!(claimed.job_id, other.id, "the conversation of the retry waits, others go on");
    book.finish(end_of(&claimed, worker)).await;
    assert_eq!(book.dispatch().await, []);
    book.assert_sound().await;

    book.run("UPDATE pending SET due_at = now() WHERE due_at IS NOT NULL").await;
    for (expected, attempt) in [(first.id, 2), (later.id, 1)] {
        let claimed = book.take(worker).await;
        assert_eq!((claimed.job_id, claimed.attempt), (expected, attempt));
        book.finish(end_of(&claimed, worker)).await;
    }
}

#[tokio::test]
async fn a_person_is_not_held_back_by_the_retry_of_a_campaign() {
    let book = Book::open().await;
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    book.enqueue(&[book.job_in(lane, "a", 2)]).await;
    let claimed = book.take(worker).await;
    book.finish(retry_of(&claimed, worker, 60_000)).await;
    let person = book.job_in(lane, "a", 0);
    book.enqueue(std::slice::from_ref(&person)).await;
    assert_eq!(book.take(worker).await.job_id, person.id);
}

#[tokio::test]
async fn a_scheduled_job_takes_its_place_when_its_time_comes() {
    let book = Book::open().await;
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    let scheduled =
        NewJob { scheduled_at: Some(Utc::now() + TimeDelta::hours(1)), ..book.job_in(lane, "a", 2) };
    let now = book.job_in(lane, "a", 2);
    book.enqueue(&[scheduled.clone(), now.clone()]).await;
    book.run("UPDATE pending SET due_at = now() WHERE due_at IS NOT NULL").await;
    for expected in [now.id, scheduled.id] {
        let claimed = book.take(worker).await;
        assert_eq!(claimed.job_id, expected);
        book.finish(end_of(&claimed, worker)).await;
    }
}

#[tokio::test]
async fn a_paused_lane_and_a_paused_queue_hand_out_nothing_until_they_are_resumed() {
    let book = Book::open().await;
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    book.enqueue(&[book.job_in(lane, "a", 2), book.job_in(lane, "a", 2)]).await;
    let mut conn = book.conn().await;
    assert!(lanes::pause(&mut conn, book.organization, lane, "holidays").await.unwrap());
    assert_eq!(book.dispatch().await, []);
    assert!(!lanes::resume(&mut conn, Uuid::now_v7(), lane).await.unwrap(), "another organisation's lane");
    assert!(lanes::resume(&mut conn, book.organization, lane).await.unwrap());
    let claimed = book.take(worker).await;
    book.finish(end_of(&claimed, worker)).await;

    book.enqueue(&[book.job()]).await;
    assert!(queues::pause(&mut conn, book.organization, "cost").await.unwrap());
    assert_eq!(book.dispatch().await, []);
    book.assert_sound().await;
    assert!(queues::resume(&mut conn, book.organization, "cost").await.unwrap());
    assert_eq!(book.dispatch().await.len(), 2, "the lane's job and the plain one");
    book.assert_sound().await;
}

#[tokio::test]
async fn a_tenant_with_a_large_backlog_does_not_hold_up_a_small_one() {
    let book = Book::open().await;
    let many: Vec<NewJob> = (0..600).map(|_| book.job()).collect();
    book.enqueue(&many).await;
    let other = NewJob { organization_id: Uuid::now_v7(), ..book.job() };
    book.enqueue(std::slice::from_ref(&other)).await;
    let dispatched = book.dispatch().await;
    assert!(dispatched.iter().any(|one| one.job_id == other.id), "one of {}", dispatched.len());
}

#[tokio::test]
async fn the_relay_is_told_when_something_comes_due() {
    let book = Book::open().await;
    let mut conn = book.conn().await;
    let nothing = dispatch::outlook(&mut conn, &["cost"]).await.unwrap();
    assert_eq!((nothing.due, nothing.lanes, nothing.plain, nothing.next_in_ms), (false, false, false, None));
    book.enqueue(&[NewJob { scheduled_at: Some(Utc::now() + TimeDelta::seconds(30)), ..book.job() }]).await;
    let later = dispatch::outlook(&mut conn, &["cost"]).await.unwrap();
    assert!(!later.due && later.next_in_ms.is_some_and(|ms| (25_000..=30_000).contains(&ms)), "{later:?}");
    let lane = book.lane().await;
    book.enqueue(&[book.job(), book.job_in(lane, "a", 2)]).await;
    let now = dispatch::outlook(&mut conn, &["cost"]).await.unwrap();
    assert!(now.lanes && now.plain, "{now:?}");
    assert!(!dispatch::outlook(&mut conn, &["send"]).await.unwrap().plain, "not its queue");
}

/// Relays, workers and callers at once, over lanes and plain jobs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_relays_hand_out_every_attempt_once() {
    const LANES: usize = 30;
    const JOBS: usize = 1200;
    let book = Book::open().await;
    let mut lanes = Vec::new();
    for _ in 0..LANES {
        lanes.push(book.lane().await);
    }
    let (handed_out, to_claim) = tokio::sync::mpsc::unbounded_channel();
    let to_claim = tokio::sync::Mutex::new(to_claim);
    let (log, ended) = (std::sync::Mutex::new(Vec::new()), std::sync::atomic::AtomicUsize::new(0));
    let done = || ended.load(std::sync::atomic::Ordering::Relaxed) >= JOBS;

    let caller = async {
        for start in (0..JOBS).step_by(40) {
            let jobs: Vec<NewJob> = (start..start + 40)
                .map(|n| match n % 4 {
                    0 => book.job(),
                    _ => book.job_in(lanes[n * 7 % LANES], ["a", "b"][n % 2], i16::try_from(n % 3).unwrap()),
                })
                .collect();
            book.enqueue(&jobs).await;
        }
    };
    let relays = (0..6).map(|_| async {
        while !done() {
            for one in book.dispatch().await {
                handed_out.send(one).expect("somebody claims");
            }
        }
    });
    let workers = (0..6).map(|_| async {
        let worker = Uuid::now_v7();
        while !done() {
            let next = tokio::time::timeout(std::time::Duration::from_millis(20), async {
                to_claim.lock().await.recv().await
            });
            let Ok(Some(delivery)) = next.await else { continue };
            let claimed = book.claim(std::slice::from_ref(&delivery), worker).await;
            assert_eq!(claimed.len(), 1, "nobody else was given {delivery:?}");
            log.lock().unwrap().push((delivery.job_id, delivery.attempt, claimed[0].lane_id));
            // Every seventh attempt is tried again at once.
            let again = claimed[0].attempt == 1 && delivery.job_id.as_u128() % 7 == 0;
            let end = if again { retry_of(&claimed[0], worker, 0) } else { end_of(&claimed[0], worker) };
            assert!(book.finish(end).await, "the lease was ours");
            if !again {
                ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    let all = async {
        futures::join!(caller, futures::future::join_all(relays), futures::future::join_all(workers));
    };
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(60), all).await.is_ok();
    // First what contradicts itself: a lane that lost its mark explains why its jobs do not end.
    book.assert_sound().await;
    assert!(in_time, "all jobs end within a minute");

    let log = log.into_inner().unwrap();
    let distinct: HashSet<_> = log.iter().map(|(job, attempt, _)| (job, attempt)).collect();
    assert_eq!(distinct.len(), log.len(), "an attempt was handed out twice");
    let mut attempts: HashMap<Uuid, i16> = HashMap::new();
    for (job, attempt, _) in &log {
        let before = attempts.insert(*job, *attempt).unwrap_or(0);
        assert_eq!(before + 1, *attempt, "attempts are counted without gaps");
    }
    assert_eq!(attempts.len(), JOBS);
    assert_eq!(
        book.number("SELECT count(*) AS n FROM jobs WHERE final_state = 'completed'").await,
        JOBS as i64
    );
    book.assert_sound().await;
}

#[tokio::test]
async fn the_sweep_finds_a_lane_that_lost_its_mark_and_no_lane_that_waits_for_a_retry() {
    let book = Book::open().await;
    let (lane, worker) = (book.lane().await, Uuid::now_v7());
    book.enqueue(&[book.job_in(lane, "张先生", 1), book.job_in(lane, "张先生", 1)]).await;
    let first = book.take(worker).await;
    assert!(book.finish(retry_of(&first, worker, 60_000)).await);
    assert!(book.dispatch().await.is_empty(), "the second message waits behind the first");
    let sweep = async || lanes::sweep(&mut *book.conn().await).await.expect("swept");
    assert_eq!(sweep().await, 0, "nothing is lost: the retry will mark the lane when its time comes");

    let lost = book.lane().await;
    book.enqueue(&[book.job_in(lost, "李女士", 1)]).await;
    book.run(&format!("UPDATE lanes SET runnable_at = NULL WHERE id = '{lost}'")).await;
    assert_eq!(sweep().await, 1);
    assert_eq!(book.dispatch_one().await.class, 1);
    assert_eq!(sweep().await, 0, "it is busy with a job that is under way");

    let stuck = book.lane().await;
    book.run(&format!("UPDATE lanes SET busy_job_id = gen_random_uuid() WHERE id = '{stuck}'")).await;
    assert_eq!(sweep().await, 0, "a lane in which nothing waits is not looked at");
    book.enqueue(&[book.job_in(stuck, "王先生", 2)]).await;
    assert!(book.dispatch().await.is_empty(), "nobody knows that it is not busy");
    assert_eq!(sweep().await, 1);
    assert_eq!(book.dispatch_one().await.class, 2);
}

#[tokio::test]
async fn a_lane_that_somebody_holds_for_a_moment_is_looked_at_again_at_once() {
    let book = Book::open().await;
    let redis = RedisServer::shared().await;
    let namespace = format!("it{:016x}", fastrand::u64(..));
    let relay = Relay {
        db: book.db.clone(),
        broker: Broker::new(&Secret::new(redis.url()), &namespace).expect("a broker"),
        queues: entropy_jobs::kinds::registry().queues(),
        ended: Arc::new(Notify::new()),
        metrics: Arc::new(Metrics::new().expect("counters")),
    };
    let lane = book.lane().await;
    let job = NewJob { kind: "send_message", queue: "send", ..book.job_in(lane, "a", 0) };
    book.enqueue(std::slice::from_ref(&job)).await;

    let mut holder = book.conn().await;
    let held = format!("BEGIN; SELECT id FROM lanes WHERE id = '{lane}' FOR UPDATE");
    holder.batch_execute(&held).await.expect("the lane");
    eventually("the relay finds it in somebody's hands", secs(10), async || {
        let rest = relay.pass().await.expect("a pass");
        if rest <= Duration::from_millis(50) { Ok(()) } else { Err(format!("it rests for {rest:?}")) }
    })
    .await;
    holder.batch_execute("ROLLBACK").await.expect("let go");
    assert_eq!(book.number("SELECT count(*) AS n FROM leases").await, 0);
    relay.pass().await.expect("a pass");
    assert_eq!(book.number("SELECT count(*) AS n FROM leases").await, 1, "handed out");
}
