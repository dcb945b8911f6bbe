//! The kill storm: every process and both stores are killed, frozen and stopped at random, and nothing is lost, sent
//! twice, out of order or against a limit.
//!
//! [`plan`] says what is struck when, from a seed; [`strike`] does it; [`ticks`] watches the schedules. The messages and
//! what is asked of them are the harness' traffic.

mod evidence;
mod figures;
mod plan;
mod strike;
mod ticks;

use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::json;

use self::figures::Figures;
use self::plan::{APIS, Action, SCHEDULERS, Strike, Victim, WORKERS};
use self::strike::Storm;
use crate::harness::traffic::{Traffic, TrafficShape};
use crate::harness::{Platform, chaos, secs};

/// How long the platform may take to come to rest after the last strike: a lease, a rescuer that waits for one, and
/// retries. What the limits ask of the backlog comes on top.
const COMES_TO_REST: Duration = secs(90);

/// Messages wait for less than half of what the accounts may send, so that what piles up in an outage is soon gone.
const SHAPE: TrafficShape = TrafficShape {
    accounts: 12,
    conversations: 6,
    rate_per_s: 20.0,
    token_per_hour: 400,
    slow_provider: secs(1),
};

#[tokio::test]
async fn a_storm_of_kills_and_freezes_loses_repeats_and_disorders_nothing() {
    let (seed, duration) = (chaos::seed(), secs(chaos::seconds(60)));
    // First of all: whatever happens, this run can be repeated.
    eprintln!("kill storm: ENTROPY_CHAOS_SEED={seed} ENTROPY_CHAOS_SECONDS={}", duration.as_secs());
    let plan = plan::plan(seed, duration);
    let mut platform = start().await;
    slow_down_the_provider(&platform, seed).await;
    let mut traffic = Traffic::prepare(&platform, seed, SHAPE).await;

    let bases: Vec<String> = (0..APIS).map(|n| platform.base(n).to_owned()).collect();
    let url = platform.database.url().to_owned();
    let storm = Storm::over(&mut platform);
    let storming = async {
        tokio::select! {
            seen = storm.rage(&plan) => seen,
            () = ticks::set_back_for_ever(&url) => unreachable!("it never ends"),
        }
    };
    let (mut seen, ()) = futures::join!(storming, traffic.run(&bases, duration));

    let calm = Instant::now();
    platform.ready().await;
    let owed = owed(&platform).await;
    platform.idle(COMES_TO_REST + 2 * owed).await;
    let rest = calm.elapsed();
    let ticks = ticks::make_good(&mut platform).await;
    platform.idle(COMES_TO_REST).await;
    seen.faults.extend(evidence::panics(&platform.logs()));
    let surplus = ticks::surplus(&platform).await;
    if surplus > 0 {
        seen.faults.push(format!("schedules have made {surplus} jobs too many"));
    }
    // Whoever looks into a fault finds it beside the logs; they go together if there is none.
    evidence::keep(&platform).await;
    let unknown = evidence::unknown(&platform).await;
    let report = traffic.check(&platform).await;
    let figures =
        Figures { seed, duration, plan: &plan, seen: &seen, rest, ticks, report: &report, unknown: &unknown };
    chaos::report(&figures.to_string());
    assert!(seen.faults.is_empty(), "{} faults:\n{}", seen.faults.len(), seen.faults.join("\n"));
    report.assert_clean();
    // A storm in which nothing moved would prove nothing.
    let expected = SHAPE.rate_per_s * duration.as_secs_f64() / 4.0;
    assert!(report.arrived as f64 > expected, "of {expected} messages at least, {} arrived", report.arrived);
}

/// Returns how long the account takes at least that has the most to send for its limit.
async fn owed(platform: &Platform) -> Duration {
    let seconds = "SELECT coalesce(ceil(max(waiting * 60.0 / a.messages_per_minute)), 0)::bigint AS n FROM \
        (SELECT lane_id, count(*) AS waiting FROM pending GROUP BY 1) p JOIN wechat_accounts a ON a.id = p.lane_id";
    secs(u64::try_from(platform.number(seconds).await).expect("a time"))
}

/// Without this the storm would prove less than it says.
#[tokio::test]
async fn a_process_that_dies_unbidden_and_a_tick_that_happens_twice_are_noticed() {
    let mut platform = start().await;
    let unbidden = [(platform.workers[1].pid(), Signal::SIGKILL), (platform.apis[1].pid(), Signal::SIGTERM)];
    let strike = Strike { at: Duration::ZERO, victim: Victim::Api(0), action: Action::Freeze(secs(3)) };
    let plan = [strike];
    let storm = Storm::over(&mut platform);
    let dying = async {
        for (pid, signal) in unbidden {
            signal::kill(Pid::from_raw(i32::try_from(pid).expect("a process id")), signal).expect("it lives");
        }
    };
    let (seen, ()) = futures::join!(storm.rage(&plan), dying);
    let mut faults: Vec<&str> = seen.faults.iter().filter_map(|fault| fault.lines().next()).collect();
    faults.sort_unstable_by_key(|fault| fault.contains("worker"));
    let [api, worker] = faults[..] else { panic!("two have died: {faults:#?}") };
    assert!(api.contains("api 1") && api.contains("died by itself: exit status: 0"), "{api}");
    assert!(worker.contains("worker 1") && worker.contains("died by itself: signal 9"), "{worker}");
    // Others were started in their place.
    platform.ready().await;

    assert!(ticks::make_good(&mut platform).await >= 2);
    assert_eq!(ticks::surplus(&platform).await, 0);
    let twice = "WITH twice AS (INSERT INTO jobs SELECT (jsonb_populate_record(j, \
        jsonb_build_object('id', gen_random_uuid()))).* FROM jobs j WHERE kind = 'expire_keys' LIMIT 1 RETURNING 1) \
        SELECT count(*) AS n FROM twice";
    assert_eq!(platform.number(twice).await, 1);
    assert_eq!(ticks::surplus(&platform).await, 1);
}

/// Starts the whole platform, on stores of its own.
async fn start() -> Platform {
    let platform = Platform::with().api(APIS).workers(WORKERS).schedulers(SCHEDULERS);
    let platform = platform.own_redis().own_postgres().start().await;
    ticks::started(&platform).await;
    platform
}

/// Has calls last for long enough that a strike finds some under way, with the message taken or not taken yet.
async fn slow_down_the_provider(platform: &Platform, seed: u64) {
    let modes = [
        ("delay_before_accept", 150),
        ("delay_before_accept", 600),
        ("delay_after_accept", 150),
        ("delay_after_accept", 300),
        ("delay_after_accept", 900),
        ("late_accept", 300),
    ]
    .map(|(mode, delay_ms)| json!({ "mode": mode, "delay_ms": delay_ms }));
    platform.sandbox.mix(json!({ "seed": seed, "of": 20, "modes": modes })).await;
}
