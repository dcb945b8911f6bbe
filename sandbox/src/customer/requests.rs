//! What can be asked for: messages of customers, notices, and how they are to arrive.
//!
//! A request has two halves in one object: what happens, and how it is told (`How`).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Format;
use crate::media::MediaMode;

/// The most messages that one request makes.
const MAX_COUNT: usize = 1_000;

/// The longest wait that can be asked for.
const MAX_MS: u64 = 600_000;

/// How something is told.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct How {
    /// Absent: as the settings say.
    pub(crate) format: Option<Format>,
    /// How often each event is delivered; 1 if absent.
    pub(crate) copies: Option<u32>,
    /// Before the first delivery.
    pub(crate) delay_ms: u64,
    /// Between two events.
    pub(crate) gap_ms: u64,
    /// Between two copies of one event.
    pub(crate) copy_delay_ms: u64,
    /// In any order.
    pub(crate) shuffle: bool,
    /// All at once instead of one after the other.
    pub(crate) concurrent: bool,
    /// How often a delivery that failed is made again.
    pub(crate) retries: u32,
    pub(crate) retry_ms: Option<u64>,
    /// Where to; absent: where the callbacks of the account's token go.
    pub(crate) url: Option<String>,
    /// Whose callback address is meant.
    pub(crate) token: Option<String>,
}

const HOW: [&str; 11] = [
    "format",
    "copies",
    "delay_ms",
    "gap_ms",
    "copy_delay_ms",
    "shuffle",
    "concurrent",
    "retries",
    "retry_ms",
    "url",
    "token",
];

/// Reads both halves of a request.
pub(super) fn split<T: DeserializeOwned>(request: Map<String, Value>) -> Result<(T, How), String> {
    let (how, what): (Map<_, _>, Map<_, _>) =
        request.into_iter().partition(|(name, _)| HOW.contains(&name.as_str()));
    let how: How = serde_json::from_value(Value::Object(how)).map_err(|error| error.to_string())?;
    let what = serde_json::from_value(Value::Object(what)).map_err(|error| error.to_string())?;
    if how.copies.is_some_and(|copies| copies > 100) || how.retries > 100 {
        return Err("copies and retries must be at most 100".to_owned());
    }
    let waits = [how.delay_ms, how.gap_ms, how.copy_delay_ms, how.retry_ms.unwrap_or(0)];
    if waits.iter().any(|wait| *wait > MAX_MS) {
        return Err(format!("a wait must be at most {MAX_MS} ms"));
    }
    Ok((what, how))
}

/// The kinds of messages that can be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    #[default]
    Text,
    Image,
    Voice,
    Video,
    Emoji,
    File,
    /// A file whose upload has only begun.
    FileNotice,
    Link,
    GroupInvitation,
    MiniProgram,
    Quote,
    ChatRecord,
    Location,
    NameCard,
    ChannelFeed,
    Transfer,
    RedPacket,
    Call,
    /// What the phone tells other devices.
    PhoneState,
    System,
    /// A number that nobody knows.
    Unknown,
}

/// What was quoted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quote {
    pub(crate) new_msg_id: String,
    #[serde(default)]
    pub(crate) text: String,
    /// Who wrote it; absent: the account.
    #[serde(default)]
    pub(crate) from: Option<String>,
}

/// Messages of one customer, or what the owner types to one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMessages {
    pub(super) app_id: String,
    /// The account's own wxid, if it is not known yet.
    #[serde(default)]
    pub(super) wxid: Option<String>,
    /// The customer.
    #[serde(alias = "to", alias = "peer")]
    pub(super) from: String,
    #[serde(default)]
    pub(super) group: Option<String>,
    /// The account's owner wrote it, on the phone.
    #[serde(default, alias = "phone_typed")]
    pub(super) typed: bool,
    #[serde(default)]
    pub(super) nickname: Option<String>,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    link: Option<String>,
    #[serde(default)]
    seconds: Option<u32>,
    #[serde(default)]
    bytes: Option<u64>,
    /// How its download goes.
    #[serde(default)]
    media: MediaMode,
    /// The account is mentioned.
    #[serde(default)]
    pub(super) mention: bool,
    /// Everybody is.
    #[serde(default)]
    pub(super) mention_all: bool,
    #[serde(default)]
    quote: Option<Quote>,
    /// So many messages, numbered.
    #[serde(default)]
    count: Option<usize>,
    /// These messages in a row: texts, or objects with what differs.
    #[serde(default)]
    burst: Vec<Value>,
    /// How long ago it was written.
    #[serde(default)]
    pub(super) age_seconds: i64,
    /// The id of a message that was told before, to tell it once more.
    #[serde(default)]
    pub(super) new_msg_id: Option<String>,
    /// Characters that `ImgBuf` holds.
    #[serde(default)]
    pub(super) thumbnail_chars: usize,
}

