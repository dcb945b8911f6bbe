//! Sends one WeChat message.
//!
//! The order is what makes it safe: the gate writes `sending` and commits; the provider is called once; the outcome is
//! written. Whoever finds `sending` later knows that the message may have left.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use chrono::Utc;
use diesel_async::AsyncConnection;
use entropy_schema::clock;
use entropy_schema::record::finish::LaneWait;
use entropy_schema::sends::{self, SendEnd};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::campaign;
use crate::campaign::material::with_new_link;
use crate::campaign::send::Campaign;
use crate::conversation::guard::Speaker;
use crate::conversation::unsaid::{self, Why};
use crate::conversation::{Origin, Reply};
use crate::gate::{self, Intent, Permit, Refusal, snooze_lane};
use crate::job::{Done, Failure, Job, JobError};
use crate::lifecycle::{Delivery, OnUnknown};
use crate::message::Message;
use crate::provider::{Device, ErrorClass, SendError, Sent};
use crate::risk::{Seen, hold, signal};
use crate::services::Context;
use crate::step;

/// One message from an account of ours to a person or a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendMessage {
    /// The account that sends.
    pub account_id: Uuid,
    /// The person or group.
    pub to_wxid: String,
    /// What to send.
    pub message: Message,
    /// What to do when nobody can know whether it was sent.
    #[serde(default)]
    pub on_unknown: OnUnknown,
    /// Who it is from.
    #[serde(default, skip_serializing_if = "Origin::is_person")]
    pub origin: Origin,
    /// The turn that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// It is the one line that confirms an opt-out, which alone a machine may say to who has opted out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirms_opt_out: bool,
    /// The step of a campaign that it carries out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<Campaign>,
}

/// How late after the start of its gate a message may still be handed to the network. A process that was frozen in
/// between wakes up to find its lease expired; it must not send then.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// How long the lanes of a token wait after the provider refused it.
const TOKEN_HOLD: Duration = Duration::from_secs(300);

/// How long an account that is offline waits before it is asked again.
const OFFLINE_HOLD: Duration = Duration::from_secs(60);

/// How long a lane waits when the provider could not be reached: all its messages would meet the same wall.
const UNREACHABLE_HOLD: Duration = Duration::from_secs(1);

impl Job for SendMessage {
    const KIND: &'static str = "send_message";
    const QUEUE: &'static str = "send";
    const DELIVERY: Delivery = Delivery::OnceOrAsk;
    // Attempts are spent only on calls that surely did not leave; with the backoff these last for half an hour.
    const MAX_ATTEMPTS: i16 = 12;
    const TIMEOUT: Duration = Duration::from_secs(120);

