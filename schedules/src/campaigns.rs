//! Fires the plans whose time has come. The step is [`ticks::pass`]; here is only the loop around it.

use std::time::Duration;

use entropy_jobs::campaign::plan::Plans;
use entropy_jobs::campaign::ticks;
use entropy_jobs::wake::Waker;
use entropy_schema::Db;
use tokio_util::sync::CancellationToken;

/// How long it rests after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Runs until `stop`. Any number of schedulers may do so: a plan's time fires once.
pub(crate) async fn run(db: &Db, waker: &Waker, stop: CancellationToken) {
    let plans = Plans::default();
    let mut rest = ticks::EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
        rest = match ticks::pass(db, &plans).await {
            Ok(0) => ticks::EVERY,
            Ok(_) => {
                waker.wake();
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!(%error, "plans whose time has come are not fired yet");
                AFTER_FAILURE
            }
        };
    }
}
