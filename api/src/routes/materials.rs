//! Materials: pictures, files, links and mini programs that plans send. A change is a new revision; plans send approved ones.

use std::collections::HashMap;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::campaign::material::check;
use entropy_jobs::message::Message;
use entropy_schema::Conn;
use entropy_schema::campaigns::materials::{self, Material, Revision};
use entropy_schema::record::enqueue::enqueue;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use super::message::MessageArg;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::http::text::Text;
use crate::page::{Ask, Page};
use crate::problem::{ApiError, FieldProblem};

/// The most materials of an organisation: plans are held against all of them.
const MAX_MATERIALS: i64 = 5000;
/// The most revisions that are shown.
const MAX_REVISIONS: i64 = 100;
/// How long a link to a file is good.
const GOOD_FOR: TimeDelta = TimeDelta::minutes(10);

/// What a material is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(super) enum MaterialKind {
    /// A picture.
    Image,
    /// A file.
    File,
    /// A link with a card.
    Link,
    /// A mini program's page.
    MiniProgram,
}

impl MaterialKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            MaterialKind::Image => "image",
            MaterialKind::File => "file",
            MaterialKind::Link => "link",
            MaterialKind::MiniProgram => "mini_program",
        }
    }

    pub(super) fn of(stored: &str) -> MaterialKind {
        match stored {
            "file" => MaterialKind::File,
            "link" => MaterialKind::Link,
            "mini_program" => MaterialKind::MiniProgram,
            _ => MaterialKind::Image,
        }
    }
}

/// A new material.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct CreateMaterial {
    /// The name that plans use (`material_id`): a small letter, then up to 63 small letters, digits and underscores.
    key: Text,
    kind: MaterialKind,
    /// What people call it: 1 to 100 characters.
    name: Text,
    /// A message of this kind. A picture or file may be uploaded instead.
    content: Option<MessageArg>,
}

/// What to change; what is left out stays.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct UpdateMaterial {
    /// What people call it: 1 to 100 characters.
    name: Option<Text>,
    /// Makes a new revision.
    content: Option<MessageArg>,
}

/// Which revision may be sent.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct ApproveMaterial {
    /// As it was looked at.
    revision: i32,
}

/// A material.
#[derive(Debug, Object)]
pub(super) struct MaterialView {
    id: Uuid,
    key: String,
    kind: MaterialKind,
    name: String,
    /// The newest revision; 0: nothing was put into it yet.
    revision: i32,
    /// The one that plans pin when they are submitted; null: none was approved.
    approved_revision: Option<i32>,
    /// The newest revision's fields, in the form of a message; without `url` if a file was uploaded.
    content: Option<Value>,
    /// What was uploaded, by its first bytes, such as `image/png`.
    media_type: Option<String>,
    bytes: Option<i64>,
    /// The last look whether its link answers.
    checked_at: Option<DateTime<Utc>>,
    check_error: Option<String>,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// Newest first; at most 100. Only where one material is shown.
    #[oai(skip_serializing_if_is_none)]
    revisions: Option<Vec<MaterialRevision>>,
}

/// A revision of a material.
#[derive(Debug, Object)]
pub(super) struct MaterialRevision {
    revision: i32,
    /// Its fields, in the form of a message; without `url` if a file was uploaded.
    content: Value,
    /// Opens the uploaded file for ten minutes.
    file_url: Option<String>,
    media_type: Option<String>,
    bytes: Option<i64>,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    approved_by: Option<Uuid>,
    approved_at: Option<DateTime<Utc>>,
}

#[derive(ApiResponse)]
enum Created {
    /// Plans may name it, once a revision is approved.
    #[oai(status = 201)]
    Created(Json<MaterialView>),
}

#[derive(ApiResponse)]
enum Deleted {
    /// It is gone.
    #[oai(status = 204)]
    Gone,
}

/// Materials.
pub(super) struct Materials;

