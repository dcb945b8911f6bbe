//! What an organisation has chosen: its time zone, words with which customers decide something, and what campaigns may do.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use diesel_async::AsyncConnection;
use entropy_jobs::ai::words::normalize;
use entropy_jobs::sop::config::window::LocalTime;
use entropy_schema::settings::{self, Organization};
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::account_ai::has_controls;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::problem::{ApiError, FieldProblem};

const MAX_WORDS: usize = 50;
/// No organisation lets campaigns write earlier or later than this.
const EARLIEST: &str = "08:00";
const LATEST: &str = "22:00";

/// What to change; what is left out stays.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct PutSettings {
    /// IANA name, such as `Asia/Shanghai`. Days and months of budgets and reports are those of this zone.
    timezone: Option<Text>,
    /// Words with which customers opt out, beside the built-in ones: up to 50 of 1 to 20 characters.
    opt_out_words: Option<Vec<Text>>,
    /// Words with which customers ask for a person, beside the built-in ones: up to 50 of 1 to 20 characters.
    handoff_words: Option<Vec<Text>>,
    /// Words with which customers complain, beside the built-in ones: up to 50 of 1 to 20 characters. One of them puts the account
    /// on hold.
    complaint_words: Option<Vec<Text>>,
    /// Said once to who opts out; up to 500 characters. Empty: nothing is said.
    opt_out_confirmation: Option<Text>,
    /// From when on campaigns write, by the contact's clock: `HH:MM`, not before 08:00; 09:00 if never chosen. A plan may only be
    /// stricter.
    campaign_from: Option<Text>,
    /// Until when they do: `HH:MM`, not after 22:00; 21:00 if never chosen.
    campaign_until: Option<Text>,
    /// Messages of campaigns to one contact on one day, over all plans: 1 to 5.
    contact_per_day: Option<i32>,
    /// The same in a week: 1 to 10.
    contact_per_week: Option<i32>,
    /// Messages of campaigns from one account on one day: 1 to 500.
    account_per_day: Option<i32>,
    /// Of those, to contacts that have never answered: 1 to 100.
    new_contacts_per_day: Option<i32>,
    /// Messages of campaigns to one contact in a row without an answer: 1 to 5.
    max_unanswered: Option<i32>,
    /// Every plan needs an approval, whatever it says itself.
    approval_required: Option<bool>,
    /// The organisation's name in texts; up to 100 characters. Empty: its own.
    campaign_name: Option<Text>,
}

/// What the organisation has chosen.
#[derive(Debug, Object)]
struct SettingsView {
    timezone: String,
    opt_out_words: Vec<String>,
    handoff_words: Vec<String>,
    complaint_words: Vec<String>,
    opt_out_confirmation: String,
    /// Campaigns write from this hour of the contact's day on.
    campaign_from: String,
    /// And until this one.
    campaign_until: String,
    /// Messages of campaigns to one contact on one day, over all plans.
    contact_per_day: i32,
    /// The same in a week.
    contact_per_week: i32,
    /// Messages of campaigns from one account on one day.
    account_per_day: i32,
    /// Of those, to contacts that have never answered.
    new_contacts_per_day: i32,
    /// Messages of campaigns to one contact in a row without an answer.
    max_unanswered: i32,
    /// Every plan needs an approval, whatever it says itself.
    approval_required: bool,
    /// The organisation's name in texts; empty: its own.
    campaign_name: String,
    updated_by: Option<Uuid>,
    /// Null: nothing was chosen yet, these are the defaults.
    updated_at: Option<DateTime<Utc>>,
}

/// Settings of the organisation.
pub(super) struct Settings;

#[OpenApi(tag = "Tag::Answers")]
impl Settings {
    /// Shows the organisation's settings
    ///
    /// The defaults, if nothing was chosen yet.
    #[oai(path = "/organization/settings", method = "get", operation_id = "get_organization_settings")]
    async fn get(&self, state: Data<&AppState>, caller: Caller) -> Result<Json<SettingsView>, ApiError> {
        let mut conn = state.db.conn().await?;
        Ok(Json(view(settings::organization(&mut conn, caller.organization_id).await?)))
    }

