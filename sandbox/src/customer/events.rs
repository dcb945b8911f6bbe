//! The bodies of callbacks, in each of the provider's formats.
//!
//! An event is made once and can be told in any format: ids and times are the same in all of them.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::Format;
use super::requests::{EventKind, Fields, Kind};
use super::xml;

/// A few frames of silk, as short voice messages bring them along.
const SILK: &str = "AiMhU0lMS19WMwUAqrvM3e4FAKq7zN3uBQCqu8zd7gUAqrvM3e7//w==";

/// The number of a message that no documentation knows.
const UNKNOWN_TYPE: u32 = 9_999_001;

/// Something that happened, before it has a form.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) app_id: String,
    /// The account's own id.
    pub(super) wxid: String,
    pub(super) at: DateTime<Utc>,
    pub(super) msg_id: u32,
    pub(super) new_msg_id: String,
    pub(super) sequence: u32,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Message(Message),
    Recall {
        peer: String,
        is_group: bool,
        sender: String,
        nickname: String,
        of: (u32, String),
    },
    Contact {
        wxid: String,
        nickname: String,
        is_new: bool,
    },
    Removed {
        wxid: String,
    },
    FriendRequest(Fields),
    /// A notice of a group: its number, its content, its name in the flat format.
    Notice {
        from: String,
        to: String,
        group: String,
        number: u32,
        content: String,
        name: &'static str,
    },
    /// What became of the account.
    Account(EventKind),
}

/// A message in a chat.
#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    pub(super) fields: Fields,
    pub(super) group: Option<String>,
    /// The account's owner typed it.
    pub(super) typed: bool,
    /// Whom it mentions, by wxid; `notify@all` for everybody.
    pub(super) mentioned: Vec<String>,
    pub(super) thumbnail_chars: usize,
}

impl Event {
    /// The provider's word for the event.
    pub(super) fn name(&self, format: Format) -> String {
        let body = self.body(format);
        let name = ["TypeName", "type_name", "msgType"].iter().find_map(|key| body[*key].as_str());
        name.unwrap_or_default().to_owned()
    }

    /// Tells the event in a format. What the older ones have no word for is always told in the newer one.
    pub(super) fn body(&self, format: Format) -> Value {
        let is_flat =
            format == Format::Flat || matches!(self.what, What::Account(kind) if kind != EventKind::Offline);
        if is_flat {
            return self.flat();
        }
        let classic = self.classic();
        if format == Format::Lowercase { lowercase(classic) } else { classic }
    }

    fn classic(&self) -> Value {
        let named = |name: &str, data: Option<Value>| {
            let mut body = json!({ "TypeName": name, "Appid": self.app_id, "Wxid": self.wxid });
            if let Some(data) = data {
                body["Data"] = data;
            }
            body
        };
        match &self.what {
            What::Account(_) => named("Offline", None),
            What::Removed { wxid } => {
                let data = json!({ "UserName": { "string": wxid }, "DeleteContactScen": 0 });
                named("DelContacts", Some(data))
            }
            What::Contact { wxid, nickname, .. } => {
                let mut body = named("ModContacts", Some(contact(wxid, nickname)));
                // The documented sample of a friend has no account at its top.
                if !wxid.ends_with("@chatroom")
                    && let Some(body) = body.as_object_mut()
                {
                    body.remove("Wxid");
                }
                body
            }
            _ => named("AddMsg", Some(self.add_msg())),
        }
    }

    fn add_msg(&self) -> Value {
        let told = self.told();
        let mut image = json!({ "iLen": told.image.chars().count() });
        if !told.image.is_empty() {
            image["buffer"] = json!(told.image);
        }
        let mut data = json!({
            "MsgId": self.msg_id,
            "FromUserName": { "string": told.from },
            "ToUserName": { "string": told.to },
            "MsgType": told.number,
            "Content": { "string": told.content },
            "Status": 3,
            "ImgStatus": if told.number == 3 { 2 } else { 1 },
            "ImgBuf": image,
            "CreateTime": self.at.timestamp(),
            "MsgSource": told.source,
            "NewMsgId": number(&self.new_msg_id),
            "MsgSeq": self.sequence
        });
        if let Some(push) = told.push {
            data["PushContent"] = json!(push);
        }
        data
    }

