//! Counts of the people in a plan: how many stand where, what was sent, who answered.

use std::sync::LazyLock;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// People of a plan whose enrollments stand alike.
#[derive(Debug, Clone, QueryableByName)]
pub struct People {
    /// The step at which they stand, or ended; none, where it was not asked for.
    #[diesel(sql_type = Nullable<Text>)]
    pub step_id: Option<String>,
    /// The arm of each split; none, where it was not asked for.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub arms: Option<Value>,
    /// How their enrollments stand.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// Why those ended or are held.
    #[diesel(sql_type = Nullable<Text>)]
    pub reason: Option<String>,
    /// What those wait for that live.
    #[diesel(sql_type = Nullable<Text>)]
    pub wait_code: Option<String>,
    /// How many they are.
    #[diesel(sql_type = BigInt)]
    pub people: i64,
    /// To how many of them something was sent.
    #[diesel(sql_type = BigInt)]
    pub sent: i64,
    /// How many of them have answered.
    #[diesel(sql_type = BigInt)]
    pub replied: i64,
    /// With how many of them the plan's goal was reached.
    #[diesel(sql_type = BigInt)]
    pub goal: i64,
    /// Messages that were sent to them.
    #[diesel(sql_type = BigInt)]
    pub messages: i64,
}

/// By what people are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// By nothing more.
    All,
    /// By the step at which they stand.
    Step,
    /// By the arms of the splits that they have been through.
    Arm,
}

/// A statement each, of what it counts by: all but that by arms are answered from an index of a fraction of the table's size,
/// in whose order they group.
static PEOPLE: LazyLock<[String; 3]> = LazyLock::new(|| {
    let by = [
        ("NULL::text AS step_id, NULL::jsonb AS arms", ""),
        ("e.step_id, NULL::jsonb AS arms", ", e.step_id"),
        ("NULL::text AS step_id, e.arms", ", e.arms"),
    ];
    by.map(|(columns, group)| {
        format!(
            "SELECT e.state, e.wait_code, e.reason, {columns}, count(*) AS people,
                 count(*) FILTER (WHERE e.sent > 0) AS sent, count(e.replied_at) AS replied, count(e.goal_at) AS goal,
                 sum(e.sent)::bigint AS messages
             FROM sop_enrollments e
             WHERE e.organization_id = $1 AND e.sop_id = $2 AND ($3 IS NULL OR e.version = $3)
             GROUP BY e.state, e.wait_code, e.reason{group}"
        )
    })
});

/// Counts the people of a plan, in one version of it or in all, in one pass over their enrollments.
pub async fn people(
    conn: &mut Conn,
    organization: Uuid,
    sop: Uuid,
    version: Option<i32>,
    by: By,
) -> Result<Vec<People>> {
    let [all, step, arm] = &*PEOPLE;
    let text = match by {
        By::All => all,
        By::Step => step,
        By::Arm => arm,
    };
    Ok(sql_query(text.as_str())
        .bind::<SqlUuid, _>(organization)
        .bind::<SqlUuid, _>(sop)
        .bind::<Nullable<Integer>, _>(version)
        .load(conn)
        .await?)
}

/// Steps of a plan's people that stand alike.
#[derive(Debug, Clone, QueryableByName)]
pub struct Steps {
    /// The step.
    #[diesel(sql_type = Text)]
    pub step_id: String,
    /// How they stand.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// Why.
    #[diesel(sql_type = Nullable<Text>)]
    pub reason: Option<String>,
    /// How many they are.
    #[diesel(sql_type = BigInt)]
    pub steps: i64,
}

/// Counts what became of a plan's steps, in one version of it or in all.
pub async fn steps(
    conn: &mut Conn,
    organization: Uuid,
    sop: Uuid,
    version: Option<i32>,
) -> Result<Vec<Steps>> {
    Ok(sql_query(
        "SELECT s.step_id, s.state, s.reason, count(*) AS steps FROM sop_steps s
         WHERE s.organization_id = $1 AND s.sop_id = $2 AND ($3 IS NULL OR s.version = $3) GROUP BY 1, 2, 3",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(sop)
    .bind::<Nullable<Integer>, _>(version)
    .load(conn)
    .await?)
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Counts the messages of a plan of which nobody knows whether they arrived.
pub async fn unknown(conn: &mut Conn, organization: Uuid, sop: Uuid, version: Option<i32>) -> Result<i64> {
    let row: Count = sql_query(
        "SELECT count(*) AS n FROM sop_steps s
         WHERE s.sop_id = $2 AND s.organization_id = $1 AND ($3 IS NULL OR s.version = $3) AND s.state = 'unknown'",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(sop)
    .bind::<Nullable<Integer>, _>(version)
    .get_result(conn)
    .await?;
    Ok(row.n)
}

/// An enrollment of a contact, in whichever plan.
#[derive(Debug, Clone, QueryableByName)]
pub struct OfContact {
    /// The enrollment.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The name of its plan.
    #[diesel(sql_type = Text)]
    pub sop_name: String,
}

/// Returns the enrollments of a contact in all plans, newest first, older than `before`: a probe per plan of the organisation.
pub async fn of_contact(
    conn: &mut Conn,
    organization: Uuid,
    contact: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<OfContact>> {
    Ok(sql_query(
        "SELECT e.id, t.name AS sop_name FROM sop_tasks t CROSS JOIN LATERAL (
             SELECT x.id FROM sop_enrollments x WHERE x.sop_id = t.id AND x.contact_id = $2
         ) e
         WHERE t.organization_id = $1 AND ($3 IS NULL OR e.id < $3) ORDER BY e.id DESC LIMIT $4",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(contact)
    .bind::<Nullable<SqlUuid>, _>(before)
    .bind::<BigInt, _>(limit)
    .load(conn)
    .await?)
}
