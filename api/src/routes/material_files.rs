//! The files of materials: uploaded here, and looked at whether they are there.

use diesel_async::AsyncConnection;
use entropy_jobs::campaign::material::check;
use entropy_schema::campaigns::materials;
use entropy_schema::record::enqueue::enqueue;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::materials::{MaterialKind, MaterialView, Put, lock, material_not_found, note, revise, view};
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::origin::Origin;
use crate::http::upload::{self, FileBody};
use crate::problem::ApiError;

/// A look at a material.
#[derive(Debug, Object)]
struct CheckView {
    /// The job that looks.
    job_id: Uuid,
    /// The revision that is looked at.
    revision: i32,
}

#[derive(ApiResponse)]
enum Checking {
    /// `checked_at` and `check_error` of the material say soon what was found.
    #[oai(status = 202)]
    Accepted(Json<CheckView>),
}

/// Files of materials.
pub(super) struct MaterialFiles;

#[OpenApi(tag = "Tag::Campaigns")]
impl MaterialFiles {
    /// Uploads a picture or file
    ///
    /// Needs the role agent. The body is the file itself. Makes a new revision, which needs an approval. 413 over `MAX_FILE_SIZE`;
    /// 422 `file_refused` for programs, pages, and what is no picture where a picture belongs.
    #[oai(path = "/materials/:id/file", method = "put", operation_id = "upload_material")]
    async fn upload(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
        /// Of a file: the name that the recipient sees, 1 to 255 characters; the name of before, or the material's, if not given.
        name: Query<Option<String>>,
        body: FileBody,
    ) -> Result<Json<MaterialView>, ApiError> {
        caller.require(Role::Agent)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let known = materials::get(&mut conn, caller.organization_id, id.0).await?;
        let known = known.ok_or_else(material_not_found)?;
        // Nothing is held while a file comes in.
        drop(conn);
        let kind = MaterialKind::of(&known.kind);
        if !matches!(kind, MaterialKind::Image | MaterialKind::File) {
            let detail = "Only pictures and files are uploaded. Change this material with `content` instead.";
            return Err(ApiError::conflict("not_a_file", detail));
        }
        let name = name.0.map(|name| file_name(name.trim()).map(str::to_owned)).transpose()?;
        let kept = upload::keep(&state.store, body.0, caller.organization_id, kind.as_str(), now).await?;
        let mut conn = state.db.conn().await?;
        conn.transaction(async |conn| {
            let mut material = lock(conn, &caller, id.0).await?;
            let old =
                materials::revision(conn, caller.organization_id, material.id, material.revision).await?;
            let content = match kind {
                MaterialKind::File => {
                    let before = old.as_ref().and_then(|old| old.content["name"].as_str()).map(str::to_owned);
                    let own = || format!("{}.{}", cleaned(&material.name), kept.found.extension);
                    json!({"kind": "file", "name": name.or(before).unwrap_or_else(own)})
                }
                _ => json!({"kind": "image"}),
            };
            let put = Put {
                content,
                path: Some(kept.path),
                media_type: Some(kept.found.media_type.to_owned()),
                bytes: i64::try_from(kept.bytes).ok(),
            };
            let revision = revise(conn, &caller, &mut material, put, now).await?;
            note("material.upload", &material).write(conn, &caller, &origin).await?;
            Ok(Json(view(material, Some(&revision))))
        })
        .await
    }

    /// Looks whether a material can be opened
    ///
    /// Needs the role agent. The newest revision: its addresses, wherever they lead, as long as that is public; or whether the
    /// uploaded file is there. `check_error` begins with `dead:` for what cannot be opened, and with `silent:` for what did not
    /// answer. The same is done when a revision is approved and when a plan is started; a plan with something dead is not
    /// started.
    #[oai(path = "/materials/:id/check", method = "post", operation_id = "check_material")]
    async fn check(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        id: Path<Uuid>,
    ) -> Result<Checking, ApiError> {
        caller.require(Role::Agent)?;
        let mut conn = state.db.conn().await?;
        let material = materials::get(&mut conn, caller.organization_id, id.0).await?;
        let material = material.ok_or_else(material_not_found)?;
        if material.revision == 0 {
            let detail = "Nothing was put into this material yet.";
            return Err(ApiError::conflict("material_empty", detail));
        }
        let job = check(caller.organization_id, material.id, material.revision, &origin.trace_id);
        let job_id = job.id;
        conn.transaction(async |conn| enqueue(conn, &[job]).await).await?;
        state.waker.wake();
        Ok(Checking::Accepted(Json(CheckView { job_id, revision: material.revision })))
    }
}

fn file_name(name: &str) -> Result<&str, ApiError> {
    let fits = (1..=255).contains(&name.chars().count())
        && !name.chars().any(|c| c.is_control() || "/\\".contains(c))
        && name != "."
        && name != "..";
    if fits {
        Ok(name)
    } else {
        let message = "must be a file's name of 1 to 255 characters, without / and \\";
        Err(ApiError::field("name", "bad_file_name", message))
    }
}

/// A material's name as part of a file's.
fn cleaned(name: &str) -> String {
    name.chars().map(|c| if "/\\".contains(c) { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_name_and_no_path() {
        assert!(file_name("报价单.pdf").is_ok());
        for bad in ["", "..", "a/b", "a\\b", "a\nb", &"名".repeat(256)] {
            assert!(file_name(bad).is_err(), "{bad}");
        }
        assert_eq!(cleaned("a/b"), "a_b");
    }
}
