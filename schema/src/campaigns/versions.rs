//! Versions of plans: what was submitted, and cannot change once it was approved.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::tables::sop_versions;
use crate::{Conn, Result};

/// A version.
#[derive(Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = sop_versions)]
pub struct Version {
    /// The plan.
    pub sop_id: Uuid,
    /// From 1 on.
    pub version: i32,
    /// The tenant.
    pub organization_id: Uuid,
    /// What it says.
    pub config: Value,
    /// Of the config's canonical text.
    pub sha256: Vec<u8>,
    /// The revision of every material that the steps name, by key.
    pub materials: Value,
    /// `in_review`, `approved` or `retired`.
    pub state: String,
    /// Who submitted it.
    pub created_by: Uuid,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Who approved it.
    pub approved_by: Option<Uuid>,
    /// When.
    pub approved_at: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for Version {
    /// What it says to customers stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version")
            .field("sop_id", &self.sop_id)
            .field("version", &self.version)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// A version in a list: without what it says.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = sop_versions)]
pub struct Summary {
    /// The plan.
    pub sop_id: Uuid,
    /// From 1 on.
    pub version: i32,
    /// Of the config's canonical text.
    pub sha256: Vec<u8>,
    /// The revision of every material that the steps name, by key.
    pub materials: Value,
    /// `in_review`, `approved` or `retired`.
    pub state: String,
    /// Who submitted it.
    pub created_by: Uuid,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Who approved it.
    pub approved_by: Option<Uuid>,
    /// When.
    pub approved_at: Option<DateTime<Utc>>,
}

/// Adds a version. The caller holds the plan, so numbers follow each other.
pub async fn insert(conn: &mut Conn, version: &Version) -> Result<()> {
    diesel::insert_into(sop_versions::table).values(version).execute(conn).await?;
    Ok(())
}

/// Returns the number of a plan's newest version; 0: it has none.
pub async fn latest(conn: &mut Conn, sop: Uuid) -> Result<i32> {
    let latest: Option<i32> = sop_versions::table
        .filter(sop_versions::sop_id.eq(sop))
        .select(diesel::dsl::max(sop_versions::version))
        .get_result(conn)
        .await?;
    Ok(latest.unwrap_or(0))
}

/// Returns one version. None: the organisation has no such version.
pub async fn get(conn: &mut Conn, organization: Uuid, sop: Uuid, version: i32) -> Result<Option<Version>> {
    Ok(sop_versions::table
        .find((sop, version))
        .filter(sop_versions::organization_id.eq(organization))
        .select(Version::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns the version that waits for its approval, if one does. The caller holds the plan.
pub async fn in_review(conn: &mut Conn, organization: Uuid, sop: Uuid) -> Result<Option<Version>> {
    Ok(sop_versions::table
        .filter(sop_versions::sop_id.eq(sop).and(sop_versions::organization_id.eq(organization)))
        .filter(sop_versions::state.eq("in_review"))
        .order(sop_versions::version.desc())
        .select(Version::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns a plan's versions, newest first, below `before`.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    sop: Uuid,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<Summary>> {
    Ok(sop_versions::table
        .filter(sop_versions::sop_id.eq(sop).and(sop_versions::organization_id.eq(organization)))
        .filter(sop_versions::version.lt(before.unwrap_or(i32::MAX)))
        .order(sop_versions::version.desc())
        .limit(limit)
        .select(Summary::as_select())
        .load(conn)
        .await?)
}

/// Retires what waits for an approval. True: there was something.
pub async fn retire_in_review(conn: &mut Conn, organization: Uuid, sop: Uuid) -> Result<bool> {
    retire(conn, organization, sop, "in_review").await
}

/// Retires what is approved. People who are on their way through it stay there. True: there was something.
pub async fn retire_approved(conn: &mut Conn, organization: Uuid, sop: Uuid) -> Result<bool> {
    retire(conn, organization, sop, "approved").await
}

async fn retire(conn: &mut Conn, organization: Uuid, sop: Uuid, state: &str) -> Result<bool> {
    let versions = sop_versions::table
        .filter(sop_versions::sop_id.eq(sop).and(sop_versions::organization_id.eq(organization)))
        .filter(sop_versions::state.eq(state));
    let retired = diesel::update(versions).set(sop_versions::state.eq("retired")).execute(conn).await?;
    Ok(retired > 0)
}

/// Approves the version that waits for it. False: it does not wait any more.
pub async fn approve(
    conn: &mut Conn,
    organization: Uuid,
    sop: Uuid,
    version: i32,
    by: Uuid,
    at: DateTime<Utc>,
) -> Result<bool> {
    let waiting = sop_versions::table
        .find((sop, version))
        .filter(sop_versions::organization_id.eq(organization))
        .filter(sop_versions::state.eq("in_review"));
    let approved = diesel::update(waiting)
        .set((
            sop_versions::state.eq("approved"),
            sop_versions::approved_by.eq(by),
            sop_versions::approved_at.eq(at),
        ))
        .execute(conn)
        .await?;
    Ok(approved == 1)
}
