//! Worker processes as operators and metrics see them.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Bool, Integer, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::{Conn, Result};

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Worker {
    /// New at every boot.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The machine.
    #[diesel(sql_type = Text)]
    pub host: String,
    /// The process there.
    #[diesel(sql_type = Integer)]
    pub pid: i32,
    /// Version of the program.
    #[diesel(sql_type = Text)]
    pub version: String,
    /// Attempts that it runs at once.
    #[diesel(sql_type = Integer)]
    pub slots: i32,
    /// Attempts that it runs now.
    #[diesel(sql_type = Integer)]
    pub running: i32,
    /// `running`, `draining` or `stopped`.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// When it started.
    #[diesel(sql_type = Timestamptz)]
    pub started_at: DateTime<Utc>,
    /// When it last said that it lives.
    #[diesel(sql_type = Timestamptz)]
    pub heartbeat_at: DateTime<Utc>,
    /// It has said so in the last 30 seconds and has not stopped.
    #[diesel(sql_type = Bool)]
    pub alive: bool,
}

/// Returns the worker processes, those that were heard of last first, at most 1000.
pub async fn list(conn: &mut Conn) -> Result<Vec<Worker>> {
    Ok(sql_query(
        "SELECT id, host, pid, version, slots, running, state, started_at, heartbeat_at, \
         heartbeat_at > now() - interval '30 seconds' AND state <> 'stopped' AS alive \
         FROM workers ORDER BY heartbeat_at DESC, id LIMIT 1000",
    )
    .load(conn)
    .await?)
}

/// A worker process's own counters.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Metrics {
    /// It lives; a gauge of one that does not says nothing.
    #[diesel(sql_type = Bool)]
    pub alive: bool,
    /// Prometheus' text form.
    #[diesel(sql_type = Text)]
    pub metrics: String,
}

/// Returns the counters of all worker processes that are not forgotten yet, at most 1000.
pub async fn metrics(conn: &mut Conn) -> Result<Vec<Metrics>> {
    Ok(sql_query(
        "SELECT metrics, heartbeat_at > now() - interval '30 seconds' AND state <> 'stopped' AS alive \
         FROM workers WHERE metrics <> '' ORDER BY heartbeat_at DESC LIMIT 1000",
    )
    .load(conn)
    .await?)
}
