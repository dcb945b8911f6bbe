//! Lets the others know in seconds when this process has died, instead of in the length of a lease.
//!
//! A process holds one database session of its own, beside the pool, with a lock in its name, and writes its heartbeat over
//! it every second. The kernel closes the connections of a process that dies, and Postgres frees the lock. A worker is
//! dead when **both** are so: its heartbeat has been silent for [`SILENT`], and its lock is free. Then its leases count as
//! run out, with all that follows (see [`rescuer`](crate::maintenance::rescuer)).
//!
//! Who is *not* dead by that:
//!
//! - A frozen process, or one that is starved: its connection is open, so its lock is held. Its leases decide.
//! - A process whose session was ended under it: it goes on with its heartbeat over the pool, and takes a new session at
//!   the next beat.
//! - A process that never had a session, because there is no connection for it, or because it is of an older version: its
//!   row says so (`session_since` is null). Its leases decide.
//! - A process on a machine that lost its power or its network: nobody closes the connection. Its leases decide, until the
//!   database's own keepalives close it.
//! - Everybody, after a restart of Postgres: all sessions are gone and all heartbeats are silent. Nobody may judge whose own
//!   session has not lasted for [`SETTLED`]; in that time the others come back too. Nor does anybody judge who has seen
//!   the database fail or stand still within a lease's length.
//!
//! **When it is wrong after all** (the network took the session of a process that lives, and kept it from coming back), it
//! is what a lease that ran out too early is: whatever the process writes is fenced by its lease, so its gate lets no
//! further message pass; a call that is under way becomes `unknown` and is never repeated without leave; and proof that
//! comes late settles it.

use std::time::Duration;

use entropy_jobs::services::Services;
use entropy_schema::presence::{self, Session};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::attempt::LEASE;

/// How often a worker says that it is there.
const EVERY: Duration = Duration::from_secs(1);

/// A heartbeat that is older counts as silence: two were missed.
pub const SILENT: Duration = Duration::from_millis(2500);

/// How long a judge's own session must have lasted: some beats, so that everybody who lives has come back meanwhile.
pub const SETTLED: Duration = Duration::from_secs(5);

/// Keeps the session of `worker` until `stop`. Begins once its row is there, which `announced` tells.
pub(crate) async fn run(services: &Services, worker: Uuid, announced: &Notify, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = announced.notified() => {}
    }
    let mut session = None;
    let mut complained = false;
    loop {
        match beat(services, worker, &mut session).await {
            Ok(()) => complained = false,
            Err(error) if complained => tracing::debug!(%error, "no database session of its own yet"),
            Err(error) => {
                complained = true;
                tracing::warn!(%error, "no database session of its own; if this worker dies, its leases must run out");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn beat(services: &Services, worker: Uuid, kept: &mut Option<Session>) -> entropy_schema::Result<()> {
    if let Some(mut session) = kept.take() {
        // To let go of a session that is only slow would free the lock of a process that lives. After a lease's length
        // that makes no difference any more, and the connection may be one whose other end is gone.
        let Ok(beaten) = tokio::time::timeout(LEASE, session.beat()).await else {
            return Err(entropy_schema::Error::Unavailable("the session of its own does not answer".into()));
        };
        match beaten {
            Err(error) if !session.is_gone() => {
                *kept = Some(session);
                return Err(error);
            }
            Err(error) => tracing::debug!(%error, "the session of its own is gone; taking another"),
            Ok(()) => {
                *kept = Some(session);
                return Ok(());
            }
        }
    }
    // The pool first: where connections are few, the work needs them more than this does.
    let mut conn = services.db.conn().await?;
    let known = presence::beat_without(&mut conn, worker).await?;
    drop(conn);
    if known {
        let mut session = Session::open(&services.db, worker).await?;
        session.beat().await?;
        *kept = Some(session);
    }
    Ok(())
}