    fn told(&self) -> Told {
        let own = self.wxid.clone();
        match &self.what {
            What::Message(message) => message.told(&own),
            What::Recall { peer, is_group, sender, nickname, of } => {
                let content = xml::revoked(peer, of.0, &of.1, nickname);
                let content = if *is_group { format!("{sender}:\n{content}") } else { content };
                Told::of(peer.clone(), own, 10_002, content)
            }
            What::FriendRequest(fields) => Told::of("fmessage".into(), own, 37, xml::friend_request(fields)),
            What::Notice { from, to, number, content, .. } => {
                Told::of(from.clone(), to.clone(), *number, content.clone())
            }
            // These have a form of their own.
            What::Contact { .. } | What::Removed { .. } | What::Account(_) => {
                Told::of(String::new(), own, 0, String::new())
            }
        }
    }

    fn flat(&self) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
        put("appid", json!(self.app_id));
        put("wxid", json!(self.wxid));
        put("createTime", json!(self.at.timestamp_millis()));
        let name = match &self.what {
            What::Account(EventKind::Offline) => "OFFLINE",
            What::Account(EventKind::LoggedOut) => "LOGOUT",
            What::Account(EventKind::Reconnecting) => "RECONNECT_START",
            What::Account(EventKind::LoginFailed) => "LOGIN_ERROR",
            What::Account(_) => "LOGIN_SUCCESS",
            What::Removed { wxid } => {
                put("fromUser", json!(wxid));
                put("userName", json!(wxid));
                "DEL_CONTACTS"
            }
            What::Contact { wxid, nickname, is_new } => {
                put("fromUser", json!(wxid));
                put("userName", json!(wxid));
                put("nickName", json!(nickname));
                if *is_new { "FRIEND_CONFIRM" } else { "MOD_CONTACTS" }
            }
            What::Message(message) => {
                let told = message.told(&self.wxid);
                put("fromUser", json!(if message.typed { &self.wxid } else { &message.fields.sender }));
                put("toUser", json!(if message.typed { &told.to } else { &self.wxid }));
                if let Some(group) = &message.group {
                    put("fromGroup", json!(group));
                }
                put("content", json!(message.content()));
                if let Some(push) = told.push {
                    put("pushContent", json!(push));
                }
                put("isSelf", json!(message.typed));
                message.fields.kind.flat_name()
            }
            other => {
                let told = self.told();
                put("fromUser", json!(told.from));
                put("toUser", json!(told.to));
                put("content", json!(told.content));
                put("isSelf", json!(false));
                match other {
                    What::Recall { peer, is_group, sender, .. } => {
                        if *is_group {
                            put("fromGroup", json!(peer));
                            put("fromUser", json!(sender));
                        }
                        "REVOKE_MSG"
                    }
                    What::Notice { group, name, .. } => {
                        put("fromGroup", json!(group));
                        name
                    }
                    _ => "FRIEND_VERIFY",
                }
            }
        };
        put("msgType", json!(name));
        let has_ids = !matches!(self.what, What::Account(_) | What::Removed { .. } | What::Contact { .. });
        if name == "SYSTEM" {
            // A timestamp of ten digits, twice: not a key that anybody could use.
            put("msgId", json!(self.at.timestamp()));
            put("newMsgId", json!(self.at.timestamp()));
        } else if has_ids {
            put("msgId", json!(self.msg_id));
            put("newMsgId", number(&self.new_msg_id));
        }
        Value::Object(body)
    }
}

/// What an `AddMsg` says.
struct Told {
    from: String,
    to: String,
    number: u32,
    content: String,
    source: String,
    push: Option<String>,
    image: String,
}

impl Told {
    fn of(from: String, to: String, number: u32, content: String) -> Self {
        Self { from, to, number, content, source: String::new(), push: None, image: String::new() }
    }
}

impl Message {
    fn told(&self, own: &str) -> Told {
        let fields = &self.fields;
        let content = self.content_for(own);
        let (from, to, content) = match (&self.group, self.typed) {
            (Some(group), true) => (own.to_owned(), group.clone(), content),
            (Some(group), false) => (group.clone(), own.to_owned(), format!("{}:\n{content}", fields.sender)),
            (None, true) => (own.to_owned(), fields.sender.clone(), content),
            (None, false) => (fields.sender.clone(), own.to_owned(), content),
        };
        let image = match fields.kind {
            Kind::Voice => SILK.to_owned(),
            _ => "/9j/".chars().cycle().take(self.thumbnail_chars).collect(),
        };
        let push = (!self.typed).then(|| self.push(own));
        let source = xml::source(&self.mentioned);
        Told { source, push, image, ..Told::of(from, to, fields.kind.number(), content) }
    }

    /// The content without the sender in front.
    fn content(&self) -> String {
        self.content_for("")
    }

