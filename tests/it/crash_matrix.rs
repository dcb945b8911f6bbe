//! The crash matrix: at every numbered step, for every delivery semantics whose way leads over it, the process dies.
//!
//! It dies by `abort` in the middle of its traffic, is started again, and everything that was asked for must end as its
//! semantics promise. Start reading at [`steps`], the list.

mod audience;
mod campaign;
mod dialogue;
mod document;
mod kind;
mod plan;
mod steps;
mod traffic;
mod writing;

use std::collections::{HashMap, VecDeque};
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use entropy_jobs::lifecycle::Delivery;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use self::steps::{After, DELIVERIES, Role, STEPS, Step, Under};
use self::traffic::{SHAPE, Traffic};
use crate::harness::load::{self, Load};
use crate::harness::process::{ENTROPY, Process};
use crate::harness::{Client, Platform, chaos, eventually, secs};

/// Platforms at once. They mostly wait for leases to run out.
const AT_ONCE: usize = 14;

/// How long it may take until a process comes by the step at which it dies: a lease and a look of the rescuer, on a
/// machine that is busy.
const DEATH: Duration = secs(60);

/// How long it may take until everything has ended after that.
const RECOVERY: Duration = secs(90);

/// Names a step, to look at that one alone.
const ONLY: &str = "ENTROPY_CRASH_STEP";

/// A step, and the semantics of the jobs that are under way.
struct Case {
    step: &'static Step,
    delivery: Delivery,
    under: Under,
}

/// What a case has shown.
struct Survived {
    case: Case,
    deaths: usize,
    open: usize,
}

fn cases() -> Vec<Case> {
    let of = |step: &'static Step| {
        let under = step.under();
        let plain = DELIVERIES.map(|delivery| Case { step, delivery, under });
        let message = |under| Case { step, delivery: Delivery::OnceOrAsk, under };
        let answer = step.is_of_an_answer().then(|| message(Under::Dialogue));
        let campaign = step.is_of_a_campaigns_message().then(|| message(Under::Campaign));
        let text = step.is_of_a_campaigns_text();
        let text = text.then_some(Case { step, delivery: Delivery::AtLeastOnce, under: Under::Writing });
        plain.into_iter().chain(answer).chain(campaign).chain(text)
    };
    let mut cases: Vec<Case> = STEPS.iter().flat_map(of).collect();
    cases.retain(|case| case.step.after(case.delivery) != After::NotHere);
    if let Ok(only) = std::env::var(ONLY) {
        cases.retain(|case| case.step.name == only);
        assert!(!cases.is_empty(), "{ONLY}: {only} is no step");
    }
    // The longest first: those in which several workers have to die, and those that wait for a call which nobody has on record.
    let length = |case: &Case| (case.step.rescues(case.delivery).len(), case.step.waits_for_a_call());
    cases.sort_by_key(|case| std::cmp::Reverse(length(case)));
    cases
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.under {
            Under::Jobs => "",
            Under::Dialogue => " of a dialogue",
            Under::Campaign => " of a campaign",
            Under::Audience => " of an audience",
            Under::Writing => " of a campaign's text",
        };
        write!(f, "{} under {:?}{what}", self.step.name, self.delivery)
    }
}

