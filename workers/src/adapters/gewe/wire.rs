//! GeWe's JSON: the body of each send, the envelope of each answer.
//!
//! Pure translation. What an answer means for the job is decided in `errors.rs`.

use entropy_jobs::message::Message;
use entropy_jobs::provider::Sent;
use serde_json::{Value, json};

use super::answer;

/// Returns the route after the prefix and the body that sends the message.
pub(super) fn send_request(app_id: &str, to_wxid: &str, message: &Message) -> (&'static str, Value) {
    let (route, mut body) = match message {
        Message::Text(m) => {
            let mut body = json!({ "content": m.text });
            if let Some(ats) = m.ats.as_ref().filter(|ats| !ats.is_empty()) {
                body["ats"] = ats.join(",").into();
            }
            ("/message/postText", body)
        }
        Message::Image(m) => ("/message/postImage", json!({ "imgUrl": m.url })),
        Message::File(m) => ("/message/postFile", json!({ "fileUrl": m.url, "fileName": m.name })),
        Message::Voice(m) => {
            ("/message/postVoice", json!({ "voiceUrl": m.url, "voiceDuration": m.duration_ms }))
        }
        Message::Video(m) => (
            "/message/postVideo",
            json!({ "videoUrl": m.url, "thumbUrl": m.thumb_url, "videoDuration": m.duration_s }),
        ),
        Message::Link(m) => (
            "/message/postLink",
            json!({ "title": m.title, "desc": m.desc, "linkUrl": m.url, "thumbUrl": m.thumb_url }),
        ),
        Message::MiniProgram(m) => (
            "/message/postMiniApp",
            json!({
                "miniAppId": m.app_id,
                "userName": m.user_name,
                "title": m.title,
                "displayName": m.display_name,
                "pagePath": m.page_path,
                "coverImgUrl": m.cover_url,
            }),
        ),
        Message::NameCard(m) => {
            ("/message/postNameCard", json!({ "nickName": m.nickname, "nameCardWxid": m.wxid }))
        }
        Message::Emoji(m) => ("/message/postEmoji", json!({ "emojiMd5": m.md5, "emojiSize": m.size })),
        Message::AppMessage(m) => ("/message/postAppMsg", json!({ "appmsg": m.xml })),
    };
    body["appId"] = app_id.into();
    body["toWxid"] = to_wxid.into();
    (route, body)
}

/// Tells whether GeWe fetches something for this message before it answers, which takes its time.
pub(super) fn fetches_media(message: &Message) -> bool {
    match message {
        Message::Image(_) | Message::File(_) | Message::Voice(_) | Message::Video(_) => true,
        // Documented for the four above only. A picture on a card has to come from somewhere as well, and a
        // patient wait costs less than an outcome that nobody knows.
        Message::Link(_) | Message::MiniProgram(_) => true,
        Message::Text(_) | Message::NameCard(_) | Message::Emoji(_) | Message::AppMessage(_) => false,
    }
}

/// The frame around every answer.
#[derive(Debug)]
pub(super) struct Envelope {
    /// GeWe's own status; 200 is success whatever HTTP says.
    pub(super) ret: i64,
    msg: String,
    /// The payload, null for most writes and failures of validation.
    pub(super) data: Value,
}

impl Envelope {
    /// Reads an answer; `None` if it is not one of GeWe's.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut value = answer::read(bytes)?;
        let ret = integer(value.get("ret")?)?;
        let msg = value.get("msg").and_then(Value::as_str).unwrap_or_default().to_owned();
        let data = value.get_mut("data").map(Value::take).unwrap_or_default();
        Some(Self { ret, msg, data })
    }

    /// Tells whether GeWe calls the operation done. 0 is the success of the generation before.
    pub(super) fn is_success(&self) -> bool {
        matches!(self.ret, 200 | 0)
    }

    /// Joins the places in which GeWe explains a failure.
    ///
    /// Only these, not the whole answer: it may repeat the request, and a customer's words must not be read
    /// as a reason.
    pub(super) fn reason(&self) -> String {
        let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let detail = said(&self.data["detail"]);
        // Sometimes an answer of the older generation is packed into the newer one as a string.
        let inner = answer::read(detail.as_bytes());
        let detail = inner.map_or(detail, |inner| said(&inner["msg_err"]));
        // Some failures put the sentence where others have the object.
        [self.msg.clone(), said(&self.data), said(&self.data["msg"]), detail].join("\n")
    }

    /// Reads the proof of a send; `None` without a usable `newMsgId`.
    pub(super) fn sent(&self) -> Option<Sent> {
        let new_msg_id = id(&self.data["newMsgId"]).filter(|id| id != "0")?;
        let create_time = integer(&self.data["createTime"]);
        Some(Sent { msg_id: id(&self.data["msgId"]), new_msg_id, create_time })
    }
}

