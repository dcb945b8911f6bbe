//! What is known of the media of messages.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::messages;
use crate::{Conn, Result};

/// The media of a message.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = messages)]
pub struct Media {
    /// The message.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The message's kind.
    pub kind: String,
    /// What a person reads of it: a file's name.
    pub text: String,
    /// The provider's local id.
    pub msg_id: Option<String>,
    /// `waiting`, `stored`, `refused`, `gone` or `pruned`.
    pub media_state: Option<String>,
    /// Where it is, below the folder of uploads.
    pub media_path: Option<String>,
    /// What it is.
    pub media_type: Option<String>,
    /// How long it is.
    pub media_bytes: Option<i64>,
    /// When the message came in.
    pub created_at: DateTime<Utc>,
}

/// Returns what is known of a message's media. None: the organisation has no such message.
pub async fn get(conn: &mut Conn, organization: Uuid, message: Uuid) -> Result<Option<Media>> {
    Ok(messages::table
        .find(message)
        .filter(messages::organization_id.eq(organization))
        .select(Media::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns what is known of the media of some messages of the organisation, in the order of their ids.
pub async fn of(conn: &mut Conn, organization: Uuid, messages: &[Uuid]) -> Result<Vec<Media>> {
    Ok(messages::table
        .filter(messages::id.eq_any(messages).and(messages::organization_id.eq(organization)))
        .order(messages::id)
        .select(Media::as_select())
        .load(conn)
        .await?)
}

/// Returns the media of a message of any organisation: for a link that was signed for it.
pub async fn linked(conn: &mut Conn, message: Uuid) -> Result<Option<Media>> {
    Ok(messages::table.find(message).select(Media::as_select()).first(conn).await.optional()?)
}

/// Notes where the media of a message is. What is stored already stays.
pub async fn stored(
    conn: &mut Conn,
    organization: Uuid,
    message: Uuid,
    path: &str,
    media_type: &str,
    bytes: i64,
) -> Result<bool> {
    let changed = diesel::update(messages::table.find(message))
        .filter(messages::organization_id.eq(organization))
        .filter(messages::media_state.eq_any(["waiting", "gone"]))
        .set((
            messages::media_state.eq("stored"),
            messages::media_path.eq(path),
            messages::media_type.eq(media_type),
            messages::media_bytes.eq(bytes),
        ))
        .execute(conn)
        .await?;
    Ok(changed == 1)
}

/// Notes that nothing will be stored: `refused` or `gone`.
pub async fn ended(conn: &mut Conn, organization: Uuid, message: Uuid, state: &str) -> Result<()> {
    diesel::update(messages::table.find(message))
        .filter(messages::organization_id.eq(organization).and(messages::media_state.eq("waiting")))
        .set(messages::media_state.eq(state))
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes of those of `messages` that came in before `before` that their media are deleted, and returns the ids of those whose
/// files may be: all of them that are that old and never had, or no longer have, a file that anybody may see.
pub async fn prune(
    conn: &mut Conn,
    organization: Uuid,
    messages: &[Uuid],
    before: DateTime<Utc>,
) -> Result<Vec<Uuid>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = SqlUuid)]
        id: Uuid,
    }
    let old: Vec<Row> = sql_query(
        "WITH old AS ( \
             SELECT id FROM messages WHERE id = ANY($2) AND organization_id = $1 AND created_at < $3 \
                 AND media_state IS NOT NULL ORDER BY id FOR UPDATE \
         ), pruned AS ( \
             UPDATE messages SET media_state = 'pruned', media_path = NULL FROM old \
             WHERE messages.id = old.id AND messages.media_state = 'stored' \
         ) \
         SELECT id FROM old",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Array<SqlUuid>, _>(messages)
    .bind::<Timestamptz, _>(before)
    .load(conn)
    .await?;
    Ok(old.into_iter().map(|row| row.id).collect())
}
