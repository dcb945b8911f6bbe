//! Plans, as people edit them. What runs is a version.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::{ai_workflows, contacts, organizations, sop_enrollments, sop_tasks, wechat_accounts};
use crate::{Conn, Result};

/// A plan.
#[derive(Clone, Queryable, Selectable, Insertable, Identifiable, AsChangeset)]
#[diesel(table_name = sop_tasks, treat_none_as_null = true)]
pub struct Plan {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// Who made it.
    pub user_id: Uuid,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// `friend`, `group` or `tag`.
    pub target_type: String,
    /// Ids of contacts, or words of tags.
    pub target_ids: Vec<String>,
    /// The accounts that write; empty: all of the organisation.
    pub account_ids: Vec<Uuid>,
    /// It is meant for everybody, said in so many words.
    pub everyone: bool,
    /// The draft.
    pub workflow_config: Value,
    /// Where its life stands.
    pub status: String,
    /// Why it is paused, when a person did not do it.
    pub status_reason: Option<String>,
    /// The version that new people are enrolled in.
    pub version: Option<i32>,
    /// When its trigger fired last.
    pub triggered_at: Option<DateTime<Utc>>,
    /// When its trigger fires next.
    pub next_trigger_at: Option<DateTime<Utc>>,
    /// When it was started first.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
}

impl std::fmt::Debug for Plan {
    /// What it says to customers stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("id", &self.id).field("status", &self.status).finish_non_exhaustive()
    }
}

/// Adds a plan.
pub async fn insert(conn: &mut Conn, plan: &Plan) -> Result<()> {
    diesel::insert_into(sop_tasks::table).values(plan).execute(conn).await?;
    Ok(())
}

