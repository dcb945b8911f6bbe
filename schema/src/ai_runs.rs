//! The calls of models: one row per call, written before it.

use bigdecimal::BigDecimal;
use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Nullable, Numeric, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::ai_runs;
use crate::{Conn, Result};

/// A call that is about to be made.
#[derive(Debug, Clone)]
pub struct NewRun<'a> {
    /// The call; also the name of its answer in the provider's records.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The chat; all zeros: a campaign writes to somebody with whom there is none yet.
    pub conversation_id: Uuid,
    /// The turn; of a campaign's text, the enrollment.
    pub turn_id: Uuid,
    /// Which run of the turn.
    pub run: i16,
    /// The workflow.
    pub workflow_id: Uuid,
    /// Stable hash of its key.
    pub key_hash: &'a str,
    /// The job that calls.
    pub job_id: Uuid,
    /// The chat's name at the provider.
    pub chat_id: &'a str,
    /// Whose budget it counts into.
    pub user_id: Option<Uuid>,
    /// The campaign for which it writes, and the step.
    pub campaign: Option<(Uuid, &'a str)>,
}

/// Writes a call down as `calling`, and returns its row.
pub async fn begin(conn: &mut Conn, run: &NewRun<'_>) -> Result<Run> {
    Ok(sql_query(
        "INSERT INTO ai_runs (id, organization_id, account_id, conversation_id, turn_id, run, workflow_id, key_hash, \
             job_id, chat_id, user_id, sop_id, step_id, state, started_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'calling', clock_timestamp()) \
         RETURNING id, organization_id, account_id, conversation_id, turn_id, run, workflow_id, key_hash, job_id, \
             chat_id, user_id, state, error_class, error_code, error_message, answer, outcome, started_at, finished_at, \
             points, sop_id, step_id",
    )
    .bind::<SqlUuid, _>(run.id)
    .bind::<SqlUuid, _>(run.organization_id)
    .bind::<SqlUuid, _>(run.account_id)
    .bind::<SqlUuid, _>(run.conversation_id)
    .bind::<SqlUuid, _>(run.turn_id)
    .bind::<SmallInt, _>(run.run)
    .bind::<SqlUuid, _>(run.workflow_id)
    .bind::<Text, _>(run.key_hash)
    .bind::<SqlUuid, _>(run.job_id)
    .bind::<Text, _>(run.chat_id)
    .bind::<Nullable<SqlUuid>, _>(run.user_id)
    .bind::<Nullable<SqlUuid>, _>(run.campaign.map(|(sop, _)| sop))
    .bind::<Nullable<Text>, _>(run.campaign.map(|(_, step)| step))
    .cached()
    .get_result(conn)
    .await?)
}

/// Takes back a call that was not made, in the transaction that wrote it down.
pub async fn withdraw(conn: &mut Conn, id: Uuid) -> Result<()> {
    diesel::delete(ai_runs::table.find(id).filter(ai_runs::state.eq("calling"))).execute(conn).await?;
    Ok(())
}

/// A call as it is read.
#[derive(Debug, Clone, Queryable, Selectable, QueryableByName)]
#[diesel(table_name = ai_runs)]
pub struct Run {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The chat; all zeros: a campaign writes to somebody with whom there is none yet.
    pub conversation_id: Uuid,
    /// The turn; of a campaign's text, the enrollment.
    pub turn_id: Uuid,
    /// Which run of the turn.
    pub run: i16,
    /// The workflow.
    pub workflow_id: Uuid,
    /// Stable hash of its key.
    pub key_hash: String,
    /// The job that called.
    pub job_id: Uuid,
    /// The chat's name at the provider.
    pub chat_id: String,
    /// Whose budget it counts into.
    pub user_id: Option<Uuid>,
    /// `calling`, `answered`, `failed` or `unknown`.
    pub state: String,
    /// What the failure proves.
    pub error_class: Option<String>,
    /// Stable code of the failure.
    pub error_code: Option<String>,
    /// The failure, for operators.
    pub error_message: Option<String>,
    /// What the model wrote.
    pub answer: Option<String>,
    /// What became of the answer.
    pub outcome: Option<String>,
    /// When the call was made.
    pub started_at: DateTime<Utc>,
    /// When its end was written down.
    pub finished_at: Option<DateTime<Utc>>,
    /// The provider's points.
    pub points: Option<BigDecimal>,
    /// The campaign for which it wrote.
    pub sop_id: Option<Uuid>,
    /// The step of the campaign.
    pub step_id: Option<String>,
}

impl Run {
    /// Returns the chat, if there is one.
    pub fn conversation(&self) -> Option<Uuid> {
        (!self.conversation_id.is_nil()).then_some(self.conversation_id)
    }
}

