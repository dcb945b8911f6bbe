//! Schedule ticks during a storm: something to tick, and whether each tick happened once.

use std::time::Duration;

use entropy_schema::{Db, Profile};

use crate::harness::{Platform, eventually, secs};

/// The jobs that schedulers have made. Nobody else makes any for the platform's own organisation.
const MADE: &str =
    "SELECT count(*) AS n FROM jobs WHERE organization_id = '00000000-0000-0000-0000-000000000000'";

/// The ticks that happened. The key of a tick is its schedule and its time.
const TICKS: &str = "SELECT count(DISTINCT job_id) AS n FROM idempotency_keys \
    WHERE organization_id = '00000000-0000-0000-0000-000000000000' AND key LIKE 'schedule:%'";

/// Sets every schedule back, as if nobody had been there for two days: whoever starts now finds missed ticks.
const SET_BACK: &str = "WITH back AS (UPDATE schedule_ticks SET last_tick_at = last_tick_at - interval '2 days' \
    RETURNING 1) SELECT count(*) AS n FROM back";

/// No schedule fires less often than daily.
const SETTLED: &str =
    "SELECT count(*) AS n FROM schedule_ticks WHERE last_tick_at > now() - interval '25 hours'";

/// Schedules of the timetable.
fn schedules() -> i64 {
    i64::try_from(entropy_schedules::entries().len()).expect("a few")
}

/// Waits until the schedulers have drawn their line.
pub(crate) async fn started(platform: &Platform) {
    eventually("every schedule has a line in the record", secs(30), async || {
        platform.number("SELECT count(*) AS n FROM schedule_ticks").await == schedules()
    })
    .await;
}

/// Sets the schedules back again and again, so that every scheduler that starts finds the same ticks to make good.
pub(crate) async fn set_back_for_ever(url: &str) {
    let db = Db::new(url, 1, Profile::Api).expect("a pool");
    loop {
        // The record may be away, and then there is a next time.
        if let Ok(mut conn) = db.conn().await {
            let _ = diesel_async::SimpleAsyncConnection::batch_execute(&mut conn, SET_BACK).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

/// Has one scheduler after the other make the same ticks good, and returns how many ticks happened in all.
pub(crate) async fn make_good(platform: &mut Platform) -> i64 {
    for n in 0..platform.schedulers.len() {
        platform.number(SET_BACK).await;
        platform.replace_scheduler(n);
        eventually("the scheduler has settled every schedule", secs(30), async || {
            platform.number(SETTLED).await == schedules()
        })
        .await;
    }
    platform.number(TICKS).await
}

/// Returns how many jobs of schedules there are too many: every one must be the job of another tick.
pub(crate) async fn surplus(platform: &Platform) -> i64 {
    platform.number(MADE).await - platform.number(TICKS).await
}
