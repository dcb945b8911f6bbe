//! Processes whose clocks are wrong by minutes, or jump: no limit is broken, no lease is lost, nothing comes early, late or
//! twice. Only the database's clock counts.
//!
//! The clocks are wrong by libfaketime, which `./dev test` installs. Every test proves from the logs that they are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schedules::entries;
use serde_json::{Value, json};

use crate::harness::client::{Account, send};
use crate::harness::history::worst;
use crate::harness::load::{Load, Shape};
use crate::harness::process::{ENTROPY, Process};
use crate::harness::{Client, Platform, chaos, eventually, secs};

/// How wrong the clocks are.
const FIVE_MINUTES: i64 = 300;

/// A message that is due is sent sooner than this.
const TOO_LATE_US: i64 = 10_000_000;

/// The rolling minute of the accounts that have one to wait for.
const PER_MINUTE: i32 = 20;

/// Where distributions put libfaketime, the one for programs with threads.
fn libfaketime() -> PathBuf {
    let mut places: Vec<PathBuf> = Vec::new();
    for dir in ["/usr/lib", "/usr/local/lib", "/opt/homebrew/lib", "/usr/lib64"] {
        let below = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        for place in below.chain([PathBuf::from(dir)]) {
            for name in ["libfaketimeMT.so.1", "libfaketimeMT.1.dylib"] {
                places.push(place.join("faketime").join(name));
                places.push(place.join(name));
            }
        }
    }
    places.into_iter().find(|path| path.exists()).expect("libfaketime is installed: `./dev test` does that")
}

/// What a process is told so that its clock is wrong; the timers of the machine run as they do.
fn environment(library: &Path, wrong: (&str, &str)) -> Vec<(String, String)> {
    let preload = if cfg!(target_os = "macos") { "DYLD_INSERT_LIBRARIES" } else { "LD_PRELOAD" };
    let mut all = vec![(preload.to_owned(), library.display().to_string())];
    if cfg!(target_os = "macos") {
        all.push(("DYLD_FORCE_FLAT_NAMESPACE".into(), "1".into()));
    }
    for (name, value) in [("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("NO_FAKE_STAT", "1"), wrong] {
        all.push((name.to_owned(), value.to_owned()));
    }
    all
}

/// A platform whose processes have clocks of their own.
struct Clocks {
    platform: Platform,
    library: PathBuf,
    /// Says how wrong the clock of the jumping worker is.
    jump: PathBuf,
}

impl Clocks {
    async fn start() -> Clocks {
        let platform = Platform::with().api(0).workers(0).start().await;
        let jump = platform.dir().join("jump");
        std::fs::write(&jump, "+0s\n").expect("a file");
        Clocks { platform, library: libfaketime(), jump }
    }

    fn wrong_by(&self, seconds: i64) -> Vec<(String, String)> {
        environment(&self.library, ("FAKETIME", &format!("{seconds:+}s")))
    }

    fn process(&mut self, name: &str, env: &[(String, String)]) -> Process {
        let env: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.platform.other_process(name, Path::new(ENTROPY), &[name], &env)
    }

    fn api(&mut self, seconds: i64) {
        let env = self.wrong_by(seconds);
        let env: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.platform.start_other_api(Path::new(ENTROPY), &env);
    }

    fn worker(&mut self, seconds: i64) {
        let env = self.wrong_by(seconds);
        let worker = self.process("worker", &env);
        self.platform.workers.push(worker);
    }

    fn scheduler(&mut self, seconds: i64) {
        let env = self.wrong_by(seconds);
        let scheduler = self.process("scheduler", &env);
        self.platform.schedulers.push(scheduler);
    }

    /// A worker whose clock is set while it runs: [`Clocks::jump_to`].
    fn jumping_worker(&mut self) {
        let file = self.jump.display().to_string();
        let mut env = environment(&self.library, ("FAKETIME_TIMESTAMP_FILE", &file));
        env.push(("FAKETIME_CACHE_DURATION".into(), "1".into()));
        let worker = self.process("worker", &env);
        self.platform.workers.push(worker);
    }

    fn jump_to(&self, seconds: i64) {
        // Moved into place, so that nobody reads half of it.
        let new = self.jump.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}s\n")).expect("a file");
        std::fs::rename(new, &self.jump).expect("in its place");
    }
}

/// The times of a process's log lines.
fn times(log: &str) -> Vec<DateTime<Utc>> {
    let line = |line: &str| serde_json::from_str::<Value>(line).ok();
    log.lines().filter_map(line).filter_map(|line| line["timestamp"].as_str()?.parse().ok()).collect()
}

