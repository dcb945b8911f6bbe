//! Lost deliveries and dead workers, as the rescuer settles them.

use std::sync::Arc;

use entropy_jobs::secret::Secret;
use entropy_schema::record::claim::Claimed;
use entropy_schema::record::enqueue::NewJob;
use entropy_schema::sends::{self, Ended, LateJob, NewSend, SendEnd};
use entropy_workers::broker::Broker;
use entropy_workers::maintenance::rescuer::{Rescuer, Trust};
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::harness::Book;
use crate::harness::servers::RedisServer;
use crate::harness::services;

/// A rescuer that is asked to look, over the book.
pub(super) fn rescuer_over(book: &Book, redis: &RedisServer, namespace: &str) -> Rescuer {
    let registry = entropy_jobs::kinds::registry();
    Rescuer {
        worker: Uuid::now_v7(),
        services: Arc::new(services::alone(&book.db)),
        queues: registry.queues(),
        registry,
        broker: Broker::new(&Secret::new(redis.url()), namespace).unwrap(),
        ended: Arc::new(Notify::new()),
    }
}

/// A book with a rescuer over it.
struct Scene {
    book: Book,
    rescuer: Rescuer,
    redis: RedisServer,
    namespace: String,
}

impl Scene {
    async fn set() -> Scene {
        let book = Book::open().await;
        let redis = RedisServer::shared().await;
        let namespace = format!("it{:016x}", fastrand::u64(..));
        let rescuer = rescuer_over(&book, &redis, &namespace);
        Scene { book, rescuer, redis, namespace }
    }

    /// A message in a lane of its own.
    async fn message(&self, args: serde_json::Value) -> NewJob {
        let lane = self.book.lane().await;
        let job = self.book.job_in(lane, "a", 0);
        NewJob { kind: "send_message", queue: "send", args, max_attempts: 12, ..job }
    }

    /// Enqueues a message and lets a worker claim it.
    async fn claimed_message(&self, args: serde_json::Value) -> Claimed {
        self.book.enqueue(&[self.message(args).await]).await;
        self.book.take(Uuid::now_v7()).await
    }

    /// Writes that the message is on its way.
    async fn begin_send(&self, claimed: &Claimed) -> Uuid {
        let send = NewSend {
            id: Uuid::now_v7(),
            organization_id: self.book.organization,
            account_id: claimed.lane_id.unwrap(),
            token_key: "install",
            job_id: claimed.job_id,
            attempt: claimed.attempt,
            to_wxid: "wxid_1",
            message_kind: "text",
            message: None,
        };
        sends::begin(&mut *self.book.conn().await, &send).await.unwrap();
        send.id
    }

    async fn end_send(&self, id: Uuid, state: &'static str) -> Ended {
        sends::end(&mut *self.book.conn().await, id, &ended_as(state)).await.unwrap()
    }

    /// Does as a worker does that comes with proof, in time or late.
    async fn prove(&self, send: Uuid, job: Uuid) -> Result<Ended, entropy_schema::Error> {
        let result = json!({ "send_status": "sent" });
        let late = LateJob { id: job, state: "completed", result: &result };
        sends::settle(&mut *self.book.conn().await, send, &ended_as("sent"), late).await
    }

    /// Lets every lease run out and the rescuer look.
    async fn rescue(&self) {
        self.book.run("UPDATE leases SET lease_until = now() - interval '1 second'").await;
        self.rescuer.pass(Trust::Leases).await.unwrap();
        self.book.assert_sound().await;
    }

    async fn send_state(&self, id: Uuid) -> String {
        sends::recorded(&mut *self.book.conn().await, id).await.unwrap().unwrap().state
    }
}

fn ended_as(state: &'static str) -> SendEnd {
    SendEnd {
        state,
        counts: true,
        msg_id: None,
        new_msg_id: (state == "sent").then(|| "7300000000000000001".into()),
        create_time: None,
        error_class: None,
        error_code: None,
        error_message: None,
        settled_as: None,
    }
}

