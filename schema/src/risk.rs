//! What speaks for an account being at risk, and the hold that follows. What counts as a signal is not decided here.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Bool, Integer, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::wechat_accounts;
use crate::{Conn, Result};

/// Sends of machines that are looked at together.
pub const LOOKED_AT: usize = 50;

/// An account that was put on hold just now.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Held {
    /// Who added it.
    #[diesel(sql_type = SqlUuid)]
    pub user_id: Uuid,
    /// How it stood before.
    #[diesel(sql_type = Text)]
    pub before: String,
    /// When the hold began.
    #[diesel(sql_type = Timestamptz)]
    pub held_at: DateTime<Utc>,
}

/// Puts an account on hold and pauses its lane. None: it is held already, switched off, or gone.
///
/// Locks the lane before the account, as the gate does.
pub async fn hold(conn: &mut Conn, organization: Uuid, account: Uuid, signal: &str) -> Result<Option<Held>> {
    Ok(sql_query(
        "WITH lane AS ( \
             SELECT id FROM lanes WHERE id = $2 AND organization_id = $1 FOR UPDATE \
         ), stood AS ( \
             SELECT a.id, a.status FROM wechat_accounts a JOIN lane ON lane.id = a.id \
             WHERE a.deleted_at IS NULL AND a.status NOT IN ('RISK_HOLD', 'DISABLED') FOR UPDATE OF a \
         ), held AS ( \
             UPDATE wechat_accounts SET status = 'RISK_HOLD', risk_signal = $3, risk_held_at = clock_timestamp(), \
                 echoed_at = NULL, echoes = 0 \
             FROM stood WHERE wechat_accounts.id = stood.id \
             RETURNING wechat_accounts.id, wechat_accounts.user_id, wechat_accounts.risk_held_at, stood.status AS before \
         ), paused AS ( \
             UPDATE lanes SET paused_at = now(), paused_reason = 'risk_control' FROM held WHERE lanes.id = held.id \
         ) \
         SELECT user_id, before, risk_held_at AS held_at FROM held",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<Text, _>(signal)
    .get_result(conn)
    .await
    .optional()?)
}

/// Takes the messages of campaigns out of the account's lane and row: their enrollments wait for the end of the hold.
///
/// The caller holds the account's lane, so no gate of it is open. Jobs that are left over end at their gates.
pub async fn put_back_enrollments(conn: &mut Conn, account: Uuid) -> Result<usize> {
    Ok(sql_query(
        "WITH waiting AS MATERIALIZED ( \
             SELECT s.enrollment_id FROM sop_steps s WHERE s.account_id = $1 AND s.state = 'due' \
         ), whose AS MATERIALIZED ( \
             SELECT e.id FROM sop_enrollments e WHERE e.id = ANY(ARRAY(SELECT w.enrollment_id FROM waiting w)) \
               AND e.finished_at IS NULL ORDER BY e.id FOR UPDATE \
         ), put_back AS ( \
             UPDATE sop_steps SET state = 'deferred', reason = 'account_risk', job_id = NULL, \
                 next_try_at = campaign_now() + interval '1 hour' \
             FROM whose WHERE sop_steps.enrollment_id = whose.id AND sop_steps.account_id = $1 \
               AND sop_steps.state = 'due' \
         ) \
         UPDATE sop_enrollments SET state = 'waiting', wait_code = 'account_risk', \
             due_at = LEAST(campaign_now() + interval '1 hour', deadline_at) \
         FROM whose WHERE sop_enrollments.id = whose.id AND sop_enrollments.state <> 'paused'",
    )
    .bind::<SqlUuid, _>(account)
    .execute(conn)
    .await?)
}

/// Notes that a person has lifted the hold: for seven days the account has half of its caps. Its campaigns go on.
///
/// Those who waited for it are due at once; what they have to say is spread over the time to come when it is handed out. The
/// caller has locked the account. Enrollments that wait for a hold look again within the hour and five minutes, so they are
/// found among those that are due soon.
pub async fn lift(conn: &mut Conn, organization: Uuid, account: Uuid) -> Result<()> {
    diesel::update(wechat_accounts::table.find(account))
        .filter(wechat_accounts::organization_id.eq(organization))
        .set(
            wechat_accounts::risk_lifted_at
                .eq(diesel::dsl::sql::<diesel::sql_types::Nullable<Timestamptz>>("campaign_now()")),
        )
        .execute(conn)
        .await?;
    sql_query(
        "WITH whose AS MATERIALIZED ( \
             SELECT e.id FROM sop_enrollments e \
             WHERE e.due_at <= (SELECT campaign_now() + interval '70 minutes') AND e.account_id = $2 \
               AND e.organization_id = $1 AND e.wait_code = 'account_risk' AND e.state = 'waiting' \
             ORDER BY e.id FOR UPDATE \
         ) \
         UPDATE sop_enrollments SET due_at = campaign_now() FROM whose WHERE sop_enrollments.id = whose.id",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(QueryableByName)]
struct Failed {
    #[diesel(sql_type = Bool)]
    failed: bool,
}

/// Tells of the last sends that a machine wrote, newest first, whether the provider refused them; at most [`LOOKED_AT`].
///
/// What never reached WeChat, or was refused because of the account's login, its token or a wrong request, says nothing about how
/// people take its messages. What was before the last hold was looked at by a person.
pub async fn recent(conn: &mut Conn, organization: Uuid, account: Uuid) -> Result<Vec<bool>> {
    let rows: Vec<Failed> = sql_query(
        "WITH last AS ( \
             SELECT s.id, s.state FROM sends s \
             WHERE s.account_id = $2 AND s.organization_id = $1 AND s.counts \
               AND (s.state = 'sent' OR (s.state = 'failed' AND s.error_class = 'refused' AND s.error_code <> 'bad_request')) \
               AND s.started_at > COALESCE((SELECT a.risk_held_at FROM wechat_accounts a WHERE a.id = $2), '-infinity') \
             ORDER BY s.id DESC LIMIT 200 \
         ) \
         SELECT l.state = 'failed' AS failed FROM last l \
         WHERE EXISTS (SELECT FROM messages m WHERE m.send_id = l.id AND m.origin IN ('ai', 'sop')) \
         ORDER BY l.id DESC LIMIT $3",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<BigInt, _>(LOOKED_AT as i64)
    .cached()
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.failed).collect())
}

/// How people have taken an account's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Leavers {
    /// People to whom it has written within a day.
    #[diesel(sql_type = BigInt)]
    pub recipients: i64,
    /// Those of them who have deleted it or want no more messages since.
    #[diesel(sql_type = BigInt)]
    pub gone: i64,
}