/// How wrong the clock of a process was when it said its first words, in seconds.
fn wrong(process: &Process, started: DateTime<Utc>) -> i64 {
    let first = times(&process.log()).first().copied();
    (first.expect("it has said something") - started).num_seconds()
}

fn assert_wrong(process: &Process, started: DateTime<Utc>, seconds: i64) {
    let found = wrong(process, started);
    assert!(
        (seconds..seconds + 40).contains(&found),
        "{} is wrong by {found} s, not {seconds}",
        process.name()
    );
}

/// Sends that a person asked for at a time, and those that must not come.
struct Dated {
    account: Account,
    /// To whom and not before, in microseconds.
    not_before: Vec<(String, i64)>,
    /// Those that must not come at all while the test lasts.
    never: Vec<String>,
}

fn micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}

/// Asks every API for messages of certain times. What its clock says must make no difference.
async fn dated(apis: &[Client]) -> Dated {
    let account = apis[0].account(600, 0).await;
    let paused = apis[0].account(600, 0).await;
    apis[0]
        .post(&format!("/wechat-accounts/{}/pause", paused.id), json!({ "reason": "测试" }))
        .await
        .expect(200);
    let mut dated = Dated { account: account.clone(), not_before: Vec::new(), never: Vec::new() };
    for (n, api) in apis.iter().enumerate() {
        let now = Utc::now();
        let ask = |account: &Account, to: &str, field: &str, at: DateTime<Utc>| {
            let mut body = send(account.id, to, "您好，明天的会议改到下午。", "interactive");
            body[field] = json!(at);
            api.post("/jobs/send-message", body)
        };
        let soon = now + TimeDelta::seconds(8);
        let to = format!("wxid_soon{n}");
        let job = ask(&account, &to, "scheduled_at", soon).await.expect(202);
        assert_eq!(job["state"], "scheduled", "API {n}");
        dated.not_before.push((to, micros(soon)));
        // Within the five minutes: past by one clock, far ahead by the other.
        let to = format!("wxid_later{n}");
        let later = now + TimeDelta::seconds(200);
        ask(&account, &to, "scheduled_at", later).await.expect(202);
        dated.not_before.push((to, micros(later)));
        let to = format!("wxid_past{n}");
        let job = ask(&account, &to, "scheduled_at", now - TimeDelta::seconds(200)).await.expect(202);
        assert_eq!(job["state"], "available", "API {n}");
        // In time.
        ask(&account, &format!("wxid_valid{n}"), "expires_at", now + TimeDelta::seconds(200))
            .await
            .expect(202);
        // Too late when its account may go on.
        let to = format!("wxid_expired{n}");
        ask(&paused, &to, "expires_at", now + TimeDelta::seconds(5)).await.expect(202);
        dated.never.push(to);
        let refused = ask(&account, "wxid_refused", "expires_at", now - TimeDelta::seconds(100)).await;
        assert_eq!(refused.status, 422, "API {n}: {}", refused.text);
    }
    dated
}

