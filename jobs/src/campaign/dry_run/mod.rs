//! A plan played before it runs: what every recipient would get when, why somebody gets nothing, when it ends and what it
//! costs.
//!
//! Three steps: [`gather`] reads everything in a few statements, [`Gathered::play`] is arithmetic over all of it and may take
//! a second (call it where nobody waits for the thread), [`Played::page`] puts texts to what is shown. The questions are those
//! of the real run: who is taken in is asked as enrolling does, what speaks against a message as the gate does
//! ([`checks::objections`]), time and caps by the rehearsal with the gate's own question, texts as they are rendered for
//! sending.
//!
//! What cannot be known before: the id of an enrollment does not exist yet, so the contact's own stands for it, and another arm
//! of a split may be drawn later; nobody answers but the share that is assumed; other campaigns are counted with what they have
//! sent and have in their lanes, not with what they will send; an account that is offline stays so.

mod accounts;
mod costs;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Days, TimeDelta, Utc};
use entropy_schema::campaigns::candidates::{self, Candidate};
use entropy_schema::campaigns::enrollments::Enrollment;
use entropy_schema::campaigns::facts::{self as stored, Facts, House};
use entropy_schema::campaigns::plans;
use entropy_schema::campaigns::prospects::{self, Calls, Had, Sender};
use entropy_schema::{Conn, Result};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use self::costs::{Bill, Rate};
use self::costs::{Costs, Written};
use super::audience::{self, Audience};
use super::checks::{self, Asker, TAKEN_OVER_CODE, Verdict};
use super::enroll::Around;
use super::plan::Plan;
use super::send::{self, Rendered};
use super::situation::{self, Situation};
use crate::calendar::{Zone, begins, day_of};
use crate::media::Links;
use crate::process::config::Ceilings;
use crate::sop::calendar::Calendar;
use crate::sop::caps;
use crate::sop::config::WorkflowConfig;
use crate::sop::config::period::Period;
use crate::sop::config::step::{OnMissingVariable, Step};
use crate::sop::config::trigger::Trigger;
use crate::sop::moment::{self, Entry};
use crate::sop::rehearsal::{self, Load, Outcome, Planned, Recipient};
use crate::sop::spread::order;
use crate::sop::template;

/// The most people that one dry run looks at.
pub const MOST: usize = 50_000;

/// People who are read by one statement.
const SLICE: usize = 5000;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// These contacts; none: those that the plan is meant for.
    pub contacts: Option<Vec<Uuid>>,
    /// As if it were started then; none: now.
    pub starts_at: Option<DateTime<Utc>>,
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
struct Person {
    contact: Uuid,
    /// Why the plan does not take them in.
    refused: Vec<&'static str>,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    facts: Facts,
    enrollment: Enrollment,
    had: Option<Had>,
}

/// Everything that a dry run needs.
#[derive(Debug)]
pub struct Gathered {
    sop: Uuid,
    plan: Arc<Plan>,
    question: Question,
    house: House,
    calendar: Calendar,
    people: Vec<Person>,
    senders: Vec<Sender>,
    calls: Vec<Calls>,
    costs: Costs,
    shift: TimeDelta,
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
    super::plan::assemble(conn, organization, config, pins.into_iter()).await
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
    let before = |days: u64| begins(today.checked_sub_days(Days::new(days)).unwrap_or(today), zone);
    let mut reading = Reading {
        row,
        plan: &plan,
        house: &house,
        around: Around::new(&plan, &house),
        week: before(caps::WEEK as u64 - 1),
        seen: HashSet::new(),
    };
    let mut people = Vec::with_capacity(ids.len());
    for slice in ids.chunks(SLICE) {
        people.extend(reading.slice(conn, slice).await?);
    }
    let mut accounts: Vec<Uuid> = people.iter().filter_map(Person::account).collect();
    accounts.sort_unstable();
    accounts.dedup();
    let senders = prospects::senders(conn, organization, &accounts, before(0)).await?;
    let calls = prospects::calls(conn, &accounts).await?;
    let costs = Costs::read(conn, organization, &plan.config, true_now, zone).await?;
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
        let candidates = candidates::look_at(conn, organization, ids, sop, purpose).await?;
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

/// What happens, or would have happened, at a step of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The contact.
    pub contact_id: Uuid,
    /// The step; none: the plan does not take them in.
    pub step: Option<usize>,
    /// When it is sent; none: it is not.
    pub at: Option<DateTime<Utc>>,
    /// Why it is not sent, or not at once.
    pub reasons: Vec<&'static str>,
    /// `sent`, `skipped`, `exited` or `blocked`.
    pub outcome: &'static str,
    person: usize,
}

