//! Contacts: people and groups, as one account knows them.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::contacts;
use crate::{Conn, Result};

/// A contact.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = contacts)]
pub struct Contact {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The account that knows it.
    pub account_id: Uuid,
    /// Its id in WeChat.
    pub wxid: String,
    /// `friend`, `group`, `stranger` or `official`.
    pub kind: String,
    /// The name that it has given itself.
    pub nickname: String,
    /// What the account's owner calls it.
    pub remark: String,
    /// The WeChat number.
    pub alias: Option<String>,
    /// Address of the picture.
    pub avatar: Option<String>,
    /// Our words for it.
    pub tags: Vec<String>,
    /// WeChat's labels.
    pub labels: Vec<String>,
    /// Values for texts and workflows.
    pub variables: Value,
    /// Since when nothing that a machine writes goes to it.
    pub suppressed_at: Option<DateTime<Utc>>,
    /// Since when it is a friend.
    pub added_at: Option<DateTime<Utc>>,
    /// Since when it is none any more.
    pub removed_at: Option<DateTime<Utc>>,
    /// When it was last fetched.
    pub synced_at: Option<DateTime<Utc>>,
    /// When it was first seen.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
}

/// Returns a contact of the organisation.
pub async fn get(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Contact>> {
    Ok(contacts::table
        .find(id)
        .filter(contacts::organization_id.eq(organization))
        .select(Contact::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns a contact of the organisation, locked for a change.
pub async fn lock(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Contact>> {
    Ok(contacts::table
        .find(id)
        .filter(contacts::organization_id.eq(organization))
        .for_update()
        .select(Contact::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Writes what people of ours set of a contact.
pub async fn update(conn: &mut Conn, contact: &Contact) -> Result<()> {
    diesel::update(
        contacts::table.find(contact.id).filter(contacts::organization_id.eq(contact.organization_id)),
    )
    .set((
        contacts::tags.eq(&contact.tags),
        contacts::variables.eq(&contact.variables),
        contacts::suppressed_at.eq(contact.suppressed_at),
        contacts::updated_at.eq(diesel::dsl::now),
    ))
    .execute(conn)
    .await?;
    Ok(())
}

/// What the provider says of a contact. None: not told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told<'a> {
    /// Its name.
    pub nickname: Option<&'a str>,
    /// What the account's owner calls it.
    pub remark: Option<&'a str>,
    /// The WeChat number.
    pub alias: Option<&'a str>,
    /// Address of the picture.
    pub avatar: Option<&'a str>,
    /// It became a friend.
    pub became_friend: bool,
}

/// Notes what the provider says of a contact, which is made if it was not known.
pub async fn tell(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    wxid: &str,
    kind: &str,
    told: Told<'_>,
) -> Result<()> {
    sql_query(
        "INSERT INTO contacts (id, organization_id, account_id, wxid, kind, nickname, remark, alias, avatar, added_at) \
         VALUES ($1, $2, $3, $4, $5, COALESCE($6, ''), COALESCE($7, ''), $8, $9, \
             CASE WHEN $10 THEN clock_timestamp() END) \
         ON CONFLICT (account_id, wxid) DO UPDATE SET nickname = COALESCE($6, contacts.nickname), \
             remark = COALESCE($7, contacts.remark), alias = COALESCE($8, contacts.alias), \
             avatar = COALESCE($9, contacts.avatar), updated_at = clock_timestamp(), \
             kind = CASE WHEN $10 AND contacts.kind = 'stranger' THEN 'friend' ELSE contacts.kind END, \
             added_at = CASE WHEN $10 THEN COALESCE(contacts.added_at, clock_timestamp()) ELSE contacts.added_at END, \
             removed_at = CASE WHEN $10 THEN NULL ELSE contacts.removed_at END",
    )
    .bind::<SqlUuid, _>(Uuid::now_v7())
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(account)
    .bind::<Text, _>(wxid)
    .bind::<Text, _>(kind)
    .bind::<Nullable<Text>, _>(told.nickname)
    .bind::<Nullable<Text>, _>(told.remark)
    .bind::<Nullable<Text>, _>(told.alias)
    .bind::<Nullable<Text>, _>(told.avatar)
    .bind::<Bool, _>(told.became_friend)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that a contact is no friend any more, or that the group was left. Returns false if that was known, or it was not.
pub async fn remove(conn: &mut Conn, organization: Uuid, account: Uuid, wxid: &str) -> Result<bool> {
    let changed = diesel::update(contacts::table)
        .filter(contacts::account_id.eq(account).and(contacts::wxid.eq(wxid)))
        .filter(contacts::organization_id.eq(organization).and(contacts::removed_at.is_null()))
        .set((contacts::removed_at.eq(diesel::dsl::now), contacts::updated_at.eq(diesel::dsl::now)))
        .execute(conn)
        .await?;
    Ok(changed == 1)
}
