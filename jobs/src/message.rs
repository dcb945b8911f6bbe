//! What can be sent: the message kinds, their shape on our API, and the check at the door.
//!
//! Everything that the provider would refuse is refused here first, all problems at once, because a bad
//! message that was accepted only shows up hours later as a dead job.
//! How a kind looks on the provider's wire is the adapter's business.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::outbound_url::{self, UrlPolicy};

/// The longest text, in characters. WeChat's own limit is 2048 bytes in one client and unpublished.
pub const MAX_TEXT_CHARS: usize = 2000;
/// The most people that one message may mention.
pub const MAX_ATS: usize = 50;
/// The largest `<appmsg>` document, in bytes.
pub const MAX_XML_BYTES: usize = 64 * 1024;
/// The longest voice message; WeChat's recorder stops there.
pub const MAX_VOICE_MS: u32 = 60_000;
/// The longest video.
pub const MAX_VIDEO_S: u32 = 3600;

const MAX_WXID_CHARS: usize = 64;
const MAX_NAME_CHARS: usize = 255;
const MAX_TITLE_CHARS: usize = 200;
const MAX_DESC_CHARS: usize = 500;
const MAX_PAGE_PATH_CHARS: usize = 1024;

/// One message of any kind.
///
/// Prints its kind and lengths only, never what it says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is described by the struct of the same name")]
pub enum Message {
    Text(Text),
    Image(Image),
    File(File),
    Voice(Voice),
    Video(Video),
    Link(Link),
    MiniProgram(MiniProgram),
    NameCard(NameCard),
    Emoji(Emoji),
    AppMessage(AppMessage),
}

/// Plain text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The text; a mention must also stand in it as `@nickname`.
    pub text: String,
    /// The wxids that are mentioned in a group, or `notify@all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ats: Option<Vec<String>>,
}

/// A picture.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Where the provider fetches it.
    pub url: String,
}

/// A file of any type.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where the provider fetches it.
    pub url: String,
    /// The name that the recipient sees.
    pub name: String,
}

/// A voice message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voice {
    /// Where the provider fetches it; silk only.
    pub url: String,
    /// The length that is shown.
    pub duration_ms: u32,
}

/// A video.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Video {
    /// Where the provider fetches it.
    pub url: String,
    /// The still picture shown before it plays.
    pub thumb_url: String,
    /// The length that is shown.
    pub duration_s: u32,
}

/// A link card.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The first line of the card.
    pub title: String,
    /// The lines below it.
    pub desc: String,
    /// Where a tap leads.
    pub url: String,
    /// The small picture.
    pub thumb_url: String,
}

/// A mini program card.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiniProgram {
    /// The mini program's id, `wx...`.
    pub app_id: String,
    /// Its account, `gh_...@app`.
    pub user_name: String,
    /// The title of the card.
    pub title: String,
    /// The mini program's name.
    pub display_name: String,
    /// The page that a tap opens.
    pub page_path: String,
    /// The picture on the card.
    pub cover_url: String,
}

/// Somebody's name card.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameCard {
    /// Whose card.
    pub wxid: String,
    /// The name on it.
    pub nickname: String,
}

/// A sticker that WeChat already has.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emoji {
    /// Its fingerprint.
    pub md5: String,
    /// Its size in bytes.
    pub size: u32,
}

/// A raw `<appmsg>` document: music, quotes, channel shares.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppMessage {
    /// The XML with its `<appmsg>` node.
    pub xml: String,
}

/// One thing to change in the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The field, from the message on: `text`, `ats[3]`.
    pub path: String,
    /// The stable name of the problem.
    pub code: &'static str,
    /// What to change. Never repeats the value.
    pub message: String,
}

