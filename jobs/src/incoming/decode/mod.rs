//! Makes events out of bytes. Pure; every byte is hostile.
//!
//! [`read`] is for what has just come in: it tells probes from events, and says what of an event is stored and under
//! which key. [`event_in`] is for what was stored. `classic` and `flat` are the provider's two formats; `chat` is what they
//! have in common; `content`, `notice` and `contact` understand what is said; `fields`, `xml` and `mend` read.

mod chat;
mod classic;
mod contact;
mod content;
mod fields;
mod flat;
mod mend;
mod notice;
#[cfg(test)]
mod tests;
mod xml;

use chrono::{DateTime, Utc};
use serde_json::Value;

use self::content::MAX_TEXT;
use super::{Event, What};

/// Base64 characters of a voice that are kept with its event: 256 KiB of sound.
const MAX_VOICE: usize = 256 * 1024 / 3 * 4 + 4;
/// The most characters of an app id or a type.
const MAX_NAME: usize = 128;
/// What the documented probe says.
const PROBE: &str = "验证回调地址是否可用";

/// What came in.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// The provider tries whether somebody is there. Nothing is stored.
    Probe,
    /// An event.
    Event(Box<Arrival>),
}

/// An event that has just come in.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// What it says.
    pub event: Event,
    /// The body as it is to be stored: without pictures, and without characters that Postgres refuses.
    pub body: Value,
    /// None: the same key is the same event for ever. Some: the event carries neither an id nor a time, and its like may
    /// come again and mean it; then the same key is the same event for so many seconds.
    pub repeats_after_s: Option<i64>,
}

impl Arrival {
    /// Returns the key under which the event is remembered.
    pub fn key(&self, now: DateTime<Utc>) -> String {
        match self.repeats_after_s {
            Some(seconds) => format!("{}:{}", self.event.key, now.timestamp().div_euclid(seconds)),
            None => self.event.key.clone(),
        }
    }
}

/// A body that is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// It is not JSON, even with a lot of good will.
    #[error("the body is not JSON")]
    NotJson,
    /// It is JSON that names no device.
    #[error("the body is no callback: it names no appid")]
    NoDevice,
}

/// What is known of an event beside its body.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The account's own wxid. What the event itself says counts first.
    pub own_wxid: Option<&'a str>,
    /// When it came in; stands for the time that an event does not tell.
    pub received_at: DateTime<Utc>,
}

/// What a format makes of an event.
#[derive(Debug)]
struct Said {
    key: String,
    what: What,
}

/// Reads what has just come in.
pub fn read(body: &[u8]) -> Result<Incoming, Undecodable> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Incoming::Probe);
    }
    let mut value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(_) => {
            let mended = mend::mend(body);
            match serde_json::from_str(&mended) {
                Ok(value) => value,
                Err(_) if mended.contains(PROBE) && mended.len() < 4096 => return Ok(Incoming::Probe),
                Err(_) => return Err(Undecodable::NotJson),
            }
        }
    };
    if app_id(&value).is_none() {
        return if is_probe(&value) { Ok(Incoming::Probe) } else { Err(Undecodable::NoDevice) };
    }
    trim(&mut value);
    let event = event_in(&value, &Setting { own_wxid: None, received_at: Utc::now() });
    let timed = ["CreateTime", "createTime"].iter().any(|name| {
        let data = fields::field(&value, "Data");
        fields::number(&value, name).or_else(|| fields::number(data?, name)).is_some_and(|time| time > 0)
    });
    let repeats_after_s = match event.what {
        _ if timed => None,
        // Accounts come and go within minutes; the same news of a contact does not come back within the hour.
        What::Account(_) => Some(60),
        What::ContactChanged(_) | What::ContactRemoved { .. } => Some(3600),
        _ => None,
    };
    Ok(Incoming::Event(Box::new(Arrival { event, body: value, repeats_after_s })))
}

/// Reads an event as it was stored.
pub fn event(body: &Value) -> Event {
    event_in(body, &Setting { own_wxid: None, received_at: Utc::now() })
}

/// Reads an event as it was stored, with what is known beside it.
pub fn event_in(body: &Value, setting: &Setting<'_>) -> Event {
    let wxid = fields::wxid(body, "Wxid");
    let setting = Setting { own_wxid: wxid.as_deref().or(setting.own_wxid), ..*setting };
    let classic = fields::text(body, "TypeName");
    let word = classic.or_else(|| fields::text(body, "msgType")).unwrap_or_default();
    let said = match classic {
        Some(type_name) => classic::read(type_name.trim(), body, &setting),
        None => flat::read(word.trim(), body, &setting),
    };
    Event {
        app_id: app_id(body).unwrap_or_default(),
        wxid,
        type_name: fields::clean(word.trim(), MAX_NAME).replace(['\n', '\t'], " "),
        key: said.key,
        what: said.what,
    }
}

fn app_id(body: &Value) -> Option<String> {
    let app_id = fields::words(body, "Appid", MAX_NAME + 1)?;
    (app_id.chars().count() <= MAX_NAME).then_some(app_id)
}

/// Tells one of the packets with which the provider looks for us.
fn is_probe(body: &Value) -> bool {
    match body {
        Value::String(text) => text.contains(PROBE),
        Value::Object(fields) => {
            fields.is_empty()
                || fields.contains_key("testMsg")
                || (fields.contains_key("msg") && fields.contains_key("callBackUrl"))
                || fields.values().any(|value| value.as_str().is_some_and(|text| text.contains(PROBE)))
        }
        _ => false,
    }
}

/// Takes out of a body what nobody will read: thumbnails, and characters that Postgres does not store.
fn trim(body: &mut Value) {
    let is_voice = fields::field(body, "Data").and_then(|data| fields::number(data, "MsgType")) == Some(34);
    trim_below(body, is_voice);
}

fn trim_below(value: &mut Value, is_voice: bool) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(|item| trim_below(item, is_voice)),
        Value::Object(fields) => {
            let zeros: Vec<String> = fields.keys().filter(|name| name.contains('\0')).cloned().collect();
            for name in zeros {
                if let Some(field) = fields.remove(&name) {
                    fields.insert(name.replace('\0', "\u{fffd}"), field);
                }
            }
            for (name, field) in fields.iter_mut() {
                if name.eq_ignore_ascii_case("imgbuf") || name.eq_ignore_ascii_case("img_buf") {
                    trim_picture(field, is_voice);
                }
                trim_below(field, is_voice);
            }
        }
        _ => {}
    }
}

fn trim_picture(picture: &mut Value, is_voice: bool) {
    let Some(fields) = picture.as_object_mut() else { return };
    fields.retain(|name, value| {
        !name.eq_ignore_ascii_case("buffer")
            || (is_voice && value.as_str().is_some_and(|silk| silk.len() <= MAX_VOICE))
    });
}
