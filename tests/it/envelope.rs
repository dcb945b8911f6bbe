//! What the broker relies on in apalis-redis. An upgrade that changes one of these facts fails here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use entropy_jobs::secret::Secret;
use entropy_schema::record::dispatch::Dispatched;
use entropy_workers::broker::{Broker, Delivery};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::servers::RedisServer;
use crate::harness::turn::{self, Turn};
use crate::harness::{eventually, secs};

const QUEUE: &str = "send";

/// A receiving broker that notes what it is given and when.
struct Receiver {
    broker: Broker,
    redis: RedisServer,
    namespace: String,
    seen: Arc<Mutex<Vec<(Delivery, Instant)>>>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    _turn: Turn,
}

impl Receiver {
    async fn start(redis: RedisServer, slots: usize, handling: Duration) -> Receiver {
        let turn = turn::shared().await;
        let namespace = format!("it{:016x}", fastrand::u64(..));
        let broker = Broker::new(&Secret::new(redis.url()), &namespace).expect("a broker");
        let seen = Arc::<Mutex<Vec<(Delivery, Instant)>>>::default();
        let (running, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let stop = CancellationToken::new();
        let listen = {
            let (broker, stop) = (broker.clone(), stop.clone());
            tokio::spawn(async move { broker.listen(&[QUEUE], stop).await })
        };
        let receive = {
            let (broker, stop) = (broker.clone(), stop.clone());
            let (seen, running, most) = (Arc::clone(&seen), running.clone(), most.clone());
            let handle = move |delivery| {
                let seen = Arc::clone(&seen);
                let (running, most) = (running.clone(), most.clone());
                async move {
                    seen.lock().expect("a list").push((delivery, Instant::now()));
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(handling).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                }
            };
            tokio::spawn(async move { broker.receive(QUEUE, slots, handle, stop).await })
        };
        let tasks = vec![listen, receive];
        let receiver = Receiver { broker, redis, namespace, seen, running, most, stop, tasks, _turn: turn };
        receiver.is_up().await;
        receiver
    }

    /// Waits until it listens and apalis has registered a worker.
    async fn is_up(&self) {
        let channel = format!("{}:wake", self.namespace);
        eventually("the broker listens", secs(20), async || {
            let (_, n): (String, usize) = self.redis.command(&["PUBSUB", "NUMSUB", &channel]).await;
            n == 1
        })
        .await;
        let workers = format!("{}-{QUEUE}:workers", self.namespace);
        eventually("apalis has registered", secs(20), async || {
            self.redis.command::<usize>(&["ZCARD", &workers]).await >= 1
        })
        .await;
    }

    async fn push(&self, n: usize) -> Vec<Dispatched> {
        let deliveries: Vec<_> = (0..n).map(|_| delivery(1)).collect();
        self.broker.push(&deliveries).await.expect("pushed");
        deliveries
    }

    fn seen(&self) -> Vec<(Delivery, Instant)> {
        self.seen.lock().expect("a list").clone()
    }

    async fn has_seen(&self, n: usize) {
        eventually(&format!("{n} deliveries were handled"), secs(20), async || {
            let seen = self.seen().len();
            if seen >= n { Ok(()) } else { Err(format!("{seen} were")) }
        })
        .await;
    }

    async fn stop(mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            tokio::time::timeout(secs(20), task)
                .await
                .expect("it stops within 20 s")
                .expect("without a panic");
        }
    }
}