/// What a message of a burst may say for itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Part {
    kind: Option<Kind>,
    text: Option<String>,
    title: Option<String>,
    mention: Option<bool>,
    quote: Option<Quote>,
}

/// One message, before it has a form.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    pub(super) kind: Kind,
    pub(super) sender: String,
    pub(super) nickname: String,
    pub(super) text: String,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) url: String,
    pub(super) seconds: u32,
    pub(super) bytes: u64,
    pub(super) media: MediaMode,
    /// 32 hexadecimal digits; the key and the sum of its media.
    pub(super) media_id: String,
    pub(super) mention: bool,
    pub(super) quote: Option<Quote>,
}

impl NewMessages {
    /// Lists the messages one by one, or says what is wrong.
    pub(super) fn messages(&self) -> Result<Vec<Fields>, String> {
        if self.from.is_empty() || self.app_id.is_empty() {
            return Err("app_id and from must not be empty".to_owned());
        }
        let count = self.count.unwrap_or(1);
        if count == 0 || count > MAX_COUNT || self.burst.len() > MAX_COUNT {
            return Err(format!("count and burst must be between 1 and {MAX_COUNT}"));
        }
        if !self.burst.is_empty() {
            return self.burst.iter().map(|part| self.part(part)).collect();
        }
        let numbered = |n: usize| {
            let mut fields = self.fields(Part::default());
            if count > 1 {
                fields.text = format!("{}（{n}）", fields.text);
            }
            fields
        };
        Ok((1..=count).map(numbered).collect())
    }

    fn part(&self, part: &Value) -> Result<Fields, String> {
        let part = match part {
            Value::String(text) => Part { text: Some(text.clone()), ..Part::default() },
            other => serde_json::from_value(other.clone()).map_err(|error| format!("burst: {error}"))?,
        };
        Ok(self.fields(part))
    }

    fn fields(&self, part: Part) -> Fields {
        let kind = part.kind.unwrap_or(self.kind);
        let text = part.text.or_else(|| self.text.clone());
        let title = part.title.or_else(|| self.title.clone()).unwrap_or_else(|| match kind {
            Kind::Text => String::new(),
            Kind::Quote => text.clone().unwrap_or_else(|| "就是这个".to_owned()),
            other => other.default_title().to_owned(),
        });
        Fields {
            kind,
            sender: self.from.clone(),
            nickname: self.nickname.clone().unwrap_or_default(),
            text: text.unwrap_or_else(|| kind.default_text().to_owned()),
            title,
            description: self.description.clone().unwrap_or_default(),
            url: self.link.clone().unwrap_or_else(|| "https://example.invalid/page?a=1&b=2".to_owned()),
            seconds: self.seconds.unwrap_or(3),
            bytes: self.bytes.unwrap_or(0),
            media: self.media,
            media_id: String::new(),
            mention: part.mention.unwrap_or(self.mention),
            quote: part.quote.or_else(|| self.quote.clone()),
        }
    }
}

