//! The one clock that counts: the database's.
//!
//! Processes run on machines whose clocks differ by seconds, and now and then by minutes. What is due, what is over and
//! what is counted in a window is decided by statements, with `clock_timestamp()`. Code that has to compare a time
//! before there is a statement asks here.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Timestamptz;
use diesel_async::RunQueryDsl;

use crate::{Conn, Db, Result};

/// How long one reading serves. In that time the machine's timer drifts by less than a millisecond.
const FRESH: Duration = Duration::from_secs(10);

/// How long a caller waits for a reading. Whoever needs the time needs the database next, and will hear of it there.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

/// Reads the database's clock.
pub async fn now(conn: &mut Conn) -> Result<DateTime<Utc>> {
    Ok(sql_query("SELECT clock_timestamp() AS now").get_result::<Now>(conn).await?.now)
}

/// The database's clock as a process sees it: read every ten seconds, carried on by the machine's timer in between, which
/// does not jump when somebody sets the time.
///
/// It may lag by the time that an answer takes, and never runs ahead.
#[derive(Debug, Default)]
pub struct Clock {
    read: Mutex<Option<(Instant, DateTime<Utc>)>>,
}

impl Clock {
    /// Returns the time. While the database is away, an older reading serves, or else the machine's clock.
    pub async fn now(&self, db: &Db) -> DateTime<Utc> {
        let last = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, _)) = last
            && at.elapsed() < FRESH
        {
            return carried_on(last);
        }
        let asked = tokio::time::timeout(PATIENCE, async { now(&mut *db.conn().await?).await });
        let Ok(Ok(read)) = asked.await else { return carried_on(last) };
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), read));
        read
    }
}

fn carried_on(read: Option<(Instant, DateTime<Utc>)>) -> DateTime<Utc> {
    match read {
        Some((at, then)) => then + TimeDelta::from_std(at.elapsed()).unwrap_or_default(),
        None => Utc::now(),
    }
}
