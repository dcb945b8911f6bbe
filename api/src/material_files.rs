//! Serves uploaded materials: `GET /media/materials/{id}/{revision}?expires=&signature=`, outside `/api/v1`. The signature is
//! what opens it.

use entropy_jobs::media::link::Closed;
use entropy_jobs::media::sniff::is_shown;
use entropy_schema::campaigns::materials;
use poem::http::header;
use poem::web::{Path, Query};
use poem::{Body, Request, Response, handler};
use serde::Deserialize;
use uuid::Uuid;

use crate::AppState;
use crate::problem::ApiError;

#[derive(Deserialize)]
struct Signed {
    expires: i64,
    signature: String,
}

/// Serves one revision.
#[handler]
pub(crate) async fn serve(
    request: &Request,
    path: Path<(String, String)>,
    signed: poem::Result<Query<Signed>>,
) -> poem::Result<Response> {
    let state = request.data::<AppState>().ok_or_else(|| ApiError::internal("no state in the request"))?;
    let (Ok(id), Ok(revision), Ok(Query(signed))) =
        (path.0.0.parse::<Uuid>(), path.0.1.parse::<i32>(), signed)
    else {
        return Err(not_found().into());
    };
    Ok(open(state, id, revision, &signed).await?)
}

async fn open(state: &AppState, id: Uuid, revision: i32, signed: &Signed) -> Result<Response, ApiError> {
    let now = state.now().await.timestamp();
    match state.links.check_material((id, revision), signed.expires, &signed.signature, now) {
        Ok(()) => {}
        Err(Closed::Expired) => {
            return Err(ApiError::gone("link_expired", "This link has expired. Ask for a new one."));
        }
        // Nobody learns which materials there are.
        Err(Closed::Forged) => return Err(not_found()),
    }
    let mut conn = state.db.conn().await?;
    let found = materials::linked(&mut conn, id, revision).await?.ok_or_else(not_found)?;
    drop(conn);
    let path = found.path.as_deref().and_then(|path| state.store.locate(path)).ok_or_else(not_found)?;
    let file = tokio::fs::File::open(&path).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => not_found(),
        _ => ApiError::internal(error),
    })?;
    let bytes = file.metadata().await.map_err(ApiError::internal)?.len();
    let media_type = found.media_type.unwrap_or_else(|| "application/octet-stream".into());
    let good_for = (signed.expires - now).max(0);
    let mut response = Response::builder()
        .content_type(&media_type)
        .header(header::CONTENT_LENGTH, bytes)
        .header(header::CACHE_CONTROL, format!("private, max-age={good_for}"));
    if !is_shown(&media_type) {
        // Its name stands in the message; here nothing that somebody wrote gets into a header.
        response = response.header(header::CONTENT_DISPOSITION, "attachment");
    }
    Ok(response.body(Body::from_async_read(file)))
}

fn not_found() -> ApiError {
    ApiError::not_found("media_not_found", "There is no such medium, or this link does not open it.")
}
