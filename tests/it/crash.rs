//! Whatever process is killed in the middle: nothing is lost, nothing comes twice, and the order holds. The stores are in
//! `stores`.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::load::{self, Load, Shape};
use crate::harness::{Platform, eventually, secs};

/// The load of `system.rs`, enqueued while things go wrong.
const SHAPE: Shape = Shape { pause: Duration::from_millis(15), ..Shape::FULL };

/// Long enough for a lease to expire and for what hung on it.
const RECOVERY: Duration = secs(90);

/// Runs the load, lets `disturb` do its worst once a third has arrived, and waits for the end.
///
/// Returns how many outcomes are unknown.
async fn disturbed(mut platform: Platform, disturb: impl AsyncFnOnce(&mut Platform)) -> usize {
    let mut load = Load::prepare(&platform, SHAPE).await;
    let third = load.total() / 3;
    let disturbing = async {
        load::received(&platform, third, secs(60)).await;
        disturb(&mut platform).await;
    };
    futures::join!(load.enqueue(), disturbing);
    platform.ready().await;
    platform.idle(RECOVERY).await;
    let unknown = load.assert_kept(&platform).await;
    // Not one more comes late.
    let received = platform.sandbox.received().await;
    assert_eq!(received, platform.sandbox.received().await);
    assert!(received + unknown as u64 >= load.total(), "{received} received, {unknown} unknown");
    unknown
}

#[tokio::test]
async fn a_killed_worker_leaves_unknown_outcomes_and_no_other_trace() {
    let platform = Platform::with().workers(4).start().await;
    let unknown = disturbed(platform, async |platform| platform.replace_worker(0)).await;
    eprintln!("{unknown} outcomes unknown after the death of one worker in four");
    assert!(unknown <= SHAPE.accounts, "a lane has one message under way");
}

#[tokio::test]
async fn a_killed_api_loses_nothing_that_it_accepted() {
    let platform = Platform::with().workers(4).start().await;
    let unknown = disturbed(platform, async |platform| {
        platform.kill_api(0);
        platform.restart_api(0);
    })
    .await;
    assert_eq!(unknown, 0);
}

/// A frozen process wakes up to find that its work was given away. It must not send then.
#[tokio::test]
async fn a_frozen_worker_sends_nothing_when_it_wakes_up() {
    let platform = Platform::with().workers(2).start().await;
    disturbed(platform, async |platform| {
        platform.workers[0].signal(Signal::SIGSTOP);
        let given_away = "SELECT count(*) AS n FROM attempts WHERE outcome = 'lost'";
        let held = "SELECT count(*) AS n FROM leases WHERE lease_until < now() - interval '12 seconds'";
        eventually("the frozen worker's jobs were given away, or it had none", secs(40), async || {
            let stuck = platform.number(held).await;
            let lost = platform.number(given_away).await;
            let waiting = platform.number("SELECT count(*) AS n FROM pending").await;
            let leased = platform.number("SELECT count(*) AS n FROM leases").await;
            if stuck == 0 && (lost > 0 || waiting + leased == 0) {
                Ok(())
            } else {
                Err(format!("{stuck} stuck, {lost} lost, {waiting} wait, {leased} leased"))
            }
        })
        .await;
        platform.workers[0].signal(Signal::SIGCONT);
    })
    .await;
}
