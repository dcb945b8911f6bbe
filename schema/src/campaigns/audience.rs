//! Who is meant by a plan: contacts by its targets. What its filter says of them is asked by the caller, row by row, so that one
//! statement sees all of them at one moment.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use futures::TryStreamExt;
use serde_json::Value;
use uuid::Uuid;

use crate::{Conn, Result};

/// By what contacts are named.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// All of the kind.
    All,
    /// These.
    Ids(&'a [Uuid]),
    /// Those with one of these tags.
    Tags(&'a [String]),
}

/// Who is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The tenant.
    pub organization: Uuid,
    /// `friend` or `group`.
    pub kind: &'a str,
    /// By what they are named.
    pub by: By<'a>,
    /// The accounts that know them; empty: all.
    pub accounts: &'a [Uuid],
    /// Whether a filter is asked about them: then what it may ask of is read as well.
    pub for_filter: bool,
    /// Whether it asks what they wrote last.
    pub for_text: bool,
}

impl<'a> Wanted<'a> {
    /// Returns which of the statements asks for them, and what it is asked with.
    fn named(&self) -> (usize, &'a [Uuid], &'a [String]) {
        match self.by {
            By::All => (0, &[], &[]),
            By::Ids(ids) => (1, ids, &[]),
            By::Tags(tags) => (2, &[], tags),
        }
    }
}

/// Somebody who is meant.
#[derive(Debug, Clone, QueryableByName)]
pub struct Member {
    /// The contact.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Our words for it.
    #[diesel(sql_type = Array<Text>)]
    pub tags: Vec<String>,
    /// Its fields.
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
}

/// Returns what is true of those who are meant, by what they are named. Each is a statement of its own: what is named by ids or
/// tags is found by their indexes. Accounts that were removed are few: they are read once, and looked up for each contact.
fn meant() -> [String; 3] {
    ["true", "k.id = ANY($5)", "k.tags && $6"].map(|named| {
        format!(
            "k.organization_id = $1 AND k.kind = $2 AND k.removed_at IS NULL \
               AND k.account_id NOT IN (SELECT a.id FROM wechat_accounts a \
                   WHERE a.organization_id = $1 AND a.deleted_at IS NOT NULL) \
               AND (cardinality($3) = 0 OR k.account_id = ANY($3)) AND {named}"
        )
    })
}

static MEMBERS: LazyLock<[String; 3]> = LazyLock::new(|| {
    meant().map(|meant| {
        format!(
            "SELECT k.id, CASE WHEN $4 THEN k.tags ELSE '{{}}' END AS tags, \
                 CASE WHEN $4 THEN k.variables ELSE '{{}}' END AS variables, k.source, k.added_at, k.timezone, \
                 CASE WHEN c.mode = 'human' AND c.mode_until <= clock_timestamp() THEN 'ai' ELSE c.mode END AS mode, \
                 c.last_inbound_at, \
                 CASE WHEN $8 THEN (SELECT m.text FROM messages m WHERE m.conversation_id = c.id AND m.direction = 'in' \
                     AND c.last_inbound_at IS NOT NULL ORDER BY m.id DESC LIMIT 1) END AS last_inbound_text \
             FROM contacts k \
             LEFT JOIN conversations c ON $4 AND c.account_id = k.account_id AND c.peer_wxid = k.wxid \
             WHERE {meant} ORDER BY k.id LIMIT $7"
        )
    })
});

/// Shows the caller everybody who is meant, in the order of their ids, up to `most`.
pub async fn each(
    conn: &mut Conn,
    wanted: &Wanted<'_>,
    most: i64,
    mut visit: impl FnMut(Member) + Send,
) -> Result<()> {
    let (which, ids, tags) = wanted.named();
    let rows = sql_query(MEMBERS[which].as_str())
        .bind::<SqlUuid, _>(wanted.organization)
        .bind::<Text, _>(wanted.kind)
        .bind::<Array<SqlUuid>, _>(wanted.accounts)
        .bind::<Bool, _>(wanted.for_filter)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Text>, _>(tags)
        .bind::<BigInt, _>(most)
        .bind::<Bool, _>(wanted.for_text)
        .load_stream::<Member>(conn)
        .await?;
    let mut rows = std::pin::pin!(rows);
    while let Some(member) = rows.try_next().await? {
        visit(member);
    }
    Ok(())
}

static WRITTEN: LazyLock<[String; 3]> = LazyLock::new(|| {
    meant().map(|meant| {
        format!(
            "WITH meant AS MATERIALIZED ( \
                 SELECT k.id FROM contacts k WHERE {meant} ORDER BY k.id LIMIT $7 \
             ), counted AS MATERIALIZED (SELECT count(*) AS n FROM meant), written AS ( \
                 INSERT INTO sop_run_contacts (run_id, contact_id) SELECT $4, meant.id FROM meant, counted \
                 WHERE counted.n <= $8 \
             ) \
             SELECT n FROM counted"
        )
    })
});

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Writes down everybody who is meant as those whom a run concerns, if they are `most` at most, and returns how many there are. Of
/// more than `countable`, that it is more. They are not read for it, and no filter is asked about them.
pub async fn write_down(
    conn: &mut Conn,
    wanted: &Wanted<'_>,
    run: Uuid,
    most: i64,
    countable: i64,
) -> Result<i64> {
    let (which, ids, tags) = wanted.named();
    let row: Count = sql_query(WRITTEN[which].as_str())
        .bind::<SqlUuid, _>(wanted.organization)
        .bind::<Text, _>(wanted.kind)
        .bind::<Array<SqlUuid>, _>(wanted.accounts)
        .bind::<SqlUuid, _>(run)
        .bind::<Array<SqlUuid>, _>(ids)
        .bind::<Array<Text>, _>(tags)
        .bind::<BigInt, _>(countable.saturating_add(1))
        .bind::<BigInt, _>(most)
        .get_result(conn)
        .await?;
    Ok(row.n)
}

/// Somebody who is meant, as people know them.
#[derive(Debug, Clone, QueryableByName)]
pub struct Face {
    /// The contact.
    #[diesel(sql_type = SqlUuid)]
    pub contact_id: Uuid,
    /// The account that knows it.
    #[diesel(sql_type = SqlUuid)]
    pub account_id: Uuid,
    /// The name that it has given itself.
    #[diesel(sql_type = Text)]
    pub nickname: String,
    /// What the account's owner calls it.
    #[diesel(sql_type = Text)]
    pub remark: String,
}

/// Returns what people know contacts by, in the order of their ids.
pub async fn faces(conn: &mut Conn, organization: Uuid, contacts: &[Uuid]) -> Result<Vec<Face>> {
    Ok(sql_query(
        "SELECT k.id AS contact_id, k.account_id, k.nickname, k.remark FROM contacts k \
         WHERE k.id = ANY($2) AND k.organization_id = $1 ORDER BY k.id",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Array<SqlUuid>, _>(contacts)
    .load(conn)
    .await?)
}
