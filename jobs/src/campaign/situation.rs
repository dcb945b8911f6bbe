//! An enrollment and everything that is known around it at a moment: what all decisions of a campaign are made from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use entropy_schema::campaigns::enrollments::Enrollment;
use entropy_schema::campaigns::facts::{self, Facts, Since};
use entropy_schema::{Conn, Result};
use serde_json::Value;

pub use super::calendar::corrected as calendar;
use super::plan::Plan;
use crate::ai::words::Words;
use crate::calendar::{self, Zone, begins, day_of};
use crate::conversation::mode::Mode;
use crate::media::Links;
use crate::sop::calendar::Calendar;
use crate::sop::caps::{self, Caps, Counts, Standing};
use crate::sop::condition;
use crate::sop::config::key::{ArmKey, StepId};
use crate::sop::config::window::LocalTime;
use crate::sop::spread::{Row, pace};
use crate::sop::template::Given;
use crate::sop::window::{Days as OpenDays, Opening, Range, Window};

/// An enrollment with its surroundings.
#[derive(Debug)]
pub struct Situation<'a> {
    /// What time it is for campaigns.
    pub now: DateTime<Utc>,
    /// The enrollment; decisions change a copy of it.
    pub enrollment: Enrollment,
    /// Its surroundings.
    pub facts: &'a Facts,
    /// What was approved.
    pub plan: &'a Plan,
    /// Holidays, as the organisation has corrected them.
    pub calendar: Calendar,
    /// What campaigns have sent; none: not counted yet.
    pub counts: Option<Counts>,
    /// What waits in front of the account; none: not counted yet.
    pub row: Option<Row>,
    /// The contact's tags, where they are not those on record any more.
    pub tags: Option<Vec<String>>,
    /// The organisation's sensitive words; none: texts are not held against them.
    pub words: Option<Arc<Words>>,
    /// Makes links to uploaded materials; none: they cannot be sent.
    pub links: Option<Links>,
}

/// Returns the hours that an organisation leaves to campaigns, in the day of whoever is written to.
pub fn house_window(from: &str, until: &str) -> Window {
    let minute = |text: &str| text.parse::<LocalTime>().ok().map(LocalTime::minute);
    let range = minute(from).zip(minute(until)).and_then(|(from, until)| Range::new(from, until));
    Window::new(OpenDays::Any, range)
}

/// Returns when a plan may write to somebody: its own window within the organisation's.
pub fn opening<'a>(plan: &Plan, zone: Zone, house: &Window, calendar: &'a Calendar) -> Opening<'a> {
    let own = &plan.config.send_window;
    let chosen = calendar.chosen(own.holiday_calendar);
    Opening::new(zone, &Window::from(own), chosen).within(house, chosen)
}

/// Returns the zone of a person: their own, or the plan's.
pub fn zone(plan: &Plan, own: Option<&str>) -> Zone {
    own.and_then(|name| name.parse().ok()).unwrap_or(plan.config.timezone)
}