impl Message {
    /// Returns the name under which the kind is stored and counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Image(_) => "image",
            Self::File(_) => "file",
            Self::Voice(_) => "voice",
            Self::Video(_) => "video",
            Self::Link(_) => "link",
            Self::MiniProgram(_) => "mini_program",
            Self::NameCard(_) => "name_card",
            Self::Emoji(_) => "emoji",
            Self::AppMessage(_) => "app_message",
        }
    }

    /// Returns what a person reads of it in a conversation: the text, a title, a file's name; empty if it has no words.
    pub fn readable(&self) -> &str {
        match self {
            Self::Text(m) => &m.text,
            Self::File(m) => &m.name,
            Self::Link(m) => &m.title,
            Self::MiniProgram(m) => &m.title,
            Self::NameCard(m) => &m.nickname,
            Self::Image(_) | Self::Voice(_) | Self::Video(_) | Self::Emoji(_) | Self::AppMessage(_) => "",
        }
    }

    /// Lists everything that is wrong with the message; empty if it may be sent.
    pub fn validate(&self, policy: &UrlPolicy) -> Vec<FieldError> {
        let mut check = Checker { policy, errors: Vec::new() };
        match self {
            Self::Text(m) => {
                check.line("text", &m.text, MAX_TEXT_CHARS, Lines::Many);
                check.ats(m.ats.as_deref().unwrap_or_default());
            }
            Self::Image(m) => check.url("url", &m.url),
            Self::File(m) => {
                check.url("url", &m.url);
                check.file_name("name", &m.name);
            }
            Self::Voice(m) => {
                check.url("url", &m.url);
                check.range("duration_ms", m.duration_ms, 1, MAX_VOICE_MS);
            }
            Self::Video(m) => {
                check.url("url", &m.url);
                check.url("thumb_url", &m.thumb_url);
                check.range("duration_s", m.duration_s, 1, MAX_VIDEO_S);
            }
            Self::Link(m) => {
                check.line("title", &m.title, MAX_TITLE_CHARS, Lines::One);
                check.line("desc", &m.desc, MAX_DESC_CHARS, Lines::Many);
                check.url("url", &m.url);
                check.url("thumb_url", &m.thumb_url);
            }
            Self::MiniProgram(m) => {
                check.id("app_id", &m.app_id, "bad_id");
                check.id("user_name", &m.user_name, "bad_id");
                check.line("title", &m.title, MAX_TITLE_CHARS, Lines::One);
                check.line("display_name", &m.display_name, MAX_TITLE_CHARS, Lines::One);
                check.line("page_path", &m.page_path, MAX_PAGE_PATH_CHARS, Lines::One);
                check.url("cover_url", &m.cover_url);
            }
            Self::NameCard(m) => {
                check.id("wxid", &m.wxid, "bad_wxid");
                check.line("nickname", &m.nickname, MAX_TITLE_CHARS, Lines::One);
            }
            Self::Emoji(m) => {
                check.md5("md5", &m.md5);
                // The wire's integer is signed there.
                check.range("size", m.size, 1, i32::MAX as u32);
            }
            Self::AppMessage(m) => check.xml("xml", &m.xml),
        }
        check.errors
    }

    /// Counts the characters of all strings, which is all that a log may know of them.
    fn chars(&self) -> usize {
        let count = |parts: &[&str]| parts.iter().map(|part| part.chars().count()).sum();
        match self {
            Self::Text(m) => count(&[&m.text]),
            Self::Image(m) => count(&[&m.url]),
            Self::File(m) => count(&[&m.url, &m.name]),
            Self::Voice(m) => count(&[&m.url]),
            Self::Video(m) => count(&[&m.url, &m.thumb_url]),
            Self::Link(m) => count(&[&m.title, &m.desc, &m.url, &m.thumb_url]),
            Self::MiniProgram(m) => {
                count(&[&m.app_id, &m.user_name, &m.title, &m.display_name, &m.page_path, &m.cover_url])
            }
            Self::NameCard(m) => count(&[&m.wxid, &m.nickname]),
            Self::Emoji(m) => count(&[&m.md5]),
            Self::AppMessage(m) => count(&[&m.xml]),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Message");
        out.field("kind", &self.kind()).field("chars", &self.chars());
        if let Self::Text(Text { ats: Some(ats), .. }) = self {
            out.field("ats", &ats.len());
        }
        out.finish()
    }
}

