//! Tags as WeChat's labels: what is to be written there, and what we know of its labels.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Bool, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::cached::Cache;
use crate::tables::{wechat_accounts, wechat_labels};
use crate::{Conn, Result};

/// A friend whose tags are labels in WeChat.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Labelled {
    /// Its id in WeChat.
    #[diesel(sql_type = Text)]
    pub wxid: String,
    /// Our words for it.
    #[diesel(sql_type = Array<Text>)]
    pub tags: Vec<String>,
    /// Those that WeChat has from us.
    #[diesel(sql_type = Array<Text>)]
    pub synced_tags: Vec<String>,
    /// The account's tags become labels.
    #[diesel(sql_type = Bool)]
    pub wanted: bool,
}

/// Returns a friend of an account. None: there is no such friend, or it is none any more.
pub async fn labelled(conn: &mut Conn, organization: Uuid, contact: Uuid) -> Result<Option<Labelled>> {
    Ok(sql_query(
        "SELECT k.wxid, k.tags, k.synced_tags, a.label_sync AND a.deleted_at IS NULL AS wanted \
         FROM contacts k JOIN wechat_accounts a ON a.id = k.account_id \
         WHERE k.id = $2 AND k.organization_id = $1 AND k.kind = 'friend' AND k.removed_at IS NULL",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(contact)
    .cached()
    .get_result(conn)
    .await
    .optional()?)
}

/// Tells whether the tags of an account's contacts become labels in WeChat.
pub async fn wanted(conn: &mut Conn, organization: Uuid, account: Uuid) -> Result<bool> {
    let found: Option<bool> = wechat_accounts::table
        .find(account)
        .filter(wechat_accounts::organization_id.eq(organization).and(wechat_accounts::deleted_at.is_null()))
        .select(wechat_accounts::label_sync)
        .first(conn)
        .await
        .optional()?;
    Ok(found.unwrap_or(false))
}

/// Notes which tags of a friend are labels in WeChat now.
pub async fn synced(conn: &mut Conn, organization: Uuid, contact: Uuid, tags: &[String]) -> Result<()> {
    sql_query(
        "UPDATE contacts SET synced_tags = $3, \
             labels = ARRAY(SELECT DISTINCT l FROM unnest(labels || $3) AS l \
                 WHERE l = ANY($3) OR NOT l = ANY(synced_tags) ORDER BY l) \
         WHERE id = $2 AND organization_id = $1",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(contact)
    .bind::<Array<Text>, _>(tags)
    .cached()
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the ids of an account's labels that we know among these, as name and id.
pub async fn known(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    names: &[String],
) -> Result<Vec<(String, String)>> {
    Ok(wechat_labels::table
        .filter(wechat_labels::account_id.eq(account).and(wechat_labels::organization_id.eq(organization)))
        .filter(wechat_labels::name.eq_any(names))
        .select((wechat_labels::name, wechat_labels::label_id))
        .load(conn)
        .await?)
}

/// Notes the id of a label.
pub async fn learn(
    conn: &mut Conn,
    organization: Uuid,
    account: Uuid,
    name: &str,
    label_id: &str,
) -> Result<()> {
    diesel::insert_into(wechat_labels::table)
        .values((
            wechat_labels::account_id.eq(account),
            wechat_labels::name.eq(name),
            wechat_labels::organization_id.eq(organization),
            wechat_labels::label_id.eq(label_id),
        ))
        .on_conflict((wechat_labels::account_id, wechat_labels::name))
        .do_update()
        .set(wechat_labels::label_id.eq(label_id))
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets the ids of labels: WeChat does not know them any more.
pub async fn forget(conn: &mut Conn, organization: Uuid, account: Uuid, names: &[String]) -> Result<()> {
    diesel::delete(wechat_labels::table)
        .filter(wechat_labels::account_id.eq(account).and(wechat_labels::organization_id.eq(organization)))
        .filter(wechat_labels::name.eq_any(names))
        .execute(conn)
        .await?;
    Ok(())
}