/// Returns the calls that a job has made for a turn, oldest first.
pub async fn of_job(conn: &mut Conn, turn: Uuid, job: Uuid) -> Result<Vec<Run>> {
    Ok(ai_runs::table
        .filter(ai_runs::turn_id.eq(turn).and(ai_runs::job_id.eq(job)))
        .order(ai_runs::id)
        .limit(200)
        .select(Run::as_select())
        .load(conn)
        .await?)
}

/// Returns how often a step of an enrollment was written by a model, without calls that surely did not run.
pub async fn of_step(conn: &mut Conn, enrollment: Uuid, step: &str) -> Result<i64> {
    Ok(ai_runs::table
        .filter(ai_runs::turn_id.eq(enrollment).and(ai_runs::step_id.eq(step)))
        .filter(ai_runs::state.ne("failed").or(ai_runs::error_class.eq("failed")))
        .count()
        .get_result(conn)
        .await?)
}

/// Returns what the models of an enrollment have cost so far, in yuan.
pub async fn spent_for(conn: &mut Conn, organization: Uuid, enrollment: Uuid) -> Result<BigDecimal> {
    #[derive(QueryableByName)]
    struct Spent {
        #[diesel(sql_type = Numeric)]
        spent: BigDecimal,
    }
    let row: Spent = sql_query(
        "SELECT coalesce(sum(l.calculated_cost), 0) AS spent FROM ai_runs r JOIN cost_ledgers l ON l.run_id = r.id \
         WHERE r.turn_id = $1 AND r.sop_id IS NOT NULL AND l.organization_id = $2",
    )
    .bind::<SqlUuid, _>(enrollment)
    .bind::<SqlUuid, _>(organization)
    .get_result(conn)
    .await?;
    Ok(row.spent)
}

/// How a call ended.
#[derive(Debug, Clone, Default)]
pub struct RunEnd<'a> {
    /// `answered`, `failed` or `unknown`.
    pub state: &'a str,
    /// What the failure proves.
    pub error_class: Option<&'a str>,
    /// Stable code of the failure.
    pub error_code: Option<&'a str>,
    /// The failure, for operators.
    pub error_message: Option<&'a str>,
    /// What the model wrote.
    pub answer: Option<&'a str>,
    /// What became of the answer.
    pub outcome: Option<&'a str>,
    /// The provider's points.
    pub points: Option<BigDecimal>,
}

