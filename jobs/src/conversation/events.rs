//! Events that are no messages: recalls, contacts, groups, requests, the account's own state.

use diesel_async::AsyncConnection;
use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::campaigns::enrollments;
use entropy_schema::contacts::{self, Told};
use entropy_schema::{Conn, Result, conversations, messages, sends, turns};
use serde_json::json;
use uuid::Uuid;

use super::apply::Applied;
use super::arrive::{is_wxid, kinds};
use crate::campaign::events::{self as campaigns, Happened};
use crate::incoming::{AccountEvent, ContactChange, GroupEvent};
use crate::job::{Failure, JobError};
use crate::risk::hold::{hold, look_at_leavers};
use crate::risk::{Seen, signal};
use crate::services::Context;

/// Attempts to find a recalled message that has not come in yet: half a minute, with the backoff between them.
const RECALL_ATTEMPTS: i16 = 6;

/// Applies that a message was taken back. It may have been overtaken by that; then it is waited for.
pub(super) async fn recalled(ctx: &Context, account: Uuid, new_msg_id: &str) -> Result<Applied, JobError> {
    let mut conn = ctx.conn().await?;
    let organization = ctx.organization_id;
    let Some(message) = messages::find(&mut conn, organization, account, new_msg_id).await? else {
        if ctx.attempt >= RECALL_ATTEMPTS {
            return Ok(Applied::Ignored);
        }
        let failure = Failure::new("message_not_here", "the message that was taken back has not come in yet");
        return Err(JobError::Retry(failure));
    };
    conn.transaction(async |conn| {
        conversations::lock_row(conn, organization, message.conversation_id).await?;
        if let Some(turn) = messages::recall(conn, message.id).await? {
            turns::take_out(conn, turn).await?;
        }
        Ok::<_, entropy_schema::Error>(())
    })
    .await?;
    Ok(Applied::Applied)
}

/// Applies what is new of a contact.
pub(super) async fn contact_changed(
    ctx: &Context,
    account: Uuid,
    change: &ContactChange,
) -> Result<Applied, JobError> {
    if !is_wxid(&change.wxid) {
        return Ok(Applied::Ignored);
    }
    let mut conn = ctx.conn().await?;
    let (kind, _) = kinds(&change.wxid);
    let told = Told {
        nickname: change.nickname.as_deref(),
        remark: change.remark.as_deref(),
        alias: change.alias.as_deref(),
        avatar: change.avatar.as_deref(),
        became_friend: change.became_friend,
    };
    let (organization, wxid) = (ctx.organization_id, change.wxid.as_str());
    conn.transaction(async |conn| {
        let known = enrollments::contact_of(conn, organization, account, wxid).await?;
        contacts::tell(conn, organization, account, wxid, kind, told).await?;
        // A group that was not known has just taken the account in.
        let happened = match kind {
            "group" => known.is_none().then_some(Happened::GroupJoined),
            _ => change.became_friend.then_some(Happened::FriendAdded),
        };
        if let Some(happened) = happened {
            campaigns::happened_to(conn, &ctx.services.plans, organization, account, wxid, happened).await?;
        }
        Ok::<_, entropy_schema::Error>(())
    })
    .await?;
    Ok(Applied::Applied)
}

/// Applies that a contact is no friend any more, or that the account is out of a group.
pub(super) async fn contact_removed(
    ctx: &Context,
    account: Uuid,
    event: Uuid,
    wxid: &str,
) -> Result<Applied, JobError> {
    let mut conn = ctx.conn().await?;
    let organization = ctx.organization_id;
    let removed = conn
        .transaction(async |conn| {
            let chat = conversations::find(conn, organization, account, wxid).await?;
            if let Some(id) = chat {
                conversations::lock_row(conn, organization, id).await?;
                turns::drop_all(conn, id, None, "contact_removed").await?;
            }
            if !contacts::remove(conn, organization, account, wxid).await? {
                return Ok(false);
            }
            if let Some(contact) = enrollments::contact_of(conn, organization, account, wxid).await? {
                campaigns::leave(conn, organization, &[contact], "contact_removed").await?;
            }
            let alert = NewAlert {
                organization_id: organization,
                kind: "contact_removed",
                severity: Severity::Info,
                dedupe_key: &format!("contact_removed:{event}"),
                text: "A contact is no friend any more, or the account is out of a group.",
                account_id: Some(account),
                conversation_id: chat,
                details: Some(json!({ "wxid": wxid })),
            };
            alerts::raise(conn, &alert).await?;
            Ok::<_, entropy_schema::Error>(true)
        })
        .await?;
    drop(conn);
    // Also when it was known: the process may have died just here.
    look_at_leavers(ctx, account).await?;
    Ok(if removed { Applied::Applied } else { Applied::Ignored })
}