impl Kind {
    fn default_text(self) -> &'static str {
        match self {
            Self::Text => "你好",
            Self::System => "你已添加了客户，现在可以开始聊天了。",
            _ => "",
        }
    }

    fn default_title(self) -> &'static str {
        match self {
            Self::File | Self::FileNotice => "报价单.pdf",
            Self::Link => "新品上市",
            Self::GroupInvitation => "邀请你加入群聊",
            Self::MiniProgram => "商城小程序",
            Self::ChatRecord => "群聊的聊天记录",
            Self::Location => "天安门",
            Self::NameCard => "李经理",
            Self::ChannelFeed => "当前版本不支持展示该内容，请升级至最新版本。",
            Self::Transfer => "微信转账",
            Self::RedPacket => "恭喜发财，大吉大利",
            _ => "",
        }
    }

    /// What a list of chats would show of it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Text | Self::Quote | Self::System => "",
            Self::Image => "[图片 Image]",
            Self::Voice => "[语音 Voice]",
            Self::Video => "[视频 Video]",
            Self::Emoji => "[表情 Emoji]",
            Self::File => "[文件 File]",
            Self::FileNotice => "[文件上传中 File on its way]",
            Self::Link => "[链接 Link]",
            Self::GroupInvitation => "[群邀请 Invitation]",
            Self::MiniProgram => "[小程序 Mini program]",
            Self::ChatRecord => "[聊天记录 Chat record]",
            Self::Location => "[位置 Location]",
            Self::NameCard => "[名片 Name card]",
            Self::ChannelFeed => "[视频号 Channel]",
            Self::Transfer => "[转账 Transfer]",
            Self::RedPacket => "[红包 Red packet]",
            Self::Call => "[通话 Call]",
            Self::PhoneState => "[手机状态 Phone state]",
            Self::Unknown => "[未知 Unknown]",
        }
    }
}

/// Something that happens without a message.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEvent {
    pub(super) kind: EventKind,
    #[serde(default)]
    pub(super) app_id: String,
    #[serde(default)]
    pub(super) wxid: Option<String>,
    /// The customer that it concerns.
    #[serde(default)]
    pub(super) from: String,
    #[serde(default)]
    pub(super) group: Option<String>,
    #[serde(default)]
    pub(super) nickname: Option<String>,
    #[serde(default)]
    pub(super) text: Option<String>,
    /// Of a recall: which message; absent: the customer's last.
    #[serde(default)]
    pub(super) new_msg_id: Option<String>,
    /// Of `raw`: the body, as an object to be written as JSON or as a text to be sent as it is.
    #[serde(default)]
    pub(super) body: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EventKind {
    Recall,
    FriendRequest,
    FriendAdded,
    FriendDeleted,
    ContactChanged,
    GroupRenamed,
    /// The account was removed.
    GroupLeft,
    GroupDismissed,
    GroupMembers,
    GroupAnnouncement,
    Pat,
    Offline,
    /// Its session was ended from outside.
    LoggedOut,
    Online,
    Reconnecting,
    LoginFailed,
    /// The packet that tries an address.
    Probe,
    /// The same in another deployment's words.
    ProbeText,
    ProbeConsole,
    Empty,
    Raw,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(request: Value) -> Result<(NewMessages, How), String> {
        let Value::Object(request) = request else { return Err("no object".into()) };
        split(request)
    }

    #[test]
    fn a_burst_is_texts_or_what_differs() {
        let (new, how) = read(json!({
            "app_id": "wx_a", "from": "wxid_1", "burst": ["一", {"kind": "image"}, {"text": "三"}], "copies": 2
        }))
        .unwrap();
        let messages = new.messages().unwrap();
        assert_eq!(messages.len(), 3);
        assert_eq!((messages[0].text.as_str(), messages[1].kind), ("一", Kind::Image));
        assert_eq!(how.copies, Some(2));
    }

    #[test]
    fn many_of_one_are_numbered() {
        let (new, _) = read(json!({"app_id": "wx_a", "from": "wxid_1", "text": "在吗", "count": 2})).unwrap();
        let texts: Vec<_> = new.messages().unwrap().into_iter().map(|fields| fields.text).collect();
        assert_eq!(texts, ["在吗（1）", "在吗（2）"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let from = |extra: Value| {
            let mut request = json!({"app_id": "wx_a", "from": "wxid_1"});
            request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            read(request).and_then(|(new, _)| new.messages())
        };
        assert!(from(json!({})).is_ok());
        for wrong in [
            json!({"smell": 1}),
            json!({"copies": 101}),
            json!({"delay_ms": 600_001}),
            json!({"count": 0}),
            json!({"burst": [{"smell": 1}]}),
            json!({"from": ""}),
        ] {
            assert!(from(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
