//! Carries an enrollment on from where it stands, as far as it goes now.
//!
//! [`decide`] is a function of what is known; what it decides is written in one transaction. That transaction holds the
//! enrollment, and what else the decision needs comes before it in the order of locks: a contact whose tags change, the lane of an
//! account that is to send, a conversation that is handed over. So the first look takes the enrollment alone, and where it turns
//! out that more is needed, everything is let go and begun again with that.
//!
//! It may run twice, and two may run at once: who comes second finds the enrollment moved on.

use diesel_async::AsyncConnection;
use entropy_schema::campaigns::enrollments::{self, Enrollment};
use entropy_schema::campaigns::facts;
use entropy_schema::campaigns::steps::{self, SendJob};
use entropy_schema::record::enqueue::{Enqueued, enqueue};
use entropy_schema::{Conn, Error, Result, contacts, conversations, labels};
use uuid::Uuid;

use super::decide::{Decided, Held, Moves, Outcome, decide};
use super::events;
use super::situation::Situation;
use super::{review, send, write};
use crate::conversation::mode;
use crate::kinds::sync_labels;
use crate::services::Context;
use crate::step;

/// Looks that one run may take: the second with what the first has found to be needed, more if others move at the same time.
const LOOKS: usize = 6;

/// What became of an enrollment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advanced {
    /// Its state.
    pub state: String,
    /// The step at which it stands.
    pub step_id: Option<String>,
    /// Why it waits, or ended.
    pub reason: Option<String>,
    /// A message or another job was enqueued: the relay should look.
    pub enqueued: bool,
}

