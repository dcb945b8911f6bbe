//! What must be known of an enrollment before anything is said for it, and what was approved.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::sop_versions;
use crate::{Conn, Result};

/// What is known of an enrollment's surroundings.
#[derive(Debug, Clone, QueryableByName)]
pub struct Facts {
    /// The clock of campaigns.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
    /// The true clock.
    #[diesel(sql_type = Timestamptz)]
    pub true_now: DateTime<Utc>,
    /// How the plan stands.
    #[diesel(sql_type = Text)]
    pub plan_status: String,
    /// The other side's id in WeChat.
    #[diesel(sql_type = Text)]
    pub wxid: String,
    /// `friend` or `group`.
    #[diesel(sql_type = Text)]
    pub contact_kind: String,
    /// The name that it has given itself.
    #[diesel(sql_type = Text)]
    pub nickname: String,
    /// What the account's owner calls it.
    #[diesel(sql_type = Text)]
    pub remark: String,
    /// Our words for it.
    #[diesel(sql_type = Array<Text>)]
    pub tags: Vec<String>,
    /// Values for texts.
    #[diesel(sql_type = Jsonb)]
    pub variables: Value,
    /// How it came to us.
    #[diesel(sql_type = Nullable<Text>)]
    pub source: Option<String>,
    /// Since when it is a friend.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub added_at: Option<DateTime<Utc>>,
    /// Its zone.
    #[diesel(sql_type = Nullable<Text>)]
    pub contact_zone: Option<String>,
    /// Nothing that a machine writes goes to it.
    #[diesel(sql_type = Bool)]
    pub suppressed: bool,
    /// It is no friend any more, or the group was left.
    #[diesel(sql_type = Bool)]
    pub removed: bool,
    /// It wants no more messages.
    #[diesel(sql_type = Bool)]
    pub opted_out: bool,
    /// What it has agreed to.
    #[diesel(sql_type = Array<Text>)]
    pub purposes: Vec<String>,
    /// What of it, its account, its plan or its organisation is stopped: `organization`, `account`, `sop`, `ai`.
    #[diesel(sql_type = Array<Text>)]
    pub stops: Vec<String>,
    /// State of the account.
    #[diesel(sql_type = Text)]
    pub account_status: String,
    /// The account was removed.
    #[diesel(sql_type = Bool)]
    pub account_gone: bool,
    /// Since when the account has been logged in.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub warm_since: Option<DateTime<Utc>>,
    /// Limit of the account.
    #[diesel(sql_type = Integer)]
    pub messages_per_minute: i32,
    /// Limit of the account, in milliseconds.
    #[diesel(sql_type = Integer)]
    pub min_gap_ms: i32,
    /// When its last hold was lifted.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub risk_lifted_at: Option<DateTime<Utc>>,
    /// The name of the adviser in texts.
    #[diesel(sql_type = Nullable<Text>)]
    pub adviser_name: Option<String>,
    /// The conversation; none: nobody has written yet.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub conversation_id: Option<Uuid>,
    /// Who answers in it, as it was set.
    #[diesel(sql_type = Nullable<Text>)]
    pub mode: Option<String>,
    /// When that ends by itself.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub mode_until: Option<DateTime<Utc>>,
    /// The other side's latest message.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last_inbound_at: Option<DateTime<Utc>>,
    /// What it said.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_inbound_text: Option<String>,
    /// The organisation's name in texts.
    #[diesel(sql_type = Text)]
    pub organization_name: String,
    /// The organisation's zone.
    #[diesel(sql_type = Nullable<Text>)]
    pub organization_zone: Option<String>,
    /// When campaigns may begin to write on a day.
    #[diesel(sql_type = Text)]
    pub campaign_from: String,
    /// When they end.
    #[diesel(sql_type = Text)]
    pub campaign_until: String,
    /// Cap.
    #[diesel(sql_type = Integer)]
    pub contact_per_day: i32,
    /// Cap.
    #[diesel(sql_type = Integer)]
    pub contact_per_week: i32,
    /// Cap.
    #[diesel(sql_type = Integer)]
    pub account_per_day: i32,
    /// Cap.
    #[diesel(sql_type = Integer)]
    pub new_contacts_per_day: i32,
    /// Cap.
    #[diesel(sql_type = Integer)]
    pub max_unanswered: i32,
    /// Holidays and make-up days by year, as the organisation has corrected them.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub calendars: Option<Value>,
}

