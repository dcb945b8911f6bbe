//! Pictures and files of a question that the provider can fetch: which, as what, and whether they are worth waiting for.
//!
//! The provider gets a signed link to our own copy, which was looked at before it was kept. Without a copy, or without an
//! address under which others reach this install (`PUBLIC_URL`), there is only the word for it, such as `[图片]`.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::media::{self, Media};
use entropy_schema::replies::Said;
use entropy_schema::{Conn, Result};
use uuid::Uuid;

use super::port::Part;
use crate::media::sniff::is_shown;
use crate::media::{Links, signed_url};

/// Parts beside the words that one question has at most; the newest are taken. Apps take twenty unless they are set to less.
const MOST: usize = 10;

/// The longest picture that is handed over: models refuse longer ones, and with them the question.
const MAX_IMAGE_BYTES: i64 = 10 << 20;

/// The same for a file, whose text becomes part of the question.
const MAX_FILE_BYTES: i64 = 20 << 20;

/// Characters of a file's name.
const MAX_NAME_CHARS: usize = 150;

/// How long a link is good. The chat's later questions show the picture again, as part of its history.
const GOOD_FOR: TimeDelta = TimeDelta::days(1);

/// How long an answer waits for a picture or file after the customer's last message.
pub(super) const PATIENCE: TimeDelta = TimeDelta::seconds(20);

/// Endings of files that the provider reads, and what their first bytes must say. What begins like a page or a program is
/// never kept.
const READABLE: [(&str, &str); 7] = [
    ("txt", "application/octet-stream"),
    ("md", "application/octet-stream"),
    ("csv", "application/octet-stream"),
    ("pdf", "application/pdf"),
    ("docx", "application/zip"),
    ("xlsx", "application/zip"),
    ("pptx", "application/zip"),
];

/// What came of looking at the media of a question.
pub(super) enum Attached {
    /// These messages have one that can be fetched.
    Parts(HashMap<Uuid, Part>),
    /// One of them is still being downloaded.
    NotYet,
}

/// Looks at the media of a question at the time `now`. With `patient`, what is still on its way is worth waiting for.
pub(super) async fn of(
    conn: &mut Conn,
    organization: Uuid,
    links: Option<&Links>,
    messages: &[Said],
    now: DateTime<Utc>,
    patient: bool,
) -> Result<Attached> {
    let none = Ok(Attached::Parts(HashMap::new()));
    let Some(links) = links.filter(|links| links.is_public()) else { return none };
    let shown = |said: &&Said| matches!(said.kind.as_str(), "image" | "file") && said.media_state.is_some();
    let newest: Vec<&Said> = messages.iter().rev().filter(shown).take(MOST).collect();
    if patient && newest.iter().any(|said| said.media_state.as_deref() == Some("waiting")) {
        return Ok(Attached::NotYet);
    }
    let stored = |said: &&&Said| said.media_state.as_deref() == Some("stored");
    let ids: Vec<Uuid> = newest.iter().filter(stored).map(|said| said.id).collect();
    if ids.is_empty() {
        return none;
    }
    let expires = (now + GOOD_FOR).timestamp();
    let found = media::of(conn, organization, &ids).await?;
    let parts = found.iter().filter_map(|media| Some((media.id, part(media, links, expires)?)));
    Ok(Attached::Parts(parts.collect()))
}

/// Returns a medium as a part of the question. None: the provider could not read it.
fn part(media: &Media, links: &Links, expires: i64) -> Option<Part> {
    if media.media_state.as_deref() != Some("stored") {
        return None;
    }
    let (media_type, bytes) = (media.media_type.as_deref()?, media.media_bytes?);
    let url = || signed_url(Some(links), media.id, expires);
    match media.kind.as_str() {
        "image" if is_shown(media_type) && bytes <= MAX_IMAGE_BYTES => Some(Part::Image { url: url()? }),
        "file" if bytes <= MAX_FILE_BYTES => {
            let name = media.text.trim();
            let (_, ending) = name.rsplit_once('.')?;
            let ending = ending.to_ascii_lowercase();
            if !READABLE.contains(&(ending.as_str(), media_type)) {
                return None;
            }
            // The end of a long name says what it is.
            let named: Vec<char> = name.chars().filter(|c| !c.is_control()).collect();
            let name = named[named.len().saturating_sub(MAX_NAME_CHARS)..].iter().collect();
            Some(Part::File { name, url: url()? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn medium(kind: &str, text: &str, media_type: &str, bytes: i64) -> Media {
        Media {
            id: Uuid::from_u128(7),
            organization_id: Uuid::nil(),
            account_id: Uuid::nil(),
            kind: kind.to_owned(),
            text: text.to_owned(),
            msg_id: None,
            media_state: Some("stored".to_owned()),
            media_path: Some("a/b".to_owned()),
            media_type: Some(media_type.to_owned()),
            media_bytes: Some(bytes),
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_provider_is_given_what_it_can_read_and_nothing_else() {
        let links = Links::new(&Secret::new("a-secret-of-the-tests"), Some("https://a.example".into()));
        let seen = |medium: Media| match part(&medium, &links, 1000) {
            Some(Part::Image { url }) => format!("image {}", url.split('?').next().unwrap_or_default()),
            Some(Part::File { name, .. }) => format!("file {name}"),
            Some(Part::Text(text)) => text,
            None => "nothing".to_owned(),
        };
        let url = format!("https://a.example/media/{}", Uuid::from_u128(7));
        for (kind, text, media_type, bytes, expected) in [
            ("image", "", "image/jpeg", 1 << 20, format!("image {url}")),
            ("image", "", "image/webp", 10 << 20, format!("image {url}")),
            ("image", "", "image/png", (10 << 20) + 1, "nothing".to_owned()),
            ("image", "", "application/octet-stream", 10, "nothing".to_owned()),
            ("file", "报价单.PDF", "application/pdf", 10, "file 报价单.PDF".to_owned()),
            ("file", "合同.docx", "application/zip", 10, "file 合同.docx".to_owned()),
            ("file", "a\n.txt", "application/octet-stream", 10, "file a.txt".to_owned()),
            ("file", "报价单.pdf", "application/zip", 10, "nothing".to_owned()),
            ("file", "资料.zip", "application/zip", 10, "nothing".to_owned()),
            ("file", "没有后缀", "application/pdf", 10, "nothing".to_owned()),
            ("file", "报价单.pdf", "application/pdf", (20 << 20) + 1, "nothing".to_owned()),
            ("voice", "", "audio/silk", 10, "nothing".to_owned()),
            ("video", "", "video/mp4", 10, "nothing".to_owned()),
        ] {
            assert_eq!(seen(medium(kind, text, media_type, bytes)), expected, "{kind} {text} {media_type}");
        }
        let waiting =
            Media { media_state: Some("waiting".to_owned()), ..medium("image", "", "image/png", 1) };
        assert_eq!(seen(waiting), "nothing");
    }
}
