//! WeChat accounts: who sends, on which device, how fast.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::{lanes, wechat_accounts};
use crate::{Conn, Result};

/// Name of the constraint that a wxid of another account runs into.
pub const WXID_KEY: &str = "wechat_accounts_wxid_key";
/// Name of the constraint that a device of another account runs into.
pub const APP_KEY: &str = "wechat_accounts_app_key";

/// An account.
#[derive(Clone, Queryable, Selectable, Insertable, Identifiable, AsChangeset)]
#[diesel(table_name = wechat_accounts, treat_none_as_null = true)]
pub struct Account {
    /// UUIDv7; also the id of its lane.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// Who added it.
    pub user_id: Uuid,
    /// Its id in WeChat; none before the first login.
    pub wxid: Option<String>,
    /// Its name in WeChat.
    pub nickname: String,
    /// Address of its picture.
    pub avatar: Option<String>,
    /// The provider token, sealed; none: the token of this install.
    pub gewe_token_id: Option<String>,
    /// Stable key of the account's own token.
    pub token_key: Option<String>,
    /// The device.
    pub gewe_app_id: Option<String>,
    /// Where it stands; only `ONLINE` may send.
    pub status: String,
    /// Limit.
    pub messages_per_minute: i32,
    /// Limit, in milliseconds.
    pub min_gap_ms: i32,
    /// Limit.
    pub messages_per_day: i32,
    /// Limit.
    pub recipients_per_minute: i32,
    /// Limit, counted over all accounts of the token.
    pub api_calls_per_hour: i32,
    /// When the provider last spoke of it.
    pub last_seen_at: Option<DateTime<Utc>>,
    /// When it was removed.
    pub deleted_at: Option<DateTime<Utc>>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("id", &self.id).field("status", &self.status).finish_non_exhaustive()
    }
}

/// How careful an account has to be. The platform writes it, as logins and risk signals come.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = wechat_accounts)]
pub struct Health {
    /// Since when it has been logged in without a break of a day; none: it never was.
    pub warm_since: Option<DateTime<Utc>>,
    /// Since when it is logged out.
    pub offline_since: Option<DateTime<Utc>>,
    /// The signal of its latest hold.
    pub risk_signal: Option<String>,
    /// When that hold began.
    pub risk_held_at: Option<DateTime<Utc>>,
    /// When a person lifted its last hold.
    pub risk_lifted_at: Option<DateTime<Utc>>,
    /// Tags of its contacts become labels in WeChat.
    pub label_sync: bool,
}

/// An account with what its lane says.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(check_for_backend(diesel::pg::Pg))]
pub struct WithLane {
    /// The account.
    #[diesel(embed)]
    pub account: Account,
    /// How careful it has to be.
    #[diesel(embed)]
    pub health: Health,
    /// Since when it is paused.
    #[diesel(select_expression = lanes::paused_at)]
    pub paused_at: Option<DateTime<Utc>>,
    /// Why it is paused.
    #[diesel(select_expression = lanes::paused_reason)]
    pub paused_reason: Option<String>,
}

/// Adds an account. A wxid or device in use violates [`WXID_KEY`] or [`APP_KEY`].
pub async fn insert(conn: &mut Conn, account: &Account) -> Result<()> {
    diesel::insert_into(wechat_accounts::table).values(account).execute(conn).await?;
    Ok(())
}

