//! What organisations and accounts have chosen for conversations: time zone, words, who answers, with which workflow.

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::tables::{account_ai, ai_workflows, organization_settings};
use crate::{Conn, Result};

/// What an organisation has chosen.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = organization_settings, treat_none_as_null = true)]
pub struct Organization {
    /// The tenant.
    pub organization_id: Uuid,
    /// IANA name; days and months of budgets are those of this zone.
    pub timezone: String,
    /// Words with which customers opt out, beside the built-in ones.
    pub opt_out_words: Vec<String>,
    /// Words with which customers ask for a person, beside the built-in ones.
    pub handoff_words: Vec<String>,
    /// Said once to who opts out; empty: nothing.
    pub opt_out_confirmation: String,
    /// Who changed it last.
    pub updated_by: Option<Uuid>,
    /// When.
    pub updated_at: DateTime<Utc>,
}

/// The defaults, for organisations that have chosen nothing. The same stand in the migration.
impl Organization {
    /// Returns the settings of an organisation that has chosen nothing.
    pub fn default_of(organization: Uuid) -> Organization {
        Organization {
            organization_id: organization,
            timezone: "Asia/Shanghai".to_owned(),
            opt_out_words: Vec::new(),
            handoff_words: Vec::new(),
            opt_out_confirmation: "好的，以后不再给您发送消息。如需帮助，随时回复我们。".to_owned(),
            updated_by: None,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }
}

/// Returns what the organisation has chosen, or the defaults.
pub async fn organization(conn: &mut Conn, organization: Uuid) -> Result<Organization> {
    let chosen = organization_settings::table
        .find(organization)
        .select(Organization::as_select())
        .first(conn)
        .await
        .optional()?;
    Ok(chosen.unwrap_or_else(|| Organization::default_of(organization)))
}

/// Who answers for an account, and how.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = account_ai, treat_none_as_null = true)]
pub struct AccountAi {
    /// The account.
    pub account_id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// False: nobody answers by machine.
    pub enabled: bool,
    /// The workflow that writes the answers.
    pub workflow_id: Option<Uuid>,
    /// A turn ends when nothing came for so long.
    pub quiet_ms: i32,
    /// A turn ends so long after its first message.
    pub max_ms: i32,
    /// A turn ends with so many messages.
    pub max_messages: i32,
    /// `off` or `at_only`.
    pub groups: String,
    /// How long a person who types on the phone keeps the chat, and how long a handoff lasts.
    pub takeover_minutes: i32,
    /// A message that is older when it comes in is not answered.
    pub max_age_seconds: i32,
    /// `none` or `human`.
    pub review: String,
    /// How long an answer waits for its review.
    pub draft_minutes: i32,
    /// Said once per conversation before the first answer; empty: nothing.
    pub disclosure: String,
    /// Only these people and groups; empty with `allow_tags`: everybody.
    pub allow_wxids: Vec<String>,
    /// Only contacts with one of these tags.
    pub allow_tags: Vec<String>,
    /// Never these people and groups. Blocking wins over allowing.
    pub block_wxids: Vec<String>,
    /// Never contacts with one of these tags.
    pub block_tags: Vec<String>,
    /// An online account from which nothing came for so long raises an alert; 0: never.
    pub silence_minutes: i32,
    /// Who changed it last.
    pub updated_by: Option<Uuid>,
    /// When.
    pub updated_at: DateTime<Utc>,
}

/// Returns who answers for an account; none: it was never set, nobody answers by machine.
pub async fn account_ai(conn: &mut Conn, organization: Uuid, account: Uuid) -> Result<Option<AccountAi>> {
    Ok(account_ai::table
        .find(account)
        .filter(account_ai::organization_id.eq(organization))
        .select(AccountAi::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// A FastGPT app, by the name that people use for it.
#[derive(Clone, Queryable, Selectable, Insertable, Identifiable, AsChangeset)]
#[diesel(table_name = ai_workflows, treat_none_as_null = true)]
pub struct Workflow {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// Unique in the organisation.
    pub alias: String,
    /// Sealed.
    pub api_key: String,
    /// Keyed hash of the key.
    pub key_hash: String,
    /// None: that of this install.
    pub endpoint: Option<String>,
    /// FastGPT's id of the app; needed to look up runs of unknown outcome.
    pub app_id: Option<String>,
    /// Ask for the answer as a stream.
    pub stream: bool,
    /// Runs in any minute, over all workflows of this key.
    pub requests_per_minute: i32,
    /// How long a run may take.
    pub timeout_ms: i32,
    /// Reserved in every budget before a run.
    pub reserve_yuan: BigDecimal,
    /// Passed to FastGPT with every run.
    pub variables: Value,
    /// Who added it.
    pub created_by: Option<Uuid>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// When it was removed.
    pub deleted_at: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for Workflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workflow").field("id", &self.id).field("alias", &self.alias).finish_non_exhaustive()
    }
}

/// What a sealed key of a workflow is bound to.
pub fn key_context(organization: Uuid) -> String {
    format!("org:{organization}/fastgpt_key")
}

/// Returns a workflow of the organisation, unless it was removed.
pub async fn workflow(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Workflow>> {
    Ok(ai_workflows::table
        .find(id)
        .filter(ai_workflows::organization_id.eq(organization).and(ai_workflows::deleted_at.is_null()))
        .select(Workflow::as_select())
        .first(conn)
        .await
        .optional()?)
}