#[tokio::test]
async fn no_limit_is_broken_and_no_lease_lost_by_clocks_that_are_minutes_apart_and_jump() {
    let seconds = chaos::seconds(28);
    let mut clocks = Clocks::start().await;
    let started = Utc::now();
    for wrong in [FIVE_MINUTES, -FIVE_MINUTES] {
        clocks.api(wrong);
        clocks.worker(wrong);
    }
    clocks.worker(0);
    clocks.jumping_worker();
    clocks.platform.ready().await;
    for (process, wrong) in [
        (&clocks.platform.apis[0], FIVE_MINUTES),
        (&clocks.platform.apis[1], -FIVE_MINUTES),
        (&clocks.platform.workers[0], FIVE_MINUTES),
        (&clocks.platform.workers[1], -FIVE_MINUTES),
        (&clocks.platform.workers[2], 0),
        (&clocks.platform.workers[3], 0),
    ] {
        assert_wrong(process, started, wrong);
    }

    let shape = Shape {
        accounts: 3,
        conversations: 4,
        messages: usize::try_from(seconds * 3).expect("a number"),
        per_minute: 600,
        min_gap_ms: 40,
        pause: Duration::from_millis(250),
    };
    let mut load = Load::prepare(&clocks.platform, shape).await;
    // A token that one API has made is good at the others: whose clocks are ten minutes away.
    let apis: Vec<Client> = (0..2).map(|n| load.client().at(clocks.platform.base(n))).collect();
    let theirs = clocks.platform.anonymous().at(clocks.platform.base(1)).register().await;
    theirs.at(clocks.platform.base(0)).get("/jobs").await.expect(200);

    // More than a minute holds, for two accounts; and one whose calls last, so that leases are extended.
    let mut limited = Vec::new();
    for api in &apis {
        let account = api.account(PER_MINUTE, 0).await;
        for n in 0..2 * PER_MINUTE {
            api.text(&account, &format!("wxid_limited{}", n % 7), &format!("第 {n} 条"), "campaign").await;
        }
        limited.push(account);
    }
    let slow = apis[0].account(600, 0).await;
    let delay = json!({ "mode": "delay_before_accept", "delay_ms": 4000, "times": 4, "app_id": slow.app_id });
    clocks.platform.sandbox.fail(delay).await;
    for n in 0..8 {
        apis[1].text(&slow, "wxid_slow", &format!("慢 {n}"), "interactive").await;
    }
    let dated = dated(&apis).await;

    // Meanwhile one clock is set, again and again.
    let jumps = async {
        for wrong in [240, -240, 3600, 0].into_iter().cycle().take(usize::try_from(seconds / 5).unwrap_or(1))
        {
            clocks.jump_to(wrong);
            tokio::time::sleep(secs(5)).await;
        }
    };
    futures::join!(load.enqueue(), jumps);
    let jumped = times(&clocks.platform.workers[3].log());
    let back = jumped.windows(2).filter(|pair| pair[1] < pair[0] - TimeDelta::seconds(100)).count();
    assert!(back >= 1, "the clock of the worker never jumped back: {jumped:?}");

    let platform = &clocks.platform;
    // Everything without a limit or a later date has gone out.
    eventually("what may go out has gone out", secs(40), async || {
        let waiting = platform
            .number(
                "SELECT count(*) AS n FROM jobs j WHERE j.final_state IS NULL AND NOT EXISTS ( \
                     SELECT FROM pending p WHERE p.job_id = j.id AND (p.wait_code = 'scheduled' AND p.due_at > now() \
                         OR p.lane_id IN (SELECT id FROM lanes WHERE wait_code = 'messages_per_minute')))",
            )
            .await;
        if waiting == 0 { Ok(()) } else { Err(format!("{waiting} are still to be sent")) }
    })
    .await;
    check(&clocks, &load, &dated, &limited).await;
}

/// Looks at what became of everything.
async fn check(clocks: &Clocks, load: &Load, dated: &Dated, limited: &[Account]) {
    let platform = &clocks.platform;
    let looked = micros(Utc::now());
    let ledger = platform.ledger().await;
    // The load's own check wants every job of its organisation to be its own, so only its part of the phone is asked.
    let faults = load.faults(
        &ledger.iter().filter(|arrival| load.asked.contains(&arrival.message)).cloned().collect::<Vec<_>>(),
        &Default::default(),
    );
    assert!(faults.is_empty(), "{faults:#?}");

    let mut figures = String::new();
    for account in limited {
        let mut arrived: Vec<i64> =
            ledger.iter().filter(|one| one.message.app_id == account.app_id).map(|one| one.at_us).collect();
        arrived.sort_unstable();
        let most = worst(&arrived, secs(60));
        assert!(most <= PER_MINUTE as usize, "{most} messages in a minute, {PER_MINUTE} are allowed");
        assert!(most == PER_MINUTE as usize, "the allowance is used: {most} of {PER_MINUTE}");
        figures.push_str(&format!("{most} of {PER_MINUTE} a minute; "));
    }
    // The lanes that wait know until when, by the right clock.
    let waiting = "SELECT count(*) AS n FROM lanes WHERE wait_code = 'messages_per_minute' \
        AND runnable_at NOT BETWEEN now() - interval '10 seconds' AND now() + interval '61 seconds'";
    assert_eq!(platform.number(waiting).await, 0, "a lane waits longer than a minute");

    let mine: Vec<_> = ledger.iter().filter(|one| one.message.app_id == dated.account.app_id).collect();
    for (to, not_before) in &dated.not_before {
        let came: Vec<_> = mine.iter().filter(|one| one.message.to_wxid == *to).collect();
        let late = not_before + TOO_LATE_US;
        assert!(came.len() == 1 || came.is_empty() && looked < late, "{to} came {} times", came.len());
        for one in came {
            assert!(one.at_us >= *not_before, "{to} came {} µs early", not_before - one.at_us);
            assert!(one.at_us < late, "{to} came {} µs late", one.at_us - not_before);
        }
    }
    for to in &dated.never {
        assert!(ledger.iter().all(|one| one.message.to_wxid != *to), "{to} must not have come");
    }
    for n in 0..2 {
        for to in [format!("wxid_past{n}"), format!("wxid_valid{n}")] {
            assert_eq!(mine.iter().filter(|one| one.message.to_wxid == to).count(), 1, "{to}");
        }
    }
    let expired =
        "SELECT count(*) AS n FROM jobs WHERE error ->> 'code' = 'expired' AND final_state = 'cancelled'";
    assert_eq!(
        platform.number(expired).await,
        2,
        "both messages ran out of time while their account was paused"
    );

    let lost = "SELECT count(*) AS n FROM attempts WHERE outcome = 'lost'";
    assert_eq!(platform.number(lost).await, 0, "leases were lost");
    let unknown = "SELECT count(*) AS n FROM sends WHERE state = 'unknown'";
    assert_eq!(platform.number(unknown).await, 0, "sends of unknown outcome");
    let twice =
        "SELECT count(*) AS n FROM (SELECT job_id FROM sends GROUP BY job_id HAVING count(*) > 1) AS x";
    assert_eq!(platform.number(twice).await, 0, "sends that were made twice");
    // All of the workers took part.
    let idle = "SELECT count(*) AS n FROM workers w WHERE NOT EXISTS (SELECT FROM attempts a WHERE a.worker_id = w.id)";
    assert_eq!(platform.number(idle).await, 0, "every worker has run something");
    platform.assert_sound().await;
    chaos::report(&format!(
        "clocks ±{FIVE_MINUTES} s and jumping: {figures}{} messages, 0 lost, 0 repeated, 0 early, 0 leases lost",
        ledger.len()
    ));
}

