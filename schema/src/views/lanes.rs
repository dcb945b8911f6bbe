//! Lanes with what waits in them.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::lanes::ACCOUNT_OF_BACKGROUND;
use crate::{Conn, Result};

/// Counts of one lane stop here: a list must not count a million rows.
pub const COUNT_CAP: i64 = 10_000;

/// A lane and what waits in it.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub struct Lane {
    /// The id of what it serialises.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// What that is: `account`, `background`, `conversation` or `enrollment`.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// The account that it belongs to.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub account_id: Option<Uuid>,
    /// Name of that account.
    #[diesel(sql_type = Nullable<Text>)]
    pub label: Option<String>,
    /// When it looks for its next job.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub runnable_at: Option<DateTime<Utc>>,
    /// Why it does not look before.
    #[diesel(sql_type = Nullable<Text>)]
    pub wait_code: Option<String>,
    /// The job that holds it.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub busy_job_id: Option<Uuid>,
    /// Since when it is paused.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub paused_at: Option<DateTime<Utc>>,
    /// Why it is paused.
    #[diesel(sql_type = Nullable<Text>)]
    pub paused_reason: Option<String>,
    /// Jobs that wait for their turn, up to [`COUNT_CAP`].
    #[diesel(sql_type = BigInt)]
    pub available: i64,
    /// Jobs that wait for a retry, up to [`COUNT_CAP`].
    #[diesel(sql_type = BigInt)]
    pub retryable: i64,
    /// When the oldest of the jobs at the head of each class was enqueued.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub oldest_at: Option<DateTime<Utc>>,
}

static LANES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "\
SELECT l.id, l.kind, a.id AS account_id, a.nickname AS label, l.runnable_at, l.wait_code, l.busy_job_id, l.paused_at, l.paused_reason,
    (SELECT count(*) FROM (SELECT FROM pending p WHERE p.lane_id = l.id AND p.due_at IS NULL LIMIT $3) AS x)
        AS available,
    (SELECT count(*) FROM (SELECT FROM pending p WHERE p.lane_id = l.id AND p.due_at IS NOT NULL
        AND p.wait_code <> 'scheduled' LIMIT $3) AS x) AS retryable,
    (SELECT min(GREATEST(j.created_at, j.scheduled_at)) FROM (VALUES (0::smallint), (1::smallint), (2::smallint))
        AS c (class)
        CROSS JOIN LATERAL (SELECT p.job_id FROM pending p WHERE p.lane_id = l.id AND p.due_at IS NULL
            AND p.class = c.class ORDER BY p.seq LIMIT 1) AS head
        JOIN jobs j ON j.id = head.job_id) AS oldest_at
FROM lanes l LEFT JOIN conversations c ON c.id = l.id AND l.kind = 'conversation'
LEFT JOIN wechat_accounts a ON a.id = CASE l.kind WHEN 'conversation' THEN c.account_id
    WHEN 'background' THEN {ACCOUNT_OF_BACKGROUND} ELSE l.id END
WHERE l.organization_id = $1 AND ($2 IS NULL OR l.id < $2) AND ($4 IS NULL OR l.id = $4) AND a.deleted_at IS NULL
    AND ($6 IS NULL OR l.kind = $6)
ORDER BY l.id DESC LIMIT $5"
    )
});

/// Returns the organisation's lanes of a kind or of all kinds, newest first, older than `before`.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    kind: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Lane>> {
    select(conn, organization, kind, before, None, limit).await
}

/// Returns one lane of the organisation.
pub async fn get(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Lane>> {
    Ok(select(conn, organization, None, None, Some(id), 1).await?.pop())
}

async fn select(
    conn: &mut Conn,
    organization: Uuid,
    kind: Option<&str>,
    before: Option<Uuid>,
    id: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Lane>> {
    Ok(sql_query(&*LANES)
        .bind::<SqlUuid, _>(organization)
        .bind::<Nullable<SqlUuid>, _>(before)
        .bind::<BigInt, _>(COUNT_CAP)
        .bind::<Nullable<SqlUuid>, _>(id)
        .bind::<BigInt, _>(limit)
        .bind::<Nullable<Text>, _>(kind)
        .load(conn)
        .await?)
}