#[OpenApi(tag = "Tag::Campaigns")]
impl Materials {
    /// Adds a material
    ///
    /// Needs the role agent. With `content` it has its first revision; a picture or file can be uploaded afterwards.
    #[oai(path = "/materials", method = "post", operation_id = "create_material")]
    async fn create(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        body: Body<CreateMaterial>,
    ) -> Result<Created, ApiError> {
        caller.require(Role::Agent)?;
        let asked = body.0;
        let now = state.now().await;
        let mut problems = Vec::new();
        if !is_key(&asked.key) {
            let message = "must be a small letter, then up to 63 small letters, digits and underscores";
            problems.push(FieldProblem::new("key", "bad_key", message));
        }
        let name = name_of(&asked.name, &mut problems);
        let content =
            asked.content.as_ref().map(|content| read(&state, asked.kind, &content.0, &mut problems));
        if !problems.is_empty() {
            return Err(ApiError::unprocessable(problems));
        }
        let mut material = Material {
            id: Uuid::now_v7(),
            organization_id: caller.organization_id,
            key: asked.key.0,
            kind: asked.kind.as_str().to_owned(),
            name,
            revision: 0,
            approved_revision: None,
            created_by: Some(caller.id),
            created_at: now,
            updated_at: now,
            deleted_at: None,
        };
        let mut conn = state.db.conn().await?;
        let view = conn
            .transaction(async |conn| {
                if materials::count(conn, caller.organization_id).await? >= MAX_MATERIALS {
                    let detail = "Your organisation has 5000 materials. Remove those that you do not need.";
                    return Err(ApiError::conflict("too_many_materials", detail));
                }
                materials::insert(conn, &material).await.map_err(taken)?;
                let revision = match content {
                    Some(content) => Some(revise(conn, &caller, &mut material, Put::of(content), now).await?),
                    None => None,
                };
                note("material.create", &material).write(conn, &caller, &origin).await?;
                Ok::<_, ApiError>(view(material.clone(), revision.as_ref()))
            })
            .await?;
        Ok(Created::Created(Json(view)))
    }

    /// Lists the materials
    ///
    /// Newest first, each with its newest revision.
    #[oai(path = "/materials", method = "get", operation_id = "list_materials")]
    async fn list(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        /// Only materials of this kind.
        kind: Query<Option<MaterialKind>>,
        /// Items on the page, 1 to 200; 50 if not given.
        limit: Query<Option<i64>>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<Json<Page<MaterialView>>, ApiError> {
        let ask = Ask::new(limit.0, cursor.0.as_deref())?;
        let kind = kind.0.map(MaterialKind::as_str);
        let mut conn = state.db.conn().await?;
        let organization = caller.organization_id;
        let rows = materials::list(&mut conn, organization, kind, ask.before, ask.fetch()).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let newest = materials::newest(&mut conn, organization, &ids).await?;
        let newest: HashMap<Uuid, Revision> =
            newest.into_iter().map(|revision| (revision.material_id, revision)).collect();
        Ok(Json(ask.page(
            rows,
            |row| row.id,
            |row| {
                let revision = newest.get(&row.id);
                view(row, revision)
            },
        )))
    }

    /// Shows a material
    ///
    /// With its revisions, and links to uploaded files that are good for ten minutes.
    #[oai(path = "/materials/:id", method = "get", operation_id = "get_material")]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<MaterialView>, ApiError> {
        let expires = (state.now().await + GOOD_FOR).trunc_subsecs(0).timestamp();
        let mut conn = state.db.conn().await?;
        let material = materials::get(&mut conn, caller.organization_id, id.0).await?;
        let material = material.ok_or_else(material_not_found)?;
        let rows = materials::revisions(&mut conn, caller.organization_id, id.0, MAX_REVISIONS).await?;
        let newest = rows.first().filter(|row| row.revision == material.revision).cloned();
        let revisions = rows
            .into_iter()
            .map(|row| MaterialRevision {
                revision: row.revision,
                content: row.content,
                file_url: row.path.map(|_| state.links.material_path(row.material_id, row.revision, expires)),
                media_type: row.media_type,
                bytes: row.bytes,
                created_by: row.created_by,
                created_at: row.created_at,
                approved_by: row.approved_by,
                approved_at: row.approved_at,
            })
            .collect();
        Ok(Json(MaterialView { revisions: Some(revisions), ..view(material, newest.as_ref()) }))
    }