/// Reads an id of 64 bits exactly, be it written as a number or as text.
///
/// Anything else is no id: it could not be used for a recall, and may be what the record cannot store.
fn id(value: &Value) -> Option<String> {
    let number: i128 = match value {
        // A number that became a float has lost its last digits and names another message.
        Value::Number(number) if !number.is_f64() => number.to_string().parse().ok()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (i64::MIN.into()..=u64::MAX.into()).contains(&number).then(|| number.to_string())
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(message: Value) -> (&'static str, Value) {
        let message: Message = serde_json::from_value(message).unwrap();
        send_request("wx_dev", "wxid_to", &message)
    }

    #[test]
    fn every_kind_has_its_route_and_body() {
        let check = |message: Value, route: &str, fields: Value| {
            let mut expected = json!({"appId": "wx_dev", "toWxid": "wxid_to"});
            expected.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            assert_eq!(request(message), (route, expected));
        };
        let (a, b) = ("http://a.example/a", "http://a.example/b");
        check(json!({"kind": "text", "text": "你好"}), "/message/postText", json!({"content": "你好"}));
        check(
            json!({"kind": "text", "text": "@a @b", "ats": ["wxid_a", "wxid_b"]}),
            "/message/postText",
            json!({"content": "@a @b", "ats": "wxid_a,wxid_b"}),
        );
        check(json!({"kind": "text", "text": "a", "ats": []}), "/message/postText", json!({"content": "a"}));
        check(json!({"kind": "image", "url": a}), "/message/postImage", json!({"imgUrl": a}));
        check(
            json!({"kind": "file", "url": a, "name": "n.pdf"}),
            "/message/postFile",
            json!({"fileUrl": a, "fileName": "n.pdf"}),
        );
        check(
            json!({"kind": "voice", "url": a, "duration_ms": 2000}),
            "/message/postVoice",
            json!({"voiceUrl": a, "voiceDuration": 2000}),
        );
        check(
            json!({"kind": "video", "url": a, "thumb_url": b, "duration_s": 10}),
            "/message/postVideo",
            json!({"videoUrl": a, "thumbUrl": b, "videoDuration": 10}),
        );
        check(
            json!({"kind": "link", "title": "t", "desc": "d", "url": a, "thumb_url": b}),
            "/message/postLink",
            json!({"title": "t", "desc": "d", "linkUrl": a, "thumbUrl": b}),
        );
        check(
            json!({"kind": "mini_program", "app_id": "wx1", "user_name": "gh_1@app", "title": "t",
                   "display_name": "n", "page_path": "p", "cover_url": b}),
            "/message/postMiniApp",
            json!({"miniAppId": "wx1", "userName": "gh_1@app", "title": "t", "displayName": "n",
                   "pagePath": "p", "coverImgUrl": b}),
        );
        check(
            json!({"kind": "name_card", "wxid": "wxid_c", "nickname": "c"}),
            "/message/postNameCard",
            json!({"nickName": "c", "nameCardWxid": "wxid_c"}),
        );
        check(
            json!({"kind": "emoji", "md5": "m", "size": 7}),
            "/message/postEmoji",
            json!({"emojiMd5": "m", "emojiSize": 7}),
        );
        check(
            json!({"kind": "app_message", "xml": "<appmsg/>"}),
            "/message/postAppMsg",
            json!({"appmsg": "<appmsg/>"}),
        );
    }

    #[test]
    fn ids_beyond_javascript_survive_exactly_as_number_or_text() {
        let sent = |data: &str| {
            Envelope::parse(format!(r#"{{"ret":200,"msg":"","data":{data}}}"#).as_bytes()).unwrap().sent()
        };
        let check = |data: &str, new_msg_id: &str, msg_id: Option<&str>, create_time: Option<i64>| {
            let expected =
                Sent { msg_id: msg_id.map(str::to_owned), new_msg_id: new_msg_id.to_owned(), create_time };
            assert_eq!(sent(data), Some(expected), "{data}");
        };
        check(
            r#"{"newMsgId":7300000000000000011,"msgId":0,"createTime":1790000001}"#,
            "7300000000000000011",
            Some("0"),
            Some(1790000001),
        );
        check(
            r#"{"newMsgId":"7300000000000000011","msgId":"5","createTime":"0"}"#,
            "7300000000000000011",
            Some("5"),
            Some(0),
        );
        check(r#"{"newMsgId":18446744073709551615,"createTime":null}"#, "18446744073709551615", None, None);
        check(r#"{"newMsgId":-7300000000000000011}"#, "-7300000000000000011", None, None);
        for data in
            ["null", "{}", r#"{"newMsgId":null}"#, r#"{"newMsgId":0}"#, r#"{"newMsgId":""}"#, "[]", "true"]
        {
            assert_eq!(sent(data), None, "{data}");
        }
        assert_eq!(sent(r#"{"newMsgId":73000000000000000110000}"#), None);
        assert_eq!(sent(r#"{"newMsgId":7.3e18}"#), None);
    }

    #[test]
    fn what_is_not_an_envelope_is_not_read_as_one() {
        for text in [
            "",
            "ok",
            "<html>",
            "null",
            "[200,\"ok\",{}]",
            r#"{"code":200}"#,
            r#"{"ret":null}"#,
            "{\"ret\":200",
        ] {
            assert!(Envelope::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Envelope::parse(br#"{"ret":"200"}"#).unwrap().is_success());
        assert!(Envelope::parse(b"\xff\xfe").is_none());
    }

    #[test]
    fn the_reason_is_gathered_from_where_gewe_puts_it_and_not_from_the_echo() {
        let reason = |text: &str| Envelope::parse(text.as_bytes()).unwrap().reason();
        let text = r#"{"ret":500,"msg":"发送图片失败","data":{"msg":"a","detail":"{\"ret\":-1,\"msg\":\"fail\",\"msg_err\":\"图片格式错误\",\"echo\":\"token\"}","content":"离线"}}"#;
        assert_eq!(reason(text), "发送图片失败\n\na\n图片格式错误");
        assert_eq!(reason(r#"{"ret":500,"data":"微信已离线"}"#).trim(), "微信已离线");
        assert_eq!(reason(r#"{"ret":500,"data":{"code":"-4013","msg":null}}"#).trim(), "");
    }
}
