//! Serves media of messages: `GET /media/{id}?expires=&signature=`, outside `/api/v1`. The signature is what opens it.

use entropy_jobs::media::link::Closed;
use entropy_jobs::media::sniff::is_shown;
use entropy_schema::media::{self, Media};
use poem::http::header;
use poem::web::{Path, Query};
use poem::{Body, Request, Response, handler};
use serde::Deserialize;
use uuid::Uuid;

use crate::AppState;
use crate::problem::ApiError;

/// Where media are, as logs and counters name it: the signature is in neither.
pub(crate) const ROUTE: &str = "/media/{id}";
/// How every address of media begins.
pub(crate) const PREFIX: &str = "/media/";

#[derive(Deserialize)]
struct Signed {
    expires: i64,
    signature: String,
}

/// Serves one medium.
#[handler]
pub(crate) async fn serve(
    request: &Request,
    id: Path<String>,
    signed: poem::Result<Query<Signed>>,
) -> poem::Result<Response> {
    let state = request.data::<AppState>().ok_or_else(|| ApiError::internal("no state in the request"))?;
    let (Ok(id), Ok(Query(signed))) = (id.0.parse::<Uuid>(), signed) else { return Err(not_found().into()) };
    Ok(open(state, id, &signed).await?)
}

async fn open(state: &AppState, id: Uuid, signed: &Signed) -> Result<Response, ApiError> {
    let now = state.now().await.timestamp();
    match state.links.check(id, signed.expires, &signed.signature, now) {
        Ok(()) => {}
        Err(Closed::Expired) => {
            return Err(ApiError::gone("link_expired", "This link has expired. Ask for a new one."));
        }
        // Nobody learns which messages there are.
        Err(Closed::Forged) => return Err(not_found()),
    }
    let mut conn = state.db.conn().await?;
    let found = media::linked(&mut conn, id).await?;
    drop(conn);
    if found.as_ref().is_some_and(|found| found.media_state.as_deref() == Some("pruned")) {
        return Err(pruned());
    }
    let found = found.filter(|found| found.media_state.as_deref() == Some("stored")).ok_or_else(not_found)?;
    let path = found.media_path.as_deref().and_then(|path| state.store.locate(path)).ok_or_else(not_found)?;
    let file = tokio::fs::File::open(&path).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => not_found(),
        _ => ApiError::internal(error),
    })?;
    let bytes = file.metadata().await.map_err(ApiError::internal)?.len();
    let media_type = found.media_type.clone().unwrap_or_else(|| "application/octet-stream".into());
    let good_for = (signed.expires - now).max(0);
    let mut response = Response::builder()
        .content_type(&media_type)
        .header(header::CONTENT_LENGTH, bytes)
        .header(header::CACHE_CONTROL, format!("private, max-age={good_for}"));
    if !is_shown(&media_type) {
        response = response.header(header::CONTENT_DISPOSITION, attachment(&found));
    }
    Ok(response.body(Body::from_async_read(file)))
}

fn not_found() -> ApiError {
    ApiError::not_found("media_not_found", "There is no such medium, or this link does not open it.")
}

/// What is said of a medium that was deleted when its time had passed.
pub(crate) fn pruned() -> ApiError {
    ApiError::gone(
        "media_pruned",
        "The medium is not kept any more: it is older than this install keeps media.",
    )
}

/// Names the file as its sender did, in a form that cannot leave its header.
fn attachment(media: &Media) -> String {
    let extension = media.media_path.as_deref().and_then(|path| path.rsplit('.').next()).unwrap_or("bin");
    let name = match media.kind.as_str() {
        "file" if !media.text.is_empty() => media.text.clone(),
        _ => format!("{}.{extension}", media.id),
    };
    let name: String = name.chars().filter(|c| !c.is_control() && !"/\\".contains(*c)).take(150).collect();
    let encoded: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    format!("attachment; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn a_file_is_named_as_its_sender_did_and_nothing_else_is_said() {
        let mut media = Media {
            id: Uuid::nil(),
            organization_id: Uuid::nil(),
            account_id: Uuid::nil(),
            kind: "file".into(),
            text: "../报价 \"1\"\r\nX: y.pdf".into(),
            msg_id: None,
            media_state: None,
            media_path: Some("a/b.pdf".into()),
            media_type: None,
            media_bytes: None,
            created_at: DateTime::UNIX_EPOCH,
        };
        let name = attachment(&media);
        assert_eq!(name, "attachment; filename*=UTF-8''..%E6%8A%A5%E4%BB%B7%20%221%22X%3A%20y.pdf");
        media.kind = "voice".into();
        assert_eq!(attachment(&media), format!("attachment; filename*=UTF-8''{}.pdf", Uuid::nil()));
    }
}
