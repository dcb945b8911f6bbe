//! What a file is, by its first bytes. Names and headers are only what somebody says.

/// How many bytes are looked at.
pub const HEAD: usize = 512;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its media type.
    pub media_type: &'static str,
    /// The end of its name.
    pub extension: &'static str,
}

/// What runs when it is opened is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dangerous;

const fn found(media_type: &'static str, extension: &'static str) -> Found {
    Found { media_type, extension }
}

/// What nothing is known of: it can be kept and handed out, and no browser shows it.
const UNKNOWN: Found = found("application/octet-stream", "bin");

/// Looks at the first bytes of a file.
pub fn sniff(head: &[u8]) -> Result<Found, Dangerous> {
    let begins = |with: &[u8]| head.starts_with(with);
    let at = |from: usize, what: &[u8]| head.get(from..from + what.len()) == Some(what);
    if begins(b"\xff\xd8\xff") {
        return Ok(found("image/jpeg", "jpg"));
    }
    if begins(b"\x89PNG\r\n\x1a\n") {
        return Ok(found("image/png", "png"));
    }
    if begins(b"GIF87a") || begins(b"GIF89a") {
        return Ok(found("image/gif", "gif"));
    }
    if begins(b"RIFF") && at(8, b"WEBP") {
        return Ok(found("image/webp", "webp"));
    }
    if at(4, b"ftyp") {
        let picture = [b"heic", b"heix", b"mif1", b"avif"].iter().any(|brand| at(8, *brand));
        return Ok(if picture { UNKNOWN } else { found("video/mp4", "mp4") });
    }
    if begins(b"#!SILK_V3") || begins(b"\x02#!SILK_V3") {
        return Ok(found("audio/silk", "silk"));
    }
    if begins(b"#!AMR") {
        return Ok(found("audio/amr", "amr"));
    }
    if begins(b"%PDF-") {
        return Ok(found("application/pdf", "pdf"));
    }
    if begins(b"PK\x03\x04") {
        return Ok(found("application/zip", "zip"));
    }
    if begins(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
        return Ok(found("application/x-ole-storage", "ole"));
    }
    if is_program(head) || is_page(head) { Err(Dangerous) } else { Ok(UNKNOWN) }
}

fn is_program(head: &[u8]) -> bool {
    let marks: [&[u8]; 9] = [
        b"MZ",
        b"\x7fELF",
        b"\xfe\xed\xfa\xce",
        b"\xfe\xed\xfa\xcf",
        b"\xce\xfa\xed\xfe",
        b"\xcf\xfa\xed\xfe",
        b"\xca\xfe\xba\xbe",
        b"dex\n",
        b"#!",
    ];
    marks.iter().any(|mark| head.starts_with(mark))
}

/// Markup that a browser may run, in whatever encoding its head is ASCII.
fn is_page(head: &[u8]) -> bool {
    // Bytes of other encodings between the letters, blanks and marks of order do not hide it.
    let text: String = head
        .iter()
        .filter(|byte| byte.is_ascii_graphic())
        .map(|byte| char::from(*byte).to_ascii_lowercase())
        .collect();
    let tags = ["<!doctypehtml", "<html", "<head", "<body", "<script", "<iframe", "<svg", "<?xml", "<!--"];
    tags.iter().any(|tag| text.starts_with(tag))
        || ["<script", "<svg", "<html"].iter().any(|tag| text.contains(tag))
}

/// Tells whether a message of `kind` may hold this.
pub fn fits(kind: &str, found: Found) -> bool {
    match kind {
        "image" | "emoji" => found.media_type.starts_with("image/"),
        "voice" => found.media_type.starts_with("audio/"),
        "video" => found.media_type.starts_with("video/"),
        _ => true,
    }
}

/// Tells whether a browser may show it in a page.
pub fn is_shown(media_type: &str) -> bool {
    matches!(media_type, "image/jpeg" | "image/png" | "image/gif" | "image/webp")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(head: &[u8]) -> &'static str {
        sniff(head).map_or("dangerous", |found| found.media_type)
    }

    #[test]
    fn a_file_is_what_its_first_bytes_say() {
        assert_eq!(kind_of(b"\xff\xd8\xff\xe0\0\x10JFIF"), "image/jpeg");
        assert_eq!(kind_of(b"\x89PNG\r\n\x1a\n\0"), "image/png");
        assert_eq!(kind_of(b"GIF89a"), "image/gif");
        assert_eq!(kind_of(b"RIFF\x01\0\0\0WEBPVP8 "), "image/webp");
        assert_eq!(kind_of(b"\0\0\0\x18ftypmp42"), "video/mp4");
        assert_eq!(kind_of(b"\0\0\0\x18ftypheic"), "application/octet-stream");
        assert_eq!(kind_of(b"\x02#!SILK_V3\x05"), "audio/silk");
        assert_eq!(kind_of(b"#!AMR\n"), "audio/amr");
        assert_eq!(kind_of(b"%PDF-1.4"), "application/pdf");
        assert_eq!(kind_of(b"PK\x03\x04\x14"), "application/zip");
        assert_eq!(kind_of("报价单".as_bytes()), "application/octet-stream");
        assert_eq!(kind_of(b""), "application/octet-stream");
    }

    #[test]
    fn what_would_run_is_refused_however_it_is_wrapped() {
        let page = "\u{feff} \n<HTML><body>";
        for head in [
            b"MZ\x90\0".as_slice(),
            b"\x7fELF\x02",
            b"#!/bin/sh\n",
            b"<!DOCTYPE html>",
            page.as_bytes(),
            b"<\0s\0v\0g\0 \0",
            b"<?xml version=\"1.0\"?><svg xmlns=\"a\">",
            b"hello <script>alert(1)</script>",
        ] {
            assert_eq!(sniff(head), Err(Dangerous), "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn a_message_holds_what_its_kind_says() {
        let png = found("image/png", "png");
        assert!(fits("image", png) && fits("file", png) && !fits("voice", png));
        assert!(!fits("image", UNKNOWN) && fits("file", UNKNOWN));
        assert!(is_shown("image/png") && !is_shown("image/svg+xml") && !is_shown("application/pdf"));
    }
}