pub(super) const FACTS: &str = "\
SELECT campaign_now() AS now, clock_timestamp() AS true_now, t.status AS plan_status,
    k.wxid, k.kind AS contact_kind, k.nickname, k.remark, k.tags, k.variables, k.source, k.added_at,
    k.timezone AS contact_zone, k.suppressed_at IS NOT NULL AS suppressed, k.removed_at IS NOT NULL AS removed,
    EXISTS (SELECT FROM opt_outs x WHERE x.organization_id = e.organization_id AND x.wxid = k.wxid) AS opted_out,
    ARRAY(SELECT s.purpose FROM consents s WHERE s.contact_id = k.id AND s.withdrawn_at IS NULL) AS purposes,
    ARRAY(SELECT s.scope FROM stops s WHERE s.organization_id = e.organization_id AND (s.scope IN ('organization', 'ai')
        OR (s.scope = 'account' AND s.scope_id = e.account_id) OR (s.scope = 'sop' AND s.scope_id = e.sop_id))) AS stops,
    a.status AS account_status, a.deleted_at IS NOT NULL AS account_gone, a.warm_since, a.risk_lifted_at, a.adviser_name,
    a.messages_per_minute, a.min_gap_ms,
    c.id AS conversation_id, c.mode, c.mode_until, c.last_inbound_at,
    (SELECT m.text FROM messages m WHERE m.conversation_id = c.id AND m.direction = 'in'
        AND c.last_inbound_at IS NOT NULL ORDER BY m.id DESC LIMIT 1) AS last_inbound_text,
    COALESCE(NULLIF(o.campaign_name, ''), g.name) AS organization_name, o.timezone AS organization_zone,
    COALESCE(o.campaign_from, '09:00') AS campaign_from, COALESCE(o.campaign_until, '21:00') AS campaign_until,
    COALESCE(o.contact_per_day, 2) AS contact_per_day, COALESCE(o.contact_per_week, 5) AS contact_per_week,
    COALESCE(o.account_per_day, 150) AS account_per_day, COALESCE(o.new_contacts_per_day, 30) AS new_contacts_per_day,
    COALESCE(o.max_unanswered, 3) AS max_unanswered,
    (SELECT jsonb_object_agg(y.year, jsonb_build_object('holidays', y.holidays, 'workdays', y.workdays))
        FROM calendars y WHERE y.organization_id = e.organization_id AND y.country = 'cn') AS calendars
FROM sop_enrollments e
JOIN sop_tasks t ON t.id = e.sop_id
JOIN contacts k ON k.id = e.contact_id
JOIN wechat_accounts a ON a.id = e.account_id
JOIN organizations g ON g.id = e.organization_id
LEFT JOIN conversations c ON c.account_id = e.account_id AND c.peer_wxid = k.wxid
LEFT JOIN organization_settings o ON o.organization_id = e.organization_id
WHERE e.id = $1";

/// Reads what is known of an enrollment's surroundings. None: its plan, contact or account is not on record any more.
pub async fn of(conn: &mut Conn, enrollment: Uuid) -> Result<Option<Facts>> {
    Ok(sql_query(FACTS).bind::<SqlUuid, _>(enrollment).cached().get_result(conn).await.optional()?)
}

/// What campaigns have sent.
#[derive(Debug, Clone, QueryableByName)]
pub struct Counts {
    /// To the contact, since the moment that was asked for.
    #[diesel(sql_type = Array<Timestamptz>)]
    pub contact: Vec<DateTime<Utc>>,
    /// To the contact, last.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub contact_last: Option<DateTime<Utc>>,
    /// To the contact, since it answered.
    #[diesel(sql_type = BigInt)]
    pub unanswered: i64,
    /// From the account today.
    #[diesel(sql_type = BigInt)]
    pub account: i64,
    /// What waits in the account's lane or has a place behind it, this enrollment left out.
    #[diesel(sql_type = BigInt)]
    pub account_waiting: i64,
    /// Of that, what is in the lane.
    #[diesel(sql_type = BigInt)]
    pub account_in_lane: i64,
    /// The last place that was given behind the lane.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub account_last_place: Option<DateTime<Utc>>,
    /// Other contacts who never answered, to whom the account has written today.
    #[diesel(sql_type = BigInt)]
    pub account_new: i64,
    /// Further contacts who never answered, for whom a message waits that would be the first of the day.
    #[diesel(sql_type = BigInt)]
    pub account_new_waiting: i64,
}

/// From when on something is counted, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    /// The enrollment.
    pub enrollment: Uuid,
    /// The person or group.
    pub contact: Uuid,
    /// The account.
    pub account: Uuid,
    /// The beginning of the day.
    pub day: DateTime<Utc>,
    /// The beginning of the week.
    pub week: DateTime<Utc>,
    /// When the contact answered last.
    pub answered: Option<DateTime<Utc>>,
}

