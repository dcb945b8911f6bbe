//! Candidates: contacts who may be brought into a plan, with what decides whether it takes them.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::{Conn, Result};

/// What a candidate brings along.
#[derive(Debug, Clone, QueryableByName)]
pub struct Candidate {
    /// The contact.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The account that knows it.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    /// Its id in WeChat.
    #[diesel(sql_type = Text)]
    pub wxid: String,
    /// `friend`, `group`, `stranger` or `official`.
    #[diesel(sql_type = Text)]
    pub kind: String,
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
    pub timezone: Option<String>,
    /// Who answers in its conversation.
    #[diesel(sql_type = Nullable<Text>)]
    pub mode: Option<String>,
    /// When it wrote last.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last_inbound_at: Option<DateTime<Utc>>,
    /// What it wrote then.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_inbound_text: Option<String>,
    /// It wants no more messages.
    #[diesel(sql_type = Bool)]
    pub opted_out: bool,
    /// Nothing that a machine writes goes to it.
    #[diesel(sql_type = Bool)]
    pub suppressed: bool,
    /// It is no friend any more.
    #[diesel(sql_type = Bool)]
    pub removed: bool,
    /// The account was removed.
    #[diesel(sql_type = Bool)]
    pub account_gone: bool,
    /// It has agreed to the purpose.
    #[diesel(sql_type = Bool)]
    pub consents: bool,
    /// It is in this plan, under any account.
    #[diesel(sql_type = Bool)]
    pub in_plan: bool,
    /// It is in another plan, under any account.
    #[diesel(sql_type = Bool)]
    pub in_other_plan: bool,
    /// How often it has been through this plan, under any account.
    #[diesel(sql_type = BigInt)]
    pub times: i64,
    /// When that ended last.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub ended_at: Option<DateTime<Utc>>,
}

pub(super) const CANDIDATES: &str = "\
SELECT k.id, k.account_id, k.wxid, k.kind, k.tags, k.variables, k.source, k.added_at, k.timezone,
    CASE WHEN c.mode = 'human' AND c.mode_until <= clock_timestamp() THEN 'ai' ELSE c.mode END AS mode, c.last_inbound_at,
    (SELECT m.text FROM messages m WHERE m.conversation_id = c.id AND m.direction = 'in'
        AND c.last_inbound_at IS NOT NULL ORDER BY m.id DESC LIMIT 1) AS last_inbound_text,
    EXISTS (SELECT FROM opt_outs o WHERE o.organization_id = $1 AND o.wxid = k.wxid) AS opted_out,
    k.suppressed_at IS NOT NULL AS suppressed, k.removed_at IS NOT NULL AS removed,
    a.deleted_at IS NOT NULL AS account_gone,
    EXISTS (SELECT FROM consents s WHERE s.contact_id = k.id AND s.purpose = $4 AND s.withdrawn_at IS NULL) AS consents,
    COALESCE(was.in_plan, false) AS in_plan, COALESCE(was.in_other_plan, false) AS in_other_plan,
    COALESCE(was.times, 0) AS times, was.ended_at
FROM contacts k JOIN wechat_accounts a ON a.id = k.account_id
LEFT JOIN conversations c ON c.account_id = k.account_id AND c.peer_wxid = k.wxid
LEFT JOIN LATERAL (
    SELECT bool_or(e.finished_at IS NULL AND e.sop_id = $3) AS in_plan,
        bool_or(e.finished_at IS NULL AND e.sop_id <> $3) AS in_other_plan,
        count(*) FILTER (WHERE e.sop_id = $3) AS times,
        max(e.finished_at) FILTER (WHERE e.sop_id = $3) AS ended_at
    FROM contacts same CROSS JOIN LATERAL (
        SELECT x.sop_id, x.finished_at FROM sop_enrollments x WHERE x.contact_id = same.id AND x.finished_at IS NULL
        UNION ALL
        SELECT y.sop_id, y.finished_at FROM sop_enrollments y
        WHERE y.sop_id = $3 AND y.contact_id = same.id AND y.finished_at IS NOT NULL
    ) e
    WHERE same.account_id = ANY(ARRAY(SELECT o.id FROM wechat_accounts o WHERE o.organization_id = $1))
      AND same.wxid = k.wxid
) was ON true
WHERE k.id = ANY($2) AND k.organization_id = $1
ORDER BY k.id";

static LOCKED_CANDIDATES: LazyLock<String> = LazyLock::new(|| format!("{CANDIDATES} FOR UPDATE OF k"));

/// Locks contacts of the organisation, and reads what decides whether a plan takes them. Others are left out.
pub async fn lock(
    conn: &mut Conn,
    organization: Uuid,
    contacts: &[Uuid],
    sop: Uuid,
    purpose: Option<&str>,
) -> Result<Vec<Candidate>> {
    read_candidates(conn, &LOCKED_CANDIDATES, organization, contacts, sop, purpose).await
}

/// The same without locking anybody, for whoever only wants to know.
pub async fn look_at(
    conn: &mut Conn,
    organization: Uuid,
    contacts: &[Uuid],
    sop: Uuid,
    purpose: Option<&str>,
) -> Result<Vec<Candidate>> {
    read_candidates(conn, CANDIDATES, organization, contacts, sop, purpose).await
}

async fn read_candidates(
    conn: &mut Conn,
    text: &'static str,
    organization: Uuid,
    contacts: &[Uuid],
    sop: Uuid,
    purpose: Option<&str>,
) -> Result<Vec<Candidate>> {
    Ok(sql_query(text)
        .bind::<SqlUuid, _>(organization)
        .bind::<Array<SqlUuid>, _>(contacts)
        .bind::<SqlUuid, _>(sop)
        .bind::<Nullable<Text>, _>(purpose)
        .cached()
        .load(conn)
        .await?)
}

#[derive(QueryableByName)]
struct Person {
    #[diesel(sql_type = Text)]
    wxid: String,
}

/// Returns those of these people who are in a plan, under any account. Whoever has locked the plan learns of everybody who came into
/// it before.
pub async fn people_in(
    conn: &mut Conn,
    organization: Uuid,
    sop: Uuid,
    wxids: &[&str],
) -> Result<Vec<String>> {
    let rows: Vec<Person> = sql_query(
        // From the people to the plan, whatever statistics say: a plan has many more.
        "SELECT k.wxid FROM contacts k CROSS JOIN LATERAL (SELECT FROM sop_enrollments e \
             WHERE e.sop_id = $2 AND e.contact_id = k.id AND e.finished_at IS NULL LIMIT 1) inside \
         WHERE k.account_id = ANY(ARRAY(SELECT a.id FROM wechat_accounts a WHERE a.organization_id = $1)) AND k.wxid = ANY($3)",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(sop)
    .bind::<Array<Text>, _>(wxids)
    .cached()
    .load(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.wxid).collect())
}
