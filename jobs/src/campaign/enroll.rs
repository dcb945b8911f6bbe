//! Who is brought into a plan, and who is not and why.
//!
//! Contacts are locked before the plan and the plan before enrollments are made, so that nobody comes into two plans at once and
//! nobody into one that has just been stopped.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use entropy_schema::campaigns::enrollments::{self, Candidate, Enrollment};
use entropy_schema::campaigns::facts::{self, House};
use entropy_schema::{Conn, Result};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::plan::{Plan, Plans};
use super::rules;
use super::situation::{calendar, house_window, opening, zone};
use crate::sop::condition::Facts;
use crate::sop::config::period::Period;
use crate::sop::config::rules::AudienceKind;
use crate::sop::moment::{self, Entry};
use crate::step;

/// What brings people in.
#[derive(Debug, Clone, Copy)]
pub struct Cause {
    /// `manual`, `once`, `cron`, `friend_added`, `tag_added`, `group_joined` or `keyword_received`.
    pub source: &'static str,
    /// The person of ours who does.
    pub by: Option<Uuid>,
    /// How long after it the first step is due.
    pub delay: Period,
}

impl Cause {
    /// A person of ours brings them in.
    pub fn manual(by: Uuid) -> Cause {
        Cause { source: "manual", by: Some(by), delay: Period::default() }
    }
}

/// What became of those who were to be brought in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Enrolled {
    /// Those who are in the plan now, with their enrollments.
    pub enrolled: Vec<(Uuid, Uuid)>,
    /// Those who are not, and why.
    pub refused: Vec<(Uuid, &'static str)>,
}

/// Brings contacts into a plan that runs, in the caller's transaction. None: the plan does not run.
///
/// Bring a thousand at a time at most: they stay locked until the caller commits.
pub async fn enroll(
    conn: &mut Conn,
    plans: &Plans,
    organization: Uuid,
    sop: Uuid,
    contacts: &[Uuid],
    cause: Cause,
) -> Result<Option<Enrolled>> {
    let running = facts::running(conn, organization).await?;
    let Some(first) = running.iter().find(|plan| plan.id == sop) else { return Ok(None) };
    let Some(plan) = plans.of(conn, sop, first.version).await? else { return Ok(None) };
    let purpose = plan.config.audience.consent.purpose.as_deref();
    let candidates = enrollments::candidates(conn, organization, contacts, sop, purpose).await?;
    let Some(locked) = facts::lock_running(conn, organization, sop).await? else { return Ok(None) };
    if locked.version != first.version {
        // Another version was approved at this moment; whoever asked asks again.
        return Ok(None);
    }
    let house = facts::house(conn, organization).await?;
    let enrolling =
        Enrolling { organization, sop, version: locked.version, plan: &plan, house: &house, cause };
    let (mut rows, mut refused, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for candidate in &candidates {
        let elsewhere = !locked.account_ids.is_empty() && !locked.account_ids.contains(&candidate.account_id);
        let twice = candidate.kind != "group" && !seen.insert(candidate.wxid.as_str());
        match enrolling.enrollment(candidate) {
            _ if elsewhere => refused.push((candidate.id, "other_account")),
            _ if twice => refused.push((candidate.id, "in_plan")),
            Ok(row) => rows.push(row),
            Err(code) => refused.push((candidate.id, code)),
        }
    }
    let known: HashSet<Uuid> = candidates.iter().map(|candidate| candidate.id).collect();
    let unknown = contacts.iter().filter(|id| !known.contains(id));
    refused.extend(unknown.map(|id| (*id, "contact_not_found")));
    let made: HashSet<Uuid> = enrollments::insert(conn, &rows).await?.into_iter().collect();
    step!("sop.enrolled");
    let mut enrolled = Vec::with_capacity(made.len());
    for row in rows {
        match made.contains(&row.contact_id) {
            true => enrolled.push((row.contact_id, row.id)),
            false => refused.push((row.contact_id, "in_plan")),
        }
    }
    Ok(Some(Enrolled { enrolled, refused }))
}

struct Enrolling<'a> {
    organization: Uuid,
    sop: Uuid,
    version: i32,
    plan: &'a Plan,
    house: &'a House,
    cause: Cause,
}