    /// Changes the organisation's settings
    ///
    /// Needs the role manager; raising a cap of campaigns, widening their hours or doing without approvals, admin. What is left
    /// out stays. Words hold for the next message that comes in, caps and hours for the next one that a campaign sends.
    #[oai(path = "/organization/settings", method = "put", operation_id = "put_organization_settings")]
    async fn put(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<PutSettings>,
    ) -> Result<Json<SettingsView>, ApiError> {
        caller.require(Role::Manager)?;
        let changes = read(&body.0)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let chosen = conn
            .transaction(async |conn| {
                let old = settings::lock_organization(conn, caller.organization_id).await?;
                let mut chosen = old.clone();
                if let Some(timezone) = changes.timezone {
                    chosen.timezone = timezone;
                }
                if let Some(words) = changes.opt_out_words {
                    chosen.opt_out_words = words;
                }
                if let Some(words) = changes.handoff_words {
                    chosen.handoff_words = words;
                }
                if let Some(words) = changes.complaint_words {
                    chosen.complaint_words = words;
                }
                if let Some(text) = changes.opt_out_confirmation {
                    chosen.opt_out_confirmation = text;
                }
                put_campaigns(&mut chosen, &body.0)?;
                if is_looser(&chosen, &old) && caller.role < Role::Admin {
                    let detail = "Only an admin may raise the caps of campaigns, widen their hours or do without approvals. \
                        Lowering them needs a manager.";
                    return Err(ApiError::forbidden("limits_need_admin", detail));
                }
                (chosen.updated_by, chosen.updated_at) = (Some(caller.id), now);
                settings::put_organization(conn, &chosen).await?;
                Note::new("organization.settings", "organization", caller.organization_id)
                    .before(facts(&old))
                    .after(facts(&chosen))
                    .write(conn, &caller, &origin)
                    .await?;
                Ok::<_, ApiError>(chosen)
            })
            .await?;
        Ok(Json(view(chosen)))
    }
}

/// Changes that can be made.
struct Changes {
    timezone: Option<String>,
    opt_out_words: Option<Vec<String>>,
    handoff_words: Option<Vec<String>>,
    complaint_words: Option<Vec<String>>,
    opt_out_confirmation: Option<String>,
}

fn read(asked: &PutSettings) -> Result<Changes, ApiError> {
    let mut problems = Vec::new();
    if let Some(timezone) = &asked.timezone
        && timezone.parse::<Tz>().is_err()
    {
        let message = "must be the name of a time zone, such as Asia/Shanghai";
        problems.push(FieldProblem::new("timezone", "unknown_timezone", message));
    }
    let mut read_words = |path: &str, asked: &Option<Vec<Text>>| {
        let asked = asked.as_deref()?;
        if asked.len() > MAX_WORDS {
            problems.push(FieldProblem::new(path, "too_many", "must have at most 50 words"));
            return None;
        }
        let mut seen = std::collections::HashSet::new();
        let mut words = Vec::new();
        for (index, word) in asked.iter().enumerate() {
            let (word, compared) = (word.trim(), normalize(word));
            if !(1..=20).contains(&word.chars().count())
                || word.chars().any(char::is_control)
                || compared.is_empty()
            {
                let message = "must have 1 to 20 characters that can be seen, and no control characters";
                problems.push(FieldProblem::new(format!("{path}[{index}]"), "bad_text", message));
            } else if seen.insert(compared) {
                words.push(word.to_owned());
            }
        }
        Some(words)
    };
    let opt_out_words = read_words("opt_out_words", &asked.opt_out_words);
    let handoff_words = read_words("handoff_words", &asked.handoff_words);
    let complaint_words = read_words("complaint_words", &asked.complaint_words);
    if let Some(text) = &asked.opt_out_confirmation
        && (text.chars().count() > 500 || has_controls(text))
    {
        let message = "must have at most 500 characters, and no control characters but line breaks";
        problems.push(FieldProblem::new("opt_out_confirmation", "too_long", message));
    }
    if !problems.is_empty() {
        return Err(ApiError::unprocessable(problems));
    }
    Ok(Changes {
        timezone: asked.timezone.as_deref().map(str::to_owned),
        opt_out_words,
        handoff_words,
        complaint_words,
        opt_out_confirmation: asked.opt_out_confirmation.as_deref().map(|text| text.trim().to_owned()),
    })
}