/// Returns a plan. None: the organisation has no such plan.
pub async fn get(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Plan>> {
    Ok(sop_tasks::table
        .find(id)
        .filter(sop_tasks::organization_id.eq(organization))
        .select(Plan::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Locks a plan for a change and returns it.
pub async fn lock(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Plan>> {
    Ok(sop_tasks::table
        .find(id)
        .filter(sop_tasks::organization_id.eq(organization))
        .for_update()
        .select(Plan::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Writes back a plan that the caller has locked.
pub async fn update(conn: &mut Conn, plan: &Plan) -> Result<()> {
    diesel::update(plan).set(plan).execute(conn).await?;
    Ok(())
}

/// A plan on a page: without its draft, where the page would become too long.
#[derive(Debug, Clone, QueryableByName)]
pub struct Listed {
    /// UUIDv7.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The tenant.
    #[diesel(sql_type = SqlUuid)]
    pub organization_id: Uuid,
    /// Who made it.
    #[diesel(sql_type = SqlUuid)]
    pub user_id: Uuid,
    /// What people call it.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// What it is for.
    #[diesel(sql_type = Text)]
    pub description: String,
    /// `friend`, `group` or `tag`.
    #[diesel(sql_type = Text)]
    pub target_type: String,
    /// Ids of contacts, or words of tags; none: the page would become too long.
    #[diesel(sql_type = Nullable<Array<Text>>)]
    pub target_ids: Option<Vec<String>>,
    /// The accounts that write; empty: all of the organisation.
    #[diesel(sql_type = Array<SqlUuid>)]
    pub account_ids: Vec<Uuid>,
    /// It is meant for everybody.
    #[diesel(sql_type = Bool)]
    pub everyone: bool,
    /// The draft; none: the page would become too long.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub workflow_config: Option<Value>,
    /// Where its life stands.
    #[diesel(sql_type = Text)]
    pub status: String,
    /// Why it is paused, when a person did not do it.
    #[diesel(sql_type = Nullable<Text>)]
    pub status_reason: Option<String>,
    /// The version that new people are enrolled in.
    #[diesel(sql_type = Nullable<Integer>)]
    pub version: Option<i32>,
    /// When its trigger fires next.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub next_trigger_at: Option<DateTime<Utc>>,
    /// When it was started first.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it was made.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    #[diesel(sql_type = Timestamptz)]
    pub updated_at: DateTime<Utc>,
}

/// Returns the organisation's plans, newest first, older than `before`, all or those with one status. Drafts and targets are
/// left out from where on they would have more than `most_bytes` together.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    status: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
    most_bytes: i64,
) -> Result<Vec<Listed>> {
    Ok(sql_query(
        "WITH page AS (
             SELECT id, organization_id, user_id, name, description, target_type, target_ids, account_ids, everyone, \
                 workflow_config, status, status_reason, version, next_trigger_at, started_at, created_at, updated_at
             FROM sop_tasks
             WHERE organization_id = $1 AND ($2 IS NULL OR status = $2) AND ($3 IS NULL OR id < $3)
             ORDER BY id DESC
             LIMIT $4
         ), measured AS (
             SELECT page.id, sum(octet_length(workflow_config::text) + octet_length(target_ids::text)) \
                 OVER (ORDER BY page.id DESC) <= $5 AS fits
             FROM page
         )
         SELECT page.id, organization_id, user_id, name, description, target_type, \
             CASE WHEN fits THEN target_ids END AS target_ids, account_ids, everyone, \
             CASE WHEN fits THEN workflow_config END AS workflow_config, status, status_reason, version, \
             next_trigger_at, started_at, created_at, updated_at
         FROM page JOIN measured ON measured.id = page.id
         ORDER BY page.id DESC",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Nullable<Text>, _>(status)
    .bind::<Nullable<SqlUuid>, _>(before)
    .bind::<BigInt, _>(limit)
    .bind::<BigInt, _>(most_bytes)
    .load(conn)
    .await?)
}

/// Counts the organisation's plans that are not archived.
pub async fn count(conn: &mut Conn, organization: Uuid) -> Result<i64> {
    Ok(sop_tasks::table
        .filter(sop_tasks::organization_id.eq(organization).and(sop_tasks::status.ne("ARCHIVED")))
        .count()
        .get_result(conn)
        .await?)
}

/// Returns those of `ids` that are contacts of the organisation and of this kind.
pub async fn known_contacts(
    conn: &mut Conn,
    organization: Uuid,
    ids: &[Uuid],
    kind: &str,
) -> Result<Vec<Uuid>> {
    Ok(contacts::table
        .filter(contacts::id.eq_any(ids))
        .filter(contacts::organization_id.eq(organization).and(contacts::kind.eq(kind)))
        .select(contacts::id)
        .load(conn)
        .await?)
}

/// Counts the people who are on their way through a plan, by version.
pub async fn live_by_version(conn: &mut Conn, organization: Uuid, sop: Uuid) -> Result<Vec<(i32, i64)>> {
    Ok(sop_enrollments::table
        .filter(sop_enrollments::organization_id.eq(organization).and(sop_enrollments::sop_id.eq(sop)))
        // By their states, which one index has all that is asked for.
        .filter(sop_enrollments::state.eq_any(["pending", "active", "waiting", "paused"]))
        .group_by(sop_enrollments::version)
        .select((sop_enrollments::version, diesel::dsl::count_star()))
        .load(conn)
        .await?)
}

/// Returns the aliases of the organisation's workflows.
pub async fn workflow_aliases(conn: &mut Conn, organization: Uuid) -> Result<Vec<String>> {
    Ok(ai_workflows::table
        .filter(ai_workflows::organization_id.eq(organization).and(ai_workflows::deleted_at.is_null()))
        .select(ai_workflows::alias)
        .load(conn)
        .await?)
}

/// Returns the names under which the organisation writes: its own, those of its accounts and of their advisers.
pub async fn sender_names(conn: &mut Conn, organization: Uuid) -> Result<Vec<String>> {
    let mut names: Vec<String> =
        organizations::table.find(organization).select(organizations::name).load(conn).await?;
    let accounts: Vec<(String, Option<String>)> = wechat_accounts::table
        .filter(wechat_accounts::organization_id.eq(organization).and(wechat_accounts::deleted_at.is_null()))
        .select((wechat_accounts::nickname, wechat_accounts::adviser_name))
        .load(conn)
        .await?;
    for (nickname, adviser) in accounts {
        names.push(nickname);
        names.extend(adviser);
    }
    Ok(names)
}

/// How many people a plan may reach through one account, before its filter was asked.
#[derive(Debug, Clone, QueryableByName)]
pub struct Reach {
    /// What people call the account.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// How many people.
    #[diesel(sql_type = BigInt)]
    pub recipients: i64,
}

/// Returns how many people a plan may reach through each account, before its filter was asked. `targets` are ids of contacts,
/// or words of tags; without any, all contacts of the kind count.
pub async fn reach(conn: &mut Conn, plan: &Plan, kind: &str) -> Result<Vec<Reach>> {
    Ok(sql_query(
        "SELECT wechat_accounts.nickname AS name, count(*) AS recipients
         FROM contacts JOIN wechat_accounts ON wechat_accounts.id = contacts.account_id
         WHERE contacts.organization_id = $1 AND wechat_accounts.deleted_at IS NULL AND contacts.removed_at IS NULL
             AND contacts.suppressed_at IS NULL AND contacts.kind = $2
             AND (cardinality($3) = 0 OR contacts.account_id = ANY($3))
             AND (cardinality($4) = 0 OR CASE WHEN $5 THEN contacts.tags && $4 ELSE contacts.id::text = ANY($4) END)
         GROUP BY wechat_accounts.id, wechat_accounts.nickname
         ORDER BY recipients DESC
         LIMIT 1000",
    )
    .bind::<SqlUuid, _>(plan.organization_id)
    .bind::<Text, _>(kind)
    .bind::<Array<SqlUuid>, _>(&plan.account_ids)
    .bind::<Array<Text>, _>(&plan.target_ids)
    .bind::<Bool, _>(plan.target_type == "tag")
    .load(conn)
    .await?)
}

/// A plan whose trigger of time is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Due {
    /// The plan.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The tenant.
    #[diesel(sql_type = SqlUuid)]
    pub organization_id: Uuid,
    /// The version that new people are enrolled in.
    #[diesel(sql_type = Integer)]
    pub version: i32,
    /// The time that was set.
    #[diesel(sql_type = Timestamptz)]
    pub fire_at: DateTime<Utc>,
    /// The clock of campaigns.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Flag {
    #[diesel(sql_type = Bool)]
    found: bool,
}

/// Tells whether the time of any plan has come: one index probe.
pub async fn any_due(conn: &mut Conn) -> Result<bool> {
    let row = sql_query(
        "SELECT EXISTS (SELECT FROM sop_tasks WHERE status = 'RUNNING' AND next_trigger_at IS NOT NULL \
             AND next_trigger_at <= (SELECT campaign_now())) AS found",
    )
    .cached()
    .get_result::<Flag>(conn)
    .await?;
    Ok(row.found)
}

/// Locks plans that run and whose time has come, the oldest first; those that somebody else is busy with are skipped.
pub async fn take_due(conn: &mut Conn, limit: i64) -> Result<Vec<Due>> {
    Ok(sql_query(
        "SELECT id, organization_id, version, next_trigger_at AS fire_at, (SELECT campaign_now()) AS now FROM sop_tasks \
         WHERE status = 'RUNNING' AND version IS NOT NULL AND next_trigger_at IS NOT NULL \
           AND next_trigger_at <= (SELECT campaign_now()) \
         ORDER BY next_trigger_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED",
    )
    .bind::<BigInt, _>(limit)
    .cached()
    .load(conn)
    .await?)
}

/// Writes when the trigger of a plan, which the caller has locked, has fired and fires next.
pub async fn fired(
    conn: &mut Conn,
    id: Uuid,
    fired_at: Option<DateTime<Utc>>,
    next: Option<DateTime<Utc>>,
) -> Result<()> {
    sql_query(
        "UPDATE sop_tasks SET triggered_at = COALESCE($2, triggered_at), next_trigger_at = $3 WHERE id = $1",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Nullable<Timestamptz>, _>(fired_at)
    .bind::<Nullable<Timestamptz>, _>(next)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}
