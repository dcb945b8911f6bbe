//! The newer format: flat, lower-case, the type as a word, times in milliseconds.

use serde_json::Value;

use super::chat::Sheet;
use super::fields::{self, field, text};
use super::{Said, Setting, contact};
use crate::incoming::{AccountEvent, ContactChange, GroupEvent, What};
use crate::risk::asks_for_verification;

/// Reads an event of the type `word`.
pub(super) fn read(word: &str, body: &Value, setting: &Setting<'_>) -> Said {
    let key = || fields::body_key(body);
    let account = |event| Said { key: key(), what: What::Account(event) };
    let upper = word.to_ascii_uppercase();
    let (msg_type, group_event) = match upper.as_str() {
        "TEXT" => (1, None),
        "IMAGE" => (3, None),
        "VOICE" => (34, None),
        "CARD" => (42, None),
        "VIDEO" => (43, None),
        "EMOJI" => (47, None),
        "LOCATION" => (48, None),
        "FILE" | "LINK" | "MINI_PROGRAM" | "QUOTE" | "CHAT_RECORD" | "TRANSFER" | "RED_PACKET"
        | "FINDER_FEED" | "APP_MSG" => (49, None),
        "REMOVE_FROM_GROUP" | "GROUP_DISMISS" => (10_002, Some(GroupEvent::Left)),
        "GROUP_NAME_CHANGE" => (10_002, Some(GroupEvent::Renamed)),
        "GROUP_TODO" | "ANNOUNCEMENT" => (10_002, Some(GroupEvent::Announced)),
        "REVOKE_MSG" => (10_002, None),
        // Also used for other notices; what they hold says what they are.
        "PAT_MSG" => match super::notice::read(text(body, "content").map_or("", after_sender)) {
            None | Some(super::notice::Notice::Unknown) => return Said { key: key(), what: What::Ignored },
            Some(_) => (10_002, None),
        },
        "SYSTEM" => (10_000, None),
        "FRIEND_VERIFY" => {
            let key = fields::id(body, "newMsgId").map_or_else(key, |id| format!("m:{id}"));
            return Said { key, what: contact::request(text(body, "content").unwrap_or_default()) };
        }
        "FRIEND_CONFIRM" => return Said { key: key(), what: befriended(body, setting) },
        "MOD_CONTACTS" => return contacts(body, |from| contact::changed(from, false)),
        "DEL_CONTACTS" => return contacts(body, contact::removed),
        "LOGIN_SUCCESS" | "RECONNECT_SUCCESS" | "LONG_CONNECTED" | "LONG_SUCCESS" => {
            return account(AccountEvent::Online);
        }
        "LOGIN_ERROR" => {
            let said = ["content", "msg", "pushContent"].into_iter().filter_map(|name| text(body, name));
            return account(match said.into_iter().any(asks_for_verification) {
                true => AccountEvent::Verification,
                false => AccountEvent::LoginFailed,
            });
        }
        "LOGOUT" => return account(AccountEvent::LoggedOut),
        "OFFLINE" | "RECONNECT_FAILED" | "RECONNECT_FAIL" => {
            return account(AccountEvent::Offline);
        }
        "RECONNECT_START" | "LONG_DISCONNECTED" | "LONG_FAIL" => return account(AccountEvent::Reconnecting),
        "LONG_SERVE_START_SUCCESS" | "LONG_SERVE_CLOSE" => return Said { key: key(), what: What::Ignored },
        _ => return Said { key: key(), what: What::Unknown },
    };
    let sheet = Sheet {
        own: setting.own_wxid,
        from: text(body, "fromUser"),
        to: text(body, "toUser"),
        group: text(body, "fromGroup").filter(|group| !group.is_empty()),
        is_self: fields::yes(body, "isSelf"),
        msg_type,
        group_event,
        text: text(body, "content").unwrap_or_default(),
        push: text(body, "pushContent"),
        mentioned: None,
        new_msg_id: fields::id(body, "newMsgId"),
        msg_id: fields::id(body, "msgId"),
        sent_at: fields::time(body, "createTime", setting.received_at),
        silk: false,
        received_at: setting.received_at,
    };
    sheet.read(key)
}

fn after_sender(text: &str) -> &str {
    text.split_once(":\n").map_or(text, |(_, rest)| rest)
}

/// Looks for a contact's fields where they may be: in the event, in its data, in its content.
fn contacts(body: &Value, read: impl Fn(&Value) -> Option<What>) -> Said {
    let inside = text(body, "content").and_then(|content| serde_json::from_str::<Value>(content).ok());
    let places = [Some(body), field(body, "data"), field(body, "content"), inside.as_ref()];
    let what = places.into_iter().flatten().find_map(read);
    Said { key: fields::body_key(body), what: what.unwrap_or(What::Unknown) }
}

/// A friend request was accepted: the other side of the chat is a friend.
fn befriended(body: &Value, setting: &Setting<'_>) -> What {
    if let Some(what) = contact::changed(body, true) {
        return what;
    }
    let other = [fields::wxid(body, "fromUser"), fields::wxid(body, "toUser")]
        .into_iter()
        .flatten()
        .find(|wxid| Some(wxid.as_str()) != setting.own_wxid && wxid != "fmessage");
    match other {
        Some(wxid) => What::ContactChanged(ContactChange { wxid, became_friend: true, ..Default::default() }),
        None => What::Unknown,
    }
}
