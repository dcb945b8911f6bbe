//! Materials: pictures, files, links and mini programs that plans send, in revisions that versions of plans pin.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use serde_json::Value;
use uuid::Uuid;

use crate::tables::{material_revisions, materials};
use crate::{Conn, Result};

/// Name of the index that a key in use runs into.
pub const KEY: &str = "materials_key";

/// A material.
#[derive(Debug, Clone, Queryable, Selectable, Insertable, Identifiable, AsChangeset)]
#[diesel(table_name = materials, treat_none_as_null = true)]
pub struct Material {
    /// UUIDv7.
    pub id: Uuid,
    /// The tenant.
    pub organization_id: Uuid,
    /// The name that plans use; unique in the organisation.
    pub key: String,
    /// `image`, `file`, `link` or `mini_program`.
    pub kind: String,
    /// What people call it.
    pub name: String,
    /// The newest revision; 0: nothing was put into it yet.
    pub revision: i32,
    /// The newest approved revision.
    pub approved_revision: Option<i32>,
    /// Who made it.
    pub created_by: Option<Uuid>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// When it was removed.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// What a material was at a time. It does not change; only its approval and what is known of its link are noted.
#[derive(Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = material_revisions)]
pub struct Revision {
    /// The material.
    pub material_id: Uuid,
    /// From 1 on.
    pub revision: i32,
    /// The tenant.
    pub organization_id: Uuid,
    /// The fields of its kind, in the form of a message.
    pub content: Value,
    /// Of an uploaded file: where it is, below the folder of uploads.
    pub path: Option<String>,
    /// What it is.
    pub media_type: Option<String>,
    /// How long it is.
    pub bytes: Option<i64>,
    /// Who made it.
    pub created_by: Option<Uuid>,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Who approved it.
    pub approved_by: Option<Uuid>,
    /// When.
    pub approved_at: Option<DateTime<Utc>>,
    /// The last look whether its link still answers.
    pub checked_at: Option<DateTime<Utc>>,
    /// What was wrong with it.
    pub check_error: Option<String>,
}

impl std::fmt::Debug for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revision")
            .field("material_id", &self.material_id)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// Adds a material. A key in use violates [`KEY`].
pub async fn insert(conn: &mut Conn, material: &Material) -> Result<()> {
    diesel::insert_into(materials::table).values(material).execute(conn).await?;
    Ok(())
}

/// Returns a material of the organisation, unless it was removed.
pub async fn get(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Material>> {
    Ok(materials::table
        .find(id)
        .filter(materials::organization_id.eq(organization).and(materials::deleted_at.is_null()))
        .select(Material::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Locks a material for a change and returns it, unless it was removed.
pub async fn lock(conn: &mut Conn, organization: Uuid, id: Uuid) -> Result<Option<Material>> {
    Ok(materials::table
        .find(id)
        .filter(materials::organization_id.eq(organization).and(materials::deleted_at.is_null()))
        .for_update()
        .select(Material::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Writes back a material that the caller has locked. A key in use violates [`KEY`].
pub async fn update(conn: &mut Conn, material: &Material) -> Result<()> {
    diesel::update(material).set(material).execute(conn).await?;
    Ok(())
}

/// Returns the organisation's materials, newest first, older than `before`, all or those of one kind.
pub async fn list(
    conn: &mut Conn,
    organization: Uuid,
    kind: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Material>> {
    let mut query = materials::table
        .filter(materials::organization_id.eq(organization).and(materials::deleted_at.is_null()))
        .order(materials::id.desc())
        .limit(limit)
        .select(Material::as_select())
        .into_boxed();
    if let Some(kind) = kind {
        query = query.filter(materials::kind.eq(kind));
    }
    if let Some(before) = before {
        query = query.filter(materials::id.lt(before));
    }
    Ok(query.load(conn).await?)
}

/// Counts the organisation's materials.
pub async fn count(conn: &mut Conn, organization: Uuid) -> Result<i64> {
    Ok(materials::table
        .filter(materials::organization_id.eq(organization).and(materials::deleted_at.is_null()))
        .count()
        .get_result(conn)
        .await?)
}

/// Adds a revision. The caller holds the material, so numbers follow each other.
pub async fn insert_revision(conn: &mut Conn, revision: &Revision) -> Result<()> {
    diesel::insert_into(material_revisions::table).values(revision).execute(conn).await?;
    Ok(())
}

/// Returns one revision. None: the organisation has no such revision.
pub async fn revision(
    conn: &mut Conn,
    organization: Uuid,
    material: Uuid,
    revision: i32,
) -> Result<Option<Revision>> {
    Ok(material_revisions::table
        .find((material, revision))
        .filter(material_revisions::organization_id.eq(organization))
        .select(Revision::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns a revision that a version of a plan has pinned: by key, also of a material that was removed since.
pub async fn pinned(
    conn: &mut Conn,
    organization: Uuid,
    key: &str,
    revision: i32,
) -> Result<Option<(Material, Revision)>> {
    Ok(material_revisions::table
        .inner_join(materials::table.on(materials::id.eq(material_revisions::material_id)))
        .filter(materials::organization_id.eq(organization).and(materials::key.eq(key)))
        .filter(material_revisions::revision.eq(revision).and(material_revisions::approved_at.is_not_null()))
        // A key may be used again once its material was removed; the living one comes first.
        .order((materials::deleted_at.desc().nulls_first(), materials::id.desc()))
        .select((Material::as_select(), Revision::as_select()))
        .first(conn)
        .await
        .optional()?)
}

/// Returns a revision of any organisation: for a link that was signed for it.
pub async fn linked(conn: &mut Conn, material: Uuid, revision: i32) -> Result<Option<Revision>> {
    Ok(material_revisions::table
        .find((material, revision))
        .select(Revision::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Returns the newest revisions of materials.
pub async fn newest(conn: &mut Conn, organization: Uuid, ids: &[Uuid]) -> Result<Vec<Revision>> {
    Ok(material_revisions::table
        .inner_join(
            materials::table.on(materials::id
                .eq(material_revisions::material_id)
                .and(materials::revision.eq(material_revisions::revision))),
        )
        .filter(materials::organization_id.eq(organization).and(materials::id.eq_any(ids)))
        .select(Revision::as_select())
        .load(conn)
        .await?)
}

/// Returns a material's revisions, newest first.
pub async fn revisions(
    conn: &mut Conn,
    organization: Uuid,
    material: Uuid,
    limit: i64,
) -> Result<Vec<Revision>> {
    Ok(material_revisions::table
        .filter(material_revisions::material_id.eq(material))
        .filter(material_revisions::organization_id.eq(organization))
        .order(material_revisions::revision.desc())
        .limit(limit)
        .select(Revision::as_select())
        .load(conn)
        .await?)
}

/// Approves a revision that was not approved yet. False: it was, or there is none.
pub async fn approve(
    conn: &mut Conn,
    organization: Uuid,
    material: Uuid,
    revision: i32,
    by: Uuid,
    at: DateTime<Utc>,
) -> Result<bool> {
    let waiting = material_revisions::table
        .find((material, revision))
        .filter(material_revisions::organization_id.eq(organization))
        .filter(material_revisions::approved_at.is_null());
    let approved = diesel::update(waiting)
        .set((material_revisions::approved_by.eq(by), material_revisions::approved_at.eq(at)))
        .execute(conn)
        .await?;
    Ok(approved == 1)
}

/// Notes whether a revision's link answers.
pub async fn checked(
    conn: &mut Conn,
    organization: Uuid,
    material: Uuid,
    revision: i32,
    error: Option<&str>,
) -> Result<()> {
    let row = material_revisions::table
        .find((material, revision))
        .filter(material_revisions::organization_id.eq(organization));
    diesel::update(row)
        .set((
            material_revisions::checked_at.eq(diesel::dsl::sql::<
                diesel::sql_types::Nullable<diesel::sql_types::Timestamptz>,
            >("clock_timestamp()")),
            material_revisions::check_error.eq(error),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

/// A revision that a version of a plan has pinned.
#[derive(Debug, Clone, QueryableByName)]
pub struct PinnedRevision {
    /// The material.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The name that the plan uses.
    #[diesel(sql_type = Text)]
    pub key: String,
    /// Its revision.
    #[diesel(sql_type = Integer)]
    pub revision: i32,
    /// What was wrong with it when it was looked at last.
    #[diesel(sql_type = Nullable<Text>)]
    pub check_error: Option<String>,
}

/// Returns the revisions that a version of a plan has pinned, by key.
pub async fn of_version(
    conn: &mut Conn,
    organization: Uuid,
    sop: Uuid,
    version: i32,
) -> Result<Vec<PinnedRevision>> {
    Ok(sql_query(
        "SELECT DISTINCT ON (m.key) m.id, m.key, r.revision, r.check_error
         FROM sop_versions v CROSS JOIN LATERAL jsonb_each_text(v.materials) AS pin (key, revision)
         JOIN materials m ON m.organization_id = $1 AND m.key = pin.key
         JOIN material_revisions r ON r.material_id = m.id AND r.revision = pin.revision::integer
         WHERE v.sop_id = $2 AND v.version = $3 AND v.organization_id = $1
         ORDER BY m.key, m.deleted_at NULLS FIRST, m.id DESC",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<SqlUuid, _>(sop)
    .bind::<Integer, _>(version)
    .load(conn)
    .await?)
}

/// Returns the materials that a plan may name: all of the organisation's, by key.
pub async fn all(conn: &mut Conn, organization: Uuid) -> Result<Vec<Material>> {
    Ok(materials::table
        .filter(materials::organization_id.eq(organization).and(materials::deleted_at.is_null()))
        .order(materials::id)
        .select(Material::as_select())
        .load(conn)
        .await?)
}

/// Returns the approved materials of these keys, and keeps them from being removed until the caller's transaction ends.
pub async fn hold(conn: &mut Conn, organization: Uuid, keys: &[String]) -> Result<Vec<Material>> {
    Ok(materials::table
        .filter(materials::organization_id.eq(organization).and(materials::key.eq_any(keys)))
        .filter(materials::deleted_at.is_null().and(materials::approved_revision.is_not_null()))
        .order(materials::id)
        .for_share()
        .select(Material::as_select())
        .load(conn)
        .await?)
}

/// A plan that a material cannot be taken from.
#[derive(Debug, Clone, QueryableByName)]
pub struct Pin {
    /// What people call the plan.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// Its version.
    #[diesel(sql_type = Integer)]
    pub version: i32,
}

/// Returns a plan that is under review, approved, running or paused and has pinned the material, if there is one. The caller
/// holds the material, so none can pin it meanwhile.
pub async fn pinned_by(conn: &mut Conn, organization: Uuid, key: &str) -> Result<Option<Pin>> {
    Ok(sql_query(
        "SELECT sop_tasks.name, sop_versions.version
         FROM sop_tasks JOIN sop_versions ON sop_versions.sop_id = sop_tasks.id
         WHERE sop_tasks.organization_id = $1
             AND sop_tasks.status IN ('IN_REVIEW', 'APPROVED', 'RUNNING', 'PAUSED')
             AND jsonb_exists(sop_versions.materials, $2)
             AND (sop_versions.state <> 'retired' OR sop_tasks.status IN ('RUNNING', 'PAUSED'))
         ORDER BY sop_tasks.id, sop_versions.version DESC
         LIMIT 1",
    )
    .bind::<SqlUuid, _>(organization)
    .bind::<Text, _>(key)
    .get_result(conn)
    .await
    .optional()?)
}
