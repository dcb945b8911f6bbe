//! Who is brought into a plan, and who is not and why.
//!
//! Contacts are locked before the plan and the plan before enrollments are made, so that nobody comes into two plans at once and
//! nobody into one that has just been stopped.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use entropy_schema::campaigns::candidates::{self, Candidate};
use entropy_schema::campaigns::enrollments::{self, Enrollment};
use entropy_schema::campaigns::facts::{self, House};
use entropy_schema::{Conn, Result};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::plan::{Plan, Plans};
use super::rules;
use super::situation::{calendar, house_window, opening, zone};
use crate::sop::calendar::Calendar;
use crate::sop::condition::Facts;
use crate::sop::config::period::Period;
use crate::sop::config::rules::AudienceKind;
use crate::sop::moment::{self, Entry};
use crate::sop::window::Window;
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
    let candidates = candidates::lock(conn, organization, contacts, sop, purpose).await?;
    let Some(locked) = facts::lock_running(conn, organization, sop).await? else { return Ok(None) };
    if locked.version != first.version {
        // Another version was approved at this moment; whoever asked asks again.
        return Ok(None);
    }
    let house = facts::house(conn, organization).await?;
    let around = Around::new(&plan, &house);
    let enrolling = Enrolling { organization, sop, version: locked.version, around: &around, cause };
    // Somebody else may have brought the same person in, under another account, before we held the plan.
    let people: Vec<&str> =
        candidates.iter().filter(|who| who.kind != "group").map(|who| who.wxid.as_str()).collect();
    let mut taken: HashSet<String> =
        candidates::people_in(conn, organization, sop, &people).await?.into_iter().collect();
    let (mut rows, mut refused) = (Vec::new(), Vec::new());
    for candidate in &candidates {
        let elsewhere = !locked.account_ids.is_empty() && !locked.account_ids.contains(&candidate.account_id);
        let is_person = candidate.kind != "group";
        match enrolling.enrollment(candidate) {
            _ if elsewhere => refused.push((candidate.id, "other_account")),
            Err(code) => refused.push((candidate.id, code)),
            Ok(_) if is_person && !taken.insert(candidate.wxid.clone()) => {
                refused.push((candidate.id, "in_plan"));
            }
            Ok(row) => rows.push(row),
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
    around: &'a Around<'a>,
    cause: Cause,
}

impl Enrolling<'_> {
    /// Makes the enrollment of a candidate, or says why there is none.
    fn enrollment(&self, who: &Candidate) -> std::result::Result<Enrollment, &'static str> {
        let (config, now) = (&self.around.plan.config, self.around.house.now);
        let zone = zone(self.around.plan, who.timezone.as_deref());
        let begins = self.around.admits(who, self.cause.delay)?;
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

/// A plan, and what its organisation has said of all plans.
#[derive(Debug)]
pub struct Around<'a> {
    plan: &'a Plan,
    house: &'a House,
    holidays: Calendar,
    window: Window,
}

/// What the filter of an audience may ask about somebody.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) tags: &'a [String],
    pub(super) variables: &'a Value,
    pub(super) source: Option<&'a str>,
    pub(super) added_at: Option<DateTime<Utc>>,
    pub(super) timezone: Option<&'a str>,
    pub(super) mode: Option<&'a str>,
    pub(super) last_inbound_at: Option<DateTime<Utc>>,
    pub(super) last_inbound_text: Option<&'a str>,
}

impl<'a> Around<'a> {
    /// Puts them together.
    pub fn new(plan: &'a Plan, house: &'a House) -> Around<'a> {
        let window = house_window(&house.campaign_from, &house.campaign_until);
        Around { plan, house, holidays: calendar(house.calendars.as_ref()), window }
    }

    /// Returns when somebody's first step would be due, or why the plan does not take them.
    pub fn admits(&self, who: &Candidate, delay: Period) -> std::result::Result<DateTime<Utc>, &'static str> {
        let (config, now) = (&self.plan.config, self.house.now);
        let zone = zone(self.plan, who.timezone.as_deref());
        if let Some(objection) = self.objections(who).first() {
            return Err(objection);
        }
        let times = u32::try_from(who.times).unwrap_or(u32::MAX);
        match moment::entry(now, times, who.ended_at, config.audience.re_entry.as_ref(), zone) {
            Entry::Open => {}
            Entry::NotBefore(_) => return Err("cooldown"),
            Entry::Used => return Err("entered_before"),
        }
        let opening = opening(self.plan, zone, &self.window, &self.holidays);
        moment::begins(now, delay, &opening).ok_or("window_never_opens")
    }

    /// Returns everything for which the plan does not take somebody, the weightiest first. Whether they have been through it is
    /// another question: see [`moment::entry`].
    pub(super) fn objections(&self, who: &Candidate) -> Vec<&'static str> {
        let audience = &self.plan.config.audience;
        let right_kind = match audience.kind {
            AudienceKind::Friend => who.kind == "friend",
            AudienceKind::Group => who.kind == "group",
        };
        let known = Known {
            tags: &who.tags,
            variables: &who.variables,
            source: who.source.as_deref(),
            added_at: who.added_at,
            timezone: who.timezone.as_deref(),
            mode: who.mode.as_deref(),
            last_inbound_at: who.last_inbound_at,
            last_inbound_text: who.last_inbound_text.as_deref(),
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
            (!self.meets(known), "filtered"),
        ];
        reasons.into_iter().filter(|(met, _)| *met).map(|(_, code)| code).collect()
    }

    /// Tells whether somebody meets the filter of the plan.
    pub(super) fn meets(&self, who: Known<'_>) -> bool {
        let Some(filter) = &self.plan.config.audience.filter else { return true };
        let now = self.house.now;
        let local = now.with_timezone(&zone(self.plan, who.timezone));
        let chosen = self.holidays.chosen(self.plan.config.send_window.holiday_calendar);
        let variables = who.variables.as_object().into_iter().flatten();
        let facts = Facts {
            tags: who.tags.to_vec(),
            source: who.source.map(str::to_owned),
            added_days: who.added_at.map(|at| (now - at).num_days()),
            variables: variables.map(|(name, value)| (name.clone(), value.clone())).collect(),
            mode: who.mode.map(str::to_owned),
            last_reply_text: who.last_inbound_text.map(str::to_owned),
            last_reply_age_hours: who.last_inbound_at.map(|at| hours(now - at)),
            hour: u8::try_from(local.hour()).ok(),
            is_workday: Some(chosen.is_workday(local.date_naive())),
            ..Facts::default()
        };
        facts.meet(filter)
    }
}

#[expect(clippy::cast_precision_loss, reason = "hours are asked about, and not parts of a second")]
fn hours(length: TimeDelta) -> f64 {
    length.num_seconds().max(0) as f64 / 3600.0
}