    /// Changes a material
    ///
    /// Needs the role agent. `content` makes a new revision, which needs an approval of its own. Plans that have pinned an older
    /// one go on sending that.
    #[oai(path = "/materials/:id", method = "put", operation_id = "put_material")]
    async fn put(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<UpdateMaterial>,
    ) -> Result<Json<MaterialView>, ApiError> {
        caller.require(Role::Agent)?;
        let asked = body.0;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let mut material = lock(conn, &caller, id.0).await?;
            let mut problems = Vec::new();
            let name = asked.name.as_ref().map(|name| name_of(name, &mut problems));
            let kind = MaterialKind::of(&material.kind);
            let content = asked.content.as_ref().map(|content| read(&state, kind, &content.0, &mut problems));
            if !problems.is_empty() {
                return Err(ApiError::unprocessable(problems));
            }
            material.name = name.unwrap_or(material.name);
            let newest = match content {
                Some(content) => Some(revise(conn, &caller, &mut material, Put::of(content), now).await?),
                None => {
                    materials::revision(conn, caller.organization_id, material.id, material.revision).await?
                }
            };
            material.updated_at = now;
            materials::update(conn, &material).await?;
            note("material.update", &material).write(conn, &caller, &origin).await?;
            Ok(Json(view(material, newest.as_ref())))
        })
        .await
    }

    /// Approves a revision of a material
    ///
    /// Needs the role manager. Plans that are submitted from now on pin it.
    #[oai(path = "/materials/:id/approve", method = "post", operation_id = "approve_material")]
    async fn approve(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        body: Body<ApproveMaterial>,
    ) -> Result<Json<MaterialView>, ApiError> {
        caller.require(Role::Manager)?;
        let (revision, now) = (body.0.revision, state.now().await);
        let mut conn = state.db.conn().await?;
        let approved = conn
            .transaction(async |conn| {
                let mut material = lock(conn, &caller, id.0).await?;
                let organization = caller.organization_id;
                if materials::revision(conn, organization, material.id, revision).await?.is_none() {
                    let message = format!("must be a revision of the material: 1 to {}", material.revision);
                    return Err(ApiError::field("revision", "out_of_range", message));
                }
                if materials::approve(conn, organization, material.id, revision, caller.id, now).await? {
                    material.approved_revision = material.approved_revision.max(Some(revision));
                    material.updated_at = now;
                    materials::update(conn, &material).await?;
                    note("material.approve", &material).write(conn, &caller, &origin).await?;
                    // What it links to is known before a plan begins that sends it.
                    enqueue(conn, &[check(organization, material.id, revision, &origin.trace_id)]).await?;
                }
                let newest = materials::revision(conn, organization, material.id, material.revision).await?;
                Ok(Json(view(material, newest.as_ref())))
            })
            .await?;
        state.waker.wake();
        Ok(approved)
    }

    /// Removes a material
    ///
    /// Needs the role manager. 409 `material_in_use` while a plan that is under review, approved or running has pinned it.
    #[oai(path = "/materials/:id", method = "delete", operation_id = "delete_material")]
    async fn delete(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Deleted, ApiError> {
        caller.require(Role::Manager)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            // Whoever pins it holds it meanwhile, so nobody can between the look and the end.
            let mut material = lock(conn, &caller, id.0).await?;
            if let Some(pin) = materials::pinned_by(conn, caller.organization_id, &material.key).await? {
                let detail = format!(
                    "Version {} of the plan \"{}\" sends this material. Stop the plan, or change it, and then remove it.",
                    pin.version, pin.name
                );
                return Err(ApiError::conflict("material_in_use", detail));
            }
            (material.deleted_at, material.updated_at) = (Some(now), now);
            materials::update(conn, &material).await?;
            note("material.delete", &material).write(conn, &caller, &origin).await
        })
        .await?;
        Ok(Deleted::Gone)
    }
}

