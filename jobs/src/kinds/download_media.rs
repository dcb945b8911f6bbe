//! Downloads the picture, voice, video or file of one message.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use entropy_schema::{callbacks, media};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::background::{self, Target, background_lane, lane_wait};
use crate::incoming::decode::{Setting, event_in};
use crate::incoming::{Message, What};
use crate::job::{Done, Failure, Job, JobError};
use crate::lifecycle::Delivery;
use crate::media::store::{Owner, Refused, Temporary};
use crate::media::{FetchError, ImageSize, Wanted};
use crate::provider::ErrorClass;
use crate::services::Context;

/// The download of a message's media. The event that brought the message says what there is to download.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DownloadMedia {
    /// The account that received it.
    pub account_id: Uuid,
    /// The message; also its event.
    pub message_id: Uuid,
}

/// The largest picture first; not every picture has every size.
const SIZES: [ImageSize; 3] = [ImageSize::Original, ImageSize::Normal, ImageSize::Thumbnail];

impl Job for DownloadMedia {
    const KIND: &'static str = "download_media";
    const QUEUE: &'static str = background::QUEUE;
    const DELIVERY: Delivery = Delivery::AtLeastOnce;
    const MAX_ATTEMPTS: i16 = 6;
    const TIMEOUT: Duration = Duration::from_secs(300);

    fn lane(&self) -> Option<Uuid> {
        Some(background_lane(self.account_id))
    }

    fn account(&self) -> Option<Uuid> {
        Some(self.account_id)
    }

    fn unique_key(&self) -> Option<String> {
        Some(self.message_id.to_string())
    }

    async fn run(&self, ctx: &Context) -> Result<Done, JobError> {
        let ended = self.download(ctx).await;
        let over = match &ended {
            Err(JobError::Retry(_)) => ctx.attempt >= Self::MAX_ATTEMPTS,
            Err(JobError::Discard(_)) => true,
            _ => false,
        };
        if over {
            // A person may revive the job, and then it is fetched after all.
            media::ended(&mut *ctx.conn().await?, ctx.organization_id, self.message_id, "gone").await?;
        }
        ended
    }
}

impl DownloadMedia {
    async fn download(&self, ctx: &Context) -> Result<Done, JobError> {
        let mut conn = ctx.conn().await?;
        let found = media::get(&mut conn, ctx.organization_id, self.message_id).await?;
        let waiting = callbacks::waiting(&mut conn, ctx.organization_id, self.message_id).await?;
        drop(conn);
        let Some(found) = found else { return Ok(said("gone", None)) };
        if !matches!(found.media_state.as_deref(), Some("waiting" | "gone")) {
            return Ok(said(found.media_state.as_deref().unwrap_or("gone"), None));
        }
        // Pruned: the provider's copy is older than it keeps it.
        let Some(waiting) = waiting else { return self.end(ctx, "gone", "event_pruned").await };
        let setting = Setting { own_wxid: waiting.own_wxid.as_deref(), received_at: waiting.received_at };
        let What::Message(message) = event_in(&waiting.body, &setting).what else {
            return self.end(ctx, "gone", "no_message").await;
        };
        if message
            .media
            .as_ref()
            .and_then(|media| media.bytes)
            .is_some_and(|bytes| bytes > ctx.services.store.most())
        {
            return self.end(ctx, "refused", "too_long").await;
        }
        let owner = Owner {
            organization_id: ctx.organization_id,
            message_id: self.message_id,
            kind: &found.kind,
            at: found.created_at,
        };
        if let Some(silk) = silk(&message, &waiting.body) {
            let file = ctx.services.store.write(&silk).await?;
            return self.keep(ctx, file, owner, None).await;
        }
        let target = background::target(ctx, self.account_id, &["ONLINE"]).await?;
        let Some(url) = self.locate(ctx, &target, &message).await? else {
            return self.end(ctx, "gone", "provider_refused").await;
        };
        let file = ctx.services.store.temporary().await?;
        let fetched = ctx.services.media.fetch(&url, file.path(), ctx.services.store.most()).await;
        match fetched {
            Ok(_) => self.keep(ctx, file, owner, Some(background::gap(ctx))).await,
            Err(FetchError::TooLong) => self.end(ctx, "refused", "too_long").await,
            Err(FetchError::Refused(why)) => {
                tracing::warn!(message_id = %self.message_id, why, "a download was refused");
                self.end(ctx, "refused", "address_refused").await
            }
            Err(FetchError::Gone) => self.end(ctx, "gone", "not_found").await,
            Err(FetchError::Failed(why)) => {
                let message = format!("the file could not be fetched: {why}");
                let wait = Some(lane_wait(background::gap(ctx)));
                Err(JobError::Retry(Failure { lane_wait: wait, ..Failure::new("fetch_failed", message) }))
            }
        }
    }

