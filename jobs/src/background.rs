//! Calls to the provider for which nobody waits: one at a time per account, with a gap, never in the way of sends.
//!
//! They have a lane of their own, beside the account's. They pass the limiter inside the process in a cell of their own,
//! so that they take nothing of what the sends may use; the hourly window of the token counts sends only, and a gap of
//! three seconds bounds these calls.

use std::time::Duration;

pub use entropy_schema::lanes::background_of as background_lane;
use entropy_schema::lanes::ensure_background;
use entropy_schema::record::enqueue::{Enqueued, NewJob, enqueue};
use entropy_schema::record::finish::LaneWait;
use entropy_schema::{Conn, accounts};
use serde_json::json;
use uuid::Uuid;

use crate::conversation::events::went_offline;
use crate::gate::{device_of, snooze_lane};
use crate::job::{Failure, JobError};
use crate::provider::{Device, ErrorClass, SendError};
use crate::risk::hold::hold;
use crate::risk::{Seen, signal};
use crate::services::Context;

/// The queue of these calls.
pub const QUEUE: &str = "background";

/// How long an account that cannot be asked waits before it is looked at again.
const NOT_READY: Duration = Duration::from_secs(60);

/// How long the lane waits after the provider refused the token.
const TOKEN_HOLD: Duration = Duration::from_secs(300);

/// An account that may be asked something.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where to ask.
    pub device: Device,
    /// The account's status.
    pub status: String,
    /// Its own id in WeChat, if it is known.
    pub wxid: Option<String>,
    token_key: String,
    own_token: bool,
}

/// Enqueues a job of a background lane in the caller's transaction, and makes the lane if it is the account's first.
pub async fn enqueue_in_background(
    conn: &mut Conn,
    account: Uuid,
    job: NewJob,
) -> Result<Option<Enqueued>, entropy_schema::Error> {
    ensure_background(conn, &[(account, job.organization_id)]).await?;
    Ok(enqueue(conn, &[job]).await?.pop())
}

/// Looks whether the account may be asked something in one of `states`, and passes the limiter inside the process.
pub async fn target(ctx: &Context, account: Uuid, states: &[&str]) -> Result<Target, JobError> {
    let mut conn = ctx.conn().await?;
    let found = accounts::get(&mut conn, ctx.organization_id, account).await?;
    drop(conn);
    let Some(found) = found else {
        return Err(JobError::Cancel(Failure::new("account_deleted", "the account was removed")));
    };
    if found.paused_at.is_some() {
        return Err(snooze_lane(NOT_READY, "lane_paused", "the account is paused".into()));
    }
    let account = found.account;
    if !states.contains(&account.status.as_str()) {
        let note = format!("the account cannot be asked while its status is {}", account.status);
        return Err(snooze_lane(NOT_READY, "account_not_ready", note));
    }
    let (device, token_key, own_token) = device_of(
        ctx,
        account.gewe_app_id.as_deref(),
        account.gewe_token_id.as_deref(),
        account.token_key.as_deref(),
    )?;
    let name = account.wxid.as_deref().unwrap_or(&device.app_id);
    if let Err(delay) = ctx.services.guard.check(&format!("background:{name}")) {
        let note = "this worker has asked as much for the account as it may";
        return Err(snooze_lane(delay, "flood_guard", note.into()));
    }
    Ok(Target { device, status: account.status, wxid: account.wxid, token_key, own_token })
}

/// The gap after a call.
pub fn gap(ctx: &Context) -> Duration {
    ctx.services.background_gap
}

/// The gap after a call that ends its job.
pub fn lane_wait(gap: Duration) -> LaneWait {
    LaneWait { delay_ms: i64::try_from(gap.as_millis()).unwrap_or(i64::MAX), code: "background_gap" }
}

/// Puts the job back at the head of its lane for its next step, after the gap.
pub fn next_step(ctx: &Context, note: &str) -> JobError {
    snooze_lane(gap(ctx), "background_gap", note.to_owned())
}

/// Decides what a call that failed means for its job and its account. A refusal ends the job: handle it before if it
/// should not.
pub async fn failed(ctx: &Context, account: Uuid, target: &Target, error: SendError) -> JobError {
    ctx.services.metrics.provider_errors.with_label_values(&["gewe", error.class.as_str()]).inc();
    let failure =
        Failure { lane_wait: Some(lane_wait(gap(ctx))), ..Failure::new(error.code, error.message.clone()) };
    let noted = match error.class {
        // Nothing was asked that could not be asked again.
        ErrorClass::NotSent | ErrorClass::Ambiguous => return JobError::Retry(failure),
        ErrorClass::Refused => return JobError::Discard(failure),
        ErrorClass::AccountOffline => offline(ctx, account).await,
        ErrorClass::RiskControl => held(ctx, account, &error).await,
        ErrorClass::Token => hold_token(ctx, target).await,
    };
    if let Err(error) = noted {
        tracing::error!(%error, account_id = %account, "what the provider said of the account was not noted");
    }
    match error.class {
        ErrorClass::Token => snooze_lane(
            TOKEN_HOLD,
            "gewe_token_rejected",
            "GeWe refuses the token; check it, then resume the account".into(),
        ),
        ErrorClass::AccountOffline => {
            snooze_lane(NOT_READY, "account_offline", "the account is not logged in".into())
        }
        _ => snooze_lane(
            NOT_READY,
            "lane_paused",
            "WeChat limits the account; a person must lift the hold".into(),
        ),
    }
}

async fn offline(ctx: &Context, account: Uuid) -> Result<(), entropy_schema::Error> {
    let mut conn = ctx.conn().await?;
    went_offline(&mut conn, ctx.organization_id, account, ctx.job_id).await
}

async fn held(ctx: &Context, account: Uuid, error: &SendError) -> Result<(), entropy_schema::Error> {
    let mut conn = ctx.conn().await?;
    let details = json!({ "error_code": error.code });
    let Some(signal) = signal(Seen::Refused(error)) else { return Ok(()) };
    hold(&mut conn, ctx.organization_id, account, signal, details, &ctx.trace_id).await?;
    Ok(())
}

async fn hold_token(ctx: &Context, target: &Target) -> Result<(), entropy_schema::Error> {
    let own = target.own_token.then_some(target.token_key.as_str());
    let millis = i64::try_from(TOKEN_HOLD.as_millis()).unwrap_or(i64::MAX);
    let mut conn = ctx.conn().await?;
    entropy_schema::lanes::hold_token(&mut conn, own, millis, "gewe_token_rejected").await?;
    Ok(())
}