/// What an account has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLoad {
    /// The account.
    pub account_id: Uuid,
    /// Its part.
    pub load: Load,
}

/// A campaign that was played.
#[derive(Debug)]
pub struct Played {
    /// People whom the plan is meant for.
    pub targets: usize,
    /// Those to whom something is sent.
    pub recipients: usize,
    /// The others, by the weightiest reason.
    pub blocked: BTreeMap<&'static str, usize>,
    /// Messages that are sent.
    pub messages: usize,
    /// When the last is sent.
    pub ends_at: Option<DateTime<Utc>>,
    /// When the last way ends, waits behind the last message included.
    pub finishes_at: Option<DateTime<Utc>>,
    /// What it costs.
    pub bill: Bill,
    /// The account that holds up the end.
    pub bottleneck: Option<Uuid>,
    /// The accounts, by id.
    pub accounts: Vec<AccountLoad>,
    items: Vec<Item>,
    gathered: Gathered,
}

impl Gathered {
    /// Returns everything for which somebody is not taken in, or not written to, as things are; the weightiest first.
    pub fn objections(&self, contact: Uuid) -> Vec<&'static str> {
        let Some(person) = self.people.iter().find(|person| person.contact == contact) else {
            return vec!["contact_not_found"];
        };
        let mut reasons = person.refused.clone();
        let found = person.known.as_ref().map(|known| self.speak_against(known)).unwrap_or_default();
        for code in found.into_iter().filter_map(Verdict::code) {
            if !reasons.contains(&code) {
                reasons.push(code);
            }
        }
        reasons
    }

    fn speak_against(&self, known: &Known) -> Vec<Verdict> {
        checks::objections(&self.situation(known), Asker::Step, false)
    }

    /// Plays the campaign.
    pub fn play(self) -> Played {
        let (now, zone) = (self.house.now, self.zone());
        let mut standings = HashMap::new();
        let (mut zones, mut recipients, mut persons) = (Vec::<Zone>::new(), Vec::new(), Vec::new());
        let index: HashMap<Uuid, usize> =
            self.senders.iter().enumerate().map(|(number, sender)| (sender.id, number)).collect();
        let mut items = Vec::new();
        let mut campaign_caps = caps::DEFAULTS;
        for (number, person) in self.people.iter().enumerate() {
            let mut reasons = person.refused.clone();
            let Some(known) = &person.known else {
                items.push(blocked(person, number, reasons));
                continue;
            };
            let situation = self.situation(known);
            let mut enters_at = None;
            for objection in self.speak_against(known) {
                match objection {
                    // A person has the chat until then.
                    Verdict::NotYet { until, code: TAKEN_OVER_CODE, .. }
                        if known.facts.mode_until.is_some() =>
                    {
                        enters_at = Some(until);
                    }
                    verdict => reasons.extend(verdict.code().filter(|code| !reasons.contains(code))),
                }
            }
            let account = index.get(&known.enrollment.account_id);
            let (Some(account), true) = (account, reasons.is_empty()) else {
                items.push(blocked(person, number, reasons));
                continue;
            };
            campaign_caps = situation.caps();
            standings.insert(known.enrollment.account_id, situation.standing());
            let own = situation.zone();
            let opening = zones.iter().position(|other| *other == own).unwrap_or_else(|| {
                zones.push(own);
                zones.len() - 1
            });
            let enters_at = self.enters_at(own).max(enters_at.unwrap_or(now));
            recipients.push(self.recipient(known, &situation, *account, opening, enters_at, zone));
            persons.push(number);
        }
        let accounts::Played { ids, accounts, limits } = accounts::played(
            &self.senders,
            &self.calls,
            &standings,
            &self.question.ceilings,
            now,
            self.shift,
        );
        let house = situation::house_window(&self.house.campaign_from, &self.house.campaign_until);
        let openings: Vec<_> =
            zones.iter().map(|zone| situation::opening(&self.plan, *zone, &house, &self.calendar)).collect();
        let config = &self.plan.config;
        let played = rehearsal::rehearse(&rehearsal::Plan {
            now,
            zone,
            calendar: self.calendar.chosen(config.send_window.holiday_calendar),
            config,
            caps: &campaign_caps,
            organization_sent: 0,
            openings: &openings,
            limits: &limits,
            accounts: &accounts,
            recipients: &recipients,
        });
        let (bill, unpaid) = self.bill(&played.planned, &recipients, &ids);
        let mut got: HashSet<usize> = HashSet::with_capacity(recipients.len());
        for (number, planned) in played.planned.iter().enumerate() {
            let mut item = self.item(planned, persons[planned.recipient]);
            item.reasons.extend(unpaid.contains(&number).then_some("budget"));
            if planned.outcome == Outcome::Sent {
                got.insert(persons[planned.recipient]);
            }
            items.push(item);
        }
        items.sort_by_key(|item| item.contact_id);
        let mut blocked = BTreeMap::new();
        let mut counted = HashSet::new();
        for item in &items {
            if !got.contains(&item.person) && counted.insert(item.person) {
                *blocked.entry(item.reasons.first().copied().unwrap_or("no_message")).or_default() += 1;
            }
        }
        for number in persons {
            // Whose way leads past every message.
            if !got.contains(&number) && counted.insert(number) {
                *blocked.entry("no_message").or_default() += 1;
            }
        }
        let accounts = ids.iter().zip(&played.loads);
        Played {
            targets: self.people.len(),
            recipients: got.len(),
            blocked,
            messages: played.planned.iter().filter(|planned| planned.outcome == Outcome::Sent).count(),
            ends_at: played.ends_at,
            finishes_at: played.finishes_at,
            bill,
            bottleneck: played.bottleneck.and_then(|number| ids.get(number).copied()),
            accounts: accounts.map(|(id, load)| AccountLoad { account_id: *id, load: *load }).collect(),
            items,
            gathered: self,
        }
    }

    fn zone(&self) -> Zone {
        crate::calendar::zone(self.house.organization_zone.as_deref())
    }

    fn situation<'a>(&'a self, known: &'a Known) -> Situation<'a> {
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
            words: None,
            links: self.question.links.clone(),
        }
    }

    /// Returns when the plan begins for somebody in a zone.
    fn enters_at(&self, zone: Zone) -> DateTime<Utc> {
        let now = self.house.now;
        let base = self.question.starts_at.unwrap_or(now).max(now);
        match &self.plan.config.trigger {
            Trigger::Manual {} => base,
            Trigger::Event { delay, .. } => moment::after(base, delay.unwrap_or_else(Period::default), zone),
            Trigger::Once { .. } | Trigger::Cron { .. } if self.question.starts_at.is_some() => base,
            Trigger::Once { .. } | Trigger::Cron { .. } => {
                super::trigger::next_at(&self.plan.config, now).unwrap_or(base)
            }
        }
    }

    fn recipient(
        &self,
        known: &Known,
        situation: &Situation<'_>,
        account: usize,
        opening: usize,
        enters_at: DateTime<Utc>,
        zone: Zone,
    ) -> Recipient {
        let had = known.had.as_ref();
        let mut contact = [0; caps::WEEK];
        let today = day_of(self.house.now, zone);
        for sent_at in had.and_then(|had| had.recent.as_ref()).into_iter().flatten() {
            let days = (today - day_of(*sent_at, zone)).num_days();
            if let Some(day) = usize::try_from(days).ok().and_then(|days| contact.get_mut(days)) {
                *day += 1;
            }
        }
        let steps = self.plan.config.steps.iter().enumerate();
        let unsayable = steps.filter_map(|(number, step)| match step {
            Step::AiSend(_) if known.facts.stops.iter().any(|stop| stop == "ai") => {
                Some((number, "stopped", OnMissingVariable::Exit))
            }
            Step::Send(send) if needs_values(send) => match send::render(situation, step) {
                Rendered::Not { code, exits } => Some((number, code, exits)),
                Rendered::Message(_) => None,
            },
            _ => None,
        });
        let id = known.enrollment.id;
        Recipient {
            id,
            account,
            opening,
            enters_at,
            contact,
            contact_last: had.and_then(|had| had.last),
            unanswered: had.map_or(0, |had| u32::try_from(had.unanswered).unwrap_or(u32::MAX)),
            answered_at: situation.answered_at(),
            added_at: known.facts.added_at,
            facts: situation.for_conditions(),
            answers: order(id) % 1000 < u64::from(self.question.answering),
            unsayable: unsayable.collect(),
        }
    }

    fn item(&self, planned: &Planned, person: usize) -> Item {
        let mut reasons: Vec<&'static str> = planned.waited_for().collect();
        let (at, outcome) = match planned.outcome {
            Outcome::Sent => (Some(planned.at), "sent"),
            // What it ended at comes first.
            Outcome::Skipped(code) => {
                reasons.insert(0, code);
                (None, "skipped")
            }
            Outcome::Exited(code) => {
                reasons.insert(0, code);
                (None, "exited")
            }
        };
        let contact_id = self.people[person].contact;
        Item { contact_id, step: Some(planned.step), at, reasons, outcome, person }
    }

    /// Adds up what models cost. Returns the messages for which there is no budget, as their numbers among all.
    fn bill(&self, planned: &[Planned], recipients: &[Recipient], ids: &[Uuid]) -> (Bill, HashSet<usize>) {
        let steps = &self.plan.config.steps;
        let by_model = |planned: &Planned| match &steps[planned.step] {
            Step::AiSend(step) if planned.outcome == Outcome::Sent => Some(step.workflow.as_str()),
            _ => None,
        };
        let numbers: Vec<usize> =
            (0..planned.len()).filter(|number| by_model(&planned[*number]).is_some()).collect();
        let written = numbers.iter().filter_map(|number| {
            let message = &planned[*number];
            let account = ids.get(recipients[message.recipient].account)?;
            let workflow = by_model(message)?;
            Some(Written { at: message.at, recipient: message.recipient, account: *account, workflow })
        });
        let (bill, unpaid) = self.costs.bill(self.sop, &self.plan.config, self.zone(), written);
        (bill, unpaid.into_iter().filter_map(|number| numbers.get(number).copied()).collect())
    }
}

