//! The nested format: `TypeName`, `Data`, texts wrapped as `{"string": ..}`.

use serde_json::Value;

use super::chat::Sheet;
use super::fields::{self, field, number, text};
use super::{Said, Setting, contact, xml};
use crate::incoming::{AccountEvent, What};

/// Reads an event of the type `type_name`.
pub(super) fn read(type_name: &str, body: &Value, setting: &Setting<'_>) -> Said {
    let nothing = Value::Null;
    let data = field(body, "Data").unwrap_or(&nothing);
    let key = || fields::body_key(body);
    let what = match type_name.to_ascii_lowercase().as_str() {
        "addmsg" => return message(data, setting, key),
        "modcontacts" => contact::changed(data, false).unwrap_or(What::Unknown),
        "delcontacts" => contact::removed(data).unwrap_or(What::Unknown),
        "offline" => What::Account(AccountEvent::Offline),
        "findermsg" | "long_serve_start_connect" => What::Ignored,
        _ => What::Unknown,
    };
    Said { key: key(), what }
}

fn message(data: &Value, setting: &Setting<'_>, key: impl FnOnce() -> String) -> Said {
    let content = text(data, "Content").unwrap_or_default();
    let msg_type = number(data, "MsgType").unwrap_or(-1);
    let new_msg_id = fields::id(data, "NewMsgId");
    if msg_type == 37 {
        let key = new_msg_id.map_or_else(key, |id| format!("m:{id}"));
        return Said { key, what: contact::request(content) };
    }
    let mentioned = text(data, "MsgSource").and_then(|source| {
        let source = xml::read(source)?;
        Some(source.find_text("atuserlist")?.to_owned())
    });
    let sheet = Sheet {
        own: setting.own_wxid,
        from: text(data, "FromUserName"),
        to: text(data, "ToUserName"),
        group: None,
        is_self: None,
        msg_type,
        group_event: None,
        text: content,
        push: text(data, "PushContent"),
        mentioned,
        new_msg_id,
        msg_id: fields::id(data, "MsgId"),
        sent_at: fields::time(data, "CreateTime", setting.received_at),
        silk: field(data, "ImgBuf")
            .and_then(|buffer| text(buffer, "buffer"))
            .is_some_and(|silk| !silk.is_empty()),
        received_at: setting.received_at,
    };
    sheet.read(key)
}
