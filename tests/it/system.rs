//! The promise of the whole: every message once, in order, within the limits.

use crate::harness::load::{self, Load, Shape};
use crate::harness::{Platform, secs};

#[tokio::test]
async fn every_message_arrives_once_in_order_and_within_the_limits() {
    let platform = Platform::with().api(2).workers(4).alone().start().await;
    let mut load = Load::prepare(&platform, Shape::FULL).await;
    load.enqueue().await;
    platform.idle(secs(60)).await;
    assert_eq!(load.assert_kept(&platform).await, 0, "no outcome is unknown");
    assert_eq!(platform.sandbox.received().await, load.total());
    assert_eq!(
        platform.number("SELECT count(*) AS n FROM attempts WHERE attempt > 1").await,
        0,
        "nothing was retried"
    );
}

#[tokio::test]
async fn a_burst_above_the_limit_waits_for_the_rolling_minute() {
    let shape =
        Shape { accounts: 1, conversations: 3, messages: 25, per_minute: 20, min_gap_ms: 0, ..Shape::FULL };
    let mut platform = Platform::with().start().await;
    let mut load = Load::prepare(&platform, shape).await;
    load.enqueue().await;
    load::received(&platform, 20, secs(20)).await;
    platform.rest();
    platform.idle(secs(90)).await;
    assert_eq!(load.assert_kept(&platform).await, 0);
    let arrived = platform.ledger().await;
    let apart_us = arrived[20].at_us - arrived[0].at_us;
    assert!(apart_us >= 60_000_000, "the 21st came {apart_us} µs after the first");
    assert!(apart_us < 63_000_000, "and not much later than it may: {apart_us} µs");
}
