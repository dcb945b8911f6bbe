//! Redis is killed, emptied, paused, full, or configured to throw keys away.

use std::time::Duration;

use serde_json::json;

use super::{asked, disturbed, held, readiness, statuses};
use crate::harness::process::Process;
use crate::harness::servers::{Database, RedisServer};
use crate::harness::{Platform, eventually, secs};

async fn platform(workers: usize) -> Platform {
    Platform::with().workers(workers).own_redis().start().await
}

/// Kills the server, does something to what it left, and starts it again.
async fn killed(platform: &Platform, meanwhile: impl FnOnce(&std::path::Path) + Send + 'static) {
    let redis = platform.redis.server();
    tokio::task::spawn_blocking(move || {
        redis.kill().expect("Redis is killed");
        meanwhile(redis.dir());
        redis.restart().expect("Redis starts again");
    })
    .await
    .expect("Redis is back");
}

async fn set(redis: &RedisServer, name: &str, value: &str) {
    redis.command::<String>(&["CONFIG", "SET", name, value]).await;
}

#[tokio::test]
async fn a_killed_redis_costs_seconds_and_nothing_else() {
    disturbed(platform(2).await, async |platform| killed(platform, |_| {}).await).await;
}

#[tokio::test]
async fn a_redis_that_comes_back_without_its_file_costs_seconds_and_nothing_else() {
    disturbed(platform(2).await, async |platform| {
        killed(platform, |dir| {
            let data = dir.join("data/appendonlydir");
            assert!(data.exists(), "Redis keeps a file, or this test would show nothing");
            std::fs::remove_dir_all(data).expect("its file is removed");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_flushed_redis_costs_seconds_and_nothing_else() {
    disturbed(platform(2).await, async |platform| {
        for _ in 0..3 {
            platform.redis.command::<String>(&["FLUSHALL"]).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_paused_redis_is_waited_for() {
    disturbed(platform(2).await, async |platform| {
        let pause = held(6).as_millis().to_string();
        platform.redis.command::<String>(&["CLIENT", "PAUSE", &pause]).await;
    })
    .await;
}

/// First the limit falls below what is in use, then somebody else's huge key takes what there is.
#[tokio::test]
async fn a_redis_out_of_memory_makes_jobs_wait_in_postgres() {
    let accepted = "SELECT count(*) AS n FROM jobs WHERE kind = 'send_message'";
    let platform = disturbed(platform(2).await, async |platform| {
        let redis = &platform.redis;

        set(redis, "maxmemory", "1mb").await;
        eventually("the API says that Redis is full", secs(10), async || {
            let ready = readiness(platform).await;
            let stands = (ready.status, ready.body["redis"].clone());
            if stands == (200, json!("refuses_writes")) { Ok(()) } else { Err(ready.text) }
        })
        .await;
        let before = platform.number(accepted).await;
        eventually("work is taken all the same", secs(10), async || platform.number(accepted).await > before)
            .await;
        metric(platform, "entropy_worker_redis_refuses 2").await;
        logged(platform, "Redis refuses writes: ").await;
        let waiting = platform.number("SELECT count(*) AS n FROM pending").await;
        assert!(waiting > 0, "jobs wait in Postgres");
        set(redis, "maxmemory", "0").await;
        logged(platform, "Redis takes deliveries again").await;

        set(redis, "maxmemory", "48mb").await;
        redis.command::<usize>(&["SETRANGE", "foreign", "67108864", "x"]).await;
        eventually("the API says that Redis is full", secs(10), async || {
            readiness(platform).await.body["redis"] == "refuses_writes"
        })
        .await;
        tokio::time::sleep(held(3)).await;
        redis.command::<usize>(&["UNLINK", "foreign"]).await;
    })
    .await;
    assert_eq!(readiness(&platform).await.body["redis"], "ok");
    assert_eq!(statuses(&platform).await.get("503"), None, "work was taken all the time");
}

#[tokio::test]
async fn a_worker_refuses_to_start_on_a_redis_that_evicts_its_deliveries() {
    let (database, redis) = (Database::create().await, RedisServer::own().await);
    let dir = std::env::temp_dir().join(format!("entropy-it-logs-{:016x}", fastrand::u64(..)));
    std::fs::create_dir(&dir).expect("a directory for logs");
    let start = |name: &str, redis_url: &str| {
        let env = [
            ("DATABASE_URL", database.url()),
            ("REDIS_URL", redis_url),
            ("GEWE_API_ENDPOINT", "http://127.0.0.1:9/gewe/v2/api"),
            ("GEWE_TOKEN_ID", "a-token"),
        ];
        let env: Vec<_> = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Process::start(name, &["worker"], &env, &dir)
    };
    let runs = async |mut worker: Process| {
        eventually("the worker runs", secs(20), async || {
            worker.assert_lives();
            worker.log().contains("worker started")
        })
        .await;
        worker.log()
    };

    set(&redis, "maxmemory", "100mb").await;
    set(&redis, "maxmemory-policy", "allkeys-lru").await;
    let mut refused = start("evicting", &redis.url());
    let status = refused.ended(secs(20)).await;
    assert_eq!(status.code(), Some(1));
    let log = refused.log();
    let line = log.lines().find(|line| line.starts_with("entropy: ")).expect("a line");
    for word in ["allkeys-lru", "CONFIG SET maxmemory-policy noeviction"] {
        assert!(line.contains(word), "{line}");
    }
    assert!(!log.contains("worker started"), "{log}");

    // What only touches keys with a time to live touches none of ours.
    set(&redis, "maxmemory-policy", "volatile-lru").await;
    runs(start("volatile", &redis.url())).await;

    // Some servers let nobody ask. That is no reason to stop.
    let rule = [
        "ACL",
        "SETUSER",
        "limited",
        "on",
        ">a-password-of-the-tests",
        "~*",
        "&*",
        "+@all",
        "-info",
        "-config",
    ];
    redis.command::<String>(&rule).await;
    let limited = redis.url().replacen("redis://:", "redis://limited:", 1);
    let (_, address) = limited.split_once('@').expect("an address");
    let log = runs(start("limited", &format!("redis://limited:a-password-of-the-tests@{address}"))).await;
    assert!(log.contains("maxmemory-policy"), "{log}");
    assert!(!log.contains("a-password-of-the-tests"), "{log}");
    let _ = std::fs::remove_dir_all(dir);
}

#[tokio::test]
async fn a_redis_that_begins_to_evict_gets_no_deliveries_until_it_is_mended() {
    let mut platform = Platform::with().workers(0).own_redis().start().await;
    let client = platform.register().await;
    let account = client.account(600, 0).await;
    let redis = platform.redis.server();
    let gone = redis.clone();
    tokio::task::spawn_blocking(move || gone.kill()).await.expect("no panic").expect("Redis is killed");
    // Starts all the same, and looks when Redis is back.
    platform.start_worker();
    eventually("the worker has announced itself", secs(30), async || {
        platform.workers[0].assert_lives();
        platform.number("SELECT count(*) AS n FROM workers WHERE state = 'running'").await == 1
    })
    .await;
    tokio::task::spawn_blocking(move || redis.restart()).await.expect("no panic").expect("Redis is back");
    set(&platform.redis, "maxmemory", "100mb").await;
    set(&platform.redis, "maxmemory-policy", "allkeys-random").await;
    logged(&platform, "Redis would throw deliveries away").await;

    let job = asked(&client, &account, "等一等").await.expect(202);
    let id = job["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    eventually("the API says so, and takes work", secs(10), async || {
        let ready = readiness(&platform).await;
        if (ready.status, &ready.body["redis"]) == (200, &json!("evicts")) { Ok(()) } else { Err(ready.text) }
    })
    .await;
    tokio::time::sleep(secs(3)).await;
    assert_eq!(client.job(id).await["state"], "available", "it waits in Postgres");
    set(&platform.redis, "maxmemory-policy", "noeviction").await;
    assert_eq!(platform.ended(&client, id, secs(30)).await["state"], "completed");

    // The `volatile-*` policies are let pass for this reason.
    let keys: Vec<String> = platform.redis.command(&["KEYS", "*"]).await;
    assert!(!keys.is_empty());
    for key in keys {
        let ttl: i64 = platform.redis.command(&["TTL", &key]).await;
        assert!(ttl < 0, "{key} has a time to live: {ttl} s");
    }
    platform.assert_sound().await;
}

/// Waits until some process has logged this.
async fn logged(platform: &Platform, words: &str) {
    eventually(&format!("a log says {words:?}"), secs(20), async || {
        platform.logs().iter().any(|(_, log)| log.contains(words))
    })
    .await;
}

/// Waits until the metrics page has this line.
async fn metric(platform: &Platform, line: &str) {
    let anyone = platform.anonymous();
    eventually(&format!("the metrics say {line:?}"), secs(30), async || {
        let page = anyone.send(anyone.bare(reqwest::Method::GET, "/metrics")).await;
        page.text.lines().any(|found| found == line)
    })
    .await;
}
