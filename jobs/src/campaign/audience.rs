//! Whom a plan is meant for at a moment.
//!
//! An audience is everybody who is named by the plan's targets, of the kind and the accounts that it says, and meets its filter.
//! Who of them may not be written to is not asked here: that may be otherwise when they are brought in
//! ([`Around::admits`]).

use std::collections::{BTreeMap, HashSet};

use entropy_schema::campaigns::audience::{self, By, Wanted};
use entropy_schema::campaigns::plans::Plan;
use entropy_schema::campaigns::{candidates, facts as house, runs};
use entropy_schema::contacts::Contact;
use entropy_schema::{Conn, Result};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::enroll::{Around, Known};
use super::plan;
use crate::sop::config::WorkflowConfig;
use crate::sop::config::condition::Condition;
use crate::sop::config::period::Period;
use crate::sop::config::rules::AudienceKind;
use crate::sop::config::trigger::Trigger;

/// The most people of one run. More are better served by several plans, by tag.
pub const MOST: u32 = 200_000;

/// How many are looked at with one statement.
const PAGE: usize = 1000;

/// Everybody whom a plan is meant for, or that there are too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// They, in the order of their ids.
    People(Vec<Uuid>),
    /// More than the plan allows.
    TooMany {
        /// How many there are. Of more than [`MOST`], that it is more.
        count: usize,
        /// How many there may be.
        most: u32,
    },
}

impl Audience {
    /// Returns how many there are.
    pub fn count(&self) -> usize {
        match self {
            Audience::People(people) => people.len(),
            Audience::TooMany { count, .. } => *count,
        }
    }
}

/// How many people an audience has, or that it has too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// So many.
    People(usize),
    /// More than the plan allows.
    TooMany {
        /// How many there are. Of more than [`MOST`], that it is more.
        count: usize,
        /// How many there may be.
        most: u32,
    },
}

impl From<Audience> for Extent {
    fn from(audience: Audience) -> Extent {
        match audience {
            Audience::People(people) => Extent::People(people.len()),
            Audience::TooMany { count, most } => Extent::TooMany { count, most },
        }
    }
}

/// Tells whether a plan names anybody: by targets, by a filter, or by saying that it means everyone.
pub fn names_somebody(plan: &Plan, config: &WorkflowConfig) -> bool {
    plan.everyone || !plan.target_ids.is_empty() || config.audience.filter.is_some()
}

/// Tells whether a plan takes people in by itself at its start or at a time, and not one by one as something happens to them.
pub fn is_taken_at_once(config: &WorkflowConfig) -> bool {
    !matches!(config.trigger, Trigger::Event { .. })
}

/// Returns whom a plan is meant for now, as one statement sees them, when its version or draft says `read`.
///
/// A plan that names nobody is meant for nobody.
pub async fn of(conn: &mut Conn, plan: &Plan, read: &plan::Plan) -> Result<Audience> {
    let config = &read.config;
    if !names_somebody(plan, config) {
        return Ok(Audience::People(Vec::new()));
    }
    let ids = target_ids(plan);
    let filter = config.audience.filter.as_ref();
    let wanted = wanted(plan, config, &ids);
    let house = house::house(conn, plan.organization_id).await?;
    let around = Around::new(read, &house);
    let (mut people, mut seen) = (Vec::new(), 0_i64);
    // Those who do not meet the filter are seen as well, so their number is bounded less tightly.
    let most_seen = if filter.is_some() { 5 * i64::from(MOST) } else { i64::from(MOST) + 1 };
    audience::each(conn, &wanted, most_seen, |member| {
        seen += 1;
        let known = Known {
            tags: &member.tags,
            variables: &member.variables,
            source: member.source.as_deref(),
            added_at: member.added_at,
            timezone: member.timezone.as_deref(),
            mode: member.mode.as_deref(),
            last_inbound_at: member.last_inbound_at,
            last_inbound_text: member.last_inbound_text.as_deref(),
        };
        if around.meets(known) {
            people.push(member.id);
        }
    })
    .await?;
    let (most, count) = (most(config), people.len());
    if seen < most_seen && u32::try_from(count).is_ok_and(|count| count <= most) {
        return Ok(Audience::People(people));
    }
    Ok(Audience::TooMany { count, most })
}

