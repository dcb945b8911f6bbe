//! Fetches an account's contacts, groups and labels from the provider.
//!
//! One call per attempt, and the lane's gap after each: the job puts itself back until nothing remains. What remains is
//! written down with what came of the call, so a process may die at any point.

use std::collections::BTreeMap;
use std::time::Duration;

use diesel_async::AsyncConnection;
use entropy_schema::contact_syncs::{self, Fetched, Progress, Sync};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::background::{self, Target, background_lane, lane_wait, next_step};
use crate::contact_source::{BRIEF, Brief, Listing};
use crate::conversation::arrive::kinds;
use crate::conversation::decide::is_official;
use crate::gate::snooze_lane;
use crate::job::{Done, Failure, Job, JobError};
use crate::lifecycle::Delivery;
use crate::provider::ErrorClass;
use crate::services::Context;

/// A whole sync of one account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncContacts {
    /// The account.
    pub account_id: Uuid,
}

/// How long the provider is given before it is asked again for a list that it was not done with.
const POLL: Duration = Duration::from_secs(10);

/// Looks at the provider's list before it is asked to make it anew; its own copy lasts for ten minutes.
const POLLS: i32 = 30;

/// Contacts of one list that are looked at. WeChat itself allows ten thousand friends.
const MOST: usize = 20_000;

/// WeChat's own tools, which are nobody's contact. Its team (`weixin`) is one, and writes.
const TOOLS: [&str; 10] = [
    "filehelper",
    "fmessage",
    "medianote",
    "floatbottle",
    "newsapp",
    "qmessage",
    "qqmail",
    "tmessage",
    "weixinreminder",
    "helper_entry",
];

/// What is still to be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    /// Names of labels by id, once they were fetched.
    labels: Option<BTreeMap<String, String>>,
    /// The labels could not be fetched: those that are stored stay.
    #[serde(default)]
    no_labels: bool,
    /// People and groups whose description is missing.
    wxids: Vec<String>,
    /// Groups whose members are missing.
    groups: Vec<String>,
}

impl Job for SyncContacts {
    const KIND: &'static str = "sync_contacts";
    const QUEUE: &'static str = background::QUEUE;
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 8;
    // The slow list alone may take sixty seconds.
    const TIMEOUT: Duration = Duration::from_secs(90);

    fn lane(&self) -> Option<Uuid> {
        Some(background_lane(self.account_id))
    }

    fn account(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    fn unique_key(&self) -> Option<String> {
        Some(self.account_id.to_string())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let ended = self.step(ctx).await;
        let (failure, over) = match &ended {
            Err(JobError::Retry(failure)) => (failure, ctx.attempt >= Self::MAX_ATTEMPTS),
            Err(JobError::Discard(failure)) => (failure, true),
            _ => return ended,
        };
        let mut conn = ctx.conn().await?;
        let (organization, account) = (ctx.organization_id, self.account_id);
        contact_syncs::trouble(&mut conn, organization, account, ctx.job_id, &failure.message, over).await?;
        ended
    }
}

impl SyncContacts {
    async fn step(&self, ctx: &Context) -> Result<Done, JobError> {
        let target = background::target(ctx, self.account_id, &["ONLINE"]).await?;
        let mut conn = ctx.conn().await?;
        let begun = contact_syncs::begin(&mut conn, ctx.organization_id, self.account_id, ctx.job_id).await?;
        drop(conn);
        let Some(sync) = begun else {
            return Err(JobError::Cancel(Failure::new("account_deleted", "the account was removed")));
        };
        match sync.state.as_str() {
            "listing" => self.list(ctx, &target, &sync).await,
            "fetching" => self.fetch(ctx, &target, &sync).await,
            _ => Ok(done(&sync)),
        }
    }