    /// Asks where the medium is. None: the provider says that it cannot be had.
    async fn locate(
        &self,
        ctx: &Context,
        target: &Target,
        message: &Message,
    ) -> Result<Option<String>, JobError> {
        let Some(media) = &message.media else { return Ok(None) };
        let xml = media.xml.as_str();
        let wanted = match message.kind {
            "image" => SIZES.iter().map(|size| Wanted::Image { xml, size: *size }).collect(),
            "voice" => {
                let msg_id = message.msg_id.as_deref().and_then(|id| id.parse().ok());
                msg_id.map(|msg_id| Wanted::Voice { xml, msg_id }).into_iter().collect()
            }
            "video" => vec![Wanted::Video { xml }],
            "file" => vec![Wanted::File { xml }],
            _ => Vec::new(),
        };
        for wanted in wanted {
            match ctx.services.media.locate(&target.device, wanted, &ctx.trace_id).await {
                Ok(url) => return Ok(Some(url)),
                // Not every picture has every size.
                Err(error) if error.class == ErrorClass::Refused => {}
                Err(error) => return Err(background::failed(ctx, self.account_id, target, error).await),
            }
        }
        Ok(None)
    }

    async fn keep(
        &self,
        ctx: &Context,
        file: Temporary,
        owner: Owner<'_>,
        gap: Option<Duration>,
    ) -> Result<Done, JobError> {
        let kept = match ctx.services.store.keep(file, owner).await {
            Ok(kept) => kept,
            Err(Refused::Disk(error)) => return Err(error.into()),
            Err(Refused::Dangerous) => return self.end(ctx, "refused", "dangerous").await,
            Err(Refused::Wrong) => return self.end(ctx, "refused", "wrong_type").await,
        };
        let bytes = i64::try_from(kept.bytes)?;
        let mut conn = ctx.conn().await?;
        let (organization, message, media_type) =
            (ctx.organization_id, self.message_id, kept.found.media_type);
        media::stored(&mut conn, organization, message, &kept.path, media_type, bytes).await?;
        let result = json!({ "media_state": "stored", "media_type": media_type, "bytes": bytes });
        Ok(Done { result: Some(result), lane_wait: gap.map(random_gap) })
    }

    async fn end(&self, ctx: &Context, state: &str, why: &str) -> Result<Done, JobError> {
        let mut conn = ctx.conn().await?;
        media::ended(&mut conn, ctx.organization_id, self.message_id, state).await?;
        Ok(Done { lane_wait: Some(random_gap(background::gap(ctx))), ..said(state, Some(why)) })
    }
}

/// One to three times the gap: eager downloads at a steady beat get accounts logged out.
fn random_gap(gap: Duration) -> entropy_schema::record::finish::LaneWait {
    let random = u64::from(Uuid::new_v4().as_bytes()[0]);
    lane_wait(gap + gap * 2 * u32::try_from(random).unwrap_or(0) / 255)
}

fn said(state: &str, why: Option<&str>) -> Done {
    Done { result: Some(json!({ "media_state": state, "reason": why })), lane_wait: None }
}

/// Returns the sound itself, if the event brought it.
fn silk(message: &Message, body: &Value) -> Option<Vec<u8>> {
    if message.kind != "voice" {
        return None;
    }
    let data = body.get("Data").or_else(|| body.get("data"))?;
    let buffer = data.get("ImgBuf").or_else(|| data.get("imgBuf")).or_else(|| data.get("imgbuf"))?;
    let text = buffer.get("buffer")?.as_str()?;
    STANDARD.decode(text.trim()).ok().filter(|silk| !silk.is_empty())
}
