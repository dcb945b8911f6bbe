//! Takes in files: streamed to where nobody serves them, within a size and a time, looked at, and only then kept.

use std::time::Duration;

use chrono::{DateTime, Utc};
use entropy_jobs::media::Store;
use entropy_jobs::media::store::{Kept, Owner, Refused, Temporary};
use futures::StreamExt;
use poem::http::StatusCode;
use poem::{Request, RequestBody, Result};
use poem_openapi::payload::{Binary, Payload};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchemaRef};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::problem::ApiError;

/// A body that is a file. Its type is told by its first bytes, so any `Content-Type` will do.
#[derive(Debug)]
pub(crate) struct FileBody(pub poem::Body);

impl Payload for FileBody {
    const CONTENT_TYPE: &'static str = <Binary<poem::Body> as Payload>::CONTENT_TYPE;

    fn check_content_type(_: &str) -> bool {
        true
    }

    fn schema_ref() -> MetaSchemaRef {
        <Binary<poem::Body> as Payload>::schema_ref()
    }
}

impl<'a> ApiExtractor<'a> for FileBody {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn request_meta() -> Option<MetaRequest> {
        let content = vec![MetaMediaType {
            content_type: <Self as Payload>::CONTENT_TYPE,
            schema: <Self as Payload>::schema_ref(),
        }];
        Some(MetaRequest { description: None, content, required: true })
    }

    async fn from_request(
        _: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        Ok(FileBody(body.take().map_err(ApiError::internal)?))
    }
}

/// How long a file may take to arrive.
const MAX_TIME: Duration = Duration::from_secs(120);
/// How much of a file that is too large is read beyond its limit.
const MAX_DRAINED_BYTES: u64 = 16 << 20;

/// Keeps the file that a body is. Every file has a place of its own.
pub(crate) async fn keep(
    store: &Store,
    body: poem::Body,
    organization: Uuid,
    kind: &str,
    now: DateTime<Utc>,
) -> Result<Kept, ApiError> {
    let received = tokio::time::timeout(MAX_TIME, receive(store, body)).await.unwrap_or_else(|_| {
        let detail = "The file did not arrive within two minutes. Send it again.";
        Err(ApiError::unfit(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail))
    })?;
    let owner = Owner { organization_id: organization, message_id: Uuid::now_v7(), kind, at: now };
    store.keep(received, owner).await.map_err(|refused| match refused {
        Refused::Dangerous => {
            unfit("It is a program or a page, and those are not kept. Send a document or a picture.")
        }
        Refused::Wrong if kind == "image" => unfit("It is no picture. Send a JPEG, PNG, GIF or WebP file."),
        Refused::Wrong => unfit("It is empty. Send the file as the body of the request."),
        Refused::Disk(error) => ApiError::internal(error),
    })
}

fn unfit(detail: &str) -> ApiError {
    ApiError::unfit(StatusCode::UNPROCESSABLE_ENTITY, "file_refused", detail)
}

async fn receive(store: &Store, body: poem::Body) -> Result<Temporary, ApiError> {
    let temporary = store.temporary().await.map_err(ApiError::internal)?;
    let mut file = tokio::fs::File::create_new(temporary.path()).await.map_err(ApiError::internal)?;
    let mut bytes = 0;
    // What is too long is read on for a while and thrown away, so that its sender gets to read our answer.
    let patience = store.most() + MAX_DRAINED_BYTES;
    let mut chunks = std::pin::pin!(body.into_bytes_stream());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::invalid("The file ended too early. Send it again."))?;
        bytes += chunk.len() as u64;
        if bytes <= store.most() {
            file.write_all(&chunk).await.map_err(ApiError::internal)?;
        } else if bytes > patience {
            break;
        }
    }
    if bytes > store.most() {
        let detail =
            format!("The file is larger than {} bytes, the longest that this install keeps.", store.most());
        return Err(ApiError::unfit(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large", detail));
    }
    file.flush().await.map_err(ApiError::internal)?;
    Ok(temporary)
}
