//! What organisations and accounts have chosen for conversations: time zone, words, who answers, with which workflow.

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::tables::{account_ai, ai_workflows, organization_settings, wechat_accounts};
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
    /// `HH:MM` of the contact's day from which campaigns write.
    pub campaign_from: String,
    /// `HH:MM` until which they do.
    pub campaign_until: String,
    /// Messages of campaigns to one contact on one day.
    pub contact_per_day: i32,
    /// The same in a week.
    pub contact_per_week: i32,
    /// Messages of campaigns from one account on one day.
    pub account_per_day: i32,
    /// Of those, to contacts that have never answered.
    pub new_contacts_per_day: i32,
    /// Messages of campaigns in a row without an answer.
    pub max_unanswered: i32,
    /// Every plan needs an approval, whatever it says itself.
    pub approval_required: bool,
    /// The organisation's name in texts; empty: its own.
    pub campaign_name: String,
    /// Words with which customers complain, beside the built-in ones.
    pub complaint_words: Vec<String>,
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
            campaign_from: "09:00".to_owned(),
            campaign_until: "21:00".to_owned(),
            contact_per_day: 2,
            contact_per_week: 5,
            account_per_day: 150,
            new_contacts_per_day: 30,
            max_unanswered: 3,
            approval_required: true,
            campaign_name: String::new(),
            complaint_words: Vec::new(),
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

/// Locks the organisation's settings for a change and returns them; where none are stored yet, the defaults.
pub async fn lock_organization(conn: &mut Conn, organization: Uuid) -> Result<Organization> {
    // A row to lock: two first changes at once must not each begin with the defaults.
    diesel::insert_into(organization_settings::table)
        .values(Organization::default_of(organization))
        .on_conflict_do_nothing()
        .execute(conn)
        .await?;
    Ok(organization_settings::table
        .find(organization)
        .for_update()
        .select(Organization::as_select())
        .first(conn)
        .await?)
}

/// Writes what the organisation has chosen. The last one to write wins.
pub async fn put_organization(conn: &mut Conn, chosen: &Organization) -> Result<()> {
    diesel::insert_into(organization_settings::table)
        .values(chosen)
        .on_conflict(organization_settings::organization_id)
        .do_update()
        .set(chosen)
        .execute(conn)
        .await?;
    Ok(())
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

/// The defaults, for accounts for which nothing was chosen. The same stand in the migration.
impl AccountAi {
    /// Returns what holds for an account for which nothing was chosen: nobody answers by machine.
    pub fn default_of(organization: Uuid, account: Uuid) -> AccountAi {
        AccountAi {
            account_id: account,
            organization_id: organization,
            enabled: false,
            workflow_id: None,
            quiet_ms: 4000,
            max_ms: 15_000,
            max_messages: 10,
            groups: "off".to_owned(),
            takeover_minutes: 30,
            max_age_seconds: 600,
            review: "none".to_owned(),
            draft_minutes: 60,
            disclosure: "您好，我是 AI 智能助手，以下内容由 AI 生成，如需人工服务请回复“转人工”。".to_owned(),
            allow_wxids: Vec::new(),
            allow_tags: Vec::new(),
            block_wxids: Vec::new(),
            block_tags: Vec::new(),
            silence_minutes: 0,
            updated_by: None,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }
}

/// Writes who answers for an account. The last one to write wins.
pub async fn put_account_ai(conn: &mut Conn, chosen: &AccountAi) -> Result<()> {
    diesel::insert_into(account_ai::table)
        .values(chosen)
        .on_conflict(account_ai::account_id)
        .do_update()
        .set(chosen)
        .execute(conn)
        .await?;
    Ok(())
}

/// Name of the index that an alias in use runs into.
pub const ALIAS_KEY: &str = "ai_workflows_alias_key";

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

/// Returns the workflow of the organisation that has this alias.
pub async fn workflow_named(conn: &mut Conn, organization: Uuid, alias: &str) -> Result<Option<Workflow>> {
    Ok(ai_workflows::table
        .filter(ai_workflows::organization_id.eq(organization).and(ai_workflows::deleted_at.is_null()))
        .filter(ai_workflows::alias.eq(alias))
        .select(Workflow::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns the organisation's workflows, newest first, older than `before`.
pub async fn workflows(
    conn: &mut Conn,
    organization: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Workflow>> {
    let mut query = ai_workflows::table
        .filter(ai_workflows::organization_id.eq(organization).and(ai_workflows::deleted_at.is_null()))
        .order(ai_workflows::id.desc())
        .limit(limit)
        .select(Workflow::as_select())
        .into_boxed();
    if let Some(before) = before {
        query = query.filter(ai_workflows::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Returns the id of the workflow with this alias, and keeps it from being removed until the caller's transaction ends.
pub async fn hold_workflow(conn: &mut Conn, organization: Uuid, alias: &str) -> Result<Option<Uuid>> {
    Ok(ai_workflows::table
        .filter(ai_workflows::organization_id.eq(organization).and(ai_workflows::alias.eq(alias)))
        .filter(ai_workflows::deleted_at.is_null())
        .for_share()
        .select(ai_workflows::id)
        .first(conn)
        .await
        .optional()?)
}

/// Locks a workflow for a change and returns it, unless it was removed.
pub async fn lock_workflow(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Workflow>> {
    Ok(ai_workflows::table
        .find(id)
        .filter(ai_workflows::organization_id.eq(organization).and(ai_workflows::deleted_at.is_null()))
        .for_update()
        .select(Workflow::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Adds a workflow. An alias in use violates [`ALIAS_KEY`].
pub async fn insert_workflow(conn: &mut Conn, workflow: &Workflow) -> Result<()> {
    diesel::insert_into(ai_workflows::table).values(workflow).execute(conn).await?;
    Ok(())
}

/// Writes back a workflow that the caller has locked. An alias in use violates [`ALIAS_KEY`].
pub async fn update_workflow(conn: &mut Conn, workflow: &Workflow) -> Result<()> {
    diesel::update(workflow).set(workflow).execute(conn).await?;
    Ok(())
}

/// Counts the accounts that name a workflow, those that were removed left out.
pub async fn accounts_of_workflow(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<i64> {
    Ok(account_ai::table
        .inner_join(wechat_accounts::table.on(wechat_accounts::id.eq(account_ai::account_id)))
        .filter(account_ai::organization_id.eq(organization).and(account_ai::workflow_id.eq(id)))
        .filter(wechat_accounts::deleted_at.is_null())
        .count()
        .get_result(conn)
        .await?)
}
