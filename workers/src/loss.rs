//! What becomes of a job whose attempt was lost: the process died under it, or it was cut off.

use entropy_jobs::backoff::backoff;
use entropy_jobs::conversation::unsaid::{self, Why};
use entropy_jobs::gate;
use entropy_jobs::job::Failure;
use entropy_jobs::lifecycle::{
    AfterLoss, Delivery, LossReason, LostSend, OnUnknown, QUARANTINE_AFTER, after_loss,
};
use entropy_jobs::registry::Registry;
use entropy_schema::record::finish::{Becomes, Finish};
use entropy_schema::record::rescue::Expired;
use entropy_schema::{Conn, Result, sends};
use serde_json::json;

/// Why an attempt was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its worker stopped keeping the lease.
    ProcessDied,
    /// It ran longer than its kind allows.
    TimedOut,
    /// It panicked.
    Panicked,
    /// The process had to stop and could not wait any longer.
    Drained,
    /// The provider was called, and its answer could not be recorded.
    Unrecorded,
    /// Its worker lives but never learned of it: the answer to the claim was lost.
    ClaimLost,
}

impl Cause {
    fn failure(self) -> Failure {
        match self {
            Cause::ProcessDied => Failure::new("process_lost", "the worker process died during the attempt"),
            Cause::TimedOut => Failure::new("timeout", "the attempt took longer than its kind allows"),
            Cause::Panicked => {
                Failure::new("panic", "the attempt ended with a fault in the program; see the log")
            }
            Cause::Unrecorded => {
                Failure::new("unrecorded", "what came of the attempt could not be written down; see the log")
            }
            Cause::ClaimLost => Failure::new("claim_lost", "the worker never learned that it had the job"),
            Cause::Drained => Failure::new("drained", "the worker process had to stop during the attempt"),
        }
    }
}

/// Decides what becomes of a lost attempt, and settles its send record. Runs in the caller's transaction.
pub(crate) async fn settle(
    conn: &mut Conn,
    registry: &Registry,
    lost: &Expired,
    cause: Cause,
) -> Result<Finish> {
    let info = registry.get(&lost.kind);
    let delivery = info.map_or(Delivery::OnceOrAsk, |info| info.delivery);
    let quarantine_after = info.map_or(QUARANTINE_AFTER, |info| info.quarantine_after);
    let on_unknown = OnUnknown::parse(lost.on_unknown.as_deref());
    let crashes = lost.crashes + i16::from(cause == Cause::ProcessDied);
    let mut send = match lost.send_state.as_deref() {
        None => LostSend::NotBegun,
        Some("sending") => LostSend::Sending,
        Some("sent") => LostSend::Sent,
        Some("failed") => LostSend::Failed,
        Some(_) => LostSend::Unknown,
    };
    if let (LostSend::Sending, Some(id)) = (send, lost.send_id)
        && !sends::lose(conn, id, on_unknown.settles_as()).await?
    {
        // Its outcome was written at this very moment.
        send = match sends::recorded(conn, id).await?.map(|recorded| recorded.state) {
            Some(state) if state == "sent" => LostSend::Sent,
            Some(state) if state == "failed" => LostSend::Failed,
            _ => LostSend::Unknown,
        };
    }
    let decision =
        after_loss(delivery, send, on_unknown, crashes, quarantine_after, lost.attempt < lost.max_attempts);
    let failure = cause.failure();
    let base = Finish {
        job_id: lost.job_id,
        attempt: lost.attempt,
        worker_id: lost.worker_id,
        outcome: Some("lost"),
        becomes: Becomes::Available,
        result: None,
        error: Some(failure.to_json()),
        crashed: cause == Cause::ProcessDied,
        lane_wait: None,
    };
    Ok(match decision {
        // Neither a drain nor an attempt that never began spends one.
        AfterLoss::Retry if matches!(cause, Cause::Drained | Cause::ClaimLost) => {
            Finish { outcome: None, ..base }
        }
        AfterLoss::Retry if cause == Cause::ProcessDied => base,
        AfterLoss::Retry => {
            let delay = backoff(u32::from(lost.attempt.unsigned_abs()), fastrand::f64());
            Finish {
                becomes: Becomes::Waiting {
                    delay_ms: i64::try_from(delay.as_millis()).unwrap_or(i64::MAX),
                    code: "retry".into(),
                    note: failure.message,
                },
                ..base
            }
        }
        AfterLoss::Completed => {
            let recorded = match lost.send_id {
                Some(id) => sends::recorded(conn, id).await?,
                None => None,
            };
            let new_msg_id = recorded.and_then(|recorded| recorded.new_msg_id);
            Finish {
                outcome: Some("completed"),
                becomes: Becomes::Final("completed"),
                result: Some(json!({ "send_status": "sent", "new_msg_id": new_msg_id })),
                error: None,
                ..base
            }
        }
        AfterLoss::Dropped => {
            if let Some(id) = lost.send_id {
                unsaid::tell(conn, id, Why::Unknown).await?;
            }
            Finish {
                becomes: Becomes::Final("completed"),
                result: Some(json!({ "send_status": "unknown", "new_msg_id": null })),
                ..base
            }
        }
        AfterLoss::Dead(reason) => Finish {
            becomes: Becomes::Final("dead"),
            result: (reason == LossReason::OutcomeUnknown)
                .then(|| json!({ "send_status": "unknown", "new_msg_id": null })),
            error: Some(dead(reason, &failure).to_json()),
            ..base
        },
    })
}

fn dead(reason: LossReason, failure: &Failure) -> Failure {
    match reason {
        LossReason::Quarantined => Failure::new(
            "quarantined",
            "two worker processes have died under this job; look at it before you revive it",
        ),
        LossReason::AttemptsSpent | LossReason::AtMostOnce => failure.clone(),
        LossReason::OutcomeUnknown => Failure::new(
            "outcome_unknown",
            format!("{}; nobody can know whether the message was sent: resolve it", failure.message),
        ),
    }
}

/// The error of a job whose deadline has passed while it waited.
pub(crate) fn expired() -> serde_json::Value {
    gate::expired().to_json()
}
