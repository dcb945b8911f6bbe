//! What an organisation has chosen: its time zone, and words with which customers decide something.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use diesel_async::AsyncConnection;
use entropy_jobs::ai::words::normalize;
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
    /// Said once to who opts out; up to 500 characters. Empty: nothing is said.
    opt_out_confirmation: Option<Text>,
}

/// What the organisation has chosen.
#[derive(Debug, Object)]
struct SettingsView {
    timezone: String,
    opt_out_words: Vec<String>,
    handoff_words: Vec<String>,
    opt_out_confirmation: String,
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
    /// Needs the role manager. What is left out stays. Words hold for the next message that comes in.
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
                if let Some(text) = changes.opt_out_confirmation {
                    chosen.opt_out_confirmation = text;
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
        opt_out_confirmation: asked.opt_out_confirmation.as_deref().map(|text| text.trim().to_owned()),
    })
}

fn facts(chosen: &Organization) -> Value {
    json!({
        "timezone": chosen.timezone,
        "opt_out_words": chosen.opt_out_words,
        "handoff_words": chosen.handoff_words,
        "opt_out_confirmation": chosen.opt_out_confirmation,
    })
}

fn view(chosen: Organization) -> SettingsView {
    SettingsView {
        timezone: chosen.timezone,
        opt_out_words: chosen.opt_out_words,
        handoff_words: chosen.handoff_words,
        opt_out_confirmation: chosen.opt_out_confirmation,
        updated_by: chosen.updated_by,
        updated_at: (chosen.updated_at > DateTime::UNIX_EPOCH).then_some(chosen.updated_at),
    }
}
