//! Whom the rescuer takes for dead: a worker whose heartbeat is silent and whose session is gone, and nobody else.

use entropy_schema::presence::Session;
use entropy_schema::record::claim::Claimed;
use entropy_schema::workers::{self, NewWorker};
use entropy_workers::maintenance::rescuer::{Rescuer, Trust};
use uuid::Uuid;

use super::rescue::rescuer_over;
use crate::harness::servers::RedisServer;
use crate::harness::{Book, eventually, secs};

/// A judge, and a worker that holds a job.
struct Scene {
    book: Book,
    rescuer: Rescuer,
    judge: Option<Session>,
    worker: Uuid,
    session: Option<Session>,
    claimed: Claimed,
}

impl Scene {
    /// Both have a session, the judge for long enough; the worker has just said so.
    async fn set() -> Scene {
        let book = Book::open().await;
        let redis = RedisServer::shared().await;
        let rescuer = rescuer_over(&book, &redis, &format!("it{:016x}", fastrand::u64(..)));
        let worker = Uuid::now_v7();
        let judge = Some(join(&book, rescuer.worker).await);
        let session = Some(join(&book, worker).await);
        book.enqueue(&[book.job()]).await;
        let claimed = book.take(worker).await;
        let scene = Scene { book, rescuer, judge, worker, session, claimed };
        scene.joined_ago(scene.rescuer.worker, "6 seconds").await;
        scene
    }

    async fn joined_ago(&self, worker: Uuid, time: &str) {
        self.book
            .run(&format!(
                "UPDATE workers SET session_since = clock_timestamp() - interval '{time}' WHERE id = '{worker}'"
            ))
            .await;
    }

    async fn silent_for(&self, time: &str) {
        self.book
            .run(&format!(
                "UPDATE workers SET heartbeat_at = clock_timestamp() - interval '{time}' WHERE id = '{}'",
                self.worker
            ))
            .await;
    }

    /// Ends the session of a worker, as the kernel does when the process dies.
    async fn ends(&mut self, session: impl Fn(&mut Scene) -> &mut Option<Session>) {
        let before = self.locks().await;
        drop(session(self).take());
        eventually("the lock is free", secs(10), async || self.locks().await < before).await;
    }

    async fn locks(&self) -> i64 {
        self.book
            .number(
                "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
            .await
    }

    /// Lets the rescuer look and returns the state of the worker's job.
    async fn state_after_a_look(&self) -> String {
        self.rescuer.pass(Trust::Sessions).await.unwrap();
        self.book.assert_sound().await;
        self.book.state(self.claimed.job_id).await
    }
}

/// Writes a worker's row and opens its session.
async fn join(book: &Book, id: Uuid) -> Session {
    let worker = NewWorker { id, host: "here", pid: 1, version: "0", slots: 1, state: "running" };
    workers::beat(&mut *book.conn().await, &worker, 0, "").await.unwrap();
    let mut session = Session::open(&book.db, id).await.unwrap();
    session.beat().await.unwrap();
    session
}

#[tokio::test]
async fn a_worker_that_is_silent_and_whose_session_is_gone_is_dead_before_its_lease_runs_out() {
    let mut scene = Scene::set().await;
    scene.ends(|scene| &mut scene.session).await;
    scene.silent_for("3 seconds").await;
    assert_eq!(scene.state_after_a_look().await, "available");
    // As when a lease runs out, the death is counted.
    let crashed = "SELECT count(*) AS n FROM attempts JOIN pending USING (job_id) \
        WHERE outcome = 'lost' AND error ->> 'code' = 'process_lost' AND crashes = 1";
    assert_eq!(scene.book.number(crashed).await, 1);
    // Nobody looks for it any more.
    assert_eq!(scene.state_after_a_look().await, "available");
    let sought = "SELECT count(*) AS n FROM workers WHERE session_since IS NOT NULL";
    assert_eq!(scene.book.number(sought).await, 1);
}

#[tokio::test]
async fn two_judges_at_once_settle_a_death_once() {
    let mut scene = Scene::set().await;
    scene.ends(|scene| &mut scene.session).await;
    scene.silent_for("3 seconds").await;
    let passes = (0..6).map(|_| scene.rescuer.pass(Trust::Sessions));
    for pass in futures::future::join_all(passes).await {
        pass.unwrap();
    }
    assert_eq!(scene.state_after_a_look().await, "available");
    assert_eq!(scene.book.number("SELECT count(*) AS n FROM attempts").await, 1);
}

/// Frozen, or starved.
#[tokio::test]
async fn a_silent_worker_with_a_session_keeps_its_jobs() {
    let scene = Scene::set().await;
    scene.silent_for("14 seconds").await;
    assert_eq!(scene.state_after_a_look().await, "running");
}

#[tokio::test]
async fn a_worker_without_its_session_keeps_its_jobs_while_its_heart_beats() {
    let mut scene = Scene::set().await;
    scene.ends(|scene| &mut scene.session).await;
    scene.silent_for("2 seconds").await;
    assert_eq!(scene.state_after_a_look().await, "running");
}

/// One for which there is no connection, or one of an older version.
#[tokio::test]
async fn of_a_worker_that_has_no_session_only_the_lease_tells() {
    let mut scene = Scene::set().await;
    scene.ends(|scene| &mut scene.session).await;
    scene.book.run(&format!("UPDATE workers SET session_since = NULL WHERE id = '{}'", scene.worker)).await;
    scene.silent_for("14 seconds").await;
    assert_eq!(scene.state_after_a_look().await, "running");
}

/// Postgres was restarted: everybody is silent and nobody has a session, the judge no more than the others.
#[tokio::test]
async fn nobody_judges_whose_own_session_is_gone_or_young() {
    let mut scene = Scene::set().await;
    scene.ends(|scene| &mut scene.session).await;
    scene.silent_for("10 seconds").await;
    scene.ends(|scene| &mut scene.judge).await;
    assert_eq!(scene.state_after_a_look().await, "running");
    scene.judge = Some(join(&scene.book, scene.rescuer.worker).await);
    assert_eq!(scene.state_after_a_look().await, "running");
    scene.joined_ago(scene.rescuer.worker, "4 seconds").await;
    assert_eq!(scene.state_after_a_look().await, "running");
    scene.joined_ago(scene.rescuer.worker, "6 seconds").await;
    assert_eq!(scene.state_after_a_look().await, "available");
}

#[tokio::test]
async fn after_an_outage_nobody_is_dead() {
    let mut scene = Scene::set().await;
    scene.ends(|scene| &mut scene.session).await;
    scene.silent_for("10 seconds").await;
    scene.rescuer.pass(Trust::Nothing).await.unwrap();
    assert_eq!(scene.book.state(scene.claimed.job_id).await, "running");
}