/// Writes down how a call ended. False: its end is written already; nothing is to be done about it again.
pub async fn end(conn: &mut Conn, id: Uuid, end: &RunEnd<'_>) -> Result<bool> {
    let changed = sql_query(
        "UPDATE ai_runs SET state = $2, error_class = coalesce($3, error_class), error_code = coalesce($4, error_code), \
             error_message = coalesce($5, error_message), answer = $6, outcome = $7, points = $8, \
             finished_at = clock_timestamp() \
         WHERE id = $1 AND state = 'calling'",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Text, _>(end.state)
    .bind::<Nullable<Text>, _>(end.error_class)
    .bind::<Nullable<Text>, _>(end.error_code)
    .bind::<Nullable<Text>, _>(end.error_message)
    .bind::<Nullable<Text>, _>(end.answer)
    .bind::<Nullable<Text>, _>(end.outcome)
    .bind::<Nullable<Numeric>, _>(end.points.as_ref())
    .cached()
    .execute(conn)
    .await?;
    Ok(changed == 1)
}

/// Takes up to `limit` calls that nobody knows of, begun between so many seconds ago, whose age has doubled since the provider's
/// records were last asked for them; those first that have waited longest. That they are asked for now is noted, so that
/// several processes take different ones.
pub async fn take_unknown(conn: &mut Conn, youngest: i32, oldest: i32, limit: i64) -> Result<Vec<Run>> {
    Ok(sql_query(
        "UPDATE ai_runs r SET looked_up_at = clock_timestamp() \
         FROM (SELECT id FROM ai_runs, (SELECT clock_timestamp() AS now) clock \
             WHERE state = 'unknown' AND started_at < now - $1 * interval '1 second' \
                 AND started_at > now - $2 * interval '1 second' \
                 AND (looked_up_at IS NULL OR looked_up_at + (looked_up_at - started_at) < now) \
             ORDER BY coalesce(looked_up_at, started_at), id LIMIT $3 FOR UPDATE OF ai_runs SKIP LOCKED) taken \
         WHERE r.id = taken.id \
         RETURNING r.id, r.organization_id, r.account_id, r.conversation_id, r.turn_id, r.run, r.workflow_id, \
             r.key_hash, r.job_id, r.chat_id, r.user_id, r.state, r.error_class, r.error_code, r.error_message, \
             r.answer, r.outcome, r.started_at, r.finished_at, r.points, r.sop_id, r.step_id",
    )
    .bind::<Integer, _>(youngest)
    .bind::<Integer, _>(oldest)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?)
}

/// Writes down what became of a call that nobody knew of. False: that is known by now.
pub async fn settle(conn: &mut Conn, id: Uuid, end: &RunEnd<'_>) -> Result<bool> {
    let changed = sql_query(
        "UPDATE ai_runs SET state = $2, error_class = coalesce($3, error_class), error_code = coalesce($4, error_code), \
             error_message = coalesce($5, error_message), answer = $6, outcome = $7, points = $8 \
         WHERE id = $1 AND state = 'unknown'",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Text, _>(end.state)
    .bind::<Nullable<Text>, _>(end.error_class)
    .bind::<Nullable<Text>, _>(end.error_code)
    .bind::<Nullable<Text>, _>(end.error_message)
    .bind::<Nullable<Text>, _>(end.answer)
    .bind::<Nullable<Text>, _>(end.outcome)
    .bind::<Nullable<Numeric>, _>(end.points.as_ref())
    .execute(conn)
    .await?;
    Ok(changed == 1)
}

/// Notes of a call that may still run why its answer was lost.
pub async fn note(conn: &mut Conn, id: Uuid, class: &str, code: &str, message: &str) -> Result<()> {
    sql_query(
        "UPDATE ai_runs SET error_class = $2, error_code = $3, error_message = $4 WHERE id = $1 AND state = 'calling'",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Text, _>(class)
    .bind::<Text, _>(code)
    .bind::<Text, _>(message)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// How long a key's window is: a minute, and what a call may take to get to the provider.
const WINDOW_SECONDS: i32 = 61;

/// Serialises the calls of a key until the caller's transaction ends, and looks whether one more is within its limit.
/// Some: when to look again.
pub async fn admit(conn: &mut Conn, key_hash: &str, per_minute: i32) -> Result<Option<TimeDelta>> {
    #[derive(QueryableByName)]
    struct Full {
        #[diesel(sql_type = Nullable<Timestamptz>)]
        opens_at: Option<DateTime<Utc>>,
        #[diesel(sql_type = Timestamptz)]
        now: DateTime<Utc>,
    }
    sql_query("SELECT pg_advisory_xact_lock(hashtextextended('ai-key:' || $1, 0))")
        .bind::<Text, _>(key_hash)
        .cached()
        .execute(conn)
        .await?;
    // The n-th latest call must lie a whole window back. A second statement: it sees what was committed before the lock.
    let full: Full = sql_query(
        "SELECT (SELECT started_at FROM ai_runs WHERE key_hash = $1 ORDER BY started_at DESC OFFSET $2 - 1 LIMIT 1) \
             + $3 * interval '1 second' AS opens_at, clock_timestamp() AS now",
    )
    .bind::<Text, _>(key_hash)
    .bind::<Integer, _>(per_minute)
    .bind::<Integer, _>(WINDOW_SECONDS)
    .cached()
    .get_result(conn)
    .await?;
    Ok(full.opens_at.map(|opens_at| opens_at - full.now).filter(|wait| *wait > TimeDelta::zero()))
}

/// Which calls to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Of one account.
    pub account_id: Option<Uuid>,
    /// Of one chat.
    pub conversation_id: Option<Uuid>,
    /// Of one turn.
    pub turn_id: Option<Uuid>,
    /// Older than this one.
    pub before: Option<Uuid>,
}

/// Returns the organisation's calls, newest first.
pub async fn list(conn: &mut Conn, organization: Uuid, filter: Filter, limit: i64) -> Result<Vec<Run>> {
    let mut query = ai_runs::table
        .filter(ai_runs::organization_id.eq(organization))
        .order(ai_runs::id.desc())
        .limit(limit)
        .select(Run::as_select())
        .into_boxed();
    if let Some(account) = filter.account_id {
        query = query.filter(ai_runs::account_id.eq(account));
    }
    if let Some(conversation) = filter.conversation_id {
        query = query.filter(ai_runs::conversation_id.eq(conversation));
    }
    if let Some(turn) = filter.turn_id {
        query = query.filter(ai_runs::turn_id.eq(turn));
    }
    if let Some(before) = filter.before {
        query = query.filter(ai_runs::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Returns how many calls are under way or were never heard of again, for the metrics.
pub async fn open(conn: &mut Conn) -> Result<i64> {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        n: i64,
    }
    let count: Count =
        sql_query("SELECT count(*) AS n FROM ai_runs WHERE state = 'calling'").get_result(conn).await?;
    Ok(count.n)
}