/// What is put into a material.
pub(super) struct Put {
    pub(super) content: Value,
    pub(super) path: Option<String>,
    pub(super) media_type: Option<String>,
    pub(super) bytes: Option<i64>,
}

impl Put {
    fn of(content: Value) -> Put {
        Put { content, path: None, media_type: None, bytes: None }
    }
}

/// Makes the next revision of a material that the caller holds.
pub(super) async fn revise(
    conn: &mut Conn,
    caller: &Caller,
    material: &mut Material,
    put: Put,
    now: DateTime<Utc>,
) -> Result<Revision, ApiError> {
    let revision = Revision {
        material_id: material.id,
        revision: material.revision + 1,
        organization_id: caller.organization_id,
        content: put.content,
        path: put.path,
        media_type: put.media_type,
        bytes: put.bytes,
        created_by: Some(caller.id),
        created_at: now,
        approved_by: None,
        approved_at: None,
        checked_at: None,
        check_error: None,
    };
    materials::insert_revision(conn, &revision).await?;
    (material.revision, material.updated_at) = (revision.revision, now);
    materials::update(conn, material).await?;
    Ok(revision)
}

/// Reads a message that is to be a material's content.
fn read(state: &AppState, kind: MaterialKind, message: &Message, problems: &mut Vec<FieldProblem>) -> Value {
    if message.kind() != kind.as_str() {
        let text = format!("must be {}, the kind of the material", kind.as_str());
        problems.push(FieldProblem::new("content.kind", "wrong_kind", text));
    } else {
        let found = message.validate(&state.url_policy);
        problems.extend(found.into_iter().map(|error| FieldProblem::below("content", error)));
    }
    serde_json::to_value(message).unwrap_or_default()
}

fn name_of(name: &Text, problems: &mut Vec<FieldProblem>) -> String {
    let name = name.trim();
    if !(1..=100).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        let message = "must have 1 to 100 characters and no control characters";
        problems.push(FieldProblem::new("name", "bad_name", message));
    }
    name.to_owned()
}

fn is_key(key: &str) -> bool {
    key.len() <= 64
        && key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

pub(super) async fn lock(conn: &mut Conn, caller: &Caller, id: Uuid) -> Result<Material, ApiError> {
    materials::lock(conn, caller.organization_id, id).await?.ok_or_else(material_not_found)
}

pub(super) fn material_not_found() -> ApiError {
    ApiError::not_found("material_not_found", "Your organisation has no such material.")
}

fn taken(error: entropy_schema::Error) -> ApiError {
    match error.violated_constraint() {
        Some(materials::KEY) => ApiError::conflict(
            "key_in_use",
            "Another material of your organisation has this key. Choose another one, or change that material.",
        ),
        _ => error.into(),
    }
}

pub(super) fn note(action: &'static str, material: &Material) -> Note {
    Note::new(action, "material", material.id).after(json!({
        "key": material.key,
        "kind": material.kind,
        "name": material.name,
        "revision": material.revision,
        "approved_revision": material.approved_revision,
    }))
}

pub(super) fn view(material: Material, newest: Option<&Revision>) -> MaterialView {
    MaterialView {
        id: material.id,
        key: material.key,
        kind: MaterialKind::of(&material.kind),
        name: material.name,
        revision: material.revision,
        approved_revision: material.approved_revision,
        content: newest.map(|revision| revision.content.clone()),
        media_type: newest.and_then(|revision| revision.media_type.clone()),
        bytes: newest.and_then(|revision| revision.bytes),
        checked_at: newest.and_then(|revision| revision.checked_at),
        check_error: newest.and_then(|revision| revision.check_error.clone()),
        created_by: material.created_by,
        created_at: material.created_at,
        updated_at: material.updated_at,
        revisions: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_plans_can_write() {
        let longest = "a".repeat(64);
        for good in ["a", "mat_outline", "a1", &longest] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", "1a", "_a", "A", "a-b", "大纲", &format!("{longest}a")] {
            assert!(!is_key(bad), "{bad}");
        }
    }
}
