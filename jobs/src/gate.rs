//! The gate: every reason not to send, in one function, in one order, just before the call.
//!
//! It runs in one transaction that holds the lease, the lane and the account, for an answer also the conversation, and
//! ends by writing `sending` and what the conversation shows of the message. Once that is committed, the message counts
//! as possibly sent.

use std::time::Duration;

use diesel_async::AsyncConnection;
use entropy_schema::messages::Outgoing;
use entropy_schema::sends::{self, GateFacts, NewSend};
use entropy_schema::{Conn, turns};
use uuid::Uuid;

use crate::campaign;
use crate::campaign::send::Campaign;
use crate::conversation::arrive::kinds;
use crate::conversation::guard::{self, Passed, Speaker};
use crate::job::{Failure, JobError, Scope, Snooze};
use crate::limits::{Limits, Wait};
use crate::provider::Device;
use crate::secret::Secret;
use crate::services::Context;
use crate::step;

/// What is to be sent, as far as the gate needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    /// The account that sends; also the lane.
    pub account_id: Uuid,
    /// The recipient.
    pub to_wxid: &'a str,
    /// Kind of the message.
    pub message_kind: &'a str,
    /// What a person reads of it.
    pub text: &'a str,
    /// What its kind has beside its text.
    pub content: Option<&'a serde_json::Value>,
    /// Who says it, and as an answer to what.
    pub speaker: Speaker,
    /// The step of a campaign that it carries out.
    pub campaign: Option<&'a Campaign>,
}

/// The gate's consent: the send record stands at `sending`.
#[derive(Debug)]
pub struct Permit {
    /// The send record.
    pub send_id: Uuid,
    /// Where to send from.
    pub device: Device,
    /// The account's own id in WeChat.
    pub wxid: String,
    /// Key of the token's window.
    pub token_key: String,
    /// The account brought its own token.
    pub own_token: bool,
    /// The limits that hold for the account.
    pub limits: Limits,
}

/// How long a lane waits whose account cannot send, before it is looked at again.
const NOT_READY: Duration = Duration::from_secs(60);

/// Every "no" of the gate.
#[derive(Debug)]
pub enum Refusal {
    /// Not now, or not any more.
    No(JobError),
    /// The account counts as offline: ask the provider whether that is still so.
    Offline(Device),
}

/// Runs the gate for one attempt.
///
/// The order is that of the reasons' weight: still wanted, switches, who may speak, account, deadline, rate. The limiter inside the
/// process comes last, so that only a send that all else permits uses up its budget.
pub async fn pass(
    ctx: &Context,
    intent: Intent<'_>,
) -> Result<Result<Permit, Refusal>, entropy_schema::Error> {
    let mut conn = ctx.conn().await?;
    conn.transaction(async |conn| {
        let Some(facts) = sends::lock_gate(conn, ctx.job_id, ctx.attempt, ctx.worker_id).await? else {
            return Ok(Err(Refusal::No(JobError::Lost)));
        };
        step!("gate.locked");
        if let Err(refusal) = wanted(&facts) {
            return Ok(Err(Refusal::No(refusal)));
        }
        if let Some(campaign) = intent.campaign
            && let Err(refusal) = campaign::gate::ask(conn, ctx, campaign, intent.to_wxid).await?
        {
            return Ok(Err(Refusal::No(refusal)));
        }
        let passed = match may_speak(conn, ctx, &intent).await? {
            Ok(passed) => passed,
            Err(refusal) => return Ok(Err(Refusal::No(refusal))),
        };
        let (device, token_key, own_token) = match device(ctx, &facts) {
            Ok(found) => found,
            Err(refusal) => return Ok(Err(Refusal::No(refusal))),
        };
        let limits = Limits::of(&facts, &ctx.services.ceilings);
        let wxid = facts.wxid.clone().unwrap_or_else(|| device.app_id.clone());
        if facts.status == "OFFLINE" {
            let free = flood_guard(ctx, &wxid);
            return Ok(Err(free.map_or_else(Refusal::No, |()| Refusal::Offline(device))));
        }
        sends::lock_token(conn, &token_key).await?;
        let windows =
            sends::windows(conn, intent.account_id, &token_key, intent.to_wxid, &limits.windows()).await?;
        if let Some(wait) = limits.wait(&windows) {
            return Ok(Err(Refusal::No(limited(ctx, wait))));
        }
        if let Err(refusal) = flood_guard(ctx, &wxid) {
            return Ok(Err(Refusal::No(refusal)));
        }
        if facts.left_over {
            sends::withdraw(conn, ctx.job_id).await?;
        }
        if let Some(campaign) = intent.campaign
            && !campaign::gate::begin(conn, ctx, campaign).await?
        {
            return Ok(Err(Refusal::No(stopped())));
        }
        let send_id = Uuid::now_v7();
        let send = NewSend {
            id: send_id,
            organization_id: ctx.organization_id,
            account_id: intent.account_id,
            token_key: &token_key,
            job_id: ctx.job_id,
            attempt: ctx.attempt,
            to_wxid: intent.to_wxid,
            message_kind: intent.message_kind,
            message: Some(outgoing(ctx, &intent, &wxid)),
        };
        if !sends::begin(conn, &send).await? {
            if let Some(campaign) = intent.campaign {
                campaign::gate::withdraw(conn, ctx, campaign).await?;
            }
            return Ok(Err(Refusal::No(shut(conn, ctx, &intent).await?)));
        }
        if let (Passed::FirstPart, Some(reply)) = (passed, intent.speaker.reply) {
            turns::set_state(conn, reply.turn_id, reply.run, &["answering"], "answered", None).await?;
        }
        step!("gate.written");
        Ok(Ok(Permit { send_id, device, wxid, token_key, own_token, limits }))
    })
    .await
}

