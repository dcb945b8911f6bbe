//! The platform's own timetable: which job is due when, and the process that enqueues it.
//!
//! A schedule enqueues and does nothing else. Any number of schedulers may run: the idempotency key of a tick is its
//! schedule and its fire time, so each tick is one job however many notice it.
//!
//! The timetable stands in the record, where people change it over the API. The program brings its lines ([`entries`]) at its
//! start and leaves alone what people have changed.
//!
//! Start reading at [`entries`], the table; `due.rs` decides what was missed; [`Ticker`] keeps the time. Beside the timetable,
//! `campaigns.rs` fires the plans whose time has come.

mod book;
mod campaigns;
mod due;
mod entries;
mod line;
#[cfg(test)]
mod properties;
mod ticker;

use entropy_jobs::process::config::{Search, Stores, environment};
use entropy_jobs::process::migrated::migrated;
use entropy_jobs::wake::Waker;
use entropy_schema::{Db, Profile};
use tokio_util::sync::CancellationToken;

pub use entries::{Entry, entries, indexing};
pub use ticker::Ticker;

/// Connections of a scheduler: it reads its lines every two seconds and writes a few rows an hour, and one slow schedule must
/// not stop the others.
const CONNECTIONS: usize = 3;

/// Runs the timetable until `stop`.
///
/// Neither server has to be there: ticks wait for Postgres and its migrations, and without Redis the relay finds the jobs by itself.
pub async fn run(stores: &Stores, stop: CancellationToken) -> anyhow::Result<()> {
    let db = Db::new(stores.database_url.expose(), CONNECTIONS, Profile::Api)?;
    let waker = Waker::new(&stores.redis_url, &stores.namespace)?;
    if !migrated(&db, &stop).await {
        return Ok(());
    }
    let mut entries = entries();
    if Search::load(&environment)?.url.is_some() {
        entries.push(indexing());
    }
    let ticker = Ticker::new(db.clone(), waker.clone());
    // If the timetable ends with an error, the process ends with it.
    let ((), ()) = tokio::try_join!(ticker.run(entries, stop.clone()), async {
        campaigns::run(&db, &waker, stop).await;
        Ok(())
    })?;
    Ok(())
}
