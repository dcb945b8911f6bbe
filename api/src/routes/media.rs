//! Links to the media of messages.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use entropy_schema::media;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use uuid::Uuid;

use super::Tag;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::problem::ApiError;

/// How long a link is good.
const GOOD_FOR: TimeDelta = TimeDelta::minutes(10);

/// A link to a medium.
#[derive(Debug, Object)]
struct MediaLink {
    /// Opens it without a login until `expires_at`; below the API's own address unless `PUBLIC_URL` is set.
    url: String,
    expires_at: DateTime<Utc>,
    /// What it is, by its first bytes, such as `image/jpeg`.
    media_type: String,
    /// How long it is.
    bytes: i64,
}

/// Media.
pub(super) struct MessageMedia;

#[OpenApi(tag = "Tag::Conversations")]
impl MessageMedia {
    /// Makes a link to a message's picture, voice, video or file
    ///
    /// Needs the role agent, as reading texts does. The link is good for ten minutes, for whoever has it. 409 while the
    /// medium is still being downloaded, 410 if it was refused, is gone, or was kept for its time and deleted.
    #[oai(path = "/messages/:id/media", method = "get", operation_id = "get_message_media")]
    async fn link(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        id: Path<Uuid>,
    ) -> Result<Json<MediaLink>, ApiError> {
        caller.require(Role::Agent)?;
        let expires_at = (state.now().await + GOOD_FOR).trunc_subsecs(0);
        let mut conn = state.db.conn().await?;
        let found = media::get(&mut conn, caller.organization_id, id.0).await?;
        let found = found.filter(|found| found.media_state.is_some()).ok_or_else(|| {
            ApiError::not_found(
                "media_not_found",
                "Your organisation has no such message, or it has no media.",
            )
        })?;
        match found.media_state.as_deref() {
            Some("waiting") => {
                let detail = "The medium is still being downloaded. Ask again in a minute.";
                return Err(ApiError::conflict("media_waiting", detail));
            }
            Some("stored") => {}
            Some("refused") => {
                let detail = "The medium is not kept: it is too long, not what its message says, or a program or page.";
                return Err(ApiError::gone("media_refused", detail));
            }
            Some("pruned") => return Err(crate::media::pruned()),
            _ => {
                let detail = "The medium could not be downloaded before WeChat let go of it.";
                return Err(ApiError::gone("media_gone", detail));
            }
        }
        let expires = expires_at.timestamp();
        let url = state.links.url(id.0, expires).unwrap_or_else(|| state.links.path(id.0, expires));
        Ok(Json(MediaLink {
            url,
            expires_at,
            media_type: found.media_type.unwrap_or_default(),
            bytes: found.media_bytes.unwrap_or_default(),
        }))
    }
}
