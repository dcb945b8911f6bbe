//! Worker processes and their heartbeats.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::workers;
use crate::{Conn, Result};

/// A worker process as it presents itself.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = workers)]
pub struct NewWorker<'a> {
    /// New at every boot.
    pub id: Uuid,
    /// The machine.
    pub host: &'a str,
    /// The process there.
    pub pid: i32,
    /// Version of the program.
    pub version: &'a str,
    /// Attempts that it runs at once.
    pub slots: i32,
    /// `running`, `draining` or `stopped`.
    pub state: &'a str,
}

/// Announces a worker, or brings its row up to date.
pub async fn beat(conn: &mut Conn, worker: &NewWorker<'_>, running: i32, metrics: &str) -> Result<()> {
    diesel::insert_into(workers::table)
        .values((worker, workers::running.eq(running), workers::metrics.eq(metrics)))
        .on_conflict(workers::id)
        .do_update()
        .set((
            workers::running.eq(running),
            workers::metrics.eq(metrics),
            workers::state.eq(worker.state),
            workers::heartbeat_at.eq(diesel::dsl::now),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// Removes rows of workers that have been silent for `days`. Returns how many.
pub async fn forget_silent(conn: &mut Conn, days: i32) -> Result<usize> {
    Ok(diesel::sql_query("DELETE FROM workers WHERE heartbeat_at < now() - make_interval(days => $1)")
        .bind::<diesel::sql_types::Integer, _>(days)
        .execute(conn)
        .await?)
}
