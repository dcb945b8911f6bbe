//! How soon a dead worker is known, and who is not taken for one. The rules one by one are in `record::presence`.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use uuid::Uuid;

use crate::harness::client::Account;
use crate::harness::{Client, Platform, eventually, secs};

/// A lease, less what a loaded machine may be late. Whoever is known sooner was not known by its lease.
const WELL_BEFORE_THE_LEASE: Duration = secs(10);

/// Two workers that have had their sessions for a while, and one message in a call that lasts.
struct Scene {
    platform: Platform,
    client: Client,
    account: Account,
    job: Uuid,
    /// Which of the workers makes the call.
    caller: usize,
}

impl Scene {
    async fn set(call_ms: u64) -> Scene {
        let platform = Platform::with().workers(2).start().await;
        let client = platform.register().await;
        let account = client.account(600, 0).await;
        let settled = "SELECT count(*) AS n FROM workers WHERE session_since < now() - interval '6 seconds'";
        eventually("both workers may judge", secs(30), async || platform.number(settled).await == 2).await;
        let slow = json!({ "mode": "delay_before_accept", "delay_ms": call_ms, "times": 1 });
        platform.sandbox.fail(slow).await;
        let job = client.text(&account, "wxid_1", "第一条", "interactive").await;
        let under_way = "SELECT count(*) AS n FROM sends WHERE state = 'sending'";
        eventually("the call is under way", secs(20), async || platform.number(under_way).await == 1).await;
        let pid = "SELECT w.pid::bigint AS n FROM leases l JOIN workers w ON w.id = l.worker_id";
        let pid = platform.number(pid).await;
        let caller = platform.workers.iter().position(|worker| i64::from(worker.pid()) == pid);
        Scene { caller: caller.expect("a worker makes the call"), platform, client, account, job }
    }

    async fn lost(&self) -> i64 {
        self.platform.number("SELECT count(*) AS n FROM attempts WHERE outcome = 'lost'").await
    }
}

#[tokio::test]
async fn the_lane_of_a_killed_worker_goes_on_long_before_its_lease_runs_out() {
    let mut scene = Scene::set(60_000).await;
    let next = scene.client.text(&scene.account, "wxid_2", "第二条", "interactive").await;
    scene.platform.workers[scene.caller].kill();
    let killed = std::time::Instant::now();
    let next = scene.platform.ended(&scene.client, next, WELL_BEFORE_THE_LEASE).await;
    assert_eq!(next["state"], "completed", "{next:#}");
    println!("the lane went on {:.1?} after the death", killed.elapsed());
    let first = scene.client.job(scene.job).await;
    assert_eq!(first["state"], "dead", "{first:#}");
    assert_eq!(scene.platform.number("SELECT count(*) AS n FROM sends WHERE state = 'unknown'").await, 1);
    scene.platform.assert_sound().await;
}

#[tokio::test]
async fn a_frozen_worker_keeps_its_jobs_until_its_leases_run_out() {
    let scene = Scene::set(60_000).await;
    scene.platform.workers[scene.caller].signal(Signal::SIGSTOP);
    // Read while the attempt is there, so that nothing but the run-out lease can have ended it.
    let early = "SELECT count(*) AS n FROM attempts a JOIN workers w ON w.id = a.worker_id \
        WHERE a.outcome = 'lost' AND a.finished_at < w.heartbeat_at + interval '11 seconds'";
    eventually("its job was taken back", secs(60), async || {
        assert_eq!(scene.platform.number(early).await, 0, "it was taken for dead too soon");
        scene.lost().await == 1
    })
    .await;
    scene.platform.workers[scene.caller].signal(Signal::SIGCONT);
    scene.platform.assert_sound().await;
}

#[tokio::test]
async fn a_worker_whose_session_is_ended_again_and_again_loses_nothing() {
    let scene = Scene::set(7_000).await;
    let terminate = "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_locks WHERE locktype = 'advisory' \
        AND mode = 'ShareLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut ended = 0;
    eventually("the call has ended", secs(30), async || {
        ended += scene.platform.number(terminate).await;
        scene.client.job(scene.job).await["state"] == "completed"
    })
    .await;
    assert!(ended >= 6, "{ended} sessions were ended");
    assert_eq!(scene.lost().await, 0);
    scene.platform.assert_sound().await;
}