/// Carries an enrollment on. None: there is nothing to be done for it, or no such enrollment.
pub async fn advance(ctx: &Context, id: Uuid) -> Result<Option<Advanced>> {
    let mut held = Held::default();
    for _ in 0..LOOKS {
        let mut conn = ctx.conn().await?;
        let looked = conn.transaction(async |conn| look(conn, ctx, id, held).await).await;
        match looked {
            Ok(Looked::Needs(more)) => held = held.and(more),
            Ok(Looked::Done(done)) => {
                step!("sop.advanced");
                return Ok(done);
            }
            // The job that holds the step's key ended at this very moment.
            Err(Error::Query(diesel::result::Error::RollbackTransaction)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unavailable("what an enrollment needs keeps moving".to_owned()))
}

enum Looked {
    Needs(Held),
    Done(Option<Advanced>),
}

async fn look(conn: &mut Conn, ctx: &Context, id: Uuid, held: Held) -> Result<Looked> {
    let organization = ctx.organization_id;
    let nothing = Ok(Looked::Done(None));
    if held.any() {
        let Some(before) = enrollments::get(conn, organization, id).await? else { return nothing };
        let mut lanes = Vec::new();
        if held.conversation || held.lane {
            lanes.push(before.account_id);
        }
        if held.contact {
            lanes.extend(sync_labels::lane(conn, organization, before.account_id).await?);
        }
        conversations::lock_lanes(conn, organization, &lanes).await?;
        // Not read for a lane alone: people's messages wait while it is held.
        let facts = if held.conversation { facts::of(conn, id).await? } else { None };
        if let Some(chat) = facts.and_then(|facts| facts.conversation_id) {
            conversations::lock_row(conn, organization, chat).await?;
        }
        if held.contact {
            contacts::lock(conn, organization, before.contact_id).await?;
            // Its tags change, and all of its enrollments are told.
            enrollments::lock_of_contact(conn, before.contact_id).await?;
        }
    }
    let Some(enrollment) = enrollments::lock(conn, id).await? else { return nothing };
    if enrollment.organization_id != organization || enrollment.finished_at.is_some() {
        return nothing;
    }
    let Some(facts) = facts::of(conn, id).await? else { return nothing };
    let plan = ctx.services.plans.of(conn, enrollment.sop_id, enrollment.version).await?;
    let Some(plan) = plan else {
        let failed = unreadable(enrollment, facts.now);
        enrollments::save(conn, &failed).await?;
        return Ok(Looked::Done(Some(said(&failed, false))));
    };
    let due = enrollment.state == "active" || enrollment.due_at.is_some_and(|due| due <= facts.now);
    if !due || enrollment.state == "paused" {
        return nothing;
    }
    let current = match &enrollment.step_id {
        Some(step) => steps::get(conn, id, step).await?,
        None => None,
    };
    let job: Option<SendJob> = match current.as_ref().and_then(|step| step.job_id) {
        Some(job) => steps::send_job(conn, job).await?,
        None => None,
    };
    let words = ctx.services.words.of(conn, organization).await?;
    let links = ctx.services.links.clone();
    let mut situation = Situation::new(enrollment, &facts, &plan).to_speak(words, links);
    let mut decided = decide(&situation, current.as_ref(), job.as_ref());
    if matches!(decided, Decided::Count) {
        situation.count(conn, true).await?;
        decided = decide(&situation, current.as_ref(), job.as_ref());
    }
    let Decided::Outcome(outcome) = decided else { return nothing };
    let needs = outcome.moves.needs();
    if !held.covers(needs) {
        return Ok(Looked::Needs(needs));
    }
    step!("sop.decided");
    let advanced = write(conn, ctx, &situation, *outcome).await?;
    step!("sop.written");
    Ok(Looked::Done(Some(advanced)))
}

async fn write(
    conn: &mut Conn,
    ctx: &Context,
    situation: &Situation<'_>,
    outcome: Outcome,
) -> Result<Advanced> {
    let Outcome { mut enrollment, mut steps, moves } = outcome;
    let Moves { send, write, review, takes_place: _, add_tags, remove_tags, hand_off } = moves;
    let (mut given, mut tagged) = (Vec::new(), None);
    if !add_tags.is_empty() || !remove_tags.is_empty() {
        let contact = contacts::lock(conn, enrollment.organization_id, enrollment.contact_id).await?;
        if let Some(mut contact) = contact {
            contact.tags.retain(|tag| !remove_tags.contains(tag));
            for tag in add_tags {
                if !contact.tags.contains(&tag) {
                    contact.tags.push(tag.clone());
                    given.push(tag);
                }
            }
            contacts::update(conn, &contact).await?;
            // Before this one is written, which need not be looked at again.
            events::changed(conn, enrollment.contact_id).await?;
            tagged = Some(contact);
        }
    }
    if let (Some((reason, note)), Some(chat)) = (hand_off, situation.facts.conversation_id) {
        mode::hand_off(conn, enrollment.organization_id, chat, reason, &note).await?;
    }
    let job = match send {
        Some(outgoing) => Some(send::job(ctx, situation, &enrollment, outgoing)),
        None => write.then(|| write::job(ctx, &enrollment)),
    };
    let mut enqueued = false;
    if let Some(job) = job {
        match enqueue(conn, std::slice::from_ref(&job)).await?.first() {
            Some(Enqueued::Created(id)) => {
                enqueued = true;
                if let Some(step) = steps.last_mut() {
                    step.job_id = Some(*id);
                }
            }
            // The job of an earlier try is about to end.
            _ => {
                steps.pop();
                enrollment.wait_code = Some("sending".to_owned());
                enrollment.due_at = Some(situation.now + send::EARLIER_TRY);
            }
        }
    }
    steps::put(conn, &steps).await?;
    enrollments::save(conn, &enrollment).await?;
    if !given.is_empty() {
        // After it: whoever has just left this plan is free for another.
        let (plans, organization) = (&ctx.services.plans, enrollment.organization_id);
        events::tagged(conn, plans, organization, enrollment.contact_id, &given, enrollment.sop_id).await?;
    }
    if review {
        review::tell(conn, &enrollment).await?;
    }
    let organization = enrollment.organization_id;
    if let Some(contact) = tagged
        && labels::wanted(conn, organization, contact.account_id).await?
    {
        let trace = &ctx.trace_id;
        sync_labels::request(conn, organization, contact.account_id, contact.id, &contact.tags, trace)
            .await?;
        enqueued = true;
    }
    Ok(said(&enrollment, enqueued))
}

fn unreadable(enrollment: Enrollment, now: chrono::DateTime<chrono::Utc>) -> Enrollment {
    Enrollment {
        state: "failed".to_owned(),
        reason: Some("plan_unreadable".to_owned()),
        due_at: None,
        wait_code: None,
        finished_at: Some(now),
        ..enrollment
    }
}

fn said(enrollment: &Enrollment, enqueued: bool) -> Advanced {
    Advanced {
        state: enrollment.state.clone(),
        step_id: enrollment.step_id.clone(),
        reason: enrollment.reason.clone().or_else(|| enrollment.wait_code.clone()),
        enqueued,
    }
}