#[tokio::test]
async fn a_delivery_that_got_lost_is_sent_again_and_spends_nothing() {
    let scene = Scene::set().await;
    scene.book.enqueue(&[scene.book.job()]).await;
    let delivery = scene.book.dispatch_one().await;
    scene.rescue().await;
    let active = format!("{}-cost:active", scene.namespace);
    assert_eq!(scene.redis.command::<usize>(&["LLEN", &active]).await, 1);
    let claimed = scene.book.claim(&[delivery], Uuid::now_v7()).await;
    assert_eq!((claimed.len(), claimed[0].attempt), (1, 1));
}

#[tokio::test]
async fn a_delivery_that_still_waits_in_redis_is_not_sent_again() {
    let scene = Scene::set().await;
    scene.book.enqueue(&[scene.book.job()]).await;
    let delivery = scene.book.dispatch_one().await;
    scene.rescuer.broker.push(&[delivery]).await.unwrap();
    scene.rescue().await;
    let active = format!("{}-cost:active", scene.namespace);
    assert_eq!(scene.redis.command::<usize>(&["LLEN", &active]).await, 1);
    // Unless it has not been claimed for a minute.
    scene.book.run("UPDATE leases SET dispatched_at = now() - interval '61 seconds'").await;
    scene.rescue().await;
    assert_eq!(scene.redis.command::<usize>(&["LLEN", &active]).await, 2);
}

#[tokio::test]
async fn a_lease_that_is_kept_is_left_alone() {
    let scene = Scene::set().await;
    let claimed = scene.claimed_message(json!({})).await;
    scene.rescuer.pass(Trust::Leases).await.unwrap();
    assert_eq!(scene.book.state(claimed.job_id).await, "running");
    // After an outage of the database an expired lease is no proof.
    scene.book.run("UPDATE leases SET lease_until = now() - interval '1 second'").await;
    scene.rescuer.pass(Trust::Nothing).await.unwrap();
    assert_eq!(scene.book.state(claimed.job_id).await, "running");
}

#[tokio::test]
async fn a_message_whose_send_had_not_begun_is_tried_again() {
    let scene = Scene::set().await;
    let claimed = scene.claimed_message(json!({})).await;
    scene.rescue().await;
    assert_eq!(scene.book.state(claimed.job_id).await, "available");
    assert_eq!(scene.book.take(Uuid::now_v7()).await.attempt, 2);
}

#[tokio::test]
async fn a_message_that_was_under_way_becomes_unknown_and_is_not_repeated() {
    let scene = Scene::set().await;
    let claimed = scene.claimed_message(json!({})).await;
    let send = scene.begin_send(&claimed).await;
    scene.rescue().await;
    assert_eq!(scene.book.state(claimed.job_id).await, "dead");
    assert_eq!(scene.book.error_code(claimed.job_id).await.as_deref(), Some("outcome_unknown"));
    assert_eq!(scene.send_state(send).await, "unknown");
    assert_eq!(scene.book.dispatch().await, []);
}

#[tokio::test]
async fn the_caller_may_have_chosen_to_resend_or_to_drop() {
    for (policy, state) in [("resend", "available"), ("drop", "completed")] {
        let scene = Scene::set().await;
        let claimed = scene.claimed_message(json!({ "on_unknown": policy })).await;
        let send = scene.begin_send(&claimed).await;
        scene.rescue().await;
        assert_eq!(scene.book.state(claimed.job_id).await, state, "{policy}");
        assert_eq!(scene.send_state(send).await, "unknown");
    }
}

#[tokio::test]
async fn a_message_that_was_sent_is_completed_with_its_proof() {
    let scene = Scene::set().await;
    let claimed = scene.claimed_message(json!({})).await;
    let send = scene.begin_send(&claimed).await;
    assert_eq!(scene.end_send(send, "sent").await, Ended::InTime);
    scene.rescue().await;
    assert_eq!(scene.book.state(claimed.job_id).await, "completed");
    let proven = "SELECT count(*) AS n FROM jobs WHERE result ->> 'new_msg_id' = '7300000000000000001'";
    assert_eq!(scene.book.number(proven).await, 1);
}

#[tokio::test]
async fn a_message_that_surely_failed_is_tried_again() {
    let scene = Scene::set().await;
    let claimed = scene.claimed_message(json!({})).await;
    let send = scene.begin_send(&claimed).await;
    scene.end_send(send, "failed").await;
    scene.rescue().await;
    assert_eq!(scene.book.state(claimed.job_id).await, "available");
}