const COUNTS: &str = "\
SELECT ARRAY(SELECT s.sent_at FROM sop_steps s WHERE s.contact_id = $1 AND s.sent_at >= $4) AS contact,
    (SELECT max(s.sent_at) FROM sop_steps s WHERE s.contact_id = $1 AND s.sent_at IS NOT NULL) AS contact_last,
    (SELECT count(*) FROM sop_steps s WHERE s.contact_id = $1 AND s.sent_at > COALESCE($5, '-infinity')) AS unanswered,
    (SELECT count(*) FROM sop_steps s WHERE s.account_id = $2 AND s.sent_at >= $3) AS account,
    w.account_waiting, w.account_in_lane, w.account_last_place,
    (SELECT count(DISTINCT s.contact_id) FROM sop_steps s JOIN contacts k ON k.id = s.contact_id
        WHERE s.account_id = $2 AND s.sent_at >= $3 AND s.contact_id <> $1
          AND NOT EXISTS (SELECT FROM conversations c WHERE c.account_id = s.account_id AND c.peer_wxid = k.wxid
              AND c.last_inbound_at IS NOT NULL)) AS account_new,
    (SELECT count(DISTINCT s.contact_id) FROM sop_steps s JOIN contacts k ON k.id = s.contact_id
        WHERE s.account_id = $2 AND s.state = 'due' AND s.contact_id <> $1
          AND (s.job_id IS NOT NULL OR s.next_try_at > (SELECT campaign_now() - interval '1 hour'))
          AND NOT EXISTS (SELECT FROM sop_steps x WHERE x.contact_id = s.contact_id AND x.sent_at >= $3)
          AND NOT EXISTS (SELECT FROM conversations c WHERE c.account_id = s.account_id AND c.peer_wxid = k.wxid
              AND c.last_inbound_at IS NOT NULL)) AS account_new_waiting
FROM (SELECT count(*) AS account_waiting, count(s.job_id) AS account_in_lane,
        max(s.next_try_at) FILTER (WHERE s.job_id IS NULL) AS account_last_place
    FROM sop_steps s WHERE s.account_id = $2 AND s.state = 'due' AND s.enrollment_id <> $6
      AND (s.job_id IS NOT NULL OR s.next_try_at > (SELECT campaign_now() - interval '1 hour'))) w";

/// Counts what campaigns have sent to a contact and from an account. Under the account's lane nobody else adds to it.
pub async fn counts(conn: &mut Conn, since: &Since) -> Result<Counts> {
    Ok(sql_query(COUNTS)
        .bind::<SqlUuid, _>(since.contact)
        .bind::<SqlUuid, _>(since.account)
        .bind::<Timestamptz, _>(since.day)
        .bind::<Timestamptz, _>(since.week)
        .bind::<Nullable<Timestamptz>, _>(since.answered)
        .bind::<SqlUuid, _>(since.enrollment)
        .cached()
        .get_result(conn)
        .await?)
}

/// What was approved.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = sop_versions)]
pub struct Approved {
    /// The tenant.
    pub organization_id: Uuid,
    /// The plan.
    pub config: Value,
    /// The revision of every material that it names, by key.
    pub materials: Value,
}

