//! What the provider tells us of its own accord.

use chrono::DateTime;
use entropy_jobs::incoming::decode::{Incoming, Setting, event_in, read};
use entropy_jobs::incoming::{ContactChange, Message, What};
use serde_json::Value;

/// The kinds of messages, as they are stored.
const KINDS_OF_MESSAGES: [&str; 18] = [
    "text",
    "image",
    "voice",
    "video",
    "emoji",
    "file",
    "link",
    "mini_program",
    "quote",
    "chat_record",
    "location",
    "name_card",
    "transfer",
    "red_packet",
    "channel_feed",
    "call",
    "system",
    "other",
];

/// The body of a callback.
pub fn callback(bytes: &[u8]) {
    let arrival = match read(bytes) {
        Ok(Incoming::Event(arrival)) => *arrival,
        Ok(Incoming::Probe) => return,
        Err(error) => {
            super::assert_is_a_short_line(&error.to_string(), 100);
            return;
        }
    };
    let event = &arrival.event;
    for text in [&event.key, &event.type_name, &event.app_id] {
        assert!(text.chars().count() <= 128 && !text.chars().any(char::is_control), "{text:?}");
    }
    let named = event.key.strip_prefix("m:").is_some_and(|id| id.parse::<i128>().is_ok());
    let hashed = event.key.strip_prefix("h:").is_some_and(|hash| hash.len() == 64);
    assert!(named || hashed, "{}", event.key);
    assert_storable(&arrival.body);
    // What is stored says the same as what came.
    let received_at = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
    let setting = Setting { own_wxid: None, received_at };
    let stored: Value = serde_json::from_str(&arrival.body.to_string()).expect("it is JSON");
    let again = event_in(&stored, &setting);
    assert_eq!(again, event_in(&arrival.body, &setting));
    assert_eq!(
        (&again.app_id, &again.wxid, &again.type_name),
        (&event.app_id, &event.wxid, &event.type_name)
    );
    match again.what {
        What::Message(said) => check_message(&said, received_at.timestamp()),
        What::Recalled { peer_wxid, new_msg_id } => {
            assert_wxid(&peer_wxid);
            assert!(new_msg_id.parse::<i128>().is_ok(), "{new_msg_id}");
        }
        What::ContactChanged(ContactChange { wxid, nickname, remark, alias, avatar, .. }) => {
            assert_wxid(&wxid);
            for text in [nickname, remark, alias, avatar].into_iter().flatten() {
                assert_text(&text, 1000);
            }
        }
        What::ContactRemoved { wxid } => assert_wxid(&wxid),
        What::FriendRequest { wxid, nickname, greeting } => {
            assert_wxid(&wxid);
            assert_text(&nickname, 1000);
            assert_text(&greeting, 1000);
        }
        What::Group { group_wxid, text, .. } => {
            assert!(group_wxid.ends_with("@chatroom"), "{group_wxid}");
            assert_text(&text, 20_000);
        }
        What::Account(_) | What::Ignored | What::Unknown => {}
    }
}

fn check_message(said: &Message, latest: i64) {
    assert_wxid(&said.peer_wxid);
    assert_wxid(&said.sender_wxid);
    assert_text(&said.text, 20_000);
    assert!(KINDS_OF_MESSAGES.contains(&said.kind), "{}", said.kind);
    assert!((1..=66).contains(&said.new_msg_id.len()), "{}", said.new_msg_id);
    assert!((0..=latest + 3600).contains(&said.sent_at.timestamp()), "{}", said.sent_at);
    if let Some(name) = &said.sender_name {
        assert_text(name, 64);
    }
    if let Some(content) = &said.content {
        assert_storable(content);
    }
    if let Some(media) = &said.media {
        assert!(!media.xml.contains('\0') && media.xml.len() <= 1 << 20);
    }
    assert!(!(said.from_me && (said.mentions_me || said.mentions_all)), "nobody mentions themselves");
}

#[track_caller]
fn assert_wxid(wxid: &str) {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'@' | b'.' | b'-');
    assert!((1..=200).contains(&wxid.len()) && wxid.bytes().all(known), "{wxid:?}");
}

#[track_caller]
fn assert_text(text: &str, most: usize) {
    assert!(text.chars().count() <= most, "{} characters", text.chars().count());
    assert!(!text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')), "{text:?}");
}

/// Panics unless Postgres stores it.
fn assert_storable(value: &Value) {
    match value {
        Value::String(text) => assert!(!text.contains('\0')),
        Value::Array(items) => items.iter().for_each(assert_storable),
        Value::Object(fields) => fields.iter().for_each(|(name, field)| {
            assert!(!name.contains('\0'));
            assert_storable(field);
        }),
        _ => {}
    }
}
