//! What an event of the provider does to the record.
//!
//! Events come at least once, in any order, several at a time. Each of these effects is one transaction and leaves the same
//! behind when it happens again.

use entropy_schema::sends;
use uuid::Uuid;

use super::{arrive, events, typed};
use crate::incoming::{Event, What};
use crate::job::JobError;
use crate::media;
use crate::services::Context;

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The record shows it.
    Applied,
    /// It is known, and changes nothing.
    Ignored,
    /// Nobody knows what it means.
    Unknown,
}

impl Applied {
    /// Returns the word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Applied::Applied => "applied",
            Applied::Ignored => "ignored",
            Applied::Unknown => "unknown",
        }
    }
}

/// Applies an event of an account of the job's organisation. A message gets the id of its event.
pub async fn apply(
    ctx: &Context,
    account_id: Uuid,
    event_id: Uuid,
    event: &Event,
) -> Result<Applied, JobError> {
    // Messages look at that with everything else that they read.
    if !matches!(event.what, What::Message(_)) {
        let mut conn = ctx.conn().await?;
        sends::account_seen(&mut conn, ctx.organization_id, account_id).await?;
    }
    match &event.what {
        What::Message(message) => {
            let applied = match message.from_me {
                true => typed::apply(ctx, account_id, event_id, message).await?,
                false => arrive::apply(ctx, account_id, event_id, message).await?,
            };
            if message.media.is_some() {
                media::request(ctx, account_id, event_id).await?;
            }
            Ok(applied)
        }
        What::Recalled { new_msg_id, .. } => events::recalled(ctx, account_id, new_msg_id).await,
        What::ContactChanged(change) => events::contact_changed(ctx, account_id, change).await,
        What::ContactRemoved { wxid } => events::contact_removed(ctx, account_id, event_id, wxid).await,
        What::FriendRequest { wxid, nickname, greeting } => {
            events::friend_request(ctx, account_id, event_id, wxid, nickname, greeting).await
        }
        What::Group { group_wxid, what, text } => {
            events::group(ctx, account_id, event_id, group_wxid, *what, text).await
        }
        What::Account(what) => events::account(ctx, account_id, event_id, *what).await,
        What::Ignored => Ok(Applied::Ignored),
        What::Unknown => Ok(Applied::Unknown),
    }
}