    fn content_for(&self, own: &str) -> String {
        let fields = &self.fields;
        match fields.kind {
            Kind::Text | Kind::System => fields.text.clone(),
            Kind::Image => xml::image(fields),
            Kind::Voice => xml::voice(fields),
            Kind::Video => xml::video(fields),
            Kind::Emoji => xml::emoji(fields),
            Kind::Location => xml::location(fields),
            Kind::NameCard => xml::name_card(fields),
            Kind::File => xml::app(fields, 6, &xml::attachment(fields)),
            Kind::FileNotice => xml::app(fields, 74, &xml::attachment(fields)),
            Kind::Link | Kind::GroupInvitation => {
                xml::app(fields, 5, "<thumburl>https://example.invalid/t.jpg</thumburl>")
            }
            Kind::MiniProgram => xml::app(
                fields,
                33,
                "<weappinfo><username>gh_sandbox000001@app</username><appid>wxsandbox0001</appid>\
                 <pagepath>pages/index.html?a=1</pagepath></weappinfo>",
            ),
            Kind::Quote => xml::app(fields, 57, &xml::quoted(fields, own)),
            Kind::ChatRecord => {
                xml::app(fields, 19, "<recorditem><![CDATA[<recordinfo></recordinfo>]]></recorditem>")
            }
            Kind::ChannelFeed => xml::app(
                fields,
                51,
                "<finderFeed><objectId>14000000000000000001</objectId><nickname>沙箱视频号</nickname>\
                 <desc>新品介绍</desc></finderFeed>",
            ),
            Kind::Transfer => xml::app(
                fields,
                2000,
                "<wcpayinfo><paysubtype>1</paysubtype><feedesc><![CDATA[￥0.10]]></feedesc>\
                 <transcationid>1000050001</transcationid><transferid>1000050001</transferid></wcpayinfo>",
            ),
            Kind::RedPacket => xml::app(
                fields,
                2001,
                "<wcpayinfo><sendertitle><![CDATA[恭喜发财，大吉大利]]></sendertitle>\
                 <paymsgid>1000039901</paymsgid></wcpayinfo>",
            ),
            Kind::Call => "<voipinvitemsg><roomid>1</roomid></voipinvitemsg>".to_owned(),
            Kind::PhoneState => {
                format!("<msg><op id='2'><username>{}</username></op></msg>", xml::escape(&fields.sender))
            }
            Kind::Unknown => "<msg><novelty/></msg>".to_owned(),
        }
    }