/// A campaign was stopped while its windows were read: it is asked again at once, and told so.
fn stopped() -> JobError {
    JobError::Snooze(Snooze {
        delay: Duration::from_secs(1),
        code: "stopped",
        note: "the campaign was stopped at this moment".into(),
        scope: Scope::Job,
    })
}

/// What the conversation shows of the message.
fn outgoing<'a>(ctx: &Context, intent: &Intent<'a>, wxid: &'a str) -> Outgoing<'a> {
    let (contact_kind, chat_kind) = kinds(intent.to_wxid);
    Outgoing {
        origin: intent.speaker.origin.as_str(),
        text: intent.text,
        content: intent.content,
        sender_wxid: wxid,
        turn_id: intent.speaker.reply.map(|reply| reply.turn_id),
        user_id: ctx.created_by,
        heeds_opt_outs: intent.speaker.heeds_opt_outs(),
        chat_kind,
        contact_kind,
    }
}

async fn may_speak(
    conn: &mut Conn,
    ctx: &Context,
    intent: &Intent<'_>,
) -> Result<Result<Passed, JobError>, entropy_schema::Error> {
    guard::may_speak(conn, ctx.organization_id, intent.account_id, intent.to_wxid, &intent.speaker).await
}

/// Says why the gate was shut while its windows were read.
///
/// A pause of the queue and an opt-out at another account wait for none of the gate's locks, and time waits for nobody.
async fn shut(
    conn: &mut Conn,
    ctx: &Context,
    intent: &Intent<'_>,
) -> Result<JobError, entropy_schema::Error> {
    let (account, peer) = (intent.account_id, intent.to_wxid);
    let out = guard::opted_out_since(conn, ctx.organization_id, account, peer, &intent.speaker).await?;
    if let Some(refusal) = out {
        return Ok(refusal);
    }
    let facts = sends::lock_gate(conn, ctx.job_id, ctx.attempt, ctx.worker_id).await?;
    Ok(match facts.map(|facts| wanted(&facts)) {
        None => JobError::Lost,
        Some(Err(refusal)) => refusal,
        // Paused and resumed in between: the lane looks again at once.
        Some(Ok(())) => {
            snooze_lane(Duration::ZERO, "queue_paused", "the queue was paused for a moment".into())
        }
    })
}

/// Asks the limiter inside the process, which stands in front of every call to the provider.
fn flood_guard(ctx: &Context, wxid: &str) -> Result<(), JobError> {
    ctx.services.guard.check(wxid).map_err(|delay| {
        ctx.services.metrics.limiter_waits.with_label_values(&["flood_guard"]).inc();
        let note = "this worker has made as many calls for the account as it may";
        snooze_lane(delay, "flood_guard", note.into())
    })
}