    fn lane(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    fn order_key(&self) -> Option<String> {
        Some(self.to_wxid.clone())
    }

    fn account(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    fn unique_key(&self) -> Option<String> {
        // A step has one message at a time, however often it is tried.
        self.campaign.as_ref().map(|campaign| format!("sop:{}:{}", campaign.enrollment_id, campaign.step_id))
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        // Of an uploaded file the provider gets a link that was not made before the message waited.
        let message = self.with_new_link(ctx).await.map_err(no_record)?;
        let started = Instant::now();
        let content = self.content();
        let intent = Intent {
            account_id: self.account_id,
            to_wxid: &self.to_wxid,
            message_kind: self.message.kind(),
            text: self.message.readable(),
            content: content.as_ref(),
            speaker: Speaker {
                origin: self.origin,
                reply: self.reply,
                confirms_opt_out: self.confirms_opt_out,
            },
            campaign: self.campaign.as_ref(),
        };
        let mut passed = gate::pass(ctx, intent).await.map_err(no_record)?;
        if let Err(Refusal::Offline(device)) = &passed
            && self.come_back_online(ctx, device).await
        {
            passed = gate::pass(ctx, intent).await.map_err(no_record)?;
        }
        let permit = match passed {
            Ok(permit) => permit,
            Err(Refusal::No(refusal)) => return Err(refusal),
            Err(Refusal::Offline(_)) => return Err(offline()),
        };
        step!("gate.committed");
        if let Some(answered_at) = self.reply.and_then(|reply| reply.answered_at) {
            let since = (Utc::now() - answered_at).to_std().unwrap_or_default();
            ctx.services.metrics.reply_seconds.observe(since.as_secs_f64());
        }
        let called = Instant::now();
        let outcome = ctx
            .services
            .sender
            .send(&permit.device, &self.to_wxid, message.as_ref(), started + SEND_WITHIN, &ctx.trace_id)
            .await;
        step!("send.read");
        tracing::info!(
            account_id = %self.account_id,
            message_kind = self.message.kind(),
            elapsed_ms = called.elapsed().as_millis() as u64,
            outcome = outcome.as_ref().map_or_else(|error| error.class.as_str(), |_| "sent"),
            "provider called"
        );
        match outcome {
            Ok(sent) => self.sent(ctx, &permit, sent).await,
            Err(error) => self.failed(ctx, &permit, error).await,
        }
    }
}

impl SendMessage {
    /// What a message has beside its text; a plain text has nothing.
    fn content(&self) -> Option<Value> {
        match &self.message {
            Message::Text(text) if text.ats.is_none() => None,
            message => serde_json::to_value(message).ok(),
        }
    }

    async fn with_new_link(&self, ctx: &Context) -> Result<Cow<'_, Message>, entropy_schema::Error> {
        let Some(upload) = self.campaign.as_ref().and_then(|campaign| campaign.upload) else {
            return Ok(Cow::Borrowed(&self.message));
        };
        let now = clock::now(&mut *ctx.conn().await?).await?;
        let linked = with_new_link(&self.message, upload, ctx.services.links.as_ref(), now);
        Ok(linked.map_or(Cow::Borrowed(&self.message), Cow::Owned))
    }

    async fn sent(&self, ctx: &Context, permit: &Permit, sent: Sent) -> Result<Done, JobError> {
        let result = json!({
            "send_status": "sent",
            "new_msg_id": sent.new_msg_id,
            "msg_id": sent.msg_id,
            "create_time": sent.create_time,
        });
        let end = SendEnd {
            state: "sent",
            counts: true,
            msg_id: sent.msg_id,
            new_msg_id: Some(sent.new_msg_id),
            create_time: sent.create_time,
            error_class: None,
            error_code: None,
            error_message: None,
            settled_as: None,
        };
        let lane_wait = self.record(ctx, permit, &end, "completed", &result).await?;
        Ok(Done { result: Some(result), lane_wait })
    }

    async fn failed(&self, ctx: &Context, permit: &Permit, error: SendError) -> Result<Done, JobError> {
        ctx.services.metrics.provider_errors.with_label_values(&["gewe", error.class.as_str()]).inc();
        let unknown = error.class == ErrorClass::Ambiguous;
        let status = if unknown { "unknown" } else { "failed" };
        let result = json!({ "send_status": status, "new_msg_id": null });
        let end = SendEnd {
            state: status,
            counts: error.class != ErrorClass::NotSent,
            msg_id: None,
            new_msg_id: None,
            create_time: None,
            error_class: Some(error.class.as_str()),
            error_code: Some(error.code),
            error_message: Some(error.message.clone()),
            settled_as: if unknown { self.on_unknown.settles_as() } else { None },
        };
        let lane_wait = self.record(ctx, permit, &end, "dead", &result).await?;
        let why = match error.class {
            ErrorClass::Ambiguous if self.on_unknown == OnUnknown::Drop => Some(Why::Unknown),
            ErrorClass::Refused => Some(Why::Refused),
            _ => None,
        };
        if let (Some(why), Some(_)) = (why, self.reply) {
            tell(ctx, permit, why).await?;
        }
        let failure = Failure {
            code: error.code.to_owned(),
            message: error.message.clone(),
            result: Some(result.clone()),
            lane_wait: lane_wait.clone(),
        };
        match error.class {
            ErrorClass::NotSent => {
                let hold = LaneWait { delay_ms: millis(UNREACHABLE_HOLD), code: "provider_unreachable" };
                Err(JobError::Retry(Failure { result: None, lane_wait: Some(hold), ..failure }))
            }
            ErrorClass::Refused => {
                if self.is_by_machine() {
                    self.look_for_risk(ctx).await;
                }
                Err(JobError::Discard(failure))
            }
            ErrorClass::AccountOffline => {
                tracing::warn!(account_id = %self.account_id, "the account is offline");
                self.note_login(ctx, "OFFLINE").await;
                Err(offline())
            }
            ErrorClass::RiskControl => {
                tracing::error!(account_id = %self.account_id, "risk control: the account stops until a person lifts it");
                if let Some(signal) = signal(Seen::Refused(&error)) {
                    let details = json!({ "error_code": error.code });
                    hold::hold_surely(ctx, self.account_id, signal, details).await;
                }
                Err(snooze_lane(
                    OFFLINE_HOLD,
                    "lane_paused",
                    "WeChat limits the account; a person must lift the hold".into(),
                ))
            }
            ErrorClass::Token => {
                tracing::error!(account_id = %self.account_id, "the provider refused the token; its accounts wait");
                hold_token(ctx, permit).await;
                Err(snooze_lane(
                    TOKEN_HOLD,
                    "gewe_token_rejected",
                    "GeWe refuses the token; check it, then resume the account".into(),
                ))
            }
            ErrorClass::Ambiguous => match self.on_unknown {
                OnUnknown::Hold => {
                    Err(JobError::Discard(Failure { code: "outcome_unknown".into(), ..failure }))
                }
                OnUnknown::Resend => Err(JobError::Retry(failure)),
                OnUnknown::Drop => Ok(Done { result: Some(result), lane_wait }),
            },
        }
    }

    /// Writes the outcome, and returns what the account's limits ask of its lane next.
    ///
    /// The outcome is tried for as long as the attempt lasts: a database that is away for a moment must not turn a
    /// known outcome into an unknown one. Whatever else goes wrong here, the call has been made: it is never an error
    /// that is answered with another attempt.
    async fn record(
        &self,
        ctx: &Context,
        permit: &Permit,
        end: &SendEnd,
        late_state: &str,
        result: &Value,
    ) -> Result<Option<LaneWait>, JobError> {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.try_record(ctx, permit, end, late_state, result).await {
                Ok(wait) => return Ok(wait),
                Err(error) if error.is_unavailable() => {
                    tracing::warn!(%error, send_id = %permit.send_id, "outcome not recorded yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(error) => {
                    tracing::error!(%error, send_id = %permit.send_id, "the outcome of a send was refused by the record");
                    return Err(JobError::Unrecorded);
                }
            }
        }
    }

    async fn try_record(
        &self,
        ctx: &Context,
        permit: &Permit,
        end: &SendEnd,
        late_state: &str,
        result: &Value,
    ) -> Result<Option<LaneWait>, entropy_schema::Error> {
        let mut conn = ctx.conn().await?;
        // The rescuer may have called the outcome unknown while this process was frozen. It is known.
        let late = sends::LateJob { id: ctx.job_id, state: late_state, result };
        match &self.campaign {
            None => {
                sends::settle(&mut conn, permit.send_id, end, late).await?;
            }
            Some(campaign) => {
                conn.transaction(async |conn| {
                    sends::settle(conn, permit.send_id, end, late).await?;
                    campaign::send::settle(conn, campaign, ctx.job_id, end).await
                })
                .await?;
            }
        }
        step!("send.recorded");
        let limits = permit.limits.windows();
        let windows = sends::windows(&mut conn, self.account_id, &permit.token_key, "", &limits).await?;
        // The next recipient is not known here; the gate looks at recipients.
        let windows = sends::Windows { fills_recipients: None, ..windows };
        let wait = permit.limits.wait(&windows);
        Ok(wait.map(|wait| {
            let code = wait.limit.code();
            ctx.services.metrics.limiter_waits.with_label_values(&[code]).inc();
            LaneWait { delay_ms: wait.delay_ms(), code }
        }))
    }

    async fn come_back_online(&self, ctx: &Context, device: &Device) -> bool {
        let online = matches!(ctx.services.sender.check_online(device, &ctx.trace_id).await, Ok(true));
        if online {
            self.note_login(ctx, "ONLINE").await;
        }
        online
    }

    /// What a machine writes shows how people take the account's messages. What a person wrote, a person sees fail.
    fn is_by_machine(&self) -> bool {
        matches!(self.origin, Origin::Ai | Origin::Sop)
    }

    /// Looks whether too many messages were refused. If that fails, the next refusal looks again.
    async fn look_for_risk(&self, ctx: &Context) {
        if let Err(error) = hold::look_at_sends(ctx, self.account_id).await {
            tracing::warn!(%error, account_id = %self.account_id, "the last messages were not looked at");
        }
    }

    /// Notes whether the provider says that the account is logged in. A hold that came meanwhile stays.
    async fn note_login(&self, ctx: &Context, status: &str) {
        for _ in 0..10 {
            let noted = async {
                let mut conn = ctx.conn().await?;
                sends::report_account(&mut conn, ctx.organization_id, self.account_id, status).await
            };
            match noted.await {
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, account_id = %self.account_id, status, "status not noted yet")
                }
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Tells people of an answer that is not sent again. If that fails, the attempt ends without an end, and the rescuer tells.
async fn tell(ctx: &Context, permit: &Permit, why: Why) -> Result<(), JobError> {
    let told = async {
        let mut conn = ctx.conn().await?;
        unsaid::tell(&mut conn, permit.send_id, why).await
    };
    told.await.map_err(|error| {
        tracing::warn!(%error, send_id = %permit.send_id, "people were not told yet of an answer that is not sent");
        JobError::Unrecorded
    })
}

/// Makes the other accounts of a refused token wait. If that fails, each of them meets the refusal itself.
async fn hold_token(ctx: &Context, permit: &Permit) {
    let own = permit.own_token.then_some(permit.token_key.as_str());
    let held = async {
        let mut conn = ctx.conn().await?;
        entropy_schema::lanes::hold_token(&mut conn, own, millis(TOKEN_HOLD), "gewe_token_rejected").await
    };
    if let Err(error) = held.await {
        tracing::warn!(%error, "the token's other accounts were not told to wait");
    }
}

/// The record could not be reached before anything was sent: nothing is sent, and no attempt is spent on it.
fn no_record(error: entropy_schema::Error) -> JobError {
    if !error.is_unavailable() {
        return error.into();
    }
    tracing::warn!(%error, "nothing is sent while the record cannot be reached");
    snooze_lane(
        Duration::from_secs(1),
        "record_unavailable",
        "the database could not be reached; nothing is sent without it".into(),
    )
}

fn offline() -> JobError {
    snooze_lane(
        OFFLINE_HOLD,
        "account_offline",
        "the account is not logged in; it is asked again every minute".into(),
    )
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
