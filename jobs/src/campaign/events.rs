//! What happens to contacts, as campaigns hear of it: in the transaction in which it happens.
//!
//! Who wants no more messages, or is no contact any more, is out of every plan in that very transaction. Everything else makes
//! the person's enrollments due at once; what follows is decided when they are carried on.

use entropy_schema::campaigns::enrollments::{self, Whose};
use entropy_schema::campaigns::facts::{self, Running};
use entropy_schema::{Conn, Result};
use uuid::Uuid;

use super::enroll::{Cause, enroll};
use super::plan::Plans;
use crate::ai::words::normalize;
use crate::sop::config::trigger::{Event, Trigger};
use crate::step;

/// What happened to a contact, for plans that begin with it.
#[derive(Debug, Clone, Copy)]
pub enum Happened<'a> {
    /// It became a friend.
    FriendAdded,
    /// It was given these tags.
    TagsAdded(&'a [String]),
    /// It is a group that has taken our account in.
    GroupJoined,
    /// It wrote this.
    Wrote(&'a str),
}

impl Happened<'_> {
    fn event(self) -> (Event, &'static str) {
        match self {
            Happened::FriendAdded => (Event::FriendAdded, "friend_added"),
            Happened::TagsAdded(_) => (Event::TagAdded, "tag_added"),
            Happened::GroupJoined => (Event::GroupJoined, "group_joined"),
            Happened::Wrote(_) => (Event::KeywordReceived, "keyword_received"),
        }
    }

    fn matches(self, tags: Option<&Vec<String>>, keywords: Option<&Vec<String>>) -> bool {
        match self {
            Happened::FriendAdded | Happened::GroupJoined => true,
            Happened::TagsAdded(added) => tags.into_iter().flatten().any(|tag| added.contains(tag)),
            Happened::Wrote(text) => {
                let text = normalize(text);
                let mut words = keywords.into_iter().flatten().map(|word| normalize(word));
                words.any(|word| !word.is_empty() && text.contains(&word))
            }
        }
    }
}

/// The other side has answered: in a group, by naming our account.
pub async fn replied(conn: &mut Conn, organization: Uuid, account: Uuid, peer: &str) -> Result<()> {
    enrollments::wake_peer(conn, organization, account, peer, true).await?;
    step!("sop.heard");
    Ok(())
}

/// Something of a contact has changed that conditions ask about.
pub async fn changed(conn: &mut Conn, contact: Uuid) -> Result<()> {
    enrollments::wake(conn, &[contact], false).await
}

/// Somebody wants no more messages: from no account of the organisation.
pub async fn opted_out(conn: &mut Conn, organization: Uuid, wxid: &str) -> Result<()> {
    let contacts = enrollments::contacts_of(conn, organization, wxid).await?;
    leave(conn, organization, &contacts, "opted_out").await
}

/// Contacts are out of every plan: `contact_removed`, `contact_suppressed`, `opted_out`.
pub async fn leave(conn: &mut Conn, organization: Uuid, contacts: &[Uuid], reason: &str) -> Result<()> {
    if !contacts.is_empty() {
        enrollments::end(conn, organization, Whose::Contacts(contacts), reason).await?;
    }
    Ok(())
}

/// The same as [`happened`] for the contact of an account with this id in WeChat.
pub async fn happened_to(
    conn: &mut Conn,
    plans: &Plans,
    organization: Uuid,
    account: Uuid,
    wxid: &str,
    what: Happened<'_>,
) -> Result<()> {
    // One index probe for organisations without campaigns.
    if facts::running(conn, organization).await?.is_empty() {
        return Ok(());
    }
    match enrollments::contact_of(conn, organization, account, wxid).await? {
        Some(contact) => happened(conn, plans, organization, contact, what).await,
        None => Ok(()),
    }
}

/// Brings a contact into the plans that begin with what happened to it. The caller may have locked the contact and its
/// enrollments, and nothing that comes after those in the order of locks.
pub async fn happened(
    conn: &mut Conn,
    plans: &Plans,
    organization: Uuid,
    contact: Uuid,
    what: Happened<'_>,
) -> Result<()> {
    begin(conn, plans, organization, contact, what, None).await
}

/// The same for tags that a step of a plan has given: that plan itself does not begin with them. Other plans may, so a ring of
/// plans is possible; it goes round as often as their re-entry allows.
pub async fn tagged(
    conn: &mut Conn,
    plans: &Plans,
    organization: Uuid,
    contact: Uuid,
    tags: &[String],
    by: Uuid,
) -> Result<()> {
    begin(conn, plans, organization, contact, Happened::TagsAdded(tags), Some(by)).await
}

async fn begin(
    conn: &mut Conn,
    plans: &Plans,
    organization: Uuid,
    contact: Uuid,
    what: Happened<'_>,
    except: Option<Uuid>,
) -> Result<()> {
    let (event, source) = what.event();
    for running in facts::running(conn, organization).await? {
        if except == Some(running.id) {
            continue;
        }
        let Some(plan) = plans.of(conn, running.id, running.version).await? else { continue };
        let Trigger::Event { event: begins, tags, keywords, delay } = &plan.config.trigger else { continue };
        if *begins != event || !what.matches(tags.as_ref(), keywords.as_ref()) {
            continue;
        }
        if !is_target(conn, organization, &running, contact).await? {
            continue;
        }
        let cause = Cause { source, by: None, delay: delay.unwrap_or_default() };
        enroll(conn, plans, organization, running.id, &[contact], cause).await?;
    }
    Ok(())
}

/// Tells whether a plan is meant for a contact. Without targets it is meant for whomever its event happens to.
async fn is_target(conn: &mut Conn, organization: Uuid, plan: &Running, contact: Uuid) -> Result<bool> {
    if plan.target_ids.is_empty() {
        return Ok(true);
    }
    if plan.target_type != "tag" {
        return Ok(plan.target_ids.contains(&contact.to_string()));
    }
    let contact = entropy_schema::contacts::get(conn, organization, contact).await?;
    Ok(contact.is_some_and(|contact| contact.tags.iter().any(|tag| plan.target_ids.contains(tag))))
}
