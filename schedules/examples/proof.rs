//! throw-away
use chrono_tz::Tz;
use entropy_jobs::enqueue::{NewJob, Options, new_job};
use entropy_jobs::kinds::expire_keys::ExpireKeys;
use entropy_jobs::process::{config::LogFormat, telemetry};
use entropy_jobs::{secret::Secret, wake::Waker};
use entropy_schedules::{CatchUp, Entry, Ticker};
use entropy_schema::{Db, Profile};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

fn job(o: Options) -> NewJob {
    let mut j = new_job(&ExpireKeys { keep_days: 7 }, o);
    j.unique_key = None;
    j
}

#[tokio::main]
async fn main() {
    telemetry::init(LogFormat::Text).unwrap();
    let url = std::env::var("DATABASE_URL").unwrap();
    let a: Vec<String> = std::env::args().collect();
    let (seconds, tickers, cron): (u64, usize, &'static str) =
        (a[1].parse().unwrap(), a[2].parse().unwrap(), Box::leak(a[3].clone().into_boxed_str()));
    let policy = if a.get(4).map(String::as_str) == Some("skip") { CatchUp::Skip } else { CatchUp::RunOnce };
    let hog: u64 = std::env::var("HOG").ok().and_then(|v| v.parse().ok()).unwrap_or(0);
    let stop = CancellationToken::new();
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..tickers {
        let db = Db::new(&url, 2, Profile::Api).unwrap();
        let waker = Waker::new(&Secret::new("redis://127.0.0.1:1".to_owned()), "x").unwrap();
        let e = Entry::new("each", cron, Tz::Asia__Shanghai, policy, job).unwrap();
        let t = Ticker::new(db, waker);
        let s = stop.clone();
        set.spawn(async move { t.run(vec![e], s).await });
    }
    if hog > 0 {
        tokio::time::sleep(Duration::from_millis(2200)).await;
        eprintln!("HOG on all threads for {hog} ms");
        for _ in 0..8 {
            tokio::spawn(async move { std::thread::sleep(Duration::from_millis(hog)) });
        }
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.cancel();
    let t = Instant::now();
    while let Some(r) = set.join_next().await {
        r.unwrap().unwrap();
    }
    eprintln!("stopped in {:?}", t.elapsed());
}