#[test]
fn a_process_may_die_at_every_step() {
    let begun = Instant::now();
    let waiting = Mutex::new(VecDeque::from(cases()));
    let total = waiting.lock().expect("the cases").len();
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    // A thread and a runtime each: what blocks one case, or fails it, must not hold back the others.
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut tried = Vec::new();
        while let Some(case) = next() {
            let name = case.to_string();
            let survived = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(survive(case))));
            tried.push(survived.map_err(|_| name));
        }
        tried
    };
    let tried: Vec<Result<Survived, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of cases")).collect()
    });
    let failed: Vec<&String> = tried.iter().filter_map(|tried| tried.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {total} cases failed: {failed:#?}", failed.len());
    let survived: Vec<Survived> = tried.into_iter().flatten().collect();
    assert_eq!(survived.len(), total);
    chaos::report(&table(&survived, begun.elapsed()));
}

/// Returns the figures.
fn table(survived: &[Survived], took: Duration) -> String {
    let mut text = format!(
        "crash matrix: {} steps, {} s\n{:<15}{:>7}{:>9}{:>7}{:>6}{:>12}{:>6}\n",
        STEPS.len(),
        took.as_secs(),
        "delivery",
        "cases",
        "crashes",
        "jobs",
        "lost",
        "duplicated",
        "open"
    );
    let mut of: HashMap<Delivery, [usize; 4]> = HashMap::new();
    for one in survived {
        let [cases, deaths, jobs, open] = of.entry(one.case.delivery).or_default();
        *cases += 1;
        *jobs += match one.case.under {
            Under::Dialogue => dialogue::CUSTOMERS,
            Under::Campaign | Under::Audience | Under::Writing => plan::PEOPLE,
            Under::Jobs if one.case.step.role == Role::Scheduler => 1,
            Under::Jobs => traffic::JOBS,
        };
        *deaths += one.deaths;
        *open += one.open;
    }
    for delivery in DELIVERIES {
        let [cases, deaths, jobs, open] = of.get(&delivery).copied().unwrap_or_default();
        let word = serde_json::to_value(delivery).expect("a word");
        // A case in which something was lost or repeated has not come this far.
        text += &format!(
            "{:<15}{cases:>7}{deaths:>9}{jobs:>7}{:>6}{:>12}{open:>6}\n",
            word.as_str().expect("a word"),
            0,
            0
        );
    }
    text
}

/// Lets a process die in a case, and everything end. Panics if it does not end well.
async fn survive(case: Case) -> Survived {
    let Case { step, delivery, under } = case;
    // Small pools: the platforms share one Postgres.
    let mut platform = Platform::with().workers(0).env("DATABASE_POOL_SIZE", "4").start().await;
    let (deaths, open) = match step.name {
        "control.cancelled" => (1, cancel(&mut platform, step).await),
        "control.paused" => (1, pause(&mut platform, step).await),
        _ if step.role == Role::Scheduler && under == Under::Jobs => (1, tick(&mut platform, step).await),
        _ => {
            let mut traffic = match under {
                // The one customer's job has to die twice.
                Under::Dialogue if step.name.starts_with("overdue.") => {
                    Traffic::prepare_dialogue(&platform, 1).await
                }
                Under::Dialogue => Traffic::prepare_dialogue(&platform, dialogue::CUSTOMERS).await,
                Under::Campaign => Traffic::prepare_campaign(&platform).await,
                Under::Audience => Traffic::prepare_audience(&platform).await,
                Under::Writing => Traffic::prepare_writing(&platform).await,
                Under::Jobs => Traffic::prepare(&platform, delivery).await,
            };
            if under == Under::Audience && step.role == Role::Worker {
                // For whom the plan's time comes.
                start(&mut platform, Role::Scheduler, delivery, None);
            }
            carry_out(&mut platform, &mut traffic, step, delivery).await
        }
    };
    assert!(step.after(delivery).allows(open), "{case}: {open} jobs ended open");
    Survived { case, deaths, open }
}

/// Enqueues the jobs of a case while its process dies and comes back. Returns how many died, and how many jobs are open.
async fn carry_out(
    platform: &mut Platform,
    traffic: &mut Traffic,
    step: &Step,
    delivery: Delivery,
) -> (usize, usize) {
    if step.role != Role::Worker {
        start(platform, Role::Worker, delivery, None);
        platform.ready().await;
    }
    let deaths: Vec<&Step> = step.rescues(delivery).into_iter().chain([step]).collect();
    let dying = async {
        for &death in &deaths {
            start(platform, step.role, delivery, Some(death));
            assert_aborted(process(platform, step.role)).await;
        }
        start(platform, step.role, delivery, None);
        platform.ready().await;
    };
    futures::join!(traffic.enqueue(), dying);
    platform.idle(RECOVERY).await;
    (deaths.len(), traffic.assert_kept(platform).await)
}

/// A job is called off, and the answer never comes.
async fn cancel(platform: &mut Platform, step: &Step) -> usize {
    let (load, client, account) = held(platform).await;
    let job = *load.jobs.keys().next().expect("a job");
    start(platform, Role::Api, Delivery::OnceOrAsk, Some(step));
    ask(&client, &format!("/jobs/{job}/cancel"), step, platform).await;
    assert_eq!(client.job(job).await["state"], "cancelled", "it holds without an answer");
    let again = client.post(&format!("/jobs/{job}/cancel"), json!({})).await;
    assert_eq!(again.problem(409), "already_ended");

    client.post(&format!("/lanes/{account}/resume"), json!({})).await.expect(200);
    start(platform, Role::Worker, Delivery::OnceOrAsk, None);
    platform.ready().await;
    platform.idle(RECOVERY).await;
    let mut received: Vec<String> =
        platform.ledger().await.into_iter().map(|arrival| arrival.message.text).collect();
    let mut asked: Vec<String> = load.asked.iter().map(|message| message.text.clone()).collect();
    asked.retain(|text| *text != load.jobs[&job].text);
    received.sort_unstable();
    asked.sort_unstable();
    assert_eq!(received, asked, "all but the one that was called off");
    platform.assert_sound().await;
    0
}

/// A lane is paused, and the answer never comes.
async fn pause(platform: &mut Platform, step: &Step) -> usize {
    let mut load = Load::prepare(platform, SHAPE).await;
    let client = load.client().clone();
    let account = only_account(&client).await;
    start(platform, Role::Worker, Delivery::OnceOrAsk, None);
    platform.ready().await;
    load.enqueue().await;
    load::received(platform, 2, secs(30)).await;
    start(platform, Role::Api, Delivery::OnceOrAsk, Some(step));
    ask(&client, &format!("/lanes/{account}/pause"), step, platform).await;
    let lane = client.all("/lanes").await.into_iter().find(|lane| lane["id"] == account.to_string());
    assert_eq!(lane.expect("the lane")["paused"], true, "it holds without an answer");

    // A message whose gate came before the pause may still be on its way; after that, silence.
    eventually("no message is on its way", secs(10), async || {
        platform.number("SELECT count(*) AS n FROM leases").await == 0
    })
    .await;
    let received = platform.sandbox.received().await;
    tokio::time::sleep(secs(2)).await;
    assert_eq!(platform.sandbox.received().await, received, "sent while paused");
    assert!(received < load.total(), "there was something left to send");

    client.post(&format!("/lanes/{account}/resume"), json!({})).await.expect(200);
    platform.idle(RECOVERY).await;
    load.assert_kept(platform).await
}

/// A tick came due while no scheduler ran; the one that makes it good dies over it.
async fn tick(platform: &mut Platform, step: &Step) -> usize {
    start(platform, Role::Worker, Delivery::AtLeastOnce, None);
    platform.ready().await;
    platform
        .number(
            "WITH ticked AS (INSERT INTO schedule_ticks (name, last_tick_at) \
             VALUES ('expire_keys', now() - interval '3 hours') RETURNING 1) SELECT count(*) AS n FROM ticked",
        )
        .await;
    let begun = chrono::Utc::now();
    start(platform, Role::Scheduler, Delivery::AtLeastOnce, Some(step));
    assert_aborted(process(platform, Role::Scheduler)).await;
    start(platform, Role::Scheduler, Delivery::AtLeastOnce, None);
    let jobs = "SELECT count(*) AS n FROM jobs WHERE kind = 'expire_keys'";
    eventually("the tick is a job", secs(30), async || platform.number(jobs).await > 0).await;
    platform.idle(RECOVERY).await;

    let completed = format!("{jobs} AND final_state = 'completed'");
    let keys = "SELECT count(*) AS n FROM idempotency_keys WHERE key LIKE 'schedule:expire_keys:%'";
    let counts =
        [platform.number(jobs).await, platform.number(&completed).await, platform.number(keys).await];
    let hour = |at: chrono::DateTime<chrono::Utc>| at.timestamp() / 3600;
    // The clock may strike meanwhile; that is a tick of its own.
    let ticks = 1 + hour(chrono::Utc::now()) - hour(begun);
    assert!(counts == [1; 3] || counts == [ticks; 3], "one job of every tick: {counts:?}");
    let remembered = "SELECT count(*) AS n FROM schedule_ticks WHERE name = 'expire_keys' \
                      AND last_tick_at > now() - interval '61 minutes'";
    assert_eq!(platform.number(remembered).await, 1);
    platform.assert_sound().await;
    0
}

/// Prepares messages whose lane is paused.
async fn held(platform: &mut Platform) -> (Load, Client, Uuid) {
    let mut load = Load::prepare(platform, SHAPE).await;
    let client = load.client().clone();
    let account = only_account(&client).await;
    client.post(&format!("/lanes/{account}/pause"), json!({})).await.expect(200);
    load.enqueue().await;
    (load, client, account)
}

/// Returns the organisation's only account, which is also its lane.
async fn only_account(client: &Client) -> Uuid {
    let accounts = client.all("/wechat-accounts").await;
    assert_eq!(accounts.len(), 1);
    accounts[0]["id"].as_str().and_then(|id| id.parse().ok()).expect("an id")
}

/// Asks until the API has died over it, and starts it again.
async fn ask(client: &Client, path: &str, step: &Step, platform: &mut Platform) {
    let api = &mut platform.apis[0];
    eventually(&format!("the API dies at {}", step.name), DEATH, async || {
        match client.try_send(client.request(Method::POST, path)).await {
            Ok(reply) => panic!("{path} was answered with {} {}", reply.status, reply.text),
            // It has died, or it is not there yet.
            Err(error) => api.status().is_some().then_some(()).ok_or_else(|| error.to_string()),
        }
    })
    .await;
    assert_aborted(api).await;
    start(platform, Role::Api, Delivery::OnceOrAsk, None);
    eventually("the API is back", secs(30), async || {
        client.try_send(client.bare(Method::GET, "/readyz")).await.is_ok_and(|reply| reply.status == 200)
    })
    .await;
}

/// Starts the one process of a role in place of the one before. It dies when it comes by a step, if told.
fn start(platform: &mut Platform, role: Role, delivery: Delivery, dies_at: Option<&Step>) {
    let mut env = Vec::new();
    let points = dies_at.map(|step| match step.pass(delivery) {
        1 => format!("{}=return", step.name),
        pass => format!("{}={}*off->return", step.name, pass - 1),
    });
    if let Some(points) = &points {
        env.push(("FAILPOINTS", points.as_str()));
    }
    let name = match dies_at {
        Some(step) => format!("{}-dies-at-{}", role.as_str(), step.name),
        None => role.as_str().to_owned(),
    };
    let entropy = Path::new(ENTROPY);
    match role {
        Role::Api => {
            let address = platform.base(0).trim_start_matches("http://").to_owned();
            env.push(("BIND", &address));
            platform.apis[0].kill();
            platform.apis[0] = platform.other_process(&name, entropy, &["api"], &env);
        }
        Role::Worker if delivery == Delivery::AtMostOnce => {
            let (program, args, switch) = kind::worker();
            env.push(switch);
            platform.workers = vec![platform.other_process(&name, &program, &args, &env)];
        }
        Role::Worker => platform.workers = vec![platform.other_process(&name, entropy, &["worker"], &env)],
        Role::Scheduler => {
            platform.schedulers = vec![platform.other_process(&name, entropy, &["scheduler"], &env)];
        }
    }
}

/// Returns the one process of a role.
fn process(platform: &mut Platform, role: Role) -> &mut Process {
    match role {
        Role::Api => &mut platform.apis[0],
        Role::Worker => &mut platform.workers[0],
        Role::Scheduler => &mut platform.schedulers[0],
    }
}

/// Waits until a process has died by `abort`.
async fn assert_aborted(process: &mut Process) {
    let status = process.ended(DEATH).await;
    let aborted = status.signal() == Some(Signal::SIGABRT as i32);
    assert!(aborted, "{} ended otherwise ({status}):\n{}", process.name(), process.tail(20));
}