/// Checks the id of a person, a group (`@chatroom`), a WeCom contact (`@openim`) or `notify@all`.
///
/// The error is the sentence for the caller. Only the alphabet is checked: whether the id exists is known to
/// WeChat alone.
pub fn validate_wxid(wxid: &str) -> Result<(), String> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '@' | '.' | '-');
    // ASCII only, so bytes are characters.
    if (1..=MAX_WXID_CHARS).contains(&wxid.len()) && wxid.chars().all(known) {
        Ok(())
    } else {
        Err(format!("must be 1 to {MAX_WXID_CHARS} of the characters A-Z a-z 0-9 _ @ . -"))
    }
}

#[derive(PartialEq, Eq)]
enum Lines {
    One,
    Many,
}

struct Checker<'a> {
    policy: &'a UrlPolicy,
    errors: Vec<FieldError>,
}

impl Checker<'_> {
    fn add(&mut self, path: impl Into<String>, code: &'static str, message: impl Into<String>) {
        self.errors.push(FieldError { path: path.into(), code, message: message.into() });
    }

    /// A text that must say something, within a length, without invisible control characters.
    fn line(&mut self, path: &str, text: &str, max_chars: usize, lines: Lines) {
        let chars = text.chars().count();
        if text.trim().is_empty() {
            self.add(path, "blank", "must not be empty or blank");
        }
        if chars > max_chars {
            self.add(
                path,
                "too_long",
                format!("has {chars} characters; shorten it to {max_chars} or split it"),
            );
        }
        let allowed = |c| lines == Lines::Many && matches!(c, '\n' | '\t');
        if text.chars().any(|c| c.is_control() && !allowed(c)) {
            let message = match lines {
                Lines::One => "must be one line without control characters",
                Lines::Many => "must not contain control characters other than newline (\\n) and tab",
            };
            self.add(path, "control_character", message);
        }
    }

    fn ats(&mut self, ats: &[String]) {
        if ats.len() > MAX_ATS {
            // One sentence and not one per item: the list may have a million.
            let message = format!("mentions {} people; {MAX_ATS} are possible", ats.len());
            return self.add("ats", "too_many", message);
        }
        for (index, wxid) in ats.iter().enumerate() {
            self.id(format!("ats[{index}]"), wxid, "bad_wxid");
        }
    }

    /// An id of WeChat's; those of mini programs are made of the same characters as a wxid.
    fn id(&mut self, path: impl Into<String>, id: &str, code: &'static str) {
        if let Err(message) = validate_wxid(id) {
            self.add(path, code, message);
        }
    }

    fn url(&mut self, path: &str, url: &str) {
        if let Err(problem) = outbound_url::check(url, self.policy) {
            self.add(path, problem.code(), problem.to_string());
        }
    }

    fn file_name(&mut self, path: &str, name: &str) {
        self.line(path, name, MAX_NAME_CHARS, Lines::One);
        if name.contains(['/', '\\']) || matches!(name, "." | "..") {
            self.add(path, "bad_file_name", "must be a file name without / or \\");
        }
    }

    fn range(&mut self, path: &str, value: u32, min: u32, max: u32) {
        if !(min..=max).contains(&value) {
            self.add(path, "out_of_range", format!("must lie between {min} and {max}"));
        }
    }

    fn md5(&mut self, path: &str, md5: &str) {
        if md5.len() != 32 || !md5.bytes().all(|b| b.is_ascii_hexdigit()) {
            self.add(path, "bad_md5", "must be 32 hexadecimal digits");
        }
    }

    /// A check against hostile documents, not a parser: WeChat has the last word on the content.
    fn xml(&mut self, path: &str, xml: &str) {
        if xml.len() > MAX_XML_BYTES {
            let message = format!("has {} bytes; at most {MAX_XML_BYTES} are possible", xml.len());
            return self.add(path, "too_long", message);
        }
        if xml.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            self.add(path, "control_character", "must not contain control characters");
        }
        let has_node = xml.match_indices("<appmsg").any(|(at, tag)| {
            xml[at + tag.len()..].starts_with(|c: char| c.is_whitespace() || matches!(c, '>' | '/'))
        });
        if !has_node {
            self.add(path, "no_appmsg", "must contain an <appmsg> node");
        }
        // Every declaration starts with `<!`; only sections of text and comments are harmless.
        let declares = xml.match_indices("<!").any(|(at, mark)| {
            let rest = &xml[at + mark.len()..];
            !rest.starts_with("[CDATA[") && !rest.starts_with("--")
        });
        if declares {
            self.add(path, "xml_declaration", "must not contain DOCTYPE, ENTITY or other declarations");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const URL: &str = "https://cdn.example.com/a";

    fn one_of_each() -> Vec<Value> {
        vec![
            json!({"kind": "text", "text": "你好 @Lee", "ats": ["wxid_a1", "notify@all"]}),
            json!({"kind": "image", "url": URL}),
            json!({"kind": "file", "url": URL, "name": "报价 1.pdf"}),
            json!({"kind": "voice", "url": URL, "duration_ms": 60_000}),
            json!({"kind": "video", "url": URL, "thumb_url": URL, "duration_s": 3600}),
            json!({"kind": "link", "title": "t", "desc": "d\nd", "url": URL, "thumb_url": URL}),
            json!({"kind": "mini_program", "app_id": "wx0123456789abcdef", "user_name": "gh_0a@app", "title": "t",
                   "display_name": "n", "page_path": "pages/index.html?a=1", "cover_url": URL}),
            json!({"kind": "name_card", "wxid": "wxid_a1", "nickname": "李"}),
            json!({"kind": "emoji", "md5": "0123456789abcdefABCDEF0123456789", "size": 1}),
            json!({"kind": "app_message", "xml": "<appmsg appid=\"\"><title><![CDATA[a]]></title></appmsg>"}),
        ]
    }

    fn parse(value: Value) -> Message {
        serde_json::from_value(value).unwrap()
    }

    /// Returns `path code` of each problem.
    fn problems(value: Value) -> Vec<String> {
        let errors = parse(value).validate(&UrlPolicy::default());
        errors.iter().map(|error| format!("{} {}", error.path, error.code)).collect()
    }

    fn check(value: Value, expected: &[&str]) {
        assert_eq!(problems(value.clone()), expected, "{value}");
    }

    #[test]
    fn every_kind_reads_writes_and_passes() {
        for value in one_of_each() {
            let message = parse(value.clone());
            assert_eq!(value["kind"], message.kind());
            assert_eq!(serde_json::to_value(&message).unwrap(), value);
            assert_eq!(message.validate(&UrlPolicy::default()), [], "{value}");
        }
    }

    #[test]
    fn unknown_and_missing_fields_and_kinds_are_refused_for_every_kind() {
        for value in one_of_each() {
            let mut more = value.clone();
            more["extra"] = json!(1);
            assert!(serde_json::from_value::<Message>(more).is_err(), "{value}");
            for field in value.as_object().unwrap().keys().filter(|field| *field != "ats") {
                let mut less = value.clone();
                less.as_object_mut().unwrap().remove(field);
                assert!(serde_json::from_value::<Message>(less).is_err(), "{field} of {value}");
            }
        }
        assert!(serde_json::from_value::<Message>(json!({"kind": "transfer", "text": "a"})).is_err());
        assert!(serde_json::from_value::<Message>(json!({"kind": "emoji", "md5": "a", "size": -1})).is_err());
        assert!(serde_json::from_value::<Message>(json!({"kind": "text", "text": 1})).is_err());
    }

    #[test]
    fn text_is_measured_in_characters_and_must_say_something() {
        let text = |text: &str| json!({"kind": "text", "text": text});
        check(text(&"好".repeat(2000)), &[]);
        check(text(&"好".repeat(2001)), &["text too_long"]);
        check(text(""), &["text blank"]);
        check(text(" \n\t\u{3000}"), &["text blank"]);
        check(text("a\n\tb"), &[]);
        check(text("a\r\nb"), &["text control_character"]);
        check(text("a\0b"), &["text control_character"]);
        check(text("a\u{9b}b"), &["text control_character"]);
    }

    #[test]
    fn mentions_are_checked_one_by_one_up_to_their_limit() {
        let ats = |ats: &[&str]| json!({"kind": "text", "text": "a", "ats": ats});
        check(ats(&["a@chatroom", "b b", "", "c@openim"]), &["ats[1] bad_wxid", "ats[2] bad_wxid"]);
        check(ats(&["a"; 50]), &[]);
        check(ats(&[" "; 51]), &["ats too_many"]);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        check(
            json!({"kind": "link", "title": "a\nb", "desc": "", "url": "ftp://a.b", "thumb_url": "http://10.0.0.1"}),
            &["title control_character", "desc blank", "url url_scheme", "thumb_url url_private_host"],
        );
        check(
            json!({"kind": "video", "url": "x", "thumb_url": "http://u:p@a.b", "duration_s": 0}),
            &["url url_malformed", "thumb_url url_credentials", "duration_s out_of_range"],
        );
        check(
            json!({"kind": "mini_program", "app_id": "", "user_name": "a b", "title": " ", "display_name": "",
                   "page_path": "", "cover_url": ""}),
            &[
                "app_id bad_id",
                "user_name bad_id",
                "title blank",
                "display_name blank",
                "page_path blank",
                "cover_url url_malformed",
            ],
        );
    }

    #[test]
    fn names_sizes_and_fingerprints_have_their_ranges() {
        let file = |name: &str| json!({"kind": "file", "url": URL, "name": name});
        check(file(&"名".repeat(255)), &[]);
        check(file(&"名".repeat(256)), &["name too_long"]);
        check(file("../a"), &["name bad_file_name"]);
        check(file("a\\b"), &["name bad_file_name"]);
        check(file(".."), &["name bad_file_name"]);
        let voice = |ms: u32| json!({"kind": "voice", "url": URL, "duration_ms": ms});
        check(voice(0), &["duration_ms out_of_range"]);
        check(voice(60_001), &["duration_ms out_of_range"]);
        check(json!({"kind": "emoji", "md5": "xyz", "size": 0}), &["md5 bad_md5", "size out_of_range"]);
    }

    #[test]
    fn an_app_message_needs_its_node_and_declares_nothing() {
        let xml = |xml: &str| json!({"kind": "app_message", "xml": xml});
        check(xml("<msg><appmsg/></msg>"), &[]);
        check(xml("<appmsgs></appmsgs>"), &["xml no_appmsg"]);
        check(xml(""), &["xml no_appmsg"]);
        check(xml("<!DOCTYPE a [<!ENTITY b \"c\">]><appmsg/>"), &["xml xml_declaration"]);
        check(xml("<!doctype a><appmsg/>"), &["xml xml_declaration"]);
        check(xml("<appmsg>\u{1}</appmsg>"), &["xml control_character"]);
        check(xml(&format!("<appmsg>{}</appmsg>", "a".repeat(64 * 1024))), &["xml too_long"]);
    }

    #[test]
    fn debug_tells_lengths_and_never_words() {
        for value in one_of_each() {
            let printed = format!("{:?}", parse(value.clone()));
            for (field, text) in value.as_object().unwrap() {
                let silent = |text: &Value| text.as_str().is_none_or(|text| !printed.contains(text));
                assert!(
                    field == "kind" || text.as_str().is_some_and(|t| t.len() < 3) || silent(text),
                    "{printed}"
                );
            }
        }
        let printed = format!("{:?}", parse(one_of_each().remove(0)));
        assert_eq!(printed, r#"Message { kind: "text", chars: 7, ats: 2 }"#);
    }

    #[test]
    fn wxids_of_every_sort_are_known() {
        for good in
            ["wxid_demo0000000009", "qq123", "10000000001@chatroom", "25984@openim", "gh_0a@app", "a.b-c"]
        {
            assert_eq!(validate_wxid(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "李", "a\n", "a/b", "a,b", &"a".repeat(65)] {
            assert!(validate_wxid(bad).is_err(), "{bad}");
        }
    }
}