fn wanted(facts: &GateFacts) -> Result<(), JobError> {
    if facts.already_sent {
        let message =
            "a send of this job is recorded as sent, or as unknown and undecided; it is not repeated";
        return Err(JobError::Discard(Failure::new("already_sent", message)));
    }
    if facts.cancel_requested {
        return Err(JobError::Cancel(Failure::new(
            "cancelled",
            "a person called the job off before it was sent",
        )));
    }
    if facts.deleted {
        return Err(JobError::Cancel(Failure::new("account_deleted", "the account was removed")));
    }
    if facts.expires_at.is_some_and(|deadline| deadline <= facts.now) {
        return Err(JobError::Cancel(expired()));
    }
    if facts.queue_paused {
        return Err(snooze_lane(
            Duration::ZERO,
            "queue_paused",
            "the organisation has paused this queue".into(),
        ));
    }
    if facts.lane_paused {
        return Err(snooze_lane(Duration::ZERO, "lane_paused", "the account is paused".into()));
    }
    match facts.status.as_str() {
        "ONLINE" | "OFFLINE" => Ok(()),
        status => Err(snooze_lane(
            NOT_READY,
            "account_not_ready",
            format!("the account cannot send while its status is {status}"),
        )),
    }
}

/// The failure of a job whose deadline has passed.
pub fn expired() -> Failure {
    Failure::new("expired", "its deadline passed before it could be carried out")
}

fn device(ctx: &Context, facts: &GateFacts) -> Result<(Device, String, bool), JobError> {
    device_of(ctx, facts.gewe_app_id.as_deref(), facts.gewe_token_id.as_deref(), facts.token_key.as_deref())
}

/// Returns the device and the token of an account, the key of the token's window, and whether the token is its own.
pub(crate) fn device_of(
    ctx: &Context,
    app_id: Option<&str>,
    sealed: Option<&str>,
    token_key: Option<&str>,
) -> Result<(Device, String, bool), JobError> {
    let Some(app_id) = app_id.map(str::to_owned) else {
        let note = "the account has no device yet: log it in, or set its gewe_app_id";
        return Err(snooze_lane(NOT_READY, "account_not_ready", note.into()));
    };
    let (token, key, own): (Secret, String, bool) = match (sealed, token_key) {
        (Some(sealed), Some(key)) => {
            let context = token_context(ctx.organization_id);
            let opened = ctx.services.vault.as_ref().map(|vault| vault.open(sealed, &context));
            match opened {
                Some(Ok(token)) => (token, key.to_owned(), true),
                Some(Err(_)) | None => {
                    tracing::error!(
                        "the account's token cannot be opened: is ENCRYPTION_KEY that of the API?"
                    );
                    let note = "the account's GeWe token cannot be read by this worker";
                    return Err(snooze_lane(NOT_READY, "account_not_ready", note.into()));
                }
            }
        }
        _ => match &ctx.services.default_token {
            Some((token, key)) => (token.clone(), key.clone(), false),
            None => {
                let note = "the account has no GeWe token, and this install has none (GEWE_TOKEN_ID)";
                return Err(snooze_lane(NOT_READY, "account_not_ready", note.into()));
            }
        },
    };
    Ok((Device { app_id, token }, key, own))
}

/// What a sealed provider token is bound to.
pub fn token_context(organization: Uuid) -> String {
    format!("org:{organization}/gewe_token")
}

fn limited(ctx: &Context, wait: Wait) -> JobError {
    ctx.services.metrics.limiter_waits.with_label_values(&[wait.limit.code()]).inc();
    snooze_lane(
        Duration::from_millis(wait.delay_ms().unsigned_abs()),
        wait.limit.code(),
        wait.limit.sentence().into(),
    )
}

/// Puts the job back at the head of its lane and makes the lane wait.
pub fn snooze_lane(delay: Duration, code: &'static str, note: String) -> JobError {
    JobError::Snooze(Snooze { delay, code, note, scope: Scope::Lane })
}
