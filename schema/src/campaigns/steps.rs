//! What was done at the steps of enrollments, or why it was not. Changed under the lock of the enrollment.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::sop_steps;
use crate::{Conn, Result};

/// A step of an enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = sop_steps, treat_none_as_null = true)]
pub struct Step {
    /// Whose.
    pub enrollment_id: Uuid,
    /// The name in the plan.
    pub step_id: String,
    /// The tenant.
    pub organization_id: Uuid,
    /// The plan.
    pub sop_id: Uuid,
    /// Its version.
    pub version: i32,
    /// The account.
    pub account_id: Uuid,
    /// The person or group.
    pub contact_id: Uuid,
    /// The type of the step, as the plan writes it.
    pub kind: String,
    /// How it stands.
    pub state: String,
    /// Why.
    pub reason: Option<String>,
    /// When it was due by the plan.
    pub planned_at: DateTime<Utc>,
    /// When it is looked at again.
    pub next_try_at: Option<DateTime<Utc>>,
    /// The job that sends.
    pub job_id: Option<Uuid>,
    /// What it sends.
    pub text: Option<String>,
    /// The run of the model that wrote it.
    pub run_id: Option<Uuid>,
    /// Until when it waits for a person.
    pub review_until: Option<DateTime<Utc>>,
    /// Who decided.
    pub decided_by: Option<Uuid>,
    /// When the gate let it pass.
    pub sent_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub finished_at: Option<DateTime<Utc>>,
    /// When a model was asked for its text, by the clock of campaigns.
    pub written_at: Option<DateTime<Utc>>,
    /// Why the plan's own text takes the place of the model's.
    pub fallback_code: Option<String>,
}

/// Returns a step.
pub async fn get(conn: &mut Conn, enrollment: Uuid, step: &str) -> Result<Option<Step>> {
    Ok(sop_steps::table.find((enrollment, step)).select(Step::as_select()).first(conn).await.optional()?)
}

/// Returns the steps of an enrollment of the organisation, in the order in which they were due.
pub async fn of(conn: &mut Conn, organization: Uuid, enrollment: Uuid) -> Result<Vec<Step>> {
    Ok(sop_steps::table
        .filter(sop_steps::enrollment_id.eq(enrollment).and(sop_steps::organization_id.eq(organization)))
        .order((sop_steps::planned_at, sop_steps::finished_at.asc().nulls_last()))
        .select(Step::as_select())
        .load(conn)
        .await?)
}