/// Puts what was asked about campaigns into the settings, or says everything that cannot be.
fn put_campaigns(chosen: &mut Organization, asked: &PutSettings) -> Result<(), ApiError> {
    let mut problems = Vec::new();
    for (path, asked, field, most) in [
        ("contact_per_day", asked.contact_per_day, &mut chosen.contact_per_day, 5),
        ("contact_per_week", asked.contact_per_week, &mut chosen.contact_per_week, 10),
        ("account_per_day", asked.account_per_day, &mut chosen.account_per_day, 500),
        ("new_contacts_per_day", asked.new_contacts_per_day, &mut chosen.new_contacts_per_day, 100),
        ("max_unanswered", asked.max_unanswered, &mut chosen.max_unanswered, 5),
    ] {
        let Some(number) = asked else { continue };
        if !(1..=most).contains(&number) {
            problems.push(FieldProblem::new(path, "out_of_range", format!("must lie between 1 and {most}")));
        }
        *field = number;
    }
    for (path, asked, field) in [
        ("campaign_from", &asked.campaign_from, &mut chosen.campaign_from),
        ("campaign_until", &asked.campaign_until, &mut chosen.campaign_until),
    ] {
        let Some(asked) = asked else { continue };
        if asked.parse::<LocalTime>().is_err() {
            problems.push(FieldProblem::new(path, "bad_time", "must be a time of day such as 09:30"));
        }
        asked.0.clone_into(field);
    }
    // Texts of this form compare as the times that they are.
    if problems.is_empty() {
        if chosen.campaign_from.as_str() < EARLIEST {
            problems.push(FieldProblem::new("campaign_from", "out_of_range", "must not be before 08:00"));
        }
        if chosen.campaign_until.as_str() > LATEST {
            problems.push(FieldProblem::new("campaign_until", "out_of_range", "must not be after 22:00"));
        }
        if chosen.campaign_until <= chosen.campaign_from {
            problems.push(FieldProblem::new("campaign_until", "not_after", "must be after campaign_from"));
        }
    }
    chosen.approval_required = asked.approval_required.unwrap_or(chosen.approval_required);
    if let Some(name) = &asked.campaign_name {
        if name.trim().chars().count() > 100 || name.chars().any(char::is_control) {
            let message = "must have at most 100 characters and no control characters";
            problems.push(FieldProblem::new("campaign_name", "bad_name", message));
        }
        name.trim().clone_into(&mut chosen.campaign_name);
    }
    if problems.is_empty() { Ok(()) } else { Err(ApiError::unprocessable(problems)) }
}

/// Tells whether campaigns may do anything that they might not before.
fn is_looser(new: &Organization, old: &Organization) -> bool {
    new.campaign_from < old.campaign_from
        || new.campaign_until > old.campaign_until
        || new.contact_per_day > old.contact_per_day
        || new.contact_per_week > old.contact_per_week
        || new.account_per_day > old.account_per_day
        || new.new_contacts_per_day > old.new_contacts_per_day
        || new.max_unanswered > old.max_unanswered
        || (old.approval_required && !new.approval_required)
}

fn facts(chosen: &Organization) -> Value {
    json!({
        "timezone": chosen.timezone,
        "opt_out_words": chosen.opt_out_words,
        "handoff_words": chosen.handoff_words,
        "complaint_words": chosen.complaint_words,
        "opt_out_confirmation": chosen.opt_out_confirmation,
        "campaign_from": chosen.campaign_from,
        "campaign_until": chosen.campaign_until,
        "contact_per_day": chosen.contact_per_day,
        "contact_per_week": chosen.contact_per_week,
        "account_per_day": chosen.account_per_day,
        "new_contacts_per_day": chosen.new_contacts_per_day,
        "max_unanswered": chosen.max_unanswered,
        "approval_required": chosen.approval_required,
        "campaign_name": chosen.campaign_name,
    })
}

fn view(chosen: Organization) -> SettingsView {
    SettingsView {
        timezone: chosen.timezone,
        opt_out_words: chosen.opt_out_words,
        handoff_words: chosen.handoff_words,
        complaint_words: chosen.complaint_words,
        opt_out_confirmation: chosen.opt_out_confirmation,
        campaign_from: chosen.campaign_from,
        campaign_until: chosen.campaign_until,
        contact_per_day: chosen.contact_per_day,
        contact_per_week: chosen.contact_per_week,
        account_per_day: chosen.account_per_day,
        new_contacts_per_day: chosen.new_contacts_per_day,
        max_unanswered: chosen.max_unanswered,
        approval_required: chosen.approval_required,
        campaign_name: chosen.campaign_name,
        updated_by: chosen.updated_by,
        updated_at: (chosen.updated_at > DateTime::UNIX_EPOCH).then_some(chosen.updated_at),
    }
}
