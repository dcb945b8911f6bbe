//! Everybody's way through the plan, played.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::accounts;
use super::costs::{Bill, Written};
use super::gather::{Gathered, Person};
use super::played::{AccountLoad, Item, Played};
use super::texts::{Said, Speech, Texts};
use crate::calendar::{Zone, day_of};
use crate::campaign::checks::{self, Asker, TAKEN_OVER_CODE, Verdict};
use crate::campaign::say::HELD;
use crate::campaign::situation::{self, Situation};
use crate::campaign::trigger;
use crate::sop::caps;
use crate::sop::config::period::Period;
use crate::sop::config::step::Step;
use crate::sop::config::trigger::Trigger;
use crate::sop::moment;
use crate::sop::rehearsal::{self, Outcome, Planned, Recipient};
use crate::sop::spread::order;

/// Somebody to whom something may be sent.
struct Addressed {
    /// Their number in the list of people.
    person: usize,
    speech: Speech,
}

/// Everybody, asked what speaks against writing to them.
#[derive(Default)]
struct Cast {
    /// Those to whom nothing is sent.
    blocked: Vec<Item>,
    recipients: Vec<Recipient>,
    addressed: Vec<Addressed>,
    /// The zones that they live in, each with the moment at which the plan begins there.
    zones: Vec<(Zone, DateTime<Utc>)>,
    /// How their accounts stand.
    standings: HashMap<Uuid, caps::Standing>,
    /// The same for all of them.
    caps: Option<caps::Caps>,
    texts: OnceCell<Texts>,
}