impl Enrolling<'_> {
    /// Makes the enrollment of a candidate, or says why there is none.
    fn enrollment(&self, who: &Candidate) -> std::result::Result<Enrollment, &'static str> {
        let (config, now) = (&self.plan.config, self.house.now);
        let zone = zone(self.plan, who.timezone.as_deref());
        refuses(self.plan, who, now)?;
        let times = u32::try_from(who.times).unwrap_or(u32::MAX);
        match moment::entry(now, times, who.ended_at, config.audience.re_entry.as_ref(), zone) {
            Entry::Open => {}
            Entry::NotBefore(_) => return Err("cooldown"),
            Entry::Used => return Err("entered_before"),
        }
        let holidays = calendar(self.house.calendars.as_ref());
        let house = house_window(&self.house.campaign_from, &self.house.campaign_until);
        let opening = opening(self.plan, zone, &house, &holidays);
        let begins = moment::begins(now, self.cause.delay, &opening).ok_or("window_never_opens")?;
        Ok(Enrollment {
            id: Uuid::now_v7(),
            organization_id: self.organization,
            sop_id: self.sop,
            version: self.version,
            account_id: who.account_id,
            contact_id: who.id,
            state: "pending".to_owned(),
            reason: None,
            outcome: None,
            step_id: Some(config.entry.as_str().to_owned()),
            reached_at: now,
            due_at: Some(begins),
            planned_at: Some(begins),
            wait_code: Some("begins".to_owned()),
            start_day: Some(moment::start_day(begins, zone)),
            deadline_at: rules::deadline(&config.stop, begins, zone),
            sent: 0,
            failures: 0,
            replied_at: None,
            goal_at: None,
            arms: Value::Object(Map::new()),
            own_tags: who.tags.clone(),
            source: self.cause.source.to_owned(),
            paused_from: None,
            created_by: self.cause.by,
            created_at: now,
            finished_at: None,
        })
    }
}

/// Says why a plan does not take somebody, whatever happened before.
fn refuses(plan: &Plan, who: &Candidate, now: DateTime<Utc>) -> std::result::Result<(), &'static str> {
    let audience = &plan.config.audience;
    let right_kind = match audience.kind {
        AudienceKind::Friend => who.kind == "friend",
        AudienceKind::Group => who.kind == "group",
    };
    let variables = who.variables.as_object().into_iter().flatten();
    let facts = Facts {
        tags: who.tags.clone(),
        source: who.source.clone(),
        added_days: who.added_at.map(|at| (now - at).num_days()),
        variables: variables.map(|(name, value)| (name.clone(), value.clone())).collect(),
        mode: who.mode.clone(),
        ..Facts::default()
    };
    let reasons = [
        (!right_kind, "other_kind"),
        (who.account_gone, "account_removed"),
        (who.removed, "contact_removed"),
        (who.suppressed, "contact_suppressed"),
        (who.opted_out, "opted_out"),
        (audience.consent.required && !who.consents, "consent_missing"),
        (who.in_plan, "in_plan"),
        (audience.exclude_other_active_sop && who.in_other_plan, "other_sop"),
        (audience.filter.as_ref().is_some_and(|filter| !facts.meet(filter)), "filtered"),
    ];
    reasons.into_iter().find(|(met, _)| *met).map_or(Ok(()), |(_, code)| Err(code))
}

/// Counts refusals by their codes.
pub fn by_code(refused: &[(Uuid, &'static str)]) -> HashMap<&'static str, usize> {
    let mut counts = HashMap::new();
    for (_, code) in refused {
        *counts.entry(*code).or_default() += 1;
    }
    counts
}
