//! Pictures, voices, videos and files that customers send, and how their downloads go.
//!
//! A message carries 32 hexadecimal digits as its key; a download of that message's XML leads to an
//! address of the sandbox with the same digits.

use std::collections::BTreeMap;

use poem::http::{StatusCode, header};
use poem::web::{Data, Path};
use poem::{Response, handler};
use serde::{Deserialize, Serialize};

use crate::Sandbox;
use crate::customer::Kind;

/// The largest that a download is made.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How a download goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MediaMode {
    #[default]
    Right,
    /// A page of HTML under the right type.
    Html,
    /// A page of HTML that calls itself one.
    HtmlPage,
    /// 48 MiB, announced.
    TooBig,
    /// 48 MiB, not announced.
    TooBigUnannounced,
    NotFound,
    /// To the sandbox's own private address.
    RedirectToPrivate,
    /// The address is on another, private host.
    PrivateAddress,
    /// The address is a local file.
    FileAddress,
    /// Nothing at all.
    Empty,
    /// A script under the name of a picture.
    WrongType,
    /// GeWe itself says that it failed.
    Refused,
}

#[derive(Debug, Clone, Copy)]
struct Medium {
    kind: Kind,
    mode: MediaMode,
    bytes: u64,
}

/// All media, by their digits.
#[derive(Debug, Default)]
pub(crate) struct Media {
    media: BTreeMap<String, Medium>,
    /// For those that say nothing else.
    pub(crate) mode: MediaMode,
}

/// A red square, as small as a picture can be.
const PNG: &[u8] = include_bytes!("../assets/square.png");

impl Media {
    /// Adds the medium of a message, and returns its digits and its size.
    pub(crate) fn add(&mut self, id: u64, kind: Kind, mode: MediaMode, bytes: u64) -> (String, u64) {
        let digits = format!("{id:032x}");
        let medium = Medium { kind, mode, bytes: bytes.min(MAX_BYTES) };
        let has_media = matches!(
            kind,
            Kind::Image | Kind::Voice | Kind::Video | Kind::File | Kind::FileNotice | Kind::Emoji
        );
        if !has_media {
            return (digits, bytes);
        }
        let size = medium.body().len() as u64;
        self.media.insert(digits.clone(), medium);
        (digits, size)
    }

    /// Returns the address for a message's XML, or `None` if GeWe is to say that it failed.
    pub(crate) fn address(&self, route: &str, xml: &str, base: &str) -> Option<String> {
        let digits = digits(xml).filter(|digits| self.media.contains_key(*digits));
        let known = digits.and_then(|digits| self.media.get(digits).map(|medium| (digits, *medium)));
        let extension = match route {
            "downloadVoice" => "silk",
            "downloadVideo" => "mp4",
            "downloadFile" => "pdf",
            _ => "png",
        };
        let (digits, mode) = known.map_or(("sample", self.mode), |(digits, medium)| {
            (digits, if medium.mode == MediaMode::Right { self.mode } else { medium.mode })
        });
        match mode {
            MediaMode::Refused => None,
            MediaMode::PrivateAddress => Some("http://169.254.169.254/latest/meta-data".to_owned()),
            MediaMode::FileAddress => Some("file:///etc/passwd".to_owned()),
            _ => Some(format!("{base}/_sandbox/media/{digits}.{extension}")),
        }
    }
}

/// Finds a message's digits in its XML.
fn digits(xml: &str) -> Option<&str> {
    let after = ["aeskey=\"", "<aeskey>"].iter().find_map(|mark| Some(xml.find(mark)? + mark.len()))?;
    let digits = xml.get(after..after + 32)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(digits)
}

impl Medium {
    /// A small thing of its kind, made as long as was asked for.
    fn body(self) -> Vec<u8> {
        let mut body = match self.kind {
            Kind::Voice => b"\x02#!SILK_V3\x05\x00\xaa\xbb\xcc\xdd\xee\xff\xff".to_vec(),
            Kind::Video => b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom\x00\x00\x00\x08mdat".to_vec(),
            Kind::File | Kind::FileNotice => {
                b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n".to_vec()
            }
            _ => PNG.to_vec(),
        };
        if (body.len() as u64) < self.bytes {
            body.resize(self.bytes as usize, b' ');
        }
        body
    }

    fn content_type(self) -> &'static str {
        match self.kind {
            Kind::Voice => "audio/silk",
            Kind::Video => "video/mp4",
            Kind::File | Kind::FileNotice => "application/pdf",
            _ => "image/png",
        }
    }
}

/// Serves a download, as its mode says.
#[handler]
pub(crate) fn download(Data(sandbox): Data<&Sandbox>, Path(name): Path<String>) -> Response {
    let (digits, extension) = name.split_once('.').unwrap_or((name.as_str(), "png"));
    let medium = {
        let state = sandbox.state();
        let sample = Medium {
            kind: match extension {
                "silk" => Kind::Voice,
                "mp4" => Kind::Video,
                "pdf" => Kind::File,
                _ => Kind::Image,
            },
            mode: state.media.mode,
            bytes: 0,
        };
        let known = state.media.media.get(digits).copied();
        let known = known.or((digits == "sample").then_some(sample));
        known.map(|medium| Medium {
            mode: if medium.mode == MediaMode::Right { state.media.mode } else { medium.mode },
            ..medium
        })
    };
    let Some(medium) = medium else { return Response::builder().status(StatusCode::NOT_FOUND).finish() };
    const HTML: &str =
        "<html><head><title>安全验证</title></head><body><script>alert(1)</script></body></html>";
    let answer = Response::builder().content_type(medium.content_type());
    match medium.mode {
        MediaMode::Html => answer.body(HTML),
        MediaMode::HtmlPage => Response::builder().content_type("text/html").body(HTML),
        MediaMode::TooBig => answer.body(Medium { bytes: 48 * 1024 * 1024, ..medium }.body()),
        MediaMode::TooBigUnannounced => {
            let pieces = (0..48).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024 * 1024]));
            answer.body(poem::Body::from_bytes_stream(futures::stream::iter(pieces)))
        }
        MediaMode::NotFound => Response::builder().status(StatusCode::NOT_FOUND).finish(),
        MediaMode::RedirectToPrivate => Response::builder()
            .status(StatusCode::FOUND)
            .header(header::LOCATION, "http://127.0.0.1:1/secret")
            .finish(),
        MediaMode::Empty => answer.finish(),
        MediaMode::WrongType => Response::builder().content_type("application/javascript").body("alert(1)"),
        MediaMode::Right | MediaMode::Refused | MediaMode::PrivateAddress | MediaMode::FileAddress => {
            answer.body(medium.body())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_leads_to_its_own_medium() {
        let mut media = Media::default();
        let (digits, size) = media.add(7, Kind::Image, MediaMode::Right, 5000);
        assert_eq!(size, 5000);
        let xml = format!("<msg><img aeskey=\"{digits}\" /></msg>");
        assert_eq!(
            media.address("downloadImage", &xml, "http://h"),
            Some(format!("http://h/_sandbox/media/{digits}.png"))
        );
        assert_eq!(
            media.address("downloadFile", "<aeskey>é", "http://h").as_deref(),
            Some("http://h/_sandbox/media/sample.pdf")
        );
        media.mode = MediaMode::Refused;
        assert_eq!(media.address("downloadImage", &xml, "http://h"), None);
    }
}