impl Gathered {
    /// Returns everything for which somebody is not taken in, or not written to, as things are; the weightiest first.
    pub fn objections(&self, contact: Uuid) -> Vec<&'static str> {
        let Some(person) = self.people.iter().find(|person| person.contact == contact) else {
            return vec!["contact_not_found"];
        };
        let mut reasons = person.refused.clone();
        if let Some(known) = &person.known {
            let taken_until = objections(&self.situation(known), &mut reasons);
            reasons.extend(taken_until.map(|_| TAKEN_OVER_CODE));
        }
        reasons
    }

    /// Plays the campaign.
    pub fn play(self) -> Played {
        let (now, zone) = (self.house.now, self.zone());
        let mut cast = self.cast();
        let accounts::Played { ids, accounts, limits } = accounts::played(
            &self.senders,
            &self.calls,
            &cast.standings,
            &self.question.ceilings,
            now,
            self.shift,
        );
        let house = situation::house_window(&self.house.campaign_from, &self.house.campaign_until);
        let opening = |zone| situation::opening(&self.plan, zone, &house, &self.calendar);
        let openings: Vec<_> = cast.zones.iter().map(|(zone, _)| opening(*zone)).collect();
        let config = &self.plan.config;
        let played = rehearsal::rehearse(&rehearsal::Plan {
            now,
            zone,
            calendar: self.calendar.chosen(config.send_window.holiday_calendar),
            config,
            caps: &cast.caps.unwrap_or(caps::DEFAULTS),
            organization_sent: 0,
            openings: &openings,
            limits: &limits,
            accounts: &accounts,
            recipients: &cast.recipients,
        });
        let (bill, unpaid) = self.bill(&played.planned, &cast);
        let mut items = std::mem::take(&mut cast.blocked);
        let mut got = vec![false; self.people.len()];
        let (mut messages, mut to_review) = (0, 0);
        for (number, planned) in played.planned.iter().enumerate() {
            let item = self.item(planned, &cast, unpaid.contains(&number));
            if item.outcome == "sent" {
                got[item.person] = true;
                messages += 1;
                to_review += usize::from(item.reasons.contains(&HELD));
            }
            items.push(item);
        }
        items.sort_by_key(|item| item.contact_id);
        let mut blocked = BTreeMap::new();
        let mut counted = got.clone();
        for item in &items {
            if !std::mem::replace(&mut counted[item.person], true) {
                *blocked.entry(item.reasons.first().copied().unwrap_or("no_message")).or_default() += 1;
            }
        }
        for Addressed { person, .. } in &cast.addressed {
            // Whose way leads past every message.
            if !std::mem::replace(&mut counted[*person], true) {
                *blocked.entry("no_message").or_default() += 1;
            }
        }
        let accounts = ids.iter().zip(&played.loads);
        Played {
            targets: self.people.len(),
            recipients: got.iter().filter(|got| **got).count(),
            blocked,
            messages,
            to_review,
            ends_at: played.ends_at,
            finishes_at: played.finishes_at,
            bill,
            bottleneck: played.bottleneck.and_then(|number| ids.get(number).copied()),
            accounts: accounts.map(|(id, load)| AccountLoad { account_id: *id, load: *load }).collect(),
            items,
            gathered: self,
        }
    }

    /// Asks of everybody what speaks against writing to them.
    fn cast(&self) -> Cast {
        let (now, zone) = (self.house.now, self.zone());
        let today = day_of(now, zone);
        let accounts: HashMap<Uuid, usize> =
            self.senders.iter().enumerate().map(|(number, sender)| (sender.id, number)).collect();
        let mut cast = Cast::default();
        for (number, person) in self.people.iter().enumerate() {
            let mut reasons = person.refused.clone();
            let Some(known) = &person.known else {
                cast.blocked.push(blocked(person, number, reasons));
                continue;
            };
            let situation = self.situation(known);
            let taken_until = objections(&situation, &mut reasons);
            let account = accounts.get(&known.enrollment.account_id);
            let (Some(account), true) = (account, reasons.is_empty()) else {
                cast.blocked.push(blocked(person, number, reasons));
                continue;
            };
            cast.caps = Some(situation.caps());
            cast.standings.entry(known.enrollment.account_id).or_insert_with(|| situation.standing());
            let own = situation.zone();
            let opening = cast.zones.iter().position(|(other, _)| *other == own).unwrap_or_else(|| {
                cast.zones.push((own, self.begins(own)));
                cast.zones.len() - 1
            });
            let (_, begins) = cast.zones[opening];
            let mut speech = cast.texts.get_or_init(|| Texts::of(&situation, &self.costs)).to(&situation);
            let unsayable = std::mem::take(&mut speech.unsayable);
            let had = known.had.as_ref();
            let recent = had.and_then(|had| had.recent.as_deref()).unwrap_or_default();
            let id = known.enrollment.id;
            cast.recipients.push(Recipient {
                id,
                account: *account,
                opening,
                enters_at: begins.max(taken_until.unwrap_or(now)),
                contact: caps::week(recent, today, zone),
                contact_last: had.and_then(|had| had.last),
                unanswered: had.map_or(0, |had| u32::try_from(had.unanswered).unwrap_or(u32::MAX)),
                answered_at: situation.answered_at(),
                added_at: known.facts.added_at,
                facts: situation.for_conditions(),
                answers: order(id) % 1000 < u64::from(self.question.answering),
                unsayable,
            });
            cast.addressed.push(Addressed { person: number, speech });
        }
        cast
    }

    /// Returns when the plan begins for those who live in a zone.
    fn begins(&self, zone: Zone) -> DateTime<Utc> {
        let now = self.house.now;
        let base = self.question.starts_at.unwrap_or(now).max(now);
        match &self.plan.config.trigger {
            Trigger::Manual {} => base,
            Trigger::Event { delay, .. } => moment::after(base, delay.unwrap_or_else(Period::default), zone),
            Trigger::Once { .. } | Trigger::Cron { .. } if self.question.starts_at.is_some() => base,
            Trigger::Once { .. } | Trigger::Cron { .. } => {
                trigger::next_at(&self.plan.config, now).unwrap_or(base)
            }
        }
    }

    /// Says what becomes of a message. `is_unpaid`: no budget has room for the model that was to write it.
    fn item(&self, planned: &Planned, cast: &Cast, is_unpaid: bool) -> Item {
        let Addressed { person, speech } = &cast.addressed[planned.recipient];
        let person_of = &self.people[*person];
        let mut item = Item {
            contact_id: person_of.contact,
            step: Some(planned.step),
            at: Some(planned.at),
            reasons: planned.waited_for().collect(),
            outcome: "sent",
            person: *person,
        };
        let said = match planned.outcome {
            Outcome::Skipped(code) => return item.unsent("skipped", code),
            Outcome::Exited(code) => return item.unsent("exited", code),
            Outcome::Sent if is_unpaid => {
                item.reasons.push("budget");
                let texts = cast.texts.get().zip(person_of.known.as_ref());
                texts.map_or(Said::Sent, |(texts, known)| texts.own(&self.situation(known), planned.step))
            }
            Outcome::Sent => {
                item.reasons.extend(speech.falls_back(planned.step));
                speech.said(planned.step)
            }
        };
        match said {
            Said::Sent => {}
            Said::Held(cause) => item.reasons.extend([HELD].into_iter().chain(cause)),
            Said::Not { code, .. } => return item.unsent("skipped", code),
        }
        item
    }

    /// Adds up what models cost. Returns the messages for which there is no budget, as their numbers among all.
    fn bill(&self, planned: &[Planned], cast: &Cast) -> (Bill, HashSet<usize>) {
        let steps = &self.plan.config.steps;
        let workflow = |planned: &Planned| match &steps[planned.step] {
            Step::AiSend(step) if planned.outcome == Outcome::Sent => {
                let falls_back = cast.addressed[planned.recipient].speech.falls_back(planned.step);
                falls_back.is_none().then_some(step.workflow.as_str())
            }
            _ => None,
        };
        let numbers: Vec<usize> =
            (0..planned.len()).filter(|number| workflow(&planned[*number]).is_some()).collect();
        // As the real run: whoever starts a plan is charged for it; of what begins by itself, the account's own person.
        let by = match self.plan.config.trigger {
            Trigger::Manual {} => self.question.by,
            Trigger::Once { .. } | Trigger::Cron { .. } | Trigger::Event { .. } => None,
        };
        let written = numbers.iter().filter_map(|number| {
            let message = &planned[*number];
            let sender = self.senders.get(cast.recipients[message.recipient].account)?;
            Some(Written {
                at: message.at,
                recipient: message.recipient,
                account: sender.id,
                user: by.unwrap_or(sender.user_id),
                workflow: workflow(message)?,
            })
        });
        let (bill, unpaid) = self.costs.bill(self.sop, &self.plan.config, self.zone(), written);
        (bill, unpaid.into_iter().filter_map(|number| numbers.get(number).copied()).collect())
    }
}

impl Item {
    /// The same, not sent after all. What it ended at comes first.
    fn unsent(mut self, outcome: &'static str, code: &'static str) -> Item {
        self.reasons.retain(|reason| *reason != code);
        self.reasons.insert(0, code);
        Item { at: None, outcome, ..self }
    }
}

/// Adds what speaks against any message to somebody. A person who has the chat only until a moment keeps nobody from it for good:
/// returns that moment.
fn objections(situation: &Situation<'_>, reasons: &mut Vec<&'static str>) -> Option<DateTime<Utc>> {
    let mut taken_until = None;
    for objection in checks::objections(situation, Asker::Step, false) {
        match objection {
            Verdict::NotYet { until, code: TAKEN_OVER_CODE, .. } if situation.facts.mode_until.is_some() => {
                taken_until = Some(until);
            }
            verdict => reasons.extend(verdict.code().filter(|code| !reasons.contains(code))),
        }
    }
    taken_until
}

fn blocked(person: &Person, number: usize, reasons: Vec<&'static str>) -> Item {
    Item { contact_id: person.contact, step: None, at: None, reasons, outcome: "blocked", person: number }
}