/// Writes down, as those whom a run concerns, everybody whom a plan is meant for now, as one statement sees them; see [`of`]. If they
/// are too many, nobody.
///
/// Without a filter they never leave the database.
pub async fn write_down(conn: &mut Conn, plan: &Plan, read: &plan::Plan, run: Uuid) -> Result<Extent> {
    let config = &read.config;
    if config.audience.filter.is_some() || !names_somebody(plan, config) {
        let audience = of(conn, plan, read).await?;
        if let Audience::People(people) = &audience {
            runs::add_contacts(conn, run, people).await?;
        }
        return Ok(audience.into());
    }
    let ids = target_ids(plan);
    let most = most(config);
    let wanted = wanted(plan, config, &ids);
    let count = audience::write_down(conn, &wanted, run, i64::from(most), i64::from(MOST)).await?;
    let too_many = count > i64::from(most);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    Ok(if too_many { Extent::TooMany { count, most } } else { Extent::People(count) })
}

fn target_ids(plan: &Plan) -> Vec<Uuid> {
    plan.target_ids.iter().filter_map(|id| id.parse().ok()).collect()
}

fn wanted<'a>(plan: &'a Plan, config: &WorkflowConfig, ids: &'a [Uuid]) -> Wanted<'a> {
    let filter = config.audience.filter.as_ref();
    Wanted {
        organization: plan.organization_id,
        kind: match config.audience.kind {
            AudienceKind::Friend => "friend",
            AudienceKind::Group => "group",
        },
        by: match plan.target_type.as_str() {
            _ if plan.target_ids.is_empty() => By::All,
            "tag" => By::Tags(&plan.target_ids),
            _ => By::Ids(ids),
        },
        accounts: &plan.account_ids,
        for_filter: filter.is_some(),
        for_text: filter.is_some_and(asks_for_text),
    }
}

/// Returns how many people one run of a plan may concern.
fn most(config: &WorkflowConfig) -> u32 {
    config.audience.max_size.map_or(MOST, |size| size.min(MOST))
}

/// Tells whether a contact is one of those whom a plan names. A plan that names nobody is for whomever is brought in.
pub fn is_meant_for(plan: &Plan, contact: &Contact) -> bool {
    match plan.target_type.as_str() {
        _ if plan.target_ids.is_empty() => true,
        "tag" => contact.tags.iter().any(|tag| plan.target_ids.contains(tag)),
        _ => plan.target_ids.contains(&contact.id.to_string()),
    }
}

/// Tells whether a condition asks what somebody wrote last, which is dear to look up.
fn asks_for_text(condition: &Condition) -> bool {
    match condition {
        Condition::All(all) => all.all.iter().any(asks_for_text),
        Condition::Any(any) => any.any.iter().any(asks_for_text),
        Condition::Not(not) => asks_for_text(&not.not),
        Condition::Test(test) => test.fact == "last_reply.text",
    }
}

/// Counts by their reasons those of `people` whom a plan would not take in now.
pub async fn blocked(
    conn: &mut Conn,
    sop: Uuid,
    plan: &plan::Plan,
    people: &[Uuid],
) -> Result<BTreeMap<&'static str, usize>> {
    let organization = plan.organization_id;
    let purpose = plan.config.audience.consent.purpose.as_deref();
    let house = house::house(conn, organization).await?;
    let around = Around::new(plan, &house);
    let (mut blocked, mut taken) = (BTreeMap::new(), HashSet::new());
    for page in people.chunks(PAGE) {
        for who in candidates::look_at(conn, organization, page, sop, purpose).await? {
            let reason = match around.admits(&who, Period::default()) {
                Err(reason) => reason,
                // Another account of ours knows the same person.
                Ok(_) if who.kind != "group" && !taken.insert(who.wxid) => "in_plan",
                Ok(_) => continue,
            };
            *blocked.entry(reason).or_default() += 1;
        }
    }
    Ok(blocked)
}

/// Counts refusals by their codes, on top of the counts that are stored.
pub fn add_up(stored: &Value, more: &[(Uuid, &'static str)]) -> Value {
    let mut counts: Map<String, Value> = stored.as_object().cloned().unwrap_or_default();
    for (_, code) in more {
        let count = counts.get(*code).and_then(Value::as_u64).unwrap_or_default();
        counts.insert((*code).to_owned(), Value::from(count + 1));
    }
    Value::Object(counts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasons_add_up() {
        let one = add_up(&json!({}), &[(Uuid::nil(), "opted_out"), (Uuid::nil(), "opted_out")]);
        let two = add_up(&one, &[(Uuid::nil(), "opted_out"), (Uuid::nil(), "in_plan")]);
        assert_eq!(two, json!({ "opted_out": 3, "in_plan": 1 }));
    }
}