impl<'a> Situation<'a> {
    /// Puts what was read together.
    pub fn new(enrollment: Enrollment, facts: &'a Facts, plan: &'a Plan) -> Situation<'a> {
        let calendar = calendar(facts.calendars.as_ref());
        Situation {
            now: facts.now,
            enrollment,
            facts,
            plan,
            calendar,
            counts: None,
            row: None,
            tags: None,
            words: None,
            links: None,
        }
    }

    /// The same for whoever makes messages: with the organisation's sensitive words, and with what makes links to materials.
    #[must_use]
    pub fn to_speak(self, words: Arc<Words>, links: Option<Links>) -> Situation<'a> {
        Situation { words: Some(words), links, ..self }
    }

    /// Returns the zone whose clocks count for the person.
    pub fn zone(&self) -> Zone {
        zone(self.plan, self.facts.contact_zone.as_deref())
    }

    /// Returns the zone in which what is counted over all plans is counted.
    pub fn house_zone(&self) -> Zone {
        calendar::zone(self.facts.organization_zone.as_deref())
    }

    /// Returns when the person may be written to.
    pub fn opening(&self) -> Opening<'_> {
        let house = house_window(&self.facts.campaign_from, &self.facts.campaign_until);
        opening(self.plan, self.zone(), &house, &self.calendar)
    }

    /// Returns the caps that hold: the plan's, within the organisation's, within the install's.
    pub fn caps(&self) -> Caps {
        let number = |n: i32| u32::try_from(n).unwrap_or_default();
        let facts = self.facts;
        let house = Caps {
            per_contact_per_day: number(facts.contact_per_day),
            per_contact_per_week: Some(number(facts.contact_per_week)),
            per_account_per_day: number(facts.account_per_day),
            new_contacts_per_account_per_day: Some(number(facts.new_contacts_per_day)),
            per_organization_per_day: None,
            min_gap: [None, None],
            max_unanswered: number(facts.max_unanswered),
        };
        Caps::from(&self.plan.config.caps).within(&house).within(&caps::CEILINGS)
    }

    /// Returns what makes the account's caps smaller for a while.
    pub fn standing(&self) -> Standing {
        let day = |at: DateTime<Utc>| day_of(at, self.house_zone());
        Standing { first_login: self.facts.warm_since.map(day), released: self.facts.risk_lifted_at.map(day) }
    }

    /// Returns who answers in the conversation.
    pub fn mode(&self) -> Mode {
        match self.facts.mode.as_deref() {
            Some("human") if self.facts.mode_until.is_some_and(|until| until <= self.facts.true_now) => {
                Mode::Ai
            }
            Some("human") => Mode::Human,
            Some("paused") => Mode::Paused,
            _ => Mode::Ai,
        }
    }

    /// Returns the contact's tags.
    pub fn tags(&self) -> &[String] {
        self.tags.as_deref().unwrap_or(&self.facts.tags)
    }

    /// Returns when the other side answered last.
    pub fn answered_at(&self) -> Option<DateTime<Utc>> {
        self.facts.last_inbound_at.max(self.enrollment.replied_at)
    }

    /// Counts what campaigns have sent. `waiting`: what waits in the account's lane counts as sent.
    ///
    /// Whoever has that lane counts exactly; whoever has not is corrected at the gate.
    pub async fn count(&mut self, conn: &mut Conn, waiting: bool) -> Result<()> {
        let zone = self.house_zone();
        let today = day_of(self.now, zone);
        let since = Since {
            enrollment: self.enrollment.id,
            contact: self.enrollment.contact_id,
            account: self.enrollment.account_id,
            day: begins(today, zone),
            week: caps::week_begins(today, zone),
            answered: self.answered_at(),
        };
        let rows = facts::counts(conn, &since).await?;
        let number = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
        let facts = self.facts;
        self.row = Some(Row {
            pace: pace(
                u32::try_from(facts.messages_per_minute).unwrap_or_default(),
                TimeDelta::milliseconds(facts.min_gap_ms.into()),
            ),
            in_lane: number(rows.account_in_lane),
            last_place: rows.account_last_place,
        });
        self.counts = Some(Counts {
            contact: caps::week(&rows.contact, today, zone),
            contact_last: rows.contact_last,
            unanswered: number(rows.unanswered),
            answered_before: self.answered_at().is_some(),
            account: number(if waiting { rows.account + rows.account_waiting } else { rows.account }),
            account_new: number(if waiting {
                rows.account_new + rows.account_new_waiting
            } else {
                rows.account_new
            }),
            organization: 0,
        });
        Ok(())
    }

    /// Returns what conditions may ask about.
    pub fn for_conditions(&self) -> condition::Facts {
        let (facts, enrollment) = (self.facts, &self.enrollment);
        let local = self.now.with_timezone(&self.zone());
        let arms =
            enrollment.arms.as_object().into_iter().flatten().filter_map(|(step, arm)| {
                Some((StepId::parse(step).ok()?, ArmKey::parse(arm.as_str()?).ok()?))
            });
        let chosen = self.calendar.chosen(self.plan.config.send_window.holiday_calendar);
        let hours = |since: DateTime<Utc>| {
            #[expect(
                clippy::cast_precision_loss,
                reason = "hours are asked about, and not parts of a second"
            )]
            let seconds = (self.now - since).num_seconds().max(0) as f64;
            seconds / 3600.0
        };
        condition::Facts {
            tags: self.tags().to_vec(),
            source: facts.source.clone(),
            added_days: facts.added_at.map(|at| (self.now - at).num_days()),
            variables: fields(&facts.variables),
            sent_count: u32::try_from(enrollment.sent).unwrap_or_default(),
            replied: enrollment.replied_at.is_some(),
            arms: arms.collect(),
            mode: facts.conversation_id.map(|_| self.mode().as_str().to_owned()),
            last_reply_text: facts.last_inbound_text.clone(),
            last_reply_age_hours: self.answered_at().map(hours),
            hour: u8::try_from(local.hour()).ok(),
            is_workday: Some(chosen.is_workday(local.date_naive())),
        }
    }

    /// Returns what texts may say: the contact's own fields first, then what is known of the person, the adviser and the organisation.
    pub fn for_texts(&self) -> HashMap<String, Given> {
        let facts = self.facts;
        let mut given = HashMap::new();
        let name = match facts.remark.trim().is_empty() {
            false => Given::team(&facts.remark),
            true => Given::customer(&facts.nickname),
        };
        for word in ["称呼", "客户称呼", "name"] {
            given.insert(word.to_owned(), name.clone());
        }
        given.insert("昵称".to_owned(), Given::customer(&facts.nickname));
        given.insert("备注".to_owned(), Given::team(&facts.remark));
        if let Some(adviser) = &facts.adviser_name {
            for word in ["顾问名", "顾问姓名", "adviser"] {
                given.insert(word.to_owned(), Given::team(adviser));
            }
        }
        for word in ["机构名", "机构名称", "organization"] {
            given.insert(word.to_owned(), Given::team(&facts.organization_name));
        }
        for (name, value) in fields(&facts.variables) {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                _ => continue,
            };
            given.insert(name, Given::team(text));
        }
        given
    }
}

fn fields(variables: &Value) -> BTreeMap<String, Value> {
    let fields = variables.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}
