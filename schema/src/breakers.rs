//! Breakers: a key or an account whose calls have failed too often is left alone for a while.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
use crate::{Conn, Result};

/// How a breaker moves. The numbers are policy, and the caller's.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Failures in a row that open it.
    pub threshold: i32,
    /// How long it is open at first; doubles with every further failure.
    pub open_ms: i64,
    /// How long it is open at most.
    pub most_ms: i64,
}

/// Asks for one call of all `subjects`. Some: one of them is open for so long.
///
/// Whoever comes first after an open breaker's time is let through as a probe; the others wait `probe_ms` for what becomes
/// of it.
pub async fn admit(conn: &mut Conn, subjects: &[&str], probe_ms: i64) -> Result<Option<TimeDelta>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Timestamptz)]
        now: DateTime<Utc>,
        #[diesel(sql_type = Timestamptz)]
        open_until: DateTime<Utc>,
    }
    let rows: Vec<Row> = sql_query(
        "SELECT clock_timestamp() AS now, open_until FROM breakers WHERE subject = ANY($1) AND open_until IS NOT NULL",
    )
    .bind::<Array<Text>, _>(subjects)
    .cached()
    .load(conn)
    .await?;
    let wait = rows.iter().map(|row| row.open_until - row.now).max();
    match wait {
        None => Ok(None),
        Some(wait) if wait > TimeDelta::zero() => Ok(Some(wait)),
        Some(_) => {
            let probing = sql_query(
                "UPDATE breakers b SET open_until = clock_timestamp() + $2 * interval '1 millisecond' \
                 FROM (SELECT subject FROM breakers WHERE subject = ANY($1) ORDER BY subject FOR UPDATE) s \
                 WHERE b.subject = s.subject AND b.open_until <= clock_timestamp()",
            )
            .bind::<Array<Text>, _>(subjects)
            .bind::<BigInt, _>(probe_ms)
            .cached()
            .execute(conn)
            .await?;
            // Somebody else came first, and probes.
            Ok((probing == 0).then(|| TimeDelta::milliseconds(probe_ms)))
        }
    }
}

/// Notes that a call succeeded. Writes only where there is something to forget.
pub async fn succeeded(conn: &mut Conn, subjects: &[&str]) -> Result<()> {
    sql_query(
        "UPDATE breakers b SET failures = 0, open_until = NULL, updated_at = clock_timestamp() \
         FROM (SELECT subject FROM breakers WHERE subject = ANY($1) AND (failures > 0 OR open_until IS NOT NULL) \
             ORDER BY subject FOR UPDATE) s \
         WHERE b.subject = s.subject",
    )
    .bind::<Array<Text>, _>(subjects)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that a call failed. Returns true if that opened the breaker which was closed before.
pub async fn failed(
    conn: &mut Conn,
    organization: Uuid,
    subject: &str,
    error: &str,
    policy: Policy,
) -> Result<bool> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Integer)]
        failures: i32,
    }
    let row: Row = sql_query(
        "INSERT INTO breakers AS b (subject, organization_id, failures, open_until, last_error) \
         VALUES ($1, $2, 1, CASE WHEN $4 <= 1 THEN clock_timestamp() + $5 * interval '1 millisecond' END, $3) \
         ON CONFLICT (subject) DO UPDATE SET failures = b.failures + 1, last_error = $3, updated_at = clock_timestamp(), \
             open_until = CASE WHEN b.failures + 1 >= $4 THEN clock_timestamp() \
                 + least($5 * 2 ^ least(b.failures + 1 - $4, 20), $6) * interval '1 millisecond' END \
         RETURNING failures",
    )
    .bind::<Text, _>(subject)
    .bind::<SqlUuid, _>(organization)
    .bind::<Text, _>(error)
    .bind::<Integer, _>(policy.threshold)
    .bind::<BigInt, _>(policy.open_ms)
    .bind::<BigInt, _>(policy.most_ms)
    .cached()
    .get_result(conn)
    .await?;
    Ok(row.failures == policy.threshold)
}

/// Opens a breaker at once: the next calls are known to fail.
pub async fn open(
    conn: &mut Conn,
    organization: Uuid,
    subject: &str,
    error: &str,
    open_ms: i64,
) -> Result<()> {
    sql_query(
        "INSERT INTO breakers AS b (subject, organization_id, failures, open_until, last_error) \
         VALUES ($1, $2, 1, clock_timestamp() + $4 * interval '1 millisecond', $3) \
         ON CONFLICT (subject) DO UPDATE SET failures = b.failures + 1, last_error = $3, updated_at = clock_timestamp(), \
             open_until = greatest(b.open_until, excluded.open_until)",
    )
    .bind::<Text, _>(subject)
    .bind::<SqlUuid, _>(organization)
    .bind::<Text, _>(error)
    .bind::<BigInt, _>(open_ms)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// A breaker as it is read.
#[derive(Debug, Clone, QueryableByName)]
pub struct Breaker {
    /// Failures in a row.
    #[diesel(sql_type = Integer)]
    pub failures: i32,
    /// Until when it is open.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub open_until: Option<DateTime<Utc>>,
    /// The last failure.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_error: Option<String>,
}

/// Returns a breaker of an organisation; none: nothing has failed yet.
pub async fn read(conn: &mut Conn, organization: Uuid, subject: &str) -> Result<Option<Breaker>> {
    Ok(sql_query(
        "SELECT failures, open_until, last_error FROM breakers WHERE subject = $1 AND organization_id = $2",
    )
    .bind::<Text, _>(subject)
    .bind::<SqlUuid, _>(organization)
    .get_result(conn)
    .await
    .optional()?)
}
