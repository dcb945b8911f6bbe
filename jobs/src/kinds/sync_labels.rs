//! Writes the tags of a friend into WeChat, as labels. What we know is the truth; WeChat follows if it can.
//!
//! WeChat takes the whole set of a friend's labels at once. So it is read just before it is written, and what was made on the
//! phone stays: only labels that we have made of tags are taken away when the tags are. One label is made per attempt, with the
//! lane's gap after it, as all calls for which nobody waits.

use std::collections::BTreeSet;

use entropy_schema::labels::{self, Labelled};
use entropy_schema::lanes::ensure_background;
use entropy_schema::record::enqueue::enqueue;
use entropy_schema::{Conn, Result};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::background::{self, Target, background_lane, lane_wait, next_step};
use crate::class::Class;
use crate::enqueue::{Options, new_job};
use crate::job::{Done, Failure, Job, JobError};
use crate::lifecycle::Delivery;
use crate::provider::ErrorClass;
use crate::services::Context;

/// One friend's labels. Safe to repeat: the latest tags are written, whichever job comes to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncLabels {
    /// The account.
    pub account_id: Uuid,
    /// The friend.
    pub contact_id: Uuid,
    /// Tells the tags apart for which it was made: whoever changes them again while it runs makes another.
    pub tags_hash: String,
}

impl SyncLabels {
    /// Makes the job for a friend with these tags.
    pub fn of(account: Uuid, contact: Uuid, tags: &[String]) -> SyncLabels {
        let mut tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        tags.sort_unstable();
        let hash = digest(&SHA256, tags.join("\n").as_bytes());
        let tags_hash = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        SyncLabels { account_id: account, contact_id: contact, tags_hash }
    }
}

/// Prepares [`request`]: returns the lane to be locked with the others, before the contact is. None: the account's tags stay here.
pub async fn lane(conn: &mut Conn, organization: Uuid, account: Uuid) -> Result<Option<Uuid>> {
    if !labels::wanted(conn, organization, account).await? {
        return Ok(None);
    }
    ensure_background(conn, &[(account, organization)]).await?;
    Ok(Some(background_lane(account)))
}

/// Has the tags of a contact written into WeChat, in the caller's transaction, which has locked the [`lane`].
///
/// Who is no friend costs one short job.
pub async fn request(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    contact: Uuid,
    tags: &[String],
    trace_id: &str,
) -> Result<()> {
    let options = Options {
        organization_id: organization,
        class: Class::Campaign,
        scheduled_at: None,
        expires_at: None,
        idempotency: None,
        trace_id: trace_id.to_owned(),
        created_by: None,
    };
    let job = new_job(&SyncLabels::of(account, contact, tags), options);
    enqueue(conn, &[job]).await?;
    Ok(())
}

impl Job for SyncLabels {
    const KIND: &'static str = "sync_labels";
    const QUEUE: &'static str = background::QUEUE;
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 5;

    fn lane(&self) -> Option<Uuid> {
        Some(background_lane(self.account_id))
    }

