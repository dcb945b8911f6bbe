//! Everything that a dry run must know, read in a few statements.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::campaigns::candidates::Candidate;
use entropy_schema::campaigns::enrollments::Enrollment;
use entropy_schema::campaigns::facts::{self as stored, Facts, House};
use entropy_schema::campaigns::plans;
use entropy_schema::campaigns::prospects::{self, Calls, Had, Sender};
use entropy_schema::{Conn, Result, replies};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::costs::Costs;
use crate::ai::words::Words;
use crate::calendar::{Zone, begins, day_of};
use crate::campaign::audience::{self, Audience};
use crate::campaign::enroll::Around;
use crate::campaign::plan::{self, Plan};
use crate::campaign::situation::{self, Situation};
use crate::media::Links;
use crate::process::config::Ceilings;
use crate::sop::calendar::Calendar;
use crate::sop::caps;
use crate::sop::config::WorkflowConfig;
use crate::sop::config::step::Step;
use crate::sop::moment::{self, Entry};

/// The most people that one dry run looks at.
pub const MOST: usize = 50_000;

/// People who are read by one statement.
const SLICE: usize = 10_000;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// These contacts; none: those that the plan is meant for.
    pub contacts: Option<Vec<Uuid>>,
    /// As if it were started then; none: now.
    pub starts_at: Option<DateTime<Utc>>,
    /// Whoever would start the plan, and is charged for it.
    pub by: Option<Uuid>,
    /// How many of a thousand answer the first message.
    pub answering: u16,
    /// The install's ceilings.
    pub ceilings: Ceilings,
    /// Makes links to uploaded materials; none: they cannot be sent.
    pub links: Option<Links>,
}

/// The plan is meant for more people than are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// Somebody whom the plan is meant for.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) contact: Uuid,
    /// Why the plan does not take them in.
    pub(super) refused: Vec<&'static str>,
    pub(super) known: Option<Known>,
}

/// What is known of somebody, and the enrollment that they would have.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) facts: Facts,
    pub(super) enrollment: Enrollment,
    pub(super) had: Option<Had>,
}

/// Everything that a dry run needs.
#[derive(Debug)]
pub struct Gathered {
    pub(super) sop: Uuid,
    pub(super) plan: Arc<Plan>,
    pub(super) question: Question,
    pub(super) house: House,
    pub(super) calendar: Calendar,
    pub(super) people: Vec<Person>,
    pub(super) senders: Vec<Sender>,
    pub(super) calls: Vec<Calls>,
    pub(super) costs: Costs,
    /// The words that the organisation minds; none: it minds none.
    words: Option<Arc<Words>>,
    /// By how much the clock of campaigns is ahead of the true one.
    pub(super) shift: TimeDelta,
}

impl Gathered {
    /// Returns the organisation's zone.
    pub(super) fn zone(&self) -> Zone {
        crate::calendar::zone(self.house.organization_zone.as_deref())
    }

    /// Puts somebody's surroundings together, as the real run does.
    pub(super) fn situation<'a>(&'a self, known: &'a Known) -> Situation<'a> {
        Situation {
            now: self.house.now,
            enrollment: known.enrollment.clone(),
            facts: &known.facts,
            plan: &self.plan,
            // Time is the rehearsal's own question.
            calendar: Calendar::default(),
            counts: None,
            row: None,
            tags: None,
            words: self.words.clone(),
            links: self.question.links.clone(),
        }
    }
}

/// Puts a draft together with the approved revisions of its materials.
pub async fn draft(conn: &mut Conn, organization: Uuid, config: WorkflowConfig) -> Result<Plan> {
    let named = |key: &str| {
        let of = |step: &Step| match step {
            Step::Send(send) => send.message.material().is_some_and(|(_, own)| own == key),
            _ => false,
        };
        config.steps.iter().any(of)
    };
    let all = entropy_schema::campaigns::materials::all(conn, organization).await?;
    let pins: Vec<(String, i32)> = all
        .into_iter()
        .filter(|material| named(&material.key))
        .filter_map(|material| Some((material.key, material.approved_revision?)))
        .collect();
    plan::assemble(conn, organization, config, pins.into_iter()).await
}

/// Reads everything for a dry run of a plan in one of its texts.
pub async fn gather(
    conn: &mut Conn,
    row: &plans::Plan,
    plan: Arc<Plan>,
    question: Question,
) -> Result<std::result::Result<Gathered, TooMany>> {
    let organization = row.organization_id;
    let (house, true_now) = stored::house_and_time(conn, organization).await?;
    let ids = match &question.contacts {
        Some(contacts) => {
            let mut seen = HashSet::new();
            contacts.iter().copied().filter(|id| seen.insert(*id)).collect()
        }
        None => {
            let Audience::People(people) = audience::of(conn, row, &plan).await? else {
                return Ok(Err(TooMany));
            };
            people
        }
    };
    if ids.len() > MOST {
        return Ok(Err(TooMany));
    }
    let zone = crate::calendar::zone(house.organization_zone.as_deref());
    let today = day_of(house.now, zone);
    let mut reading = Reading {
        row,
        plan: &plan,
        house: &house,
        around: Around::new(&plan, &house),
        week: caps::week_begins(today, zone),
        seen: HashSet::new(),
    };
    let mut people = Vec::with_capacity(ids.len());
    for slice in ids.chunks(SLICE) {
        people.extend(reading.slice(conn, slice).await?);
    }
    let mut accounts: Vec<Uuid> = people.iter().filter_map(Person::account).collect();
    accounts.sort_unstable();
    accounts.dedup();
    let senders = prospects::senders(conn, organization, &accounts, begins(today, zone)).await?;
    let calls = prospects::calls(conn, &accounts).await?;
    let costs = Costs::read(conn, organization, &plan.config, true_now, zone).await?;
    let words = replies::sensitive_words(conn, organization).await?;
    Ok(Ok(Gathered {
        sop: row.id,
        calendar: situation::calendar(house.calendars.as_ref()),
        shift: house.now - true_now,
        plan,
        question,
        house,
        people,
        senders,
        calls,
        costs,
        words: (!words.is_empty()).then(|| Arc::new(Words::new(&words))),
    }))
}