/// Whether a step's message may be one that cannot be made for everybody.
fn needs_values(step: &crate::sop::config::step::Send) -> bool {
    step.message.text().is_none_or(|text| text.contains("{{"))
}

fn blocked(person: &Person, number: usize, reasons: Vec<&'static str>) -> Item {
    Item { contact_id: person.contact, step: None, at: None, reasons, outcome: "blocked", person: number }
}

impl Played {
    /// Returns what happens, from the `from`-th item on, `limit` at most, and how many there are. Items are in the order of
    /// contacts' ids, and of one contact in the order of time.
    pub fn page(&self, from: usize, limit: usize) -> (&[Item], usize) {
        let from = from.min(self.items.len());
        let to = (from + limit).min(self.items.len());
        (&self.items[from..to], self.items.len())
    }

    /// Returns the step of an item by its name: that of the plan's first step for whoever is not taken in.
    pub fn step_id(&self, item: &Item) -> &str {
        self.step(item).map_or(self.gathered.plan.config.entry.as_str(), |step| step.id().as_str())
    }

    /// Returns what the message of an item says to its recipient; of a model's message, what is said in its place.
    pub fn text(&self, item: &Item) -> Option<String> {
        let known = self.gathered.people[item.person].known.as_ref()?;
        let situation = self.gathered.situation(known);
        match self.step(item)? {
            step @ Step::Send(_) => match send::render(&situation, step) {
                Rendered::Message(outgoing) => Some(outgoing.message.readable().to_owned()),
                Rendered::Not { .. } => None,
            },
            Step::AiSend(step) => {
                let variables = &self.gathered.plan.config.variables;
                match template::render(&step.fallback_text, variables, &situation.for_texts()) {
                    template::Rendered::Text(text) => Some(text),
                    template::Rendered::Missing(_) => None,
                }
            }
            _ => None,
        }
    }

    fn step(&self, item: &Item) -> Option<&Step> {
        let config = &self.gathered.plan.config;
        match item.step {
            Some(number) => config.steps.get(number),
            None => config.step(config.entry.as_str()),
        }
    }
}