/// Tells people of somebody who wants to be a friend. Nothing is accepted by us.
pub(super) async fn friend_request(
    ctx: &Context,
    account: Uuid,
    event: Uuid,
    wxid: &str,
    nickname: &str,
    greeting: &str,
) -> Result<Applied, JobError> {
    let details = json!({ "wxid": wxid, "nickname": nickname, "greeting": greeting });
    let alert = NewAlert {
        organization_id: ctx.organization_id,
        kind: "friend_request",
        severity: Severity::Info,
        dedupe_key: &format!("friend_request:{event}"),
        text: "Somebody wants to be a friend of the account; accept it on the phone.",
        account_id: Some(account),
        conversation_id: None,
        details: Some(details),
    };
    alerts::raise(&mut *ctx.conn().await?, &alert).await?;
    Ok(Applied::Applied)
}

/// Applies what happened in a group.
pub(super) async fn group(
    ctx: &Context,
    account: Uuid,
    event: Uuid,
    group_wxid: &str,
    what: GroupEvent,
    text: &str,
) -> Result<Applied, JobError> {
    match what {
        GroupEvent::Left => contact_removed(ctx, account, event, group_wxid).await,
        GroupEvent::Renamed => {
            let Some(name) = new_name(text).filter(|_| is_wxid(group_wxid)) else {
                return Ok(Applied::Ignored);
            };
            let told = Told { nickname: Some(name), ..Told::default() };
            let mut conn = ctx.conn().await?;
            contacts::tell(&mut conn, ctx.organization_id, account, group_wxid, "group", told).await?;
            Ok(Applied::Applied)
        }
        GroupEvent::Members | GroupEvent::Announced | GroupEvent::Other => Ok(Applied::Ignored),
    }
}

/// Returns the name in a notice such as `"小李"修改群名为“老客户群”`: the last thing in quotes.
fn new_name(text: &str) -> Option<&str> {
    let end = text.rfind(['”', '"'])?;
    let start = text[..end].rfind(['“', '"'])?;
    let name = text[start..end].trim_start_matches(['“', '"']).trim();
    (!name.is_empty()).then_some(name)
}

/// Applies what became of the account itself. A hold that a person must lift stays.
pub(super) async fn account(
    ctx: &Context,
    account: Uuid,
    event: Uuid,
    what: AccountEvent,
) -> Result<Applied, JobError> {
    let organization = ctx.organization_id;
    let mut conn = ctx.conn().await?;
    match what {
        AccountEvent::Reconnecting => return Ok(Applied::Ignored),
        AccountEvent::Online => {
            sends::report_account(&mut conn, organization, account, "ONLINE").await?;
        }
        AccountEvent::Offline => went_offline(&mut conn, organization, account, event).await?,
        AccountEvent::LoggedOut => {
            at_risk(&mut conn, ctx, account, Seen::LoggedOut).await?;
            // It stays on hold; this is for how long it was logged out.
            sends::report_account(&mut conn, organization, account, "OFFLINE").await?;
        }
        AccountEvent::Verification => at_risk(&mut conn, ctx, account, Seen::Verification).await?,
        AccountEvent::LoginFailed => {
            let alert = NewAlert {
                organization_id: organization,
                kind: "account_login_failed",
                severity: Severity::Warning,
                dedupe_key: &format!("account_login_failed:{event}"),
                text: "Logging the account in failed; look at its phone.",
                account_id: Some(account),
                conversation_id: None,
                details: None,
            };
            alerts::raise(&mut conn, &alert).await?;
        }
    }
    Ok(Applied::Applied)
}

async fn at_risk(conn: &mut Conn, ctx: &Context, account: Uuid, seen: Seen<'_>) -> Result<()> {
    if let Some(signal) = signal(seen) {
        hold(conn, ctx.organization_id, account, signal, json!({}), &ctx.trace_id).await?;
    }
    Ok(())
}

/// Notes that the provider says the account is logged out, and tells people, once per outage.
///
/// Its lane rests as after a send that met the same answer: the gate asks the provider once a minute. `cause` names the
/// event, or whatever else told us.
pub async fn went_offline(conn: &mut Conn, organization: Uuid, account: Uuid, cause: Uuid) -> Result<()> {
    conn.transaction(async |conn| {
        // Only who finds it online raises the alert, so one outage raises one.
        if !sends::report_account(conn, organization, account, "OFFLINE").await? {
            return Ok(());
        }
        let alert = NewAlert {
            organization_id: organization,
            kind: "account_offline",
            severity: Severity::Critical,
            dedupe_key: &format!("account_offline:{account}:{cause}"),
            text: "The account is logged out: nothing is received or sent until it is logged in again.",
            account_id: Some(account),
            conversation_id: None,
            details: None,
        };
        alerts::raise(conn, &alert).await?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_new_name_is_the_last_thing_in_quotes() {
        assert_eq!(new_name("\"小李\"修改群名为“老客户群”"), Some("老客户群"));
        assert_eq!(new_name("你修改群名为\"VIP\""), Some("VIP"));
        assert_eq!(new_name("群名变了"), None);
        assert_eq!(new_name("“”"), None);
        assert_eq!(new_name("\""), None);
    }
}