/// Returns the organisation's steps that wait for a person, the latest enrollments first, older than `before`.
pub async fn held(
    conn: &mut Conn,
    organization: Uuid,
    sop: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Step>> {
    let mut query = sop_steps::table
        .filter(sop_steps::organization_id.eq(organization))
        // In words: that is the condition of the index.
        .filter(diesel::dsl::sql::<Bool>("sop_steps.state = 'held_for_review'"))
        .order(sop_steps::enrollment_id.desc())
        .limit(limit)
        .select(Step::as_select())
        .into_boxed();
    if let Some(sop) = sop {
        query = query.filter(sop_steps::sop_id.eq(sop));
    }
    if let Some(before) = before {
        query = query.filter(sop_steps::enrollment_id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Writes steps as they stand now.
pub async fn put(conn: &mut Conn, steps: &[Step]) -> Result<()> {
    for step in steps {
        diesel::insert_into(sop_steps::table)
            .values(step)
            .on_conflict((sop_steps::enrollment_id, sop_steps::step_id))
            .do_update()
            .set(step)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Marks a step as one whose message may leave now. Returns false if it is not this job's to send any more, or somebody has
/// stopped it in between.
pub async fn begin(conn: &mut Conn, enrollment: Uuid, step: &str, job: Uuid) -> Result<bool> {
    let changed = sql_query(
        "UPDATE sop_steps SET state = 'sending', reason = NULL, sent_at = campaign_now(), next_try_at = NULL \
         WHERE enrollment_id = $1 AND step_id = $2 AND job_id = $3 AND state IN ('due', 'sending') \
           AND NOT EXISTS (SELECT FROM stops s WHERE s.organization_id = sop_steps.organization_id \
               AND (s.scope = 'organization' OR (s.scope = 'account' AND s.scope_id = sop_steps.account_id) \
                   OR (s.scope = 'sop' AND s.scope_id = sop_steps.sop_id) \
                   OR (s.scope = 'ai' AND sop_steps.kind = 'ai_send')))",
    )
    .bind::<SqlUuid, _>(enrollment)
    .bind::<Text, _>(step)
    .bind::<SqlUuid, _>(job)
    .cached()
    .execute(conn)
    .await?;
    Ok(changed == 1)
}

/// Takes [`begin`] back: the gate was shut after all.
pub async fn withdraw(conn: &mut Conn, enrollment: Uuid, step: &str, job: Uuid) -> Result<()> {
    sql_query(
        "UPDATE sop_steps SET state = 'due', sent_at = NULL \
         WHERE enrollment_id = $1 AND step_id = $2 AND job_id = $3 AND state = 'sending'",
    )
    .bind::<SqlUuid, _>(enrollment)
    .bind::<Text, _>(step)
    .bind::<SqlUuid, _>(job)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes how the send of a step ended, and has its enrollment looked at at once.
///
/// `left`: the message may have left this machine, so the caps count it.
pub async fn settle(
    conn: &mut Conn,
    enrollment: Uuid,
    step: &str,
    job: Uuid,
    state: &str,
    reason: Option<&str>,
    left: bool,
) -> Result<()> {
    sql_query(
        "WITH whose AS MATERIALIZED ( \
             SELECT e.id FROM sop_enrollments e WHERE e.id = $1 FOR UPDATE \
         ), settled AS ( \
             UPDATE sop_steps SET state = $4, reason = $5, finished_at = campaign_now(), \
                 sent_at = CASE WHEN $6 THEN sent_at END \
             FROM whose WHERE sop_steps.enrollment_id = whose.id AND sop_steps.step_id = $2 AND sop_steps.job_id = $3 \
               AND sop_steps.state IN ('due', 'sending', 'unknown') \
             RETURNING sop_steps.enrollment_id \
         ) \
         UPDATE sop_enrollments SET due_at = campaign_now() FROM settled \
         WHERE sop_enrollments.id = settled.enrollment_id AND sop_enrollments.step_id = $2 \
           AND sop_enrollments.finished_at IS NULL AND sop_enrollments.state <> 'paused'",
    )
    .bind::<SqlUuid, _>(enrollment)
    .bind::<Text, _>(step)
    .bind::<SqlUuid, _>(job)
    .bind::<Text, _>(state)
    .bind::<Nullable<Text>, _>(reason)
    .bind::<Bool, _>(left)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes how the messages of steps ended whose jobs were lost with their worker behind their gate, and has their enrollments looked
/// at at once. Nobody else would, of an enrollment that is over.
///
/// Call it when nothing more is to be locked that comes before an enrollment.
pub async fn settle_lost(conn: &mut Conn, jobs: &[Uuid]) -> Result<()> {
    sql_query(
        "WITH whose AS MATERIALIZED ( \
             SELECT e.id, j.id AS job_id, j.args #>> '{campaign,step_id}' AS step_id, s.state \
             FROM jobs j JOIN sop_enrollments e ON e.id = (j.args #>> '{campaign,enrollment_id}')::uuid \
             CROSS JOIN LATERAL (SELECT x.state FROM sends x WHERE x.job_id = j.id ORDER BY x.id DESC LIMIT 1) s \
             WHERE j.id = ANY($1) AND s.state IN ('sent', 'unknown') ORDER BY e.id FOR UPDATE OF e \
         ), settled AS ( \
             UPDATE sop_steps SET state = whose.state, finished_at = campaign_now(), \
                 reason = CASE WHEN whose.state = 'unknown' THEN 'outcome_unknown' END \
             FROM whose WHERE sop_steps.enrollment_id = whose.id AND sop_steps.step_id = whose.step_id \
               AND sop_steps.job_id = whose.job_id AND sop_steps.state = 'sending' \
             RETURNING sop_steps.enrollment_id, sop_steps.step_id \
         ) \
         UPDATE sop_enrollments SET due_at = campaign_now() FROM settled \
         WHERE sop_enrollments.id = settled.enrollment_id AND sop_enrollments.step_id = settled.step_id \
           AND sop_enrollments.finished_at IS NULL AND sop_enrollments.state <> 'paused'",
    )
    .bind::<Array<SqlUuid>, _>(jobs)
    .execute(conn)
    .await?;
    Ok(())
}

/// Tells whether a contact was told before that a machine writes: by a campaign's text or by an answer.
pub async fn disclosed(
    conn: &mut Conn,
    organization: Uuid,
    contact: Uuid,
    conversation: Option<Uuid>,
) -> Result<bool> {
    #[derive(QueryableByName)]
    struct Told {
        #[diesel(sql_type = Bool)]
        told: bool,
    }
    let row: Told = sql_query(
        // By the contact, whatever statistics say of the rest: hence the bound, which bounds nothing.
        "SELECT EXISTS (SELECT FROM (SELECT s.organization_id, s.state, s.run_id, s.fallback_code FROM sop_steps s \
                 WHERE s.contact_id = $2 AND s.sent_at IS NOT NULL OFFSET 0) s \
                 WHERE s.organization_id = $1 AND s.state = 'sent' AND s.run_id IS NOT NULL AND s.fallback_code IS NULL) \
             OR EXISTS (SELECT FROM conversations c JOIN turns t ON t.conversation_id = c.id \
                 WHERE c.id = $3 AND c.organization_id = $1 AND t.answered_at >= c.disclosed_at) AS told",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(contact)
    .bind::<Nullable<SqlUuid>, _>(conversation)
    .cached()
    .get_result(conn)
    .await?;
    Ok(row.told)
}

/// How the job of a step stands.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct SendJob {
    /// How it ended; none: it lives.
    #[diesel(sql_type = Nullable<Text>)]
    pub final_state: Option<String>,
    /// The code of its error.
    #[diesel(sql_type = Nullable<Text>)]
    pub code: Option<String>,
    /// The state of its latest send; none: there was none.
    #[diesel(sql_type = Nullable<Text>)]
    pub send_state: Option<String>,
    /// The code of that send's error.
    #[diesel(sql_type = Nullable<Text>)]
    pub send_code: Option<String>,
}

/// Returns how a job that sends stands; none: it is not on record any more.
pub async fn send_job(conn: &mut Conn, job: Uuid) -> Result<Option<SendJob>> {
    Ok(sql_query(
        "SELECT j.final_state, j.error ->> 'code' AS code, s.state AS send_state, s.error_code AS send_code \
         FROM jobs j LEFT JOIN LATERAL (SELECT x.state, x.error_code FROM sends x WHERE x.job_id = j.id \
             ORDER BY x.id DESC LIMIT 1) s ON true WHERE j.id = $1",
    )
    .bind::<SqlUuid, _>(job)
    .cached()
    .get_result(conn)
    .await
    .optional()?)
}

/// Has those looked at now whose step waits for a job that has ended without a word: it died, or a person called it off. Returns
/// how many they are, up to `limit`.
pub async fn wake_abandoned(conn: &mut Conn, limit: i64) -> Result<usize> {
    Ok(sql_query(
        // From the steps to the enrollments, whatever statistics say: those are many more.
        "WITH waiting AS MATERIALIZED ( \
             SELECT s.enrollment_id, s.step_id, s.job_id FROM sop_steps s \
             WHERE s.state = 'due' AND s.job_id IS NOT NULL \
         ), found AS MATERIALIZED ( \
             SELECT e.id FROM waiting w CROSS JOIN LATERAL ( \
                 SELECT x.id FROM sop_enrollments x WHERE x.id = w.enrollment_id AND x.step_id = w.step_id LIMIT 1 \
             ) e \
             WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.id = w.job_id AND j.final_state IS NULL) \
         ), abandoned AS MATERIALIZED ( \
             SELECT e.id FROM sop_enrollments e WHERE e.id = ANY(ARRAY(SELECT f.id FROM found f)) \
               AND e.finished_at IS NULL AND e.state = 'waiting' AND e.wait_code IN ('sending', 'writing') \
               AND e.due_at > (SELECT campaign_now()) \
             ORDER BY e.id LIMIT $1 FOR UPDATE SKIP LOCKED \
         ) \
         UPDATE sop_enrollments SET due_at = campaign_now() FROM abandoned WHERE sop_enrollments.id = abandoned.id",
    )
    .bind::<BigInt, _>(limit)
    .cached()
    .execute(conn)
    .await?)
}