    /// What the notification says.
    fn push(&self, own: &str) -> String {
        let fields = &self.fields;
        let name = if fields.nickname.is_empty() { &fields.sender } else { &fields.nickname };
        if self.mentioned.iter().any(|wxid| wxid == own) {
            return format!("{name}在群聊中@了你");
        }
        if self.mentioned.iter().any(|wxid| wxid == "notify@all") {
            return format!("{name}@了所有人");
        }
        let shown = if fields.text.is_empty() { fields.title.as_str() } else { fields.text.as_str() };
        format!("{name} : {shown}")
    }
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Text => 1,
            Self::Image => 3,
            Self::Voice => 34,
            Self::NameCard => 42,
            Self::Video => 43,
            Self::Emoji => 47,
            Self::Location => 48,
            Self::Call => 50,
            Self::PhoneState => 51,
            Self::System => 10_000,
            Self::Unknown => UNKNOWN_TYPE,
            _ => 49,
        }
    }

    fn flat_name(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Image => "IMAGE",
            Self::Voice => "VOICE",
            Self::Video => "VIDEO",
            Self::Emoji => "EMOJI",
            Self::File => "FILE",
            Self::Link | Self::GroupInvitation => "LINK",
            Self::MiniProgram => "MINI_PROGRAM",
            Self::Quote => "QUOTE",
            Self::ChatRecord => "CHAT_RECORD",
            Self::Location => "LOCATION",
            Self::NameCard => "CARD",
            Self::ChannelFeed => "FINDER_FEED",
            Self::Transfer => "TRANSFER",
            Self::RedPacket => "RED_PACKET",
            Self::FileNotice => "APP_MSG",
            Self::System | Self::PhoneState | Self::Call => "SYSTEM",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A contact as `ModContacts` tells it.
fn contact(wxid: &str, nickname: &str) -> Value {
    json!({
        "UserName": { "string": wxid }, "NickName": { "string": nickname }, "PyInitial": { "string": "" },
        "QuanPin": { "string": "" }, "Sex": 1, "ImgBuf": { "iLen": 0 }, "BitMask": 4_294_967_295_u32, "BitVal": 3,
        "ImgFlag": 1, "Remark": {}, "ContactType": 0, "Province": "Jiangsu", "City": "Nanjing", "Signature": "",
        "PersonalCard": 1, "HasWeiXinHdHeadImg": 1, "VerifyFlag": 0, "Source": 6,
        "BigHeadImgUrl": "https://example.invalid/head/0", "SmallHeadImgUrl": "https://example.invalid/head/132",
        "EncryptUserName": "v3_sandbox@stranger", "DeleteFlag": 0, "Description": "\u{8}\u{0}\u{18}\u{0}",
        "AddContactScene": 6
    })
}

/// The same with the keys of the top in lower case, as some builds have them.
fn lowercase(body: Value) -> Value {
    let Value::Object(body) = body else { return body };
    let key = |name: String| match name.as_str() {
        "TypeName" => "type_name".to_owned(),
        other => other.to_lowercase(),
    };
    Value::Object(body.into_iter().map(|(name, value)| (key(name), value)).collect())
}

/// Ids are numbers beyond what JavaScript holds.
fn number(id: &str) -> Value {
    id.parse::<u64>().map_or_else(|_| json!(id), |number| json!(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(group: Option<&str>, typed: bool) -> Event {
        let fields = Fields {
            sender: "wxid_c".into(),
            nickname: "李雷".into(),
            text: "你好".into(),
            ..Fields::default()
        };
        let group = group.map(str::to_owned);
        Event {
            app_id: "wx_a".into(),
            wxid: "wxid_own".into(),
            at: DateTime::from_timestamp(1_790_000_100, 0).unwrap(),
            msg_id: 510_000_001,
            new_msg_id: "7300000000000000101".into(),
            sequence: 810_000_001,
            what: What::Message(Message { fields, group, typed, ..Message::default() }),
        }
    }

    #[test]
    fn a_text_is_told_as_documented() {
        let classic = text(None, false).body(Format::Classic);
        assert_eq!(
            classic,
            json!({
                "TypeName": "AddMsg", "Appid": "wx_a", "Wxid": "wxid_own", "Data": {
                    "MsgId": 510000001, "FromUserName": {"string": "wxid_c"}, "ToUserName": {"string": "wxid_own"},
                    "MsgType": 1, "Content": {"string": "你好"}, "Status": 3, "ImgStatus": 1, "ImgBuf": {"iLen": 0},
                    "CreateTime": 1790000100, "MsgSource": "<msgsource></msgsource>", "PushContent": "李雷 : 你好",
                    "NewMsgId": 7300000000000000101_u64, "MsgSeq": 810000001
                }
            })
        );
        assert_eq!(
            text(None, false).body(Format::Flat),
            json!({
                "appid": "wx_a", "wxid": "wxid_own", "msgType": "TEXT", "msgId": 510000001,
                "newMsgId": 7300000000000000101_u64, "createTime": 1790000100000_i64, "fromUser": "wxid_c",
                "toUser": "wxid_own", "content": "你好", "pushContent": "李雷 : 你好", "isSelf": false
            })
        );
        let lowercase = text(None, false).body(Format::Lowercase);
        assert_eq!(lowercase["type_name"], "AddMsg");
        assert_eq!(lowercase["data"], classic["Data"]);
    }

    #[test]
    fn in_a_group_the_sender_stands_in_front_of_the_classic_text_and_in_a_field_of_the_flat_one() {
        let told = text(Some("1@chatroom"), false);
        let classic = told.body(Format::Classic);
        assert_eq!(classic["Data"]["Content"]["string"], "wxid_c:\n你好");
        assert_eq!(classic["Data"]["FromUserName"]["string"], "1@chatroom");
        let flat = told.body(Format::Flat);
        assert_eq!(
            (flat["fromGroup"].as_str(), flat["fromUser"].as_str()),
            (Some("1@chatroom"), Some("wxid_c"))
        );
    }

    #[test]
    fn what_the_owner_types_comes_from_the_account() {
        let classic = text(None, true).body(Format::Classic);
        assert_eq!(classic["Data"]["FromUserName"]["string"], "wxid_own");
        assert_eq!(classic["Data"]["ToUserName"]["string"], "wxid_c");
        let flat = text(Some("1@chatroom"), true).body(Format::Flat);
        assert_eq!(flat["isSelf"], true);
        assert_eq!(
            (flat["fromUser"].as_str(), flat["toUser"].as_str()),
            (Some("wxid_own"), Some("1@chatroom"))
        );
    }
}