fn delivery(class: i16) -> Dispatched {
    Dispatched { job_id: Uuid::now_v7(), attempt: 1, queue: QUEUE.into(), class }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_wakes_at_a_push() {
    let receiver = Receiver::start(RedisServer::shared().await, 4, Duration::ZERO).await;
    let mut took = Vec::new();
    for n in 1..=25 {
        // Not in step with the fallback poll of half a second.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..80))).await;
        let pushed = Instant::now();
        receiver.push(1).await;
        receiver.has_seen(n).await;
        took.push(receiver.seen()[n - 1].1 - pushed);
    }
    took.sort_unstable();
    assert!(took[12] < Duration::from_millis(50), "the median is {:?}; all: {took:?}", took[12]);
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_at_once_than_there_are_slots_and_every_delivery_comes_once() {
    let receiver = Receiver::start(RedisServer::shared().await, 3, Duration::from_millis(5)).await;
    let mut pushed = receiver.push(150).await;
    receiver.has_seen(150).await;
    let mut seen: Vec<Uuid> = receiver.seen().iter().map(|(delivery, _)| delivery.job_id).collect();
    pushed.sort_by_key(|delivery| delivery.job_id);
    seen.sort_unstable();
    assert_eq!(seen, pushed.iter().map(|delivery| delivery.job_id).collect::<Vec<_>>());
    assert_eq!(receiver.most.load(Ordering::SeqCst), 3);
    receiver.stop().await;
}

/// Which is why a claim in Postgres decides, not a delivery; see `record::finish`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_is_pushed_twice_is_handed_over_twice() {
    let receiver = Receiver::start(RedisServer::shared().await, 4, Duration::ZERO).await;
    let pushed = receiver.push(1).await;
    receiver.broker.push(&pushed).await.expect("pushed");
    receiver.has_seen(2).await;
    let seen = receiver.seen();
    assert_eq!(seen[0].0, seen[1].0);
    receiver.stop().await;
}

#[tokio::test]
async fn a_persons_message_goes_to_the_front_of_the_queue() {
    let _turn = turn::shared().await;
    let redis = RedisServer::shared().await;
    let namespace = format!("it{:016x}", fastrand::u64(..));
    let broker = Broker::new(&Secret::new(redis.url()), &namespace).expect("a broker");
    broker.push(&[delivery(2), delivery(2)]).await.expect("pushed");
    let person = delivery(0);
    broker.push(std::slice::from_ref(&person)).await.expect("pushed");
    assert_eq!(broker.lengths(&[QUEUE]).await.expect("a length"), [3]);
    let first: String = redis.command(&["LINDEX", &format!("{namespace}-{QUEUE}:active"), "0"]).await;
    let body: String = redis.command(&["HGET", &format!("{namespace}-{QUEUE}:data"), &first]).await;
    assert!(body.contains(&person.job_id.to_string()), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_deliveries_leave_nothing_in_redis() {
    let receiver = Receiver::start(RedisServer::shared().await, 8, Duration::ZERO).await;
    receiver.push(200).await;
    receiver.has_seen(200).await;
    let keys = format!("{}-{QUEUE}:*", receiver.namespace);
    eventually("nothing is left but the worker's registration", secs(20), async || {
        receiver.broker.trim(&[QUEUE]).await.expect("trimmed");
        let keys: Vec<String> = receiver.redis.command(&["KEYS", &keys]).await;
        let left: Vec<_> =
            keys.into_iter().filter(|key| !key.contains(":workers") && !key.contains(":core")).collect();
        if left.is_empty() {
            Ok(())
        } else {
            let other: Vec<_> = left.iter().filter(|key| !key.contains(":meta:")).collect();
            Err(format!("{} keys are left, but for meta: {other:?}", left.len()))
        }
    })
    .await;
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receiver_comes_back_after_redis_was_flushed_and_restarted() {
    let receiver = Receiver::start(RedisServer::own().await, 4, Duration::ZERO).await;
    receiver.redis.command::<String>(&["FLUSHALL"]).await;
    receiver.is_up().await;
    receiver.push(1).await;
    receiver.has_seen(1).await;

    let redis = receiver.redis.server();
    tokio::task::spawn_blocking(move || {
        redis.kill().expect("Redis is killed");
        redis.restart().expect("Redis starts again");
    })
    .await
    .expect("Redis is back");
    receiver.is_up().await;
    receiver.push(1).await;
    receiver.has_seen(2).await;
    receiver.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_what_is_handled() {
    let receiver = Receiver::start(RedisServer::shared().await, 2, Duration::from_millis(700)).await;
    receiver.push(1).await;
    receiver.has_seen(1).await;
    let running = receiver.running.clone();
    receiver.stop().await;
    assert_eq!(running.load(Ordering::SeqCst), 0, "the handler has returned");
}