impl Person {
    fn account(&self) -> Option<Uuid> {
        let known = self.known.as_ref().filter(|_| self.refused.is_empty())?;
        Some(known.enrollment.account_id)
    }
}

/// Reads people, slice by slice.
struct Reading<'a> {
    row: &'a plans::Plan,
    plan: &'a Plan,
    house: &'a House,
    around: Around<'a>,
    week: DateTime<Utc>,
    /// Ids in WeChat: the same person is in a plan once, under one account.
    seen: HashSet<String>,
}

impl Reading<'_> {
    async fn slice(&mut self, conn: &mut Conn, ids: &[Uuid]) -> Result<Vec<Person>> {
        let (organization, sop, now) = (self.row.organization_id, self.row.id, self.house.now);
        let purpose = self.plan.config.audience.consent.purpose.as_deref();
        let candidates = prospects::candidates(conn, organization, ids, sop, purpose).await?;
        let mut facts: HashMap<Uuid, Facts> = HashMap::with_capacity(ids.len());
        for known in prospects::facts(conn, organization, ids, sop).await? {
            // The plan is played as if it ran.
            let played = Facts { now, plan_status: "RUNNING".to_owned(), ..known.facts };
            facts.insert(known.contact_id, played);
        }
        let mut answered: Vec<Option<DateTime<Utc>>> = Vec::with_capacity(candidates.len());
        let mut contacts = Vec::with_capacity(candidates.len());
        for who in &candidates {
            contacts.push(who.id);
            answered.push(facts.get(&who.id).and_then(|facts| facts.last_inbound_at));
        }
        let had = prospects::had(conn, &contacts, &answered, self.week).await?;
        let mut had: HashMap<Uuid, Had> = had.into_iter().map(|had| (had.contact_id, had)).collect();
        let mut people = Vec::with_capacity(ids.len());
        for who in &candidates {
            let known = facts.remove(&who.id).map(|facts| Known {
                facts,
                enrollment: stand_in(self.row, self.plan, who, now),
                had: had.remove(&who.id),
            });
            people.push(Person { contact: who.id, refused: self.refuses(who), known });
        }
        let found: HashSet<Uuid> = contacts.into_iter().collect();
        let unknown = ids.iter().filter(|id| !found.contains(id));
        people.extend(unknown.map(|id| Person {
            contact: *id,
            refused: vec!["contact_not_found"],
            known: None,
        }));
        Ok(people)
    }

    /// Says why the plan does not take somebody, as enrolling does.
    fn refuses(&mut self, who: &Candidate) -> Vec<&'static str> {
        let config = &self.plan.config;
        let accounts = &self.row.account_ids;
        let mut reasons = Vec::new();
        if !accounts.is_empty() && !accounts.contains(&who.account_id) {
            reasons.push("other_account");
        } else if who.kind != "group" && !self.seen.insert(who.wxid.clone()) {
            reasons.push("in_plan");
        }
        reasons.extend(self.around.objections(who));
        let times = u32::try_from(who.times).unwrap_or(u32::MAX);
        let zone = situation::zone(self.plan, who.timezone.as_deref());
        let again = config.audience.re_entry.as_ref();
        match moment::entry(self.house.now, times, who.ended_at, again, zone) {
            Entry::Open => {}
            // Whoever is in it now has not been through it.
            _ if who.in_plan => {}
            Entry::NotBefore(_) => reasons.push("cooldown"),
            Entry::Used => reasons.push("entered_before"),
        }
        reasons
    }
}

/// The enrollment that somebody would have. The contact's id stands for its own.
fn stand_in(row: &plans::Plan, plan: &Plan, who: &Candidate, now: DateTime<Utc>) -> Enrollment {
    Enrollment {
        id: who.id,
        organization_id: row.organization_id,
        sop_id: row.id,
        version: row.version.unwrap_or_default(),
        account_id: who.account_id,
        contact_id: who.id,
        state: "pending".to_owned(),
        reason: None,
        outcome: None,
        step_id: Some(plan.config.entry.as_str().to_owned()),
        reached_at: now,
        due_at: None,
        planned_at: None,
        wait_code: None,
        start_day: None,
        deadline_at: None,
        sent: 0,
        failures: 0,
        replied_at: None,
        goal_at: None,
        arms: Value::Object(Map::new()),
        own_tags: who.tags.clone(),
        source: "manual".to_owned(),
        paused_from: None,
        created_by: None,
        created_at: now,
        finished_at: None,
    }
}