/// Returns an approved version of a plan, which never changes.
pub async fn approved(conn: &mut Conn, sop: Uuid, version: i32) -> Result<Option<Approved>> {
    Ok(sop_versions::table
        .find((sop, version))
        .filter(sop_versions::state.ne("in_review"))
        .select(Approved::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// A revision of a material.
#[derive(Debug, Clone, QueryableByName)]
pub struct Material {
    /// The material.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Its revision.
    #[diesel(sql_type = Integer)]
    pub revision: i32,
    /// A file was uploaded.
    #[diesel(sql_type = Bool)]
    pub uploaded: bool,
    /// The name that plans use.
    #[diesel(sql_type = Text)]
    pub key: String,
    /// The fields of its kind.
    #[diesel(sql_type = Jsonb)]
    pub content: Value,
}

/// Returns the pinned revisions of materials, which never change.
pub async fn materials(
    conn: &mut Conn,
    organization: Uuid,
    keys: &[String],
    revisions: &[i32],
) -> Result<Vec<Material>> {
    Ok(sql_query(
        "SELECT DISTINCT ON (m.key) m.key, m.id, r.revision, r.path IS NOT NULL AS uploaded, r.content || jsonb_build_object('kind', m.kind) AS content \
         FROM unnest($2, $3) AS pin (key, revision) \
         JOIN materials m ON m.organization_id = $1 AND m.key = pin.key \
         JOIN material_revisions r ON r.material_id = m.id AND r.revision = pin.revision \
         ORDER BY m.key, m.deleted_at NULLS FIRST, m.id DESC",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Array<Text>, _>(keys)
    .bind::<Array<Integer>, _>(revisions)
    .load(conn)
    .await?)
}

/// A plan that runs.
#[derive(Debug, Clone, QueryableByName)]
pub struct Running {
    /// The plan.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The version that new people are enrolled in.
    #[diesel(sql_type = Integer)]
    pub version: i32,
    /// `friend`, `group` or `tag`.
    #[diesel(sql_type = Text)]
    pub target_type: String,
    /// Contacts or tags.
    #[diesel(sql_type = Array<Text>)]
    pub target_ids: Vec<String>,
    /// Accounts; empty: all.
    #[diesel(sql_type = Array<SqlUuid>)]
    pub account_ids: Vec<Uuid>,
}

/// Returns the organisation's plans that run.
pub async fn running(conn: &mut Conn, organization: Uuid) -> Result<Vec<Running>> {
    Ok(sql_query(
        "SELECT id, version, target_type, target_ids, account_ids FROM sop_tasks \
         WHERE organization_id = $1 AND status = 'RUNNING' AND version IS NOT NULL ORDER BY id",
    )
    .bind::<SqlUuid, _>(organization)
    .cached()
    .load(conn)
    .await?)
}

/// Returns organisations with a plan that runs, in the order of their ids, after `after`.
pub async fn organizations_running(conn: &mut Conn, after: Uuid, limit: i64) -> Result<Vec<Uuid>> {
    use crate::tables::sop_tasks;
    Ok(sop_tasks::table
        .filter(sop_tasks::status.eq("RUNNING").and(sop_tasks::organization_id.gt(after)))
        .select(sop_tasks::organization_id)
        .distinct()
        .order(sop_tasks::organization_id)
        .limit(limit)
        .load(conn)
        .await?)
}

/// Locks a plan against changes of its status, and returns it if it runs.
pub async fn lock_running(conn: &mut Conn, organization: Uuid, sop: Uuid) -> Result<Option<Running>> {
    Ok(sql_query(
        "SELECT id, version, target_type, target_ids, account_ids FROM sop_tasks \
         WHERE id = $2 AND organization_id = $1 AND status = 'RUNNING' AND version IS NOT NULL FOR NO KEY UPDATE",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(sop)
    .cached()
    .get_result(conn)
    .await
    .optional()?)
}

/// Returns how a plan of the organisation stands; none: there is none.
pub async fn plan_status(conn: &mut Conn, organization: Uuid, sop: Uuid) -> Result<Option<String>> {
    use crate::tables::sop_tasks;
    Ok(sop_tasks::table
        .find(sop)
        .filter(sop_tasks::organization_id.eq(organization))
        .select(sop_tasks::status)
        .first(conn)
        .await
        .optional()?)
}

/// What an organisation has said of all its campaigns.
#[derive(Debug, Clone, QueryableByName)]
pub struct House {
    /// The clock of campaigns.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
    /// Its zone.
    #[diesel(sql_type = Nullable<Text>)]
    pub organization_zone: Option<String>,
    /// When campaigns may begin to write on a day.
    #[diesel(sql_type = Text)]
    pub campaign_from: String,
    /// When they end.
    #[diesel(sql_type = Text)]
    pub campaign_until: String,
    /// Holidays and make-up days by year, as it has corrected them.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub calendars: Option<Value>,
}

/// Reads what an organisation has said of all its campaigns.
pub async fn house(conn: &mut Conn, organization: Uuid) -> Result<House> {
    Ok(sql_query(
        "SELECT campaign_now() AS now, o.timezone AS organization_zone, \
             COALESCE(o.campaign_from, '09:00') AS campaign_from, COALESCE(o.campaign_until, '21:00') AS campaign_until, \
             (SELECT jsonb_object_agg(y.year, jsonb_build_object('holidays', y.holidays, 'workdays', y.workdays)) \
                 FROM calendars y WHERE y.organization_id = $1 AND y.country = 'cn') AS calendars \
         FROM (SELECT 1) AS one LEFT JOIN organization_settings o ON o.organization_id = $1",
    )
    .bind::<SqlUuid, _>(organization)
    .cached()
    .get_result(conn)
    .await?)
}

#[derive(QueryableByName)]
struct TrueTime {
    #[diesel(sql_type = Timestamptz)]
    true_now: DateTime<Utc>,
}

/// The same, with the true time of about that moment.
pub async fn house_and_time(conn: &mut Conn, organization: Uuid) -> Result<(House, DateTime<Utc>)> {
    let house = house(conn, organization).await?;
    let time: TrueTime = sql_query("SELECT clock_timestamp() AS true_now").cached().get_result(conn).await?;
    Ok((house, time.true_now))
}