/// The next tick of the timetable that is far enough away to be early for.
fn next_tick() -> (&'static str, DateTime<Utc>) {
    let from = Utc::now() + TimeDelta::seconds(90);
    // Hourly, and made good where it was missed: a scheduler that starts slowly still makes it.
    let ticks = entries().into_iter().filter(|entry| entry.name == "expire_keys");
    ticks
        .filter_map(|entry| Some((entry.name, entry.next_after(from)?)))
        .min_by_key(|(_, at)| *at)
        .expect("something is due within the hour")
}

#[tokio::test]
async fn schedulers_whose_clocks_differ_make_one_job_of_a_tick_and_none_runs_before_its_time() {
    let mut clocks = Clocks::start().await;
    clocks.worker(0);
    clocks.platform.ready().await;
    let (name, tick) = next_tick();
    // One reaches the tick in a few seconds, a second one shortly after it, a third one is ten minutes behind.
    let ahead = |lead: i64| (tick - Utc::now()).num_seconds() - lead;
    let started = Utc::now();
    let first = ahead(8);
    clocks.scheduler(first);
    clocks.scheduler(first - 4);
    clocks.scheduler(first - 600);
    let platform = &mut clocks.platform;
    for (n, says) in [(0, "tick: job created"), (1, "tick: already there")] {
        let scheduler = &mut platform.schedulers[n];
        eventually(&format!("scheduler {n} says {says}"), secs(40), async || {
            scheduler.assert_lives();
            let said = scheduler.log();
            let line = |line: &str| line.contains(says) && line.contains(name);
            if said.lines().any(line) { Ok(()) } else { Err(scheduler.tail(5)) }
        })
        .await;
    }
    for (n, wrong) in [(0, first), (1, first - 4), (2, first - 600)] {
        assert_wrong(&platform.schedulers[n], started, wrong);
    }
    assert!(Utc::now() < tick, "the tick is still to come");

    let key: String = format!("schedule:{name}:{}", tick.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    let job: i64 = platform
        .number(&format!(
            "SELECT count(*) AS n FROM idempotency_keys k JOIN jobs j ON j.id = k.job_id \
             WHERE k.key = '{key}' AND j.kind = '{name}' AND j.scheduled_at = '{tick}'",
        ))
        .await;
    assert_eq!(job, 1, "one job of the tick");
    let same = format!("SELECT count(*) AS n FROM jobs WHERE kind = '{name}' AND scheduled_at = '{tick}'");
    assert_eq!(platform.number(&same).await, 1, "and no other");
    let waits = format!(
        "SELECT count(*) AS n FROM pending p JOIN jobs j ON j.id = p.job_id \
         WHERE j.kind = '{name}' AND p.wait_code = 'scheduled' AND p.due_at = '{tick}'"
    );
    assert_eq!(platform.number(&waits).await, 1, "it waits for its time by the database's clock");
    // Its time comes.
    let due = format!(
        "WITH due AS (UPDATE pending SET due_at = now() FROM jobs j WHERE j.id = pending.job_id AND j.kind = '{name}' \
             AND j.scheduled_at = '{tick}' RETURNING 1) SELECT count(*) AS n FROM due"
    );
    assert_eq!(platform.number(&due).await, 1);
    let ran = format!(
        "SELECT count(*) AS n FROM jobs WHERE kind = '{name}' AND scheduled_at = '{tick}' AND final_state = 'completed'"
    );
    eventually("it runs", secs(15), async || platform.number(&ran).await == 1).await;
}
