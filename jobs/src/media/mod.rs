//! Media of messages: what may be kept, where, and who may see it.
//!
//! Everything that is downloaded was written by a stranger. It is streamed into a file that nobody serves, looked at, and
//! only then put in its place; what would run in a browser or on a desk is not kept. Links to it are signed and expire.

pub mod link;
pub mod prune;
pub mod sniff;
pub mod store;

use std::path::Path;

use entropy_schema::media;
use futures::future::BoxFuture;
use uuid::Uuid;

pub use self::link::{Links, signed_url};
pub use self::store::Store;
use crate::background::enqueue_in_background;
use crate::class::Class;
use crate::enqueue::{NewJob, Options, new_job};
use crate::kinds::download_media::DownloadMedia;
use crate::provider::{Device, SendError};
use crate::services::Context;

/// What is asked of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// A picture; not every size exists of each.
    Image {
        /// The message's XML.
        xml: &'a str,
        /// Which.
        size: ImageSize,
    },
    /// A voice.
    Voice {
        /// The message's XML.
        xml: &'a str,
        /// The provider's local id of the message.
        msg_id: i64,
    },
    /// A video.
    Video {
        /// The message's XML.
        xml: &'a str,
    },
    /// A file.
    File {
        /// The message's XML.
        xml: &'a str,
    },
}

/// The sizes of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSize {
    /// As it was sent.
    Original,
    /// As chats show it.
    Normal,
    /// As lists show it.
    Thumbnail,
}

/// Why a download failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The address is none that we go to, or what is there is no file.
    #[error("what the provider names is not fetched: {0}")]
    Refused(&'static str),
    /// It is longer than what is kept.
    #[error("it is longer than MAX_FILE_SIZE")]
    TooLong,
    /// There is nothing any more.
    #[error("there is nothing at the address that the provider names")]
    Gone,
    /// It may be there another time.
    #[error("the download failed: {0}")]
    Failed(&'static str),
}

/// Where media come from.
pub trait MediaSource: Send + Sync {
    /// Asks the provider where a medium can be fetched.
    fn locate<'a>(
        &'a self,
        device: &'a Device,
        wanted: Wanted<'a>,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<String, SendError>>;

    /// Fetches what is at `url` into a new file, up to `most` bytes, and returns how many there were.
    fn fetch<'a>(&'a self, url: &'a str, into: &'a Path, most: u64)
    -> BoxFuture<'a, Result<u64, FetchError>>;

    /// Looks whether there is anything at `url`, wherever it leads on the way. Nothing of it is kept.
    fn probe<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<(), FetchError>>;
}

/// Prepares the job that downloads the media of a message.
pub fn job_for(organization_id: Uuid, account_id: Uuid, message_id: Uuid, trace_id: &str) -> NewJob {
    let options = Options {
        organization_id,
        // Before whole address books, which wait in the same lane.
        class: Class::Reply,
        scheduled_at: None,
        expires_at: None,
        idempotency: None,
        trace_id: trace_id.to_owned(),
        created_by: None,
    };
    new_job(&DownloadMedia { account_id, message_id }, options)
}

/// Enqueues the download of a message's media, if they wait for one. Safe to repeat.
///
/// Not in the transaction that stores the message: that one holds the conversation, which comes after lanes in the order
/// of locks. A process that dies in between leaves the event unhandled, and its next attempt comes here again.
pub async fn request(ctx: &Context, account: Uuid, message: Uuid) -> Result<(), entropy_schema::Error> {
    use diesel_async::AsyncConnection;
    let mut conn = ctx.conn().await?;
    let found = media::get(&mut conn, ctx.organization_id, message).await?;
    if found.is_none_or(|found| found.media_state.as_deref() != Some("waiting")) {
        return Ok(());
    }
    let job = job_for(ctx.organization_id, account, message, &ctx.trace_id);
    conn.transaction(async |conn| enqueue_in_background(conn, account, job).await).await?;
    Ok(())
}
