//! How far the fetching of an account's contacts has come, and what it fetches.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::tables::contact_syncs;
use crate::{Conn, Result};

/// One account's latest sync.
#[derive(Debug, Clone, PartialEq, Queryable, Selectable)]
#[diesel(table_name = contact_syncs)]
pub struct Sync {
    /// The account.
    pub account_id: Uuid,
    /// The job that does it.
    pub job_id: Option<Uuid>,
    /// `listing`, `fetching`, `done` or `failed`.
    pub state: String,
    /// Contacts in the list.
    pub total: i32,
    /// Those that were fetched.
    pub fetched: i32,
    /// What is still to be asked for; written and read by the job alone.
    pub remaining: Value,
    /// Why it failed.
    pub error: Option<String>,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it last got on.
    pub updated_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Returns the latest sync of an account.
pub async fn get(conn: &mut Conn, organization: Uuid, account: Uuid) -> Result<Option<Sync>> {
    Ok(contact_syncs::table
        .find(account)
        .filter(contact_syncs::organization_id.eq(organization))
        .select(Sync::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Begins the sync of `job`, unless it has begun, and returns how far it is.
///
/// A job that failed and was revived begins anew.
pub async fn begin(conn: &mut Conn, organization: Uuid, account: Uuid, job: Uuid) -> Result<Option<Sync>> {
    sql_query(
        "INSERT INTO contact_syncs (account_id, organization_id, job_id, state) VALUES ($2, $1, $3, 'listing') \
         ON CONFLICT (account_id) DO UPDATE SET job_id = $3, state = 'listing', total = 0, fetched = 0, \
             remaining = '[]', error = NULL, started_at = clock_timestamp(), updated_at = clock_timestamp(), \
             finished_at = NULL \
         WHERE contact_syncs.organization_id = $1 \
           AND (contact_syncs.job_id IS DISTINCT FROM $3 OR contact_syncs.state = 'failed')",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<SqlUuid, _>(job)
    .execute(conn)
    .await?;
    get(conn, organization, account).await
}

/// Where a sync stands after a step.
#[derive(Debug, Clone)]
pub struct Progress<'a> {
    /// `listing`, `fetching` or `done`.
    pub state: &'a str,
    /// Contacts in the list.
    pub total: i32,
    /// Those that were fetched.
    pub fetched: i32,
    /// What is still to be asked for.
    pub remaining: &'a Value,
}

/// Writes down a step. Returns false if the sync is another job's by now, or over.
pub async fn advance(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    job: Uuid,
    progress: &Progress<'_>,
) -> Result<bool> {
    let changed = sql_query(
        "UPDATE contact_syncs SET state = $4, total = $5, fetched = $6, remaining = $7, error = NULL, \
             updated_at = clock_timestamp(), finished_at = CASE WHEN $4 = 'done' THEN clock_timestamp() END \
         WHERE account_id = $2 AND organization_id = $1 AND job_id = $3 AND state IN ('listing', 'fetching')",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<SqlUuid, _>(job)
    .bind::<Text, _>(progress.state)
    .bind::<Integer, _>(progress.total)
    .bind::<Integer, _>(progress.fetched)
    .bind::<Jsonb, _>(progress.remaining)
    .execute(conn)
    .await?;
    Ok(changed == 1)
}

/// Writes down what went wrong; `over`: nothing more is tried.
pub async fn trouble(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    job: Uuid,
    what: &str,
    over: bool,
) -> Result<()> {
    sql_query(
        "UPDATE contact_syncs SET error = $4, updated_at = clock_timestamp(), \
             state = CASE WHEN $5 THEN 'failed' ELSE state END, \
             finished_at = CASE WHEN $5 THEN clock_timestamp() ELSE finished_at END \
         WHERE account_id = $2 AND organization_id = $1 AND job_id = $3 AND state IN ('listing', 'fetching')",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<SqlUuid, _>(job)
    .bind::<Text, _>(what)
    .bind::<diesel::sql_types::Bool, _>(over)
    .execute(conn)
    .await?;
    Ok(())
}

/// A contact as it was fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Its id.
    pub wxid: String,
    /// `friend`, `group` or `official`.
    pub kind: &'static str,
    /// The name that it has given itself.
    pub nickname: String,
    /// What the account's owner calls it.
    pub remark: String,
    /// The WeChat number.
    pub alias: Option<String>,
    /// Address of the picture.
    pub avatar: Option<String>,
    /// WeChat's labels by name. None: they are not known, and what is stored stays.
    pub labels: Option<Vec<String>>,
}

/// Stores contacts that were fetched. What people of ours set of them, tags above all, stays.
///
/// What a person said about the contact while it was fetched is not lost either: the next event says it again.
pub async fn store(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    contacts: &mut Vec<Fetched>,
) -> Result<()> {
    // In the order of a unique index, as everybody who writes several of them; and each once.
    contacts.sort_by(|a, b| a.wxid.cmp(&b.wxid));
    contacts.dedup_by(|a, b| a.wxid == b.wxid);
    let column = |of: fn(&Fetched) -> String| contacts.iter().map(of).collect::<Vec<_>>();
    // An array of arrays must be a rectangle, so labels travel as JSON.
    let labels: Vec<Option<Value>> = contacts
        .iter()
        .map(|contact| contact.labels.as_ref().map(|labels| serde_json::json!(labels)))
        .collect();
    sql_query(
        "INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname, remark, alias, avatar, labels, \
             synced_at) \
         SELECT t.id, $1, $2, t.wxid, t.kind, t.nickname, t.remark, t.alias, t.avatar, \
             COALESCE((SELECT array_agg(x ORDER BY x) FROM jsonb_array_elements_text(t.labels) AS x), '{}'), \
             clock_timestamp() \
         FROM unnest($3, $4, $5, $6, $7, $8, $9, $10) \
             AS t (id, wxid, kind, nickname, remark, alias, avatar, labels) \
         ORDER BY t.wxid \
         ON CONFLICT (account_id, wxid) DO UPDATE SET nickname = EXCLUDED.nickname, remark = EXCLUDED.remark, \
             kind = EXCLUDED.kind, alias = COALESCE(EXCLUDED.alias, contacts.alias), \
             avatar = COALESCE(EXCLUDED.avatar, contacts.avatar), \
             labels = CASE WHEN $11 THEN EXCLUDED.labels ELSE contacts.labels END, \
             removed_at = NULL, synced_at = EXCLUDED.synced_at, updated_at = EXCLUDED.synced_at \
         WHERE contacts.organization_id = EXCLUDED.organization_id",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<Array<SqlUuid>, _>(contacts.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .bind::<Array<Text>, _>(column(|contact| contact.wxid.clone()))
    .bind::<Array<Text>, _>(column(|contact| contact.kind.to_owned()))
    .bind::<Array<Text>, _>(column(|contact| contact.nickname.clone()))
    .bind::<Array<Text>, _>(column(|contact| contact.remark.clone()))
    .bind::<Array<Nullable<Text>>, _>(contacts.iter().map(|c| c.alias.clone()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Text>>, _>(contacts.iter().map(|c| c.avatar.clone()).collect::<Vec<_>>())
    .bind::<Array<Nullable<Jsonb>>, _>(&labels)
    .bind::<diesel::sql_types::Bool, _>(contacts.iter().all(|contact| contact.labels.is_some()))
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that friends and public accounts which are not in the complete list of a sync are gone; returns how many.
///
/// Groups stay: the list holds only those that were saved to the address book. So do contacts of WeCom, which have a list
/// of their own, and who became known or changed after the sync had begun.
pub async fn remove_missing(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    listed: &[String],
) -> Result<usize> {
    Ok(sql_query(
        "WITH gone AS ( \
             SELECT c.id FROM contacts c JOIN contact_syncs s ON s.account_id = c.account_id \
             WHERE c.account_id = $2 AND c.organization_id = $1 AND c.removed_at IS NULL \
               AND c.kind IN ('friend', 'official') AND c.wxid NOT LIKE '%@openim' AND c.synced_at IS NOT NULL \
               AND c.updated_at < s.started_at AND NOT EXISTS (SELECT FROM unnest($3) AS l (wxid) WHERE l.wxid = c.wxid) \
             ORDER BY c.wxid FOR UPDATE OF c \
         ) UPDATE contacts SET removed_at = clock_timestamp(), updated_at = clock_timestamp() FROM gone \
         WHERE contacts.id = gone.id",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<Array<Text>, _>(listed)
    .execute(conn)
    .await?)
}

/// A member of a group, as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub wxid: String,
    /// The name that it has given itself.
    pub nickname: String,
    /// Its name in this group.
    pub display_name: String,
}

/// Makes the members of a group those that were fetched.
pub async fn store_members(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    group: &str,
    members: &[Member],
) -> Result<()> {
    let mut members: Vec<&Member> = members.iter().collect();
    members.sort_by(|a, b| a.wxid.cmp(&b.wxid));
    members.dedup_by(|a, b| a.wxid == b.wxid);
    let column = |of: fn(&Member) -> &str| members.iter().map(|member| of(member)).collect::<Vec<_>>();
    sql_query(
        "WITH told AS (SELECT * FROM unnest($4, $5, $6) AS t (wxid, nickname, display_name)), \
         gone AS ( \
             DELETE FROM group_members WHERE account_id = $2 AND group_wxid = $3 AND organization_id = $1 \
                 AND wxid NOT IN (SELECT wxid FROM told) \
         ) \
         INSERT INTO group_members (account_id, group_wxid, wxid, organization_id, nickname, display_name) \
         SELECT $2, $3, wxid, $1, nickname, display_name FROM told ORDER BY wxid \
         ON CONFLICT (account_id, group_wxid, wxid) DO UPDATE SET nickname = EXCLUDED.nickname, \
             display_name = EXCLUDED.display_name",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<Text, _>(group)
    .bind::<Array<Text>, _>(column(|member| &member.wxid))
    .bind::<Array<Text>, _>(column(|member| &member.nickname))
    .bind::<Array<Text>, _>(column(|member| &member.display_name))
    .execute(conn)
    .await?;
    Ok(())
}

/// An account that something is to be done for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Due {
    /// The account.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Its tenant.
    #[diesel(sql_type = SqlUuid)]
    pub organization_id: Uuid,
}

/// Returns accounts with a device in one of `states`, of all organisations, in the order of their ids, after `after`.
pub async fn accounts_in(conn: &mut Conn, states: &[&str], after: Uuid, limit: i64) -> Result<Vec<Due>> {
    Ok(sql_query(
        "SELECT id, organization_id FROM wechat_accounts WHERE id > $2 AND status = ANY($1) \
         AND gewe_app_id IS NOT NULL AND deleted_at IS NULL ORDER BY id LIMIT $3",
    )
    .bind::<Array<Text>, _>(states)
    .bind::<SqlUuid, _>(after)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?)
}

/// An online account from which nothing came for longer than its organisation finds right.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct Silent {
    /// The account.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Its tenant.
    #[diesel(sql_type = SqlUuid)]
    pub organization_id: Uuid,
    /// Since when.
    #[diesel(sql_type = diesel::sql_types::Timestamptz)]
    pub last_seen_at: DateTime<Utc>,
    /// After how many minutes that is too long.
    #[diesel(sql_type = Integer)]
    pub silence_minutes: i32,
}

/// Returns silent accounts of all organisations, in the order of their ids, after `after`.
pub async fn silent(conn: &mut Conn, after: Uuid, limit: i64) -> Result<Vec<Silent>> {
    Ok(sql_query(
        "SELECT a.id, a.organization_id, a.last_seen_at, ai.silence_minutes FROM account_ai ai \
         JOIN wechat_accounts a ON a.id = ai.account_id \
         WHERE a.id > $1 AND ai.silence_minutes > 0 AND a.status = 'ONLINE' AND a.deleted_at IS NULL \
           AND a.last_seen_at < clock_timestamp() - ai.silence_minutes * interval '1 minute' \
         ORDER BY a.id LIMIT $2",
    )
    .bind::<SqlUuid, _>(after)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?)
}
