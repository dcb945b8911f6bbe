//! What was said in conversations, by whom, and how soon: counted over the record, by account.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Double, Nullable, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::views::{lower_bound, upper_bound};
use crate::{Conn, Result};

/// Messages of an account.
#[derive(Debug, Clone, Default, QueryableByName)]
pub struct Messages {
    /// The account; none: all of them.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub account_id: Option<Uuid>,
    /// From customers.
    #[diesel(sql_type = BigInt)]
    pub received: i64,
    /// Typed on the phone.
    #[diesel(sql_type = BigInt)]
    pub phone: i64,
    /// Sent by people over the API.
    #[diesel(sql_type = BigInt)]
    pub person: i64,
    /// Written by a model.
    #[diesel(sql_type = BigInt)]
    pub ai: i64,
    /// Sent by a procedure.
    #[diesel(sql_type = BigInt)]
    pub sop: i64,
}

/// Turns of an account.
#[derive(Debug, Clone, Default, QueryableByName)]
pub struct Turns {
    /// The account; none: all of them.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub account_id: Option<Uuid>,
    /// That were opened.
    #[diesel(sql_type = BigInt)]
    pub turns: i64,
    /// Of those, that a model answered.
    #[diesel(sql_type = BigInt)]
    pub answered: i64,
    /// Of those, that went to a person.
    #[diesel(sql_type = BigInt)]
    pub handed_off: i64,
    /// Seconds from the first message to the first part of the answer: half of the answers were quicker.
    #[diesel(sql_type = Nullable<Double>)]
    pub median_s: Option<f64>,
    /// Nine in ten were quicker.
    #[diesel(sql_type = Nullable<Double>)]
    pub p90_s: Option<f64>,
}

/// Opt-outs of an account.
#[derive(Debug, Clone, Default, QueryableByName)]
pub struct OptOuts {
    /// The account; none: all of them, also those that no account received.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub account_id: Option<Uuid>,
    /// People who opted out.
    #[diesel(sql_type = BigInt)]
    pub opt_outs: i64,
}

/// Counts the messages of a time, by account and, in the row without an account, of all.
pub async fn messages(
    conn: &mut Conn,
    organization: Uuid,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<Messages>> {
    Ok(sql_query(
        "SELECT account_id, count(*) FILTER (WHERE direction = 'in') AS received,
            count(*) FILTER (WHERE direction = 'out' AND origin = 'phone') AS phone,
            count(*) FILTER (WHERE direction = 'out' AND origin = 'person') AS person,
            count(*) FILTER (WHERE direction = 'out' AND origin = 'ai') AS ai,
            count(*) FILTER (WHERE direction = 'out' AND origin = 'sop') AS sop
         FROM messages
         WHERE organization_id = $1 AND id >= $2 AND id < $3 AND created_at >= $4 AND created_at < $5
         GROUP BY GROUPING SETS ((account_id), ())",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(lower_bound(from))
    .bind::<SqlUuid, _>(upper_bound(to))
    .bind::<Timestamptz, _>(from)
    .bind::<Timestamptz, _>(to)
    .load(conn)
    .await?)
}

/// Counts the turns that were opened in a time, by account and, in the row without an account, of all.
pub async fn turns(
    conn: &mut Conn,
    organization: Uuid,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<Turns>> {
    Ok(sql_query(
        "SELECT account_id, count(*) AS turns, count(*) FILTER (WHERE state = 'answered') AS answered,
            count(*) FILTER (WHERE state = 'handed_off') AS handed_off,
            percentile_cont(0.5) WITHIN GROUP (ORDER BY took) AS median_s,
            percentile_cont(0.9) WITHIN GROUP (ORDER BY took) AS p90_s
         FROM (SELECT account_id, state,
                CASE WHEN answered_at IS NOT NULL
                    THEN greatest(extract(epoch FROM answered_at - opened_at), 0)::double precision END AS took
            FROM turns
            WHERE organization_id = $1 AND id >= $2 AND id < $3 AND opened_at >= $4 AND opened_at < $5) t
         GROUP BY GROUPING SETS ((account_id), ())",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(lower_bound(from))
    .bind::<SqlUuid, _>(upper_bound(to))
    .bind::<Timestamptz, _>(from)
    .bind::<Timestamptz, _>(to)
    .load(conn)
    .await?)
}

/// Counts the people who opted out in a time, by account and, in the row without an account, of all.
pub async fn opt_outs(
    conn: &mut Conn,
    organization: Uuid,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<OptOuts>> {
    // Opt-outs that no account received are in the sum over all alone.
    Ok(sql_query(
        "SELECT account_id, count(*) AS opt_outs FROM opt_outs
         WHERE organization_id = $1 AND created_at >= $2 AND created_at < $3
         GROUP BY GROUPING SETS ((account_id), ()) HAVING grouping(account_id) = 1 OR account_id IS NOT NULL",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Timestamptz, _>(from)
    .bind::<Timestamptz, _>(to)
    .load(conn)
    .await?)
}
