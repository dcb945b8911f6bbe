//! What an organisation's plans are held against, as the record has it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use entropy_schema::Conn;
use entropy_schema::campaigns::{materials, plans};
use entropy_schema::settings::Organization;
use entropy_schema::{replies, settings};
use serde_json::Value;
use uuid::Uuid;

use super::calendar;
use crate::ai::words::Words;
use crate::calendar::{day_of, zone};
use crate::sop::calendar::Calendar;
use crate::sop::config::WorkflowConfig;
use crate::sop::config::step::MaterialKind;
use crate::sop::config::window::Range;
use crate::sop::validate::{self, AccountLoad, Material, OrganizationCaps, Report, Surroundings};

/// A name as short as this stands in every other text.
const SHORTEST_NAME: usize = 2;

/// What was read for the plans of one organisation.
#[derive(Debug)]
pub struct Held {
    /// What the organisation has chosen.
    pub settings: Organization,
    /// Its holidays.
    pub calendar: Calendar,
    materials: BTreeMap<String, Material>,
    workflows: BTreeSet<String>,
    words: Words,
    sender_names: Vec<String>,
    accounts: Vec<AccountLoad>,
    today: NaiveDate,
}

impl Held {
    /// Reads all of it, as things are `now`.
    pub async fn read(
        conn: &mut Conn,
        organization: Uuid,
        now: DateTime<Utc>,
    ) -> entropy_schema::Result<Held> {
        let settings = settings::organization(conn, organization).await?;
        let materials = materials::all(conn, organization).await?;
        let workflows = plans::workflow_aliases(conn, organization).await?;
        let words = replies::sensitive_words(conn, organization).await?;
        let mut sender_names = plans::sender_names(conn, organization).await?;
        sender_names.push(settings.campaign_name.clone());
        sender_names.retain(|name| name.trim().chars().count() >= SHORTEST_NAME);
        let calendar = calendar::of(conn, organization).await?;
        Ok(Held {
            today: day_of(now, zone(Some(&settings.timezone))),
            calendar,
            materials: materials.into_iter().filter_map(material).collect(),
            workflows: workflows.into_iter().collect(),
            words: Words::new(&words),
            sender_names,
            accounts: Vec::new(),
            settings,
        })
    }

    /// Says for how many people a plan is, account by account.
    #[must_use]
    pub fn for_accounts(self, accounts: Vec<AccountLoad>) -> Held {
        Held { accounts, ..self }
    }

    /// Looks at a plan. The plan itself is returned if its form is right, whatever else is said.
    pub fn check(&self, config: &Value) -> (Report, Option<WorkflowConfig>) {
        let settings = &self.settings;
        let window = settings.campaign_from.parse().ok().zip(settings.campaign_until.parse().ok());
        let around = Surroundings {
            materials: &self.materials,
            workflows: &self.workflows,
            window: window.map(|(from, to)| Range { from, to }),
            caps: OrganizationCaps {
                per_contact_per_day: u32::try_from(settings.contact_per_day).ok(),
                per_contact_per_week: u32::try_from(settings.contact_per_week).ok(),
                per_account_per_day: u32::try_from(settings.account_per_day).ok(),
                max_unanswered: u32::try_from(settings.max_unanswered).ok(),
            },
            words: Some(&self.words),
            opt_out_words: &settings.opt_out_words,
            sender_names: &self.sender_names,
            accounts: &self.accounts,
            today: self.today,
            is_holiday: &|day| self.calendar.is_holiday(day),
        };
        validate::check(config, &around)
    }
}

fn material(stored: materials::Material) -> Option<(String, Material)> {
    let kind = match stored.kind.as_str() {
        "image" => MaterialKind::Image,
        "file" => MaterialKind::File,
        "link" => MaterialKind::Link,
        "mini_program" => MaterialKind::MiniProgram,
        _ => return None,
    };
    Some((stored.key, Material { kind, approved: stored.approved_revision.is_some() }))
}
