//! Plans whose time has come.
//!
//! A tick is one transaction: the plan is locked, its run and the run's job are made, and its next time is set. Any number may look
//! at once; each takes what no other has in hand. While nothing is due, a look is one probe of an index.

use diesel_async::AsyncConnection;
use entropy_schema::campaigns::plans::{self, Due};
use entropy_schema::{Conn, Db, Error, Result};

use super::plan::Plans;
use super::run::{self, Begins};
use super::trigger;
use crate::sop::config::trigger::Trigger;
use crate::step;

/// Plans of one transaction.
const BATCH: i64 = 100;

/// How often one looks.
pub const EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// Fires what is due, up to one batch. Returns how many jobs were made: if any, the relay should look.
pub async fn pass(db: &Db, known: &Plans) -> Result<usize> {
    let mut conn = db.conn().await?;
    if !plans::any_due(&mut conn).await? {
        return Ok(0);
    }
    for _ in 0..3 {
        match conn.transaction(async |conn| fire(conn, known).await).await {
            // A job ended at this very moment whose key was looked at.
            Err(Error::Query(diesel::result::Error::RollbackTransaction)) => {}
            Ok(made) if made > 0 => {
                step!("tick.committed");
                return Ok(made);
            }
            done => return done,
        }
    }
    Ok(0)
}

async fn fire(conn: &mut Conn, known: &Plans) -> Result<usize> {
    let mut made = 0;
    for due in plans::take_due(conn, BATCH).await? {
        made += usize::from(fire_one(conn, known, due).await?);
    }
    if made > 0 {
        step!("tick.written");
    }
    Ok(made)
}

async fn fire_one(conn: &mut Conn, known: &Plans, due: Due) -> Result<bool> {
    let Some(plan) = known.of(conn, due.id, due.version).await? else {
        tracing::error!(sop_id = %due.id, version = due.version, "a plan that cannot be read fires no more");
        plans::fired(conn, due.id, None, None).await?;
        return Ok(false);
    };
    let decided = trigger::due(&plan.config, due.fire_at, due.now);
    let source = if matches!(plan.config.trigger, Trigger::Once { .. }) { "once" } else { "cron" };
    let (organization, sop, version) = (due.organization_id, due.id, due.version);
    let begins = |fire_at| Begins { organization, sop, version, source, fire_at, by: None };
    let mut made = false;
    if let Some(fire_at) = decided.fires {
        made = run::begin_later(conn, begins(fire_at), due.now).await?;
        tracing::info!(sop_id = %sop, %fire_at, "the time of a plan has come");
    }
    if let Some(fire_at) = decided.missed {
        run::let_go(conn, begins(fire_at), due.now).await?;
        tracing::warn!(sop_id = %sop, %fire_at, "the time of a plan was missed and is let go");
    }
    plans::fired(conn, due.id, decided.fires, decided.next).await?;
    Ok(made)
}
