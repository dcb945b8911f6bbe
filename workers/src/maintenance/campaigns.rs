//! Hands out what is due of campaigns. The step is [`dispatch::pass`]; here is only the loop around it.

use std::time::Duration;

use entropy_jobs::campaign::dispatch;
use entropy_schema::Db;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long it rests after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Runs until `stop`. `ended` is called when there is something for the relay.
pub async fn run(db: &Db, ended: &Notify, stop: CancellationToken) {
    let mut rest = dispatch::EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
        rest = match dispatch::pass(db).await {
            Ok(passed) => {
                if passed.handed_out > 0 {
                    ended.notify_one();
                }
                passed.rest
            }
            Err(error) => {
                tracing::warn!(%error, "what is due of campaigns not handed out yet");
                AFTER_FAILURE
            }
        };
    }
}
