//! A provider that fails in every way it can, mixed: what is recorded of each call is what became of the message.
//!
//! The sandbox deals each failure to one call in ten, for every kind of message, and knows of each call whether the
//! message reached the phone. [`truth`] compares that with the record, call by call and job by job. [`scene`] sets the
//! accounts up and does what an operator would do; [`modes`] says what each failure must come to; [`messages`] has a
//! message of every kind.
//!
//! The wire below, byte for byte, is the subject of the GeWe client's own tests.

mod messages;
mod modes;
mod scene;
mod truth;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Platform, chaos, eventually, secs};
use messages::KINDS;
use modes::{ACCOUNT, ANSWERS, CONNECTION, GATEWAY, SLOW};
use scene::{Cast, Part, Policy, Scene};
use truth::Tally;

/// What no worker may need, whatever the provider sends. One that is idle takes a tenth of it.
const MEMORY_LIMIT_KIB: u64 = 400 * 1024;

/// Every mix, each kind as often as one deck of ten cards asks for.
fn cast(round: usize, long: bool) -> Vec<Part> {
    let mut parts = Vec::new();
    for modes in [CONNECTION, GATEWAY, ANSWERS, ACCOUNT] {
        parts.push(Part::of(modes, vec![Policy::Hold, Policy::Drop]));
        // With most calls unknown, the pauses between the tries of one message would fill minutes.
        for few in modes.chunks(4) {
            parts.push(Part { messages: 50, conversations: 17, ..Part::of(few, vec![Policy::Resend]) });
        }
    }
    // Calls that are cut off by their timeout: 20 s for text, and 60 s for media, which the short form leaves out.
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| long || !messages::fetches_media(kind)).collect();
    for (n, slow) in SLOW.into_iter().enumerate() {
        let kind = kinds[(n + round) % kinds.len()];
        // What is accepted late may arrive behind its second try; the others are tried again here and there.
        let policy = [Policy::Hold, Policy::Drop, Policy::Resend, Policy::Hold][n];
        parts.push(Part { kinds: vec![kind], slow: Some(slow), messages: 10, ..Part::of(&[], vec![policy]) });
    }
    // An account whose limit is far below what it is asked for, so that failing calls are seen to count.
    let busy = Part::of(GATEWAY, vec![Policy::Hold]);
    parts.push(Part { kinds: vec!["text"], messages: 40, per_minute: 20, ..busy });
    parts
}

#[tokio::test]
async fn every_failure_mixed_with_others_is_recorded_as_what_it_was() {
    let (seed, begun) = (chaos::seed(), Instant::now());
    println!("hostile provider, seed {seed}");
    let platform = Platform::with().workers(2).start().await;
    let mut tally = Tally::default();
    let mut round = 0;
    loop {
        let cast = Cast::hire(&platform, cast(round, chaos::long()), seed.wrapping_add(round as u64)).await;
        let scene = Scene::play(&platform, cast, if chaos::long() { secs(240) } else { secs(150) }).await;
        let faults = scene.faults();
        assert!(
            faults.is_empty(),
            "seed {seed}: {} faults: {:#?}",
            faults.len(),
            &faults[..faults.len().min(20)]
        );
        scene.assert_every_mode_met_every_kind();
        tally.add(&scene.told);
        platform.assert_sound().await;
        scene.assert_no_secret_is_kept(&platform).await;
        platform.sandbox.reset().await;
        round += 1;
        if begun.elapsed() >= Duration::from_secs(chaos::seconds(0)) {
            break;
        }
    }
    let peak = platform.workers.iter().map(|worker| scene::peak_memory_kib(worker.pid())).max().unwrap_or(0);
    chaos::report(&format!(
        "hostile provider: seed {seed}, {round} rounds, {} s, a worker's peak {} MiB\n{tally}",
        begun.elapsed().as_secs(),
        peak / 1024,
    ));
    assert!(peak < MEMORY_LIMIT_KIB, "a worker has needed {peak} KiB");
}

/// The question is a call like any other: only a plain yes brings an account back, and nothing is lost meanwhile.
#[tokio::test]
async fn an_account_comes_back_online_by_a_plain_yes_only_however_the_question_fails() {
    let platform = Platform::start().await;
    let client = platform.register().await;
    let ask = |mode: &'static str| {
        let (platform, client) = (&platform, client.clone());
        async move {
            let account = client.account(600, 0).await;
            platform.sandbox.fail(json!({"mode": "offline", "app_id": account.app_id})).await;
            let job = client.text(&account, "wxid_customer", "您好，请问在吗？", "interactive").await;
            let waits = format!(
                "SELECT count(*) AS n FROM lanes l JOIN wechat_accounts a ON a.id = l.id WHERE a.id = '{}' \
                 AND a.status = 'OFFLINE' AND l.busy_job_id IS NULL AND l.wait_code = 'account_offline'",
                account.id
            );
            let offline = async || platform.number(&waits).await == 1;
            eventually("the account counts as offline", secs(30), offline).await;

            let plan = json!({"mode": mode, "app_id": account.app_id, "route": "checkOnline", "delay_ms": 1});
            platform.sandbox.fail(plan).await;
            // Changed limits make the lane look again, which would happen by itself a minute later.
            let path = format!("/wechat-accounts/{}", account.id);
            client.patch(&path, json!({"limits": {"min_gap_ms": 1}})).await.expect(200);
            let asked = async || {
                let calls = platform.sandbox.calls_of(&account.app_id).await;
                calls.iter().any(|call| call["failure"] == mode && call["outcome"] != "pending")
            };
            eventually(&format!("the question has met {mode}"), secs(30), asked).await;
            if modes::tells_the_truth(mode) {
                let ended = platform.ended(&client, job, secs(30)).await;
                assert_eq!(ended["result"]["send_status"], "sent", "{mode}: {ended}");
            } else {
                eventually(&format!("it is offline still after {mode}"), secs(30), offline).await;
                client.patch(&path, json!({"limits": {"min_gap_ms": 0}})).await.expect(200);
                let ended = platform.ended(&client, job, secs(30)).await;
                assert_eq!(ended["result"]["send_status"], "sent", "{mode}: {ended}");
            }
            let received = platform.sandbox.entries_of(&account.app_id).await;
            assert_eq!(received.len(), 1, "{mode}");
        }
    };
    let modes = [CONNECTION, GATEWAY, ANSWERS, ACCOUNT].concat();
    futures::future::join_all(modes.into_iter().map(ask)).await;
    platform.assert_sound().await;
}
