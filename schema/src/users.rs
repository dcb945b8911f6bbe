//! Organisations, the people in them, and who failed to log in lately.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::{login_failures, organizations, users};
use crate::{Conn, Result};

/// Name of the constraint that a taken username runs into.
pub const USERNAME_KEY: &str = "users_username_key";

/// A person who may log in.
#[derive(Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = users)]
pub struct User {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// Unique in the install, whatever its case.
    pub username: String,
    /// Argon2id, in the PHC form.
    pub hashed_password: String,
    /// `admin`, `manager`, `agent` or `viewer`.
    pub role: String,
    /// False: may not log in, and tokens of before count no more.
    pub is_active: bool,
    /// When the person was added.
    pub created_at: DateTime<Utc>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("id", &self.id).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Makes an organisation.
pub async fn create_organization(conn: &mut Conn, id: Uuid, name: &str) -> Result<()> {
    diesel::insert_into(organizations::table)
        .values((organizations::id.eq(id), organizations::name.eq(name)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Returns the organisations of this name or id.
pub async fn organizations_named(conn: &mut Conn, name: &str, id: Option<Uuid>) -> Result<Vec<Uuid>> {
    let named = organizations::name.eq(name).or(organizations::id.nullable().eq(id));
    Ok(organizations::table
        .filter(named.assume_not_null())
        .select(organizations::id)
        .limit(100)
        .load(conn)
        .await?)
}

/// Returns the organisation that was made first, beside that of the platform itself.
pub async fn first_organization(conn: &mut Conn) -> Result<Option<Uuid>> {
    Ok(organizations::table
        .filter(organizations::id.ne(crate::SYSTEM_ORGANIZATION))
        .order((organizations::created_at, organizations::id))
        .select(organizations::id)
        .first(conn)
        .await
        .optional()?)
}

/// Adds a person. A taken username violates [`USERNAME_KEY`].
pub async fn insert(conn: &mut Conn, user: &User) -> Result<()> {
    diesel::insert_into(users::table).values(user).execute(conn).await?;
    Ok(())
}

/// Finds the person who logs in with `username`, whatever its case.
pub async fn by_username(conn: &mut Conn, username: &str) -> Result<Option<User>> {
    Ok(users::table
        .filter(lower(users::username).eq(lower(username)))
        .select(User::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns one person of any organisation: for the check that a token's owner is still welcome.
pub async fn by_id(conn: &mut Conn, id: Uuid) -> Result<Option<User>> {
    Ok(users::table.find(id).select(User::as_select()).first(conn).await.optional()?)
}

/// Tells whether anybody but `username` can log in to this install.
pub async fn any_but(conn: &mut Conn, username: &str) -> Result<bool> {
    let others = users::table.filter(lower(users::username).ne(lower(username))).select(users::id);
    Ok(diesel::select(diesel::dsl::exists(others)).get_result(conn).await?)
}

/// Returns the organisation's people, newest first, older than `before`.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<User>> {
    let mut query = users::table
        .filter(users::organization_id.eq(organization))
        .order(users::id.desc())
        .limit(limit)
        .select(User::as_select())
        .into_boxed();
    if let Some(before) = before {
        query = query.filter(users::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Locks the organisation's people, in the order of their ids, and returns them.
///
/// Whoever changes roles looks at all of them first: an organisation must not lose its last admin, and two admins may
/// demote each other at the same time.
pub async fn lock_all(conn: &mut Conn, organization: Uuid) -> Result<Vec<User>> {
    Ok(users::table
        .filter(users::organization_id.eq(organization))
        .order(users::id)
        .for_update()
        .select(User::as_select())
        .load(conn)
        .await?)
}

/// Sets a person's role and whether they may log in.
pub async fn set_standing(conn: &mut Conn, id: Uuid, role: &str, is_active: bool) -> Result<()> {
    diesel::update(users::table.find(id))
        .set((users::role.eq(role), users::is_active.eq(is_active)))
        .execute(conn)
        .await?;
    Ok(())
}

/// Gives a person a new password.
pub async fn set_password(conn: &mut Conn, id: Uuid, hashed_password: &str) -> Result<()> {
    diesel::update(users::table.find(id))
        .set(users::hashed_password.eq(hashed_password))
        .execute(conn)
        .await?;
    Ok(())
}

/// Failed logins of one name or address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
pub struct Failures {
    /// How many there were in the window.
    #[diesel(sql_type = BigInt)]
    pub count: i64,
    /// Seconds until the oldest of them leaves the window.
    #[diesel(sql_type = BigInt)]
    pub oldest_leaves_in_s: i64,
}

/// Counts the failures of `subject` in the last `window_s` seconds.
pub async fn failures(conn: &mut Conn, subject: &str, window_s: i64) -> Result<Failures> {
    Ok(sql_query(
        "SELECT count(*) AS count, COALESCE(CEIL(EXTRACT(EPOCH FROM min(failed_at) - now())) + $2, 0)::bigint \
         AS oldest_leaves_in_s FROM login_failures \
         WHERE subject = $1 AND failed_at > now() - $2 * interval '1 second'",
    )
    .bind::<Text, _>(subject)
    .bind::<BigInt, _>(window_s)
    .get_result(conn)
    .await?)
}

/// Remembers a failure of `subject` and forgets those of an hour ago.
pub async fn add_failure(conn: &mut Conn, subject: &str) -> Result<()> {
    diesel::insert_into(login_failures::table)
        .values(login_failures::subject.eq(subject))
        .execute(conn)
        .await?;
    sql_query("DELETE FROM login_failures WHERE subject = $1 AND failed_at < now() - interval '1 hour'")
        .bind::<Text, _>(subject)
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets the failures of `subject`: it has logged in.
pub async fn clear_failures(conn: &mut Conn, subject: &str) -> Result<()> {
    diesel::delete(login_failures::table.filter(login_failures::subject.eq(subject))).execute(conn).await?;
    Ok(())
}

#[diesel::declare_sql_function]
extern "SQL" {
    /// Postgres' `lower`, which the unique index is made of.
    fn lower(text: Text) -> Text;
}