#[tokio::test]
async fn proof_that_comes_late_is_still_proof() {
    let scene = Scene::set().await;
    let claimed = scene.claimed_message(json!({})).await;
    let send = scene.begin_send(&claimed).await;
    scene.rescue().await;
    assert_eq!(scene.book.state(claimed.job_id).await, "dead");
    assert_eq!(scene.prove(send, claimed.job_id).await.unwrap(), Ended::Late);
    assert_eq!(scene.prove(send, claimed.job_id).await.unwrap(), Ended::Settled);
    assert_eq!(scene.book.state(claimed.job_id).await, "completed");
    scene.book.assert_sound().await;
}

/// A storm of kills has found a job that said "unknown" beside a send that said "sent".
#[tokio::test]
async fn proof_that_comes_late_is_written_to_send_and_job_or_to_neither() {
    let scene = Scene::set().await;
    let claimed = scene.claimed_message(json!({})).await;
    let send = scene.begin_send(&claimed).await;
    scene.rescue().await;
    scene
        .book
        .run(
            "CREATE FUNCTION dies() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the process dies'; END $$;
             CREATE TRIGGER dies BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION dies()",
        )
        .await;
    scene.prove(send, claimed.job_id).await.unwrap_err();
    assert_eq!(scene.send_state(send).await, "unknown");
    scene.book.run("DROP TRIGGER dies ON jobs").await;
    assert_eq!(scene.prove(send, claimed.job_id).await.unwrap(), Ended::Late);
    assert_eq!(scene.send_state(send).await, "sent");
    assert_eq!(scene.book.state(claimed.job_id).await, "completed");
}

#[tokio::test]
async fn the_send_of_an_earlier_attempt_says_nothing_about_this_one() {
    let scene = Scene::set().await;
    let claimed = scene.claimed_message(json!({})).await;
    let send = scene.begin_send(&claimed).await;
    scene.end_send(send, "failed").await;
    scene.rescue().await;
    let again = scene.book.take(Uuid::now_v7()).await;
    scene.book.run("UPDATE pending SET crashes = 0; UPDATE leases SET crashes = 0").await;
    let second = scene.begin_send(&again).await;
    scene.rescue().await;
    assert_eq!(scene.book.state(claimed.job_id).await, "dead");
    assert_eq!(
        (scene.send_state(send).await.as_str(), scene.send_state(second).await.as_str()),
        ("failed", "unknown")
    );
}

#[tokio::test]
async fn a_job_that_kills_two_processes_is_put_into_quarantine() {
    let scene = Scene::set().await;
    scene.book.enqueue(&[scene.book.job()]).await;
    let first = scene.book.take(Uuid::now_v7()).await;
    scene.rescue().await;
    assert_eq!(scene.book.state(first.job_id).await, "available");
    scene.book.take(Uuid::now_v7()).await;
    scene.rescue().await;
    assert_eq!(scene.book.state(first.job_id).await, "dead");
    assert_eq!(scene.book.error_code(first.job_id).await.as_deref(), Some("quarantined"));
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM attempts WHERE outcome = 'lost'").await, 2);
}

#[tokio::test]
async fn two_rescuers_at_once_settle_a_death_once() {
    let scene = Scene::set().await;
    let claimed = scene.claimed_message(json!({})).await;
    scene.book.run("UPDATE leases SET lease_until = now() - interval '1 second'").await;
    let passes = (0..6).map(|_| scene.rescuer.pass(Trust::Leases));
    for pass in futures::future::join_all(passes).await {
        pass.unwrap();
    }
    assert_eq!(scene.book.take(Uuid::now_v7()).await.attempt, 2);
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM attempts").await, 1);
    assert_eq!(scene.book.state(claimed.job_id).await, "running");
}

#[tokio::test]
async fn the_late_end_of_a_rescued_attempt_changes_nothing() {
    let scene = Scene::set().await;
    let worker = Uuid::now_v7();
    scene.book.enqueue(&[scene.book.job()]).await;
    let claimed = scene.book.take(worker).await;
    scene.rescue().await;
    assert!(!scene.book.finish(crate::harness::book::end_of(&claimed, worker)).await);
    assert_eq!(scene.book.state(claimed.job_id).await, "available");
}
