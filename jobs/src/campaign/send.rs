//! From a step to the message that it sends, and to the job that sends it.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::campaigns::enrollments::Enrollment;
use entropy_schema::campaigns::steps;
use entropy_schema::record::enqueue::NewJob;
use entropy_schema::sends::SendEnd;
use entropy_schema::{Conn, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::material::{Unsendable, Upload};
use super::situation::Situation;
use crate::class::Class;
use crate::conversation::Origin;
use crate::enqueue::{Options, new_job};
use crate::kinds::send_message::SendMessage;
use crate::lifecycle::OnUnknown;
use crate::message::{MAX_TEXT_CHARS, Message, Text};
use crate::provider::ErrorClass;
use crate::services::Context;
use crate::sop::config::step::{OnMissingVariable, Step};
use crate::sop::template::{self, Given};
use crate::step;

/// How long the job of an earlier try is waited for that is about to end at its gate.
pub(super) const EARLIER_TRY: TimeDelta = TimeDelta::seconds(2);

/// Ties a send to the step of a campaign that it carries out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Campaign {
    /// The enrollment.
    pub enrollment_id: Uuid,
    /// The step.
    pub step_id: String,
    /// When it was written, by the clock of campaigns. What the other side says after that it has not heard.
    pub written_at: DateTime<Utc>,
    /// The file that it sends, of which the link is made when it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
}

/// A message on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// What it says.
    pub message: Message,
    /// Its file, of which it needs another link when it leaves.
    pub upload: Option<Upload>,
}

impl Outgoing {
    /// A text.
    pub(super) fn text(text: String) -> Outgoing {
        Outgoing { message: Message::Text(Text { text, ats: None }), upload: None }
    }
}

/// What became of a step's words.
pub(super) enum Rendered {
    /// This is sent.
    Message(Box<Outgoing>),
    /// Nothing can be.
    Not {
        /// Why.
        code: &'static str,
        /// Whether the enrollment ends for it.
        exits: OnMissingVariable,
    },
}

/// Renders what a step sends, with what is known now. `given`: what texts may say.
pub(super) fn render(situation: &Situation<'_>, step: &Step, given: &HashMap<String, Given>) -> Rendered {
    let (text, exits) = match step {
        Step::Send(step) => {
            let exits = step.on_missing_variable.unwrap_or_default();
            match (&step.message.material(), step.message.text()) {
                (Some((_, key)), _) => {
                    let material = situation.plan.materials.get(*key).ok_or(Unsendable::Unreadable);
                    let (links, now) = (situation.links.as_ref(), situation.facts.true_now);
                    return match material.and_then(|material| material.message(links, now)) {
                        Ok((message, upload)) => Rendered::Message(Box::new(Outgoing { message, upload })),
                        Err(problem) => Rendered::Not { code: problem.code(), exits },
                    };
                }
                (None, text) => (text.unwrap_or_default(), exits),
            }
        }
        Step::AiSend(step) => (step.fallback_text.as_str(), OnMissingVariable::Skip),
        _ => ("", OnMissingVariable::Skip),
    };
    match template::render(text, &situation.plan.config.variables, given) {
        template::Rendered::Missing(_) => Rendered::Not { code: "missing_variable", exits },
        template::Rendered::Text(text) if text.trim().is_empty() || text.chars().count() > MAX_TEXT_CHARS => {
            Rendered::Not { code: "text_length", exits }
        }
        template::Rendered::Text(text) => Rendered::Message(Box::new(Outgoing::text(text))),
    }
}

/// Makes the job that sends a step's message. There is one at a time per step.
pub(super) fn job(
    ctx: &Context,
    situation: &Situation<'_>,
    enrollment: &Enrollment,
    outgoing: Outgoing,
) -> NewJob {
    let args = SendMessage {
        account_id: enrollment.account_id,
        to_wxid: situation.facts.wxid.clone(),
        message: outgoing.message,
        on_unknown: OnUnknown::Hold,
        origin: Origin::Sop,
        reply: None,
        confirms_opt_out: false,
        campaign: Some(Campaign {
            enrollment_id: enrollment.id,
            step_id: enrollment.step_id.clone().unwrap_or_default(),
            written_at: situation.now,
            upload: outgoing.upload,
        }),
    };
    let options = Options {
        organization_id: enrollment.organization_id,
        class: Class::Campaign,
        scheduled_at: None,
        expires_at: None,
        idempotency: None,
        trace_id: ctx.trace_id.clone(),
        created_by: enrollment.created_by,
    };
    new_job(&args, options)
}

/// Notes how a step's send ended, in the transaction that settles the send. Its enrollment goes on at once.
///
/// What surely did not leave and is tried again by its own job waits in the lane as before.
pub(crate) async fn settle(conn: &mut Conn, campaign: &Campaign, job: Uuid, end: &SendEnd) -> Result<()> {
    let (enrollment, step) = (campaign.enrollment_id, campaign.step_id.as_str());
    match (end.state, end.error_class) {
        ("failed", Some(class)) if class != ErrorClass::Refused.as_str() => {
            steps::withdraw(conn, enrollment, step, job).await
        }
        (state, _) => {
            // What was refused did not leave, so no cap counts it.
            let left = state != "failed";
            steps::settle(conn, enrollment, step, job, state, end.error_code, left).await?;
            step!("sop.settled");
            Ok(())
        }
    }
}