/// Tells whether the organisation has the account: all that enqueueing asks.
pub async fn exists(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<bool> {
    Ok(!existing(conn, organization, &[id]).await?.is_empty())
}

/// Returns those of `ids` that are accounts of the organisation.
pub async fn existing(conn: &mut Conn, organization: Uuid, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(wechat_accounts::table
        .filter(wechat_accounts::id.eq_any(ids))
        .filter(wechat_accounts::organization_id.eq(organization).and(wechat_accounts::deleted_at.is_null()))
        .select(wechat_accounts::id)
        .load(conn)
        .await?)
}

/// Returns one account, unless it was removed.
pub async fn get(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<WithLane>> {
    Ok(wechat_accounts::table
        .inner_join(lanes::table.on(lanes::id.eq(wechat_accounts::id)))
        .filter(wechat_accounts::id.eq(id).and(wechat_accounts::organization_id.eq(organization)))
        .filter(wechat_accounts::deleted_at.is_null())
        .select(WithLane::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns the organisation's accounts, newest first, older than `before`.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<WithLane>> {
    let mut query = wechat_accounts::table
        .inner_join(lanes::table.on(lanes::id.eq(wechat_accounts::id)))
        .filter(wechat_accounts::organization_id.eq(organization))
        .filter(wechat_accounts::deleted_at.is_null())
        .order(wechat_accounts::id.desc())
        .limit(limit)
        .select(WithLane::as_select())
        .into_boxed();
    if let Some(before) = before {
        query = query.filter(wechat_accounts::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Locks an account for a change and returns it, unless it was removed.
///
/// Locks its lane first, as the gate before a send does; the other way round the two would wait for each other.
pub async fn lock(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Account>> {
    let lane = lanes::table
        .filter(lanes::id.eq(id).and(lanes::organization_id.eq(organization)))
        .select(lanes::id)
        .for_update()
        .first::<Uuid>(conn)
        .await
        .optional()?;
    if lane.is_none() {
        return Ok(None);
    }
    Ok(wechat_accounts::table
        .find(id)
        .filter(wechat_accounts::organization_id.eq(organization))
        .filter(wechat_accounts::deleted_at.is_null())
        .for_update()
        .select(Account::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Writes back an account that the caller has locked.
pub async fn update(conn: &mut Conn, account: &Account) -> Result<()> {
    diesel::update(account).set(account).execute(conn).await?;
    Ok(())
}

/// Sets what a login changes: after a break of more than a day, or at its first login, an account is new.
///
/// By the clock of campaigns, whose caps it is for.
pub(crate) const LOGGED_IN: &str = "warm_since = CASE WHEN warm_since IS NULL \
    OR offline_since < campaign_now() - interval '1 day' THEN campaign_now() ELSE warm_since END, offline_since = NULL";

/// Sets what a logout changes.
pub(crate) const LOGGED_OUT: &str = "offline_since = COALESCE(offline_since, campaign_now())";

/// Notes that an account is logged in, or is not. The caller has locked it.
pub async fn note_login(conn: &mut Conn, organization: Uuid, id: Uuid, logged_in: bool) -> Result<()> {
    let set = if logged_in { LOGGED_IN } else { LOGGED_OUT };
    sql_query(format!("UPDATE wechat_accounts SET {set} WHERE id = $1 AND organization_id = $2"))
        .bind::<SqlUuid, _>(id)
        .bind::<SqlUuid, _>(organization)
        .execute(conn)
        .await?;
    Ok(())
}

/// Chooses whether tags of an account's contacts become labels in WeChat. The caller has locked it.
pub async fn choose_label_sync(conn: &mut Conn, organization: Uuid, id: Uuid, on: bool) -> Result<()> {
    diesel::update(wechat_accounts::table.find(id))
        .filter(wechat_accounts::organization_id.eq(organization))
        .set(wechat_accounts::label_sync.eq(on))
        .execute(conn)
        .await?;
    Ok(())
}

/// How much an account has sent lately, as its limits count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Sent {
    /// The account.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    /// Messages in the last 60 seconds.
    #[diesel(sql_type = BigInt)]
    pub last_minute: i64,
    /// Messages in the last 24 hours.
    #[diesel(sql_type = BigInt)]
    pub last_day: i64,
}

/// Counts the sends of accounts in their rolling windows. A call under way counts.
///
/// The time is read in a subquery of its own: a volatile function beside a column is no bound for an index scan.
pub async fn sent(conn: &mut Conn, accounts: &[Uuid]) -> Result<Vec<Sent>> {
    Ok(sql_query(
        "SELECT a.id AS account_id, \
         (SELECT count(*) FROM sends s WHERE s.account_id = a.id AND s.counts \
             AND s.window_at > (SELECT clock_timestamp()) - interval '60 seconds') AS last_minute, \
         (SELECT count(*) FROM sends s WHERE s.account_id = a.id AND s.counts \
             AND s.window_at > (SELECT clock_timestamp()) - interval '24 hours') AS last_day \
         FROM unnest($1) AS a (id)",
    )
    .bind::<Array<SqlUuid>, _>(accounts)
    .load(conn)
    .await?)
}