    fn account(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    fn unique_key(&self) -> Option<String> {
        Some(format!("{}:{}", self.contact_id, self.tags_hash))
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let mut conn = ctx.conn().await?;
        let friend = labels::labelled(&mut conn, ctx.organization_id, self.contact_id).await?;
        drop(conn);
        let Some(friend) = friend.filter(|friend| friend.wanted) else {
            return Ok(done("not_wanted", false, ctx));
        };
        if same(&friend.tags, &friend.synced_tags) {
            return Ok(done("unchanged", false, ctx));
        }
        let target = background::target(ctx, self.account_id, &["ONLINE"]).await?;
        match self.step(ctx, &target, &friend).await {
            // The provider will not have it. Our tags stay what they are.
            Err(JobError::Discard(failure)) => {
                let mut ended = done("refused", true, ctx);
                if let Some(result) = &mut ended.result {
                    result["code"] = failure.code.into();
                }
                Ok(ended)
            }
            ended => ended,
        }
    }
}

impl SyncLabels {
    async fn step(&self, ctx: &Context, target: &Target, friend: &Labelled) -> Result<Done, JobError> {
        let (organization, account) = (ctx.organization_id, self.account_id);
        let (device, trace) = (&target.device, ctx.trace_id.as_str());
        let removed: Vec<String> =
            friend.synced_tags.iter().filter(|tag| !friend.tags.contains(tag)).cloned().collect();
        let names: Vec<String> = friend.tags.iter().chain(&removed).cloned().collect();
        let mut conn = ctx.conn().await?;
        let known = labels::known(&mut conn, organization, account, &names).await?;
        drop(conn);
        let missing = friend.tags.iter().find(|tag| !known.iter().any(|(name, _)| name == *tag));
        if let Some(name) = missing {
            let made = ctx.services.contacts.make_label(device, name, trace).await;
            let id = match made {
                Ok(id) => id,
                Err(error) => return Err(background::failed(ctx, account, target, error).await),
            };
            let mut conn = ctx.conn().await?;
            labels::learn(&mut conn, organization, account, name, &id).await?;
            return Err(next_step(ctx, "a label is there; the others are next"));
        }
        // Read and written without a gap between: what is made on the phone meanwhile would be lost.
        let asked = [friend.wxid.clone()];
        let briefs = match ctx.services.contacts.brief(device, &asked, trace).await {
            Ok(briefs) => briefs,
            Err(error) => return Err(background::failed(ctx, account, target, error).await),
        };
        let Some(brief) = briefs.into_iter().find(|brief| brief.wxid == friend.wxid) else {
            return Err(JobError::Discard(Failure::new(
                "contact_not_found",
                "GeWe does not know this friend",
            )));
        };
        let id_of = |tag: &String| known.iter().find(|(name, _)| name == tag).map(|(_, id)| id.clone());
        let taken: BTreeSet<String> = removed.iter().filter_map(id_of).collect();
        let mut wanted: BTreeSet<String> = brief.label_ids.into_iter().collect();
        wanted.retain(|id| !taken.contains(id));
        wanted.extend(friend.tags.iter().filter_map(id_of));
        let wanted: Vec<String> = wanted.into_iter().collect();
        if let Err(error) = ctx.services.contacts.set_labels(device, &friend.wxid, &wanted, trace).await {
            if error.class == ErrorClass::Refused {
                // A label may have been deleted on the phone. Its name is asked for again next time.
                let mut conn = ctx.conn().await?;
                labels::forget(&mut conn, organization, account, &names).await?;
                drop(conn);
                return Err(match ctx.attempt < Self::MAX_ATTEMPTS {
                    true => JobError::Retry(Failure::new(error.code, error.message)),
                    false => JobError::Discard(Failure::new(error.code, error.message)),
                });
            }
            return Err(background::failed(ctx, account, target, error).await);
        }
        let mut conn = ctx.conn().await?;
        labels::synced(&mut conn, organization, self.contact_id, &friend.tags).await?;
        Ok(done("synced", true, ctx))
    }
}

fn done(what: &str, called: bool, ctx: &Context) -> Done {
    let gap = called.then(|| lane_wait(background::gap(ctx)));
    Done { result: Some(json!({ "labels": what })), lane_wait: gap }
}

/// Tells whether two lists hold the same words.
fn same(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().all(|word| other.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_tags_makes_no_other_job_and_another_tag_does() {
        let (account, contact) = (Uuid::now_v7(), Uuid::now_v7());
        let key = |tags: &[&str]| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            SyncLabels::of(account, contact, &tags).unique_key()
        };
        assert_eq!(key(&["高意向", "老客户"]), key(&["老客户", "高意向"]));
        assert_ne!(key(&["高意向"]), key(&["高意向", "老客户"]));
        assert_ne!(key(&[]), key(&["高意向"]));
    }
}