    /// Asks for the list. What the provider has not put together in time is asked for every ten seconds.
    async fn list(&self, ctx: &Context, target: &Target, sync: &Sync) -> Result<Done, JobError> {
        // While there is no list, `fetched` counts how often it was asked for.
        let asked = sync.fetched;
        let cached = asked > 0 && asked <= POLLS;
        if asked == 0 {
            // Written before the call: if the process dies in it, the next attempt looks at what it left behind.
            self.advance(ctx, sync, "listing", asked + 1, &Plan::default()).await?;
        }
        let answer = ctx.services.contacts.list(&target.device, cached, &ctx.trace_id).await;
        let listing = match answer {
            Ok(Some(listing)) => listing,
            Ok(None) => return Err(self.poll(ctx, sync, asked).await?),
            // The slow call is known to take longer than anybody waits for it.
            Err(error) if error.class == ErrorClass::Ambiguous => {
                return Err(self.poll(ctx, sync, asked).await?);
            }
            Err(error) => return Err(background::failed(ctx, self.account_id, target, error).await),
        };
        let own = target.wxid.as_deref();
        let (plan, complete) = plan(listing, own);
        let listed = plan.wxids.clone();
        let mut conn = ctx.conn().await?;
        let (organization, account) = (ctx.organization_id, self.account_id);
        let remaining = serde_json::to_value(&plan)?;
        let total = i32::try_from(listed.len())?;
        conn.transaction(async |conn| {
            let progress = Progress { state: "fetching", total, fetched: 0, remaining: &remaining };
            if contact_syncs::advance(conn, organization, account, ctx.job_id, &progress).await? && complete {
                contact_syncs::remove_missing(conn, organization, account, &listed).await?;
            }
            Ok::<_, entropy_schema::Error>(())
        })
        .await?;
        Err(next_step(ctx, "the list is there; the contacts are fetched next"))
    }

    async fn poll(&self, ctx: &Context, sync: &Sync, asked: i32) -> Result<JobError, JobError> {
        if asked > POLLS {
            let message = "GeWe has not put the list of contacts together within ten minutes";
            return Ok(JobError::Discard(Failure::new("list_not_ready", message)));
        }
        self.advance(ctx, sync, "listing", asked + 1, &Plan::default()).await?;
        let note = "GeWe is putting the list of contacts together; it is asked again in ten seconds";
        Ok(snooze_lane(POLL.min(background::gap(ctx) * 4), "list_not_ready", note.into()))
    }

    /// Makes the next call of the plan.
    async fn fetch(&self, ctx: &Context, target: &Target, sync: &Sync) -> Result<Done, JobError> {
        let mut plan: Plan = serde_json::from_value(sync.remaining.clone())?;
        let source = &ctx.services.contacts;
        let (device, trace) = (&target.device, ctx.trace_id.as_str());
        let (organization, account) = (ctx.organization_id, self.account_id);
        if plan.labels.is_none() && !plan.no_labels {
            match source.labels(device, trace).await {
                Ok(labels) => plan.labels = Some(labels.into_iter().collect()),
                // An install without labels is no reason to have no contacts.
                Err(error) if error.class == ErrorClass::Refused => plan.no_labels = true,
                Err(error) => return Err(background::failed(ctx, account, target, error).await),
            }
            return self.on(ctx, sync, sync.fetched, &plan).await;
        }
        if !plan.wxids.is_empty() {
            let asked: Vec<String> = plan.wxids.drain(..plan.wxids.len().min(BRIEF)).collect();
            let answer = source.brief(device, &asked, trace).await;
            let briefs = match answer {
                Ok(briefs) => briefs,
                Err(error) => return Err(background::failed(ctx, account, target, error).await),
            };
            let labels = plan.labels.as_ref();
            let mut fetched: Vec<Fetched> = briefs
                .into_iter()
                // Only who was asked for: an answer must not add strangers.
                .filter(|brief| asked.contains(&brief.wxid))
                .map(|brief| contact(brief, labels))
                .collect();
            let mut conn = ctx.conn().await?;
            contact_syncs::store(&mut conn, organization, account, &mut fetched).await?;
            drop(conn);
            let count = sync.fetched + i32::try_from(asked.len())?;
            return self.on(ctx, sync, count, &plan).await;
        }
        if let Some(group) = plan.groups.pop() {
            match source.members(device, &group, trace).await {
                Ok(members) => {
                    let mut conn = ctx.conn().await?;
                    contact_syncs::store_members(&mut conn, organization, account, &group, &members).await?;
                }
                // The account may have left it since.
                Err(error) if error.class == ErrorClass::Refused => {}
                Err(error) => return Err(background::failed(ctx, account, target, error).await),
            }
        }
        self.on(ctx, sync, sync.fetched, &plan).await
    }

