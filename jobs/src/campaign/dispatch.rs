//! From what is due to jobs.
//!
//! The pile stays in Postgres: enrollments that are due are handed out in the order in which they came due, no more than so many
//! at a time. Any number of dispatchers may run; each takes what no other has in hand.

use std::time::Duration;

use diesel_async::AsyncConnection;
use entropy_schema::campaigns::enrollments::{self, Due};
use entropy_schema::record::enqueue::{Enqueued, NewJob, enqueue};
use entropy_schema::{Conn, Db, Error, Result};

use crate::class::Class;
use crate::enqueue::{Options, new_job};
use crate::job::Job;
use crate::kinds::sop_step::SopStep;
use crate::step;

/// Enrollments handed out by one transaction.
const BATCH: i64 = 500;

/// Jobs of enrollments that may wait or run at a time. Half of what the relay takes of one queue before it looks at no lane: a
/// person's message never stands behind a campaign.
const AT_ONCE: i64 = 1000;

/// How soon an enrollment is handed out again whose job is about to end, in milliseconds.
const ABOUT_TO_END_MS: i64 = 500;

/// How often a dispatcher looks.
pub const EVERY: Duration = Duration::from_millis(500);

/// How soon it looks again while more is due than may be handed out.
pub const CROWDED: Duration = Duration::from_millis(50);

/// What a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Jobs that were made: the relay should look.
    pub handed_out: usize,
    /// How long there is nothing known to do.
    pub rest: Duration,
}

/// Hands out what is due, up to one batch.
pub async fn pass(db: &Db) -> Result<Passed> {
    let mut conn = db.conn().await?;
    if !enrollments::any_due(&mut conn).await? {
        return Ok(Passed { handed_out: 0, rest: EVERY });
    }
    for _ in 0..3 {
        match conn.transaction(async |conn| hand_out(conn).await).await {
            // A job ended at this very moment whose key was looked at.
            Err(Error::Query(diesel::result::Error::RollbackTransaction)) => {}
            Ok(passed) if passed.handed_out > 0 => {
                step!("sop.dispatched");
                return Ok(passed);
            }
            done => return done,
        }
    }
    Ok(Passed { handed_out: 0, rest: CROWDED })
}

async fn hand_out(conn: &mut Conn) -> Result<Passed> {
    let room = AT_ONCE - enrollments::jobs_under_way(conn, SopStep::QUEUE, AT_ONCE).await?;
    if room <= 0 {
        return Ok(Passed { handed_out: 0, rest: CROWDED });
    }
    let wanted = room.min(BATCH);
    let due = enrollments::take_due(conn, wanted).await?;
    let jobs: Vec<NewJob> = due.iter().map(job).collect();
    let made = enqueue(conn, &jobs).await?;
    let new = |made: &Enqueued| matches!(made, Enqueued::Created(_));
    let (out, busy): (Vec<_>, Vec<_>) = due.iter().zip(&made).partition(|(_, made)| new(made));
    let ids = |rows: Vec<(&Due, &Enqueued)>| rows.into_iter().map(|(due, _)| due.id).collect::<Vec<_>>();
    let (out, busy) = (ids(out), ids(busy));
    enrollments::handed_out(conn, &out).await?;
    enrollments::put_off(conn, &busy, ABOUT_TO_END_MS).await?;
    step!("sop.taken");
    let full = i64::try_from(due.len()).unwrap_or(i64::MAX) == wanted;
    Ok(Passed { handed_out: out.len(), rest: if full { Duration::ZERO } else { EVERY } })
}

fn job(due: &Due) -> NewJob {
    let args = SopStep { enrollment_id: due.id, account_id: due.account_id };
    let options = Options {
        organization_id: due.organization_id,
        class: Class::Campaign,
        scheduled_at: None,
        expires_at: None,
        idempotency: None,
        // Each step of an enrollment is a story of its own, told under one name.
        trace_id: due.id.simple().to_string(),
        created_by: None,
    };
    new_job(&args, options)
}
