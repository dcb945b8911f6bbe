//! A message in a request: documented here, read and checked by [`entropy_jobs::message`].
//!
//! The objects below are the documentation. A test holds them against the message's own reader, so that the two cannot
//! drift apart.

use std::borrow::Cow;

use entropy_jobs::message::Message;
use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use poem_openapi::{Object, Union};
use serde_json::Value;

/// Plain text.
#[derive(Object)]
struct TextMessage {
    /// Up to 2000 characters; a mention must also stand in it as `@nickname`.
    text: String,
    /// The wxids that are mentioned in a group, or `notify@all`; up to 50.
    ats: Option<Vec<String>>,
}

/// A picture.
#[derive(Object)]
struct ImageMessage {
    /// Public http(s) address.
    url: String,
}

/// A file of any type.
#[derive(Object)]
struct FileMessage {
    /// Public http(s) address.
    url: String,
    /// The name that the recipient sees.
    name: String,
}

/// A voice message.
#[derive(Object)]
struct VoiceMessage {
    /// Public http(s) address of a silk file.
    url: String,
    /// 1 to 60000.
    duration_ms: u32,
}

/// A video.
#[derive(Object)]
struct VideoMessage {
    /// Public http(s) address.
    url: String,
    /// Public http(s) address of the still picture.
    thumb_url: String,
    /// 1 to 3600.
    duration_s: u32,
}

/// A link card.
#[derive(Object)]
struct LinkMessage {
    /// The first line of the card.
    title: String,
    /// The lines below it.
    desc: String,
    /// Where a tap leads.
    url: String,
    /// Public http(s) address of the small picture.
    thumb_url: String,
}

/// A mini program card.
#[derive(Object)]
struct MiniProgramMessage {
    /// The mini program's id, `wx...`.
    app_id: String,
    /// Its account, `gh_...@app`.
    user_name: String,
    /// The title of the card.
    title: String,
    /// The mini program's name.
    display_name: String,
    /// The page that a tap opens.
    page_path: String,
    /// Public http(s) address of the picture on the card.
    cover_url: String,
}

/// Somebody's name card.
#[derive(Object)]
struct NameCardMessage {
    /// Whose card.
    wxid: String,
    /// The name on it.
    nickname: String,
}

/// A sticker that WeChat already has.
#[derive(Object)]
struct EmojiMessage {
    /// Its fingerprint, 32 hexadecimal digits.
    md5: String,
    /// Its size in bytes.
    size: u32,
}

/// A raw `<appmsg>` document.
#[derive(Object)]
struct AppMessage {
    /// The XML with its `<appmsg>` node, up to 64 KiB.
    xml: String,
}

/// What to send, by `kind`.
#[derive(Union)]
#[oai(one_of, discriminator_name = "kind", rename = "Message")]
enum MessageSchema {
    #[oai(mapping = "text")]
    Text(TextMessage),
    #[oai(mapping = "image")]
    Image(ImageMessage),
    #[oai(mapping = "file")]
    File(FileMessage),
    #[oai(mapping = "voice")]
    Voice(VoiceMessage),
    #[oai(mapping = "video")]
    Video(VideoMessage),
    #[oai(mapping = "link")]
    Link(LinkMessage),
    #[oai(mapping = "mini_program")]
    MiniProgram(MiniProgramMessage),
    #[oai(mapping = "name_card")]
    NameCard(NameCardMessage),
    #[oai(mapping = "emoji")]
    Emoji(EmojiMessage),
    #[oai(mapping = "app_message")]
    App(AppMessage),
}

/// A message as a field of a request.
#[derive(Debug, Clone)]
pub(super) struct MessageArg(pub(super) Message);

impl Type for MessageArg {
    const IS_REQUIRED: bool = true;

    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        MessageSchema::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        MessageSchema::schema_ref()
    }

    fn register(registry: &mut Registry) {
        MessageSchema::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ParseFromJSON for MessageArg {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match serde_json::from_value(value.unwrap_or_default()) {
            Ok(message) => Ok(MessageArg(message)),
            Err(_) => Err(ParseError::custom("not a message")),
        }
    }
}

impl ToJSON for MessageArg {
    fn to_json(&self) -> Option<Value> {
        serde_json::to_value(&self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::explain::problems;

    fn one_of_each() -> Vec<Value> {
        let url = "https://cdn.example.com/a";
        vec![
            json!({"kind": "text", "text": "你好", "ats": ["wxid_a1"]}),
            json!({"kind": "image", "url": url}),
            json!({"kind": "file", "url": url, "name": "a.pdf"}),
            json!({"kind": "voice", "url": url, "duration_ms": 1}),
            json!({"kind": "video", "url": url, "thumb_url": url, "duration_s": 1}),
            json!({"kind": "link", "title": "t", "desc": "d", "url": url, "thumb_url": url}),
            json!({"kind": "mini_program", "app_id": "wx1", "user_name": "gh_0a@app", "title": "t",
                   "display_name": "n", "page_path": "p", "cover_url": url}),
            json!({"kind": "name_card", "wxid": "wxid_a1", "nickname": "李"}),
            json!({"kind": "emoji", "md5": "0123456789abcdefABCDEF0123456789", "size": 1}),
            json!({"kind": "app_message", "xml": "<appmsg/>"}),
        ]
    }

    fn found(value: &Value) -> Vec<String> {
        let problems = problems::<MessageArg>(value, "message");
        problems.into_iter().map(|p| format!("{} {}", p.path, p.code.unwrap_or_default())).collect()
    }

    #[test]
    fn the_documentation_and_the_reader_agree_on_every_kind() {
        for value in one_of_each() {
            let read = MessageArg::parse_from_json(Some(value.clone())).expect("the reader takes it");
            assert_eq!(read.to_json().as_ref(), Some(&value));
            assert_eq!(found(&value), [""; 0], "{value}");
            for field in value.as_object().expect("an object").keys().filter(|field| *field != "ats") {
                let mut less = value.clone();
                less.as_object_mut().expect("an object").remove(field);
                assert!(MessageArg::parse_from_json(Some(less.clone())).is_err(), "{less}");
                assert_eq!(found(&less), [format!("message.{field} missing")], "{less}");
                let mut wrong = value.clone();
                wrong[field] = json!([]);
                assert!(MessageArg::parse_from_json(Some(wrong.clone())).is_err(), "{wrong}");
                assert_eq!(found(&wrong).len(), 1, "{wrong}");
            }
            let mut more = value.clone();
            more["extra"] = json!(1);
            assert!(MessageArg::parse_from_json(Some(more.clone())).is_err(), "{more}");
            assert_eq!(found(&more), ["message.extra unknown_field"], "{more}");
        }
    }

    #[test]
    fn an_unknown_kind_is_answered_with_the_known_ones() {
        let problems = problems::<MessageArg>(&json!({"kind": "transfer"}), "message");
        assert!(problems[0].message.contains("mini_program"), "{problems:?}");
    }
}