    /// Writes down what remains, and ends the job if nothing does.
    async fn on(&self, ctx: &Context, sync: &Sync, fetched: i32, plan: &Plan) -> Result<Done, JobError> {
        let over =
            plan.wxids.is_empty() && plan.groups.is_empty() && (plan.labels.is_some() || plan.no_labels);
        let state = if over { "done" } else { "fetching" };
        self.advance(ctx, sync, state, fetched, plan).await?;
        if over {
            let ended = done(&Sync { fetched, ..sync.clone() });
            return Ok(Done { lane_wait: Some(lane_wait(background::gap(ctx))), ..ended });
        }
        Err(next_step(ctx, &format!("{fetched} of {} contacts are fetched", sync.total)))
    }

    async fn advance(
        &self,
        ctx: &Context,
        sync: &Sync,
        state: &str,
        fetched: i32,
        plan: &Plan,
    ) -> Result<(), JobError> {
        let remaining = serde_json::to_value(plan)?;
        let progress = Progress { state, total: sync.total, fetched, remaining: &remaining };
        let mut conn = ctx.conn().await?;
        contact_syncs::advance(&mut conn, ctx.organization_id, self.account_id, ctx.job_id, &progress)
            .await?;
        Ok(())
    }
}

fn done(sync: &Sync) -> Done {
    Done { result: Some(json!({ "total": sync.total, "fetched": sync.fetched })), lane_wait: None }
}

/// Makes the plan of a list, and tells whether the list can be complete: nobody has no friends.
fn plan(listing: Listing, own_wxid: Option<&str>) -> (Plan, bool) {
    let fits = |wxid: &String| {
        (1..=200).contains(&wxid.chars().count())
            && !wxid.contains('\0')
            && !TOOLS.contains(&wxid.as_str())
            && own_wxid != Some(wxid)
    };
    let whole = [&listing.friends, &listing.groups, &listing.officials].iter().all(|list| list.len() < MOST);
    let people = |list: Vec<String>| list.into_iter().take(MOST).filter(fits).collect::<Vec<_>>();
    let (friends, mut groups, officials) =
        (people(listing.friends), people(listing.groups), people(listing.officials));
    let complete = whole && friends.iter().any(|wxid| !is_official(wxid));
    groups.retain(|wxid| wxid.ends_with("@chatroom"));
    groups.sort();
    groups.dedup();
    let mut wxids: Vec<String> = friends.into_iter().chain(groups.iter().cloned()).chain(officials).collect();
    wxids.sort();
    wxids.dedup();
    (Plan { labels: None, no_labels: false, wxids, groups }, complete)
}

fn contact(brief: Brief, labels: Option<&BTreeMap<String, String>>) -> Fetched {
    let (kind, _) = kinds(&brief.wxid);
    let names = |labels: &BTreeMap<String, String>| {
        brief.label_ids.iter().filter_map(|id| labels.get(id).cloned()).collect()
    };
    Fetched {
        labels: labels.map(names),
        kind,
        wxid: brief.wxid.clone(),
        nickname: brief.nickname,
        remark: brief.remark,
        alias: brief.alias,
        avatar: brief.avatar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(wxids: &[&str]) -> Vec<String> {
        wxids.iter().map(|wxid| (*wxid).to_owned()).collect()
    }

    #[test]
    fn tools_of_wechat_and_the_account_itself_are_no_contacts() {
        let listing = Listing {
            friends: list(&["filehelper", "wxid_b", "weixin", "wxid_own", "wxid_a", "wxid_a", ""]),
            groups: list(&["2@chatroom", "1@chatroom", "no group"]),
            officials: list(&["gh_1"]),
        };
        let (plan, complete) = plan(listing, Some("wxid_own"));
        assert_eq!(plan.wxids, list(&["1@chatroom", "2@chatroom", "gh_1", "weixin", "wxid_a", "wxid_b"]));
        assert_eq!(plan.groups, list(&["1@chatroom", "2@chatroom"]));
        assert!(complete);
    }

    #[test]
    fn a_list_without_friends_proves_nothing_about_who_is_gone() {
        assert!(!plan(Listing::default(), None).1);
        assert!(!plan(Listing { friends: list(&["weixin", "filehelper"]), ..Listing::default() }, None).1);
    }

    #[test]
    fn labels_come_by_name_and_unknown_ones_leave_what_is_stored() {
        let brief = || Brief { wxid: "wxid_a".into(), label_ids: list(&["7", "9"]), ..Brief::default() };
        let names = BTreeMap::from([("7".to_owned(), "华东".to_owned())]);
        assert_eq!(contact(brief(), Some(&names)).labels, Some(list(&["华东"])));
        assert_eq!(contact(brief(), None).labels, None);
    }
}
