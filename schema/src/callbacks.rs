//! What the provider told us of its own accord: every event once, for ever, and its body until it is pruned.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::{callback_events, wechat_accounts};
use crate::{Conn, Result};

/// An account that an event may belong to.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = wechat_accounts, check_for_backend(diesel::pg::Pg))]
pub struct Addressee {
    /// The account.
    pub id: Uuid,
    /// Its tenant.
    pub organization_id: Uuid,
    /// Its id in WeChat.
    pub wxid: Option<String>,
    /// Its device.
    pub gewe_app_id: Option<String>,
}

/// Returns the accounts that have one of these devices or wxids, of all organisations: the caller is the provider.
pub async fn addressees(conn: &mut Conn, devices: &[&str], wxids: &[&str]) -> Result<Vec<Addressee>> {
    // A wxid is one account's, and so is a device but for those that changed hands.
    let most = 16 * (devices.len() + wxids.len());
    Ok(wechat_accounts::table
        .filter(wechat_accounts::gewe_app_id.eq_any(devices).or(wechat_accounts::wxid.eq_any(wxids)))
        .filter(wechat_accounts::deleted_at.is_null())
        .order(wechat_accounts::id)
        .limit(i64::try_from(most).unwrap_or(i64::MAX))
        .select(Addressee::as_select())
        .load(conn)
        .await?)
}

/// An event to be stored.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// UUIDv7 made by the caller.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account that it belongs to.
    pub account_id: Uuid,
    /// The same key of the same account is the same event.
    pub key: String,
    /// The provider's word for it.
    pub event_type: String,
    /// As it came.
    pub body: Value,
}

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// Keys in order, so that two of these statements never wait for each other in a circle. A key that another transaction is
/// about to commit is waited for: whoever is told that an event is known can rely on it.
const STORE: &str = "\
WITH input AS (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
        WITH ORDINALITY AS t (id, organization_id, account_id, event_key, event_type, body, ord)
), keyed AS (
    INSERT INTO callback_keys (account_id, event_key, event_id)
    SELECT account_id, event_key, id FROM input ORDER BY account_id, event_key, ord
    ON CONFLICT DO NOTHING RETURNING event_id
), stored AS (
    INSERT INTO callback_events (id, organization_id, account_id, event_type, body)
    SELECT id, organization_id, account_id, event_type, body FROM input
    WHERE id IN (SELECT event_id FROM keyed) ORDER BY ord
    RETURNING id
)
SELECT id FROM stored";

/// Stores those events that were never taken in before, in the caller's transaction. Returns their ids.
pub async fn store(conn: &mut Conn, events: &[NewEvent]) -> Result<Vec<Uuid>> {
    let rows = sql_query(STORE)
        .bind::<Array<SqlUuid>, _>(events.iter().map(|event| event.id).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(events.iter().map(|event| event.organization_id).collect::<Vec<_>>())
        .bind::<Array<SqlUuid>, _>(events.iter().map(|event| event.account_id).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(events.iter().map(|event| event.key.as_str()).collect::<Vec<_>>())
        .bind::<Array<Text>, _>(events.iter().map(|event| event.event_type.as_str()).collect::<Vec<_>>())
        .bind::<Array<Jsonb>, _>(events.iter().map(|event| &event.body).collect::<Vec<_>>())
        .cached()
        .load::<Stored>(conn)
        .await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// An event as its job reads it.
#[derive(Debug, Clone, QueryableByName)]
pub struct Waiting {
    /// As it came.
    #[diesel(sql_type = Jsonb)]
    pub body: Value,
    /// When it came.
    #[diesel(sql_type = Timestamptz)]
    pub received_at: DateTime<Utc>,
    /// What was made of it before.
    #[diesel(sql_type = Nullable<Text>)]
    pub outcome: Option<String>,
    /// The account's own wxid.
    #[diesel(sql_type = Nullable<Text>)]
    pub own_wxid: Option<String>,
}

/// Returns an event. None: it was pruned, or it is not the organisation's.
pub async fn waiting(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Waiting>> {
    const READ: &str = "\
SELECT e.body, e.received_at, e.outcome, a.wxid AS own_wxid
FROM callback_events e LEFT JOIN wechat_accounts a ON a.id = e.account_id AND a.organization_id = e.organization_id
WHERE e.id = $1 AND e.organization_id = $2";
    Ok(sql_query(READ)
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(organization)
        .cached()
        .get_result(conn)
        .await
        .optional()?)
}

/// Writes down what was made of an event. The first outcome stands.
pub async fn processed(conn: &mut Conn, organization: Uuid, id: Uuid, outcome: &str) -> Result<()> {
    const WRITE: &str = "\
UPDATE callback_events SET outcome = $3, processed_at = clock_timestamp()
WHERE id = $1 AND organization_id = $2 AND outcome IS NULL";
    sql_query(WRITE)
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(organization)
        .bind::<Text, _>(outcome)
        .cached()
        .execute(conn)
        .await?;
    Ok(())
}

/// An event as people see it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = callback_events, check_for_backend(diesel::pg::Pg))]
pub struct Row {
    /// UUIDv7.
    pub id: Uuid,
    /// The account that it belongs to.
    pub account_id: Uuid,
    /// The provider's word for it.
    pub event_type: String,
    /// As it came.
    pub body: Value,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// What was made of it; none: its job has not run.
    pub outcome: Option<String>,
    /// When that was.
    pub processed_at: Option<DateTime<Utc>>,
}

/// Returns the organisation's events, newest first, older than `before`.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    outcome: Option<&str>,
    account: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Row>> {
    let mut query = callback_events::table
        .filter(callback_events::organization_id.eq(organization))
        .order(callback_events::id.desc())
        .limit(limit)
        .select(Row::as_select())
        .into_boxed();
    match outcome {
        Some("waiting") => query = query.filter(callback_events::outcome.is_null()),
        // A constant, so that the partial index is seen to hold it.
        Some("unknown") => {
            query = query.filter(diesel::dsl::sql::<diesel::sql_types::Bool>("outcome = 'unknown'"))
        }
        Some(outcome) => query = query.filter(callback_events::outcome.eq(outcome.to_owned())),
        None => {}
    }
    if let Some(account) = account {
        query = query.filter(callback_events::account_id.eq(account));
    }
    if let Some(before) = before {
        query = query.filter(callback_events::id.lt(before));
    }
    Ok(query.load(conn).await?)
}
