//! Drafts: answers of the model that wait for a person.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, SmallInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::tables::drafts;
use crate::{Conn, Result};

/// In words, not as a parameter: Postgres must see that the index of waiting drafts holds them all.
const WAITING: &str = "drafts.state = 'waiting'";

/// A draft to be written.
#[derive(Debug, Clone)]
pub struct NewDraft<'a> {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The chat.
    pub conversation_id: Uuid,
    /// The turn.
    pub turn_id: Uuid,
    /// Which run of the turn.
    pub run: i16,
    /// The epoch under which it was made.
    pub epoch: i64,
    /// The messages, in order.
    pub parts: &'a [String],
    /// `asked` or `sensitive_words`.
    pub reason: &'a str,
    /// The words that were found.
    pub word_ids: &'a [Uuid],
    /// How long it waits.
    pub minutes: i32,
}

/// Writes a draft and returns until when it waits.
pub async fn create(conn: &mut Conn, draft: &NewDraft<'_>) -> Result<DateTime<Utc>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Timestamptz)]
        expires_at: DateTime<Utc>,
    }
    let row: Row = sql_query(
        "INSERT INTO drafts (id, organization_id, account_id, conversation_id, turn_id, run, epoch, parts, reason, \
             word_ids, state, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'waiting', clock_timestamp() + $11 * interval '1 minute') \
         RETURNING expires_at",
    )
    .bind::<SqlUuid, _>(draft.id)
    .bind::<SqlUuid, _>(draft.organization_id)
    .bind::<SqlUuid, _>(draft.account_id)
    .bind::<SqlUuid, _>(draft.conversation_id)
    .bind::<SqlUuid, _>(draft.turn_id)
    .bind::<SmallInt, _>(draft.run)
    .bind::<BigInt, _>(draft.epoch)
    .bind::<Jsonb, _>(Value::from(draft.parts.to_vec()))
    .bind::<Text, _>(draft.reason)
    .bind::<Array<SqlUuid>, _>(draft.word_ids)
    .bind::<Integer, _>(draft.minutes)
    .get_result(conn)
    .await?;
    Ok(row.expires_at)
}

/// A draft as it is read.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = drafts)]
pub struct Draft {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The chat.
    pub conversation_id: Uuid,
    /// The turn.
    pub turn_id: Uuid,
    /// Which run of the turn.
    pub run: i16,
    /// The epoch under which it was made.
    pub epoch: i64,
    /// The messages, in order: a list of texts.
    pub parts: Value,
    /// `asked` or `sensitive_words`.
    pub reason: String,
    /// The words that were found.
    pub word_ids: Vec<Uuid>,
    /// `waiting`, `approved`, `rejected`, `expired` or `superseded`.
    pub state: String,
    /// Until when it waits.
    pub expires_at: DateTime<Utc>,
    /// A person changed it.
    pub edited: bool,
    /// Who decided.
    pub decided_by: Option<Uuid>,
    /// When.
    pub decided_at: Option<DateTime<Utc>>,
    /// When it was written.
    pub created_at: DateTime<Utc>,
}

impl Draft {
    /// Returns the messages.
    pub fn texts(&self) -> Vec<String> {
        let parts = self.parts.as_array().map(Vec::as_slice).unwrap_or_default();
        parts.iter().filter_map(|part| part.as_str().map(str::to_owned)).collect()
    }
}

/// Which drafts to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// In this state.
    pub state: Option<String>,
    /// Of one account.
    pub account_id: Option<Uuid>,
    /// Of one chat.
    pub conversation_id: Option<Uuid>,
    /// Older than this one.
    pub before: Option<Uuid>,
}

/// Returns the organisation's drafts, newest first.
pub async fn list(conn: &mut Conn, organization: Uuid, filter: &Filter, limit: i64) -> Result<Vec<Draft>> {
    let mut query = drafts::table
        .filter(drafts::organization_id.eq(organization))
        .order(drafts::id.desc())
        .limit(limit)
        .select(Draft::as_select())
        .into_boxed();
    match filter.state.as_deref() {
        Some("waiting") => query = query.filter(diesel::dsl::sql::<Bool>(WAITING)),
        Some(state) => query = query.filter(drafts::state.eq(state.to_owned())),
        None => {}
    }
    if let Some(account) = filter.account_id {
        query = query.filter(drafts::account_id.eq(account));
    }
    if let Some(conversation) = filter.conversation_id {
        query = query.filter(drafts::conversation_id.eq(conversation));
    }
    if let Some(before) = filter.before {
        query = query.filter(drafts::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Returns a draft of the organisation.
pub async fn read(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Draft>> {
    Ok(drafts::table
        .find(id)
        .filter(drafts::organization_id.eq(organization))
        .select(Draft::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Decides a draft that still waits. False: somebody was faster, or its time has passed.
///
/// Lock its chat before, and its turn.
pub async fn decide(
    conn: &mut Conn,
    organization: Uuid,
    id: Uuid,
    state: &str,
    by: Option<Uuid>,
    edited: Option<&[String]>,
) -> Result<bool> {
    let waiting = drafts::table
        .find(id)
        .filter(drafts::organization_id.eq(organization).and(drafts::state.eq("waiting")))
        .filter(drafts::expires_at.gt(diesel::dsl::sql::<Timestamptz>("clock_timestamp()")));
    let decided = (
        drafts::state.eq(state),
        drafts::decided_by.eq(by),
        drafts::decided_at
            .eq(diesel::dsl::sql::<diesel::sql_types::Nullable<Timestamptz>>("clock_timestamp()")),
    );
    let changed = match edited {
        Some(parts) => {
            let parts = Value::from(parts.to_vec());
            let edited = (drafts::parts.eq(parts), drafts::edited.eq(true));
            diesel::update(waiting).set((decided, edited)).execute(conn).await?
        }
        None => diesel::update(waiting).set(decided).execute(conn).await?,
    };
    Ok(changed == 1)
}

/// Returns drafts whose time has passed while nobody decided.
pub async fn overdue(conn: &mut Conn, limit: i64) -> Result<Vec<Draft>> {
    // Few drafts wait at any time, and the index of those is as small; it is in this order.
    Ok(drafts::table
        .filter(diesel::dsl::sql::<Bool>(WAITING))
        .filter(drafts::expires_at.le(diesel::dsl::sql::<Timestamptz>("clock_timestamp()")))
        .order((drafts::organization_id, drafts::id))
        .limit(limit)
        .select(Draft::as_select())
        .load(conn)
        .await?)
}

/// Marks a waiting draft as expired. False: somebody was faster.
pub async fn expire(conn: &mut Conn, id: Uuid) -> Result<bool> {
    let waiting = drafts::table.find(id).filter(drafts::state.eq("waiting"));
    let changed = diesel::update(waiting).set(drafts::state.eq("expired")).execute(conn).await?;
    Ok(changed == 1)
}