/// Counts who was written to within a day, and who of them has gone. What was before the last hold does not count again.
pub async fn leavers(conn: &mut Conn, organization: Uuid, account: Uuid) -> Result<Leavers> {
    Ok(sql_query(
        "WITH since AS MATERIALIZED ( \
             SELECT clock_timestamp() - interval '24 hours' AS day, \
                 GREATEST(clock_timestamp() - interval '24 hours', a.risk_held_at) AS gone \
             FROM wechat_accounts a WHERE a.id = $2 AND a.organization_id = $1 \
         ), wrote AS ( \
             SELECT DISTINCT s.to_wxid FROM sends s WHERE s.account_id = $2 AND s.counts \
               AND s.window_at > (SELECT day FROM since) AND s.state IN ('sent', 'unknown') \
               AND s.to_wxid NOT LIKE '%@chatroom' \
         ) \
         SELECT count(*) AS recipients, \
             count(*) FILTER (WHERE k.removed_at > (SELECT gone FROM since) OR o.created_at > (SELECT gone FROM since)) AS gone \
         FROM wrote w LEFT JOIN contacts k ON k.account_id = $2 AND k.wxid = w.to_wxid \
         LEFT JOIN opt_outs o ON o.organization_id = $1 AND o.wxid = w.to_wxid AND o.account_id = $2 \
             AND o.created_by IS NULL",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .cached()
    .get_result(conn)
    .await?)
}

/// Notes that the provider reports what the account sends over its interface; at most once a minute.
pub async fn echoed(conn: &mut Conn, organization: Uuid, account: Uuid) -> Result<()> {
    sql_query(
        "UPDATE wechat_accounts SET echoed_at = clock_timestamp(), echoes = LEAST(echoes + 1, 1000) \
         WHERE id = $1 AND organization_id = $2 \
           AND (echoed_at IS NULL OR echoed_at < clock_timestamp() - interval '1 minute')",
    )
    .bind::<SqlUuid, _>(account)
    .bind::<SqlUuid, _>(organization)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// How the echoes of an account's messages come.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Echoes {
    /// The account.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    /// Its tenant.
    #[diesel(sql_type = SqlUuid)]
    pub organization_id: Uuid,
    /// In how many minutes one came since the last hold.
    #[diesel(sql_type = Integer)]
    pub minutes: i32,
    /// Messages sent since the last one whose echoes should long be here; counted up to a hundred.
    #[diesel(sql_type = BigInt)]
    pub silent: i64,
}

/// Returns how the echoes come of accounts that had any within a week, in the order of their ids, after `after`.
pub async fn echoes(conn: &mut Conn, after: Uuid, limit: i64) -> Result<Vec<Echoes>> {
    Ok(sql_query(
        "SELECT a.id AS account_id, a.organization_id, a.echoes AS minutes, n.silent FROM wechat_accounts a \
         CROSS JOIN LATERAL (SELECT count(*) AS silent FROM (SELECT FROM sends s WHERE s.account_id = a.id AND s.counts \
             AND s.window_at > a.echoed_at + interval '1 minute' \
             AND s.window_at < (SELECT clock_timestamp() - interval '5 minutes') AND s.state = 'sent' LIMIT 100) x) n \
         WHERE a.id > $1 AND a.status = 'ONLINE' AND a.deleted_at IS NULL \
           AND a.echoed_at > (SELECT clock_timestamp() - interval '7 days') \
         ORDER BY a.id LIMIT $2",
    )
    .bind::<SqlUuid, _>(after)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?)
}
