//! The routes of GeWe that the sandbox knows, and what each requires, as data.
//!
//! A new kind of send is one more row of [`SENDS`].

use serde_json::{Map, Value};

use super::Refusal;

/// What a route does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Route {
    Send(&'static SendRoute),
    CheckOnline,
    SetCallback,
    Read(&'static ReadRoute),
}

/// One call that reads, or that may be made twice.
#[derive(Debug)]
pub(crate) struct ReadRoute {
    /// The route after the prefix.
    pub(crate) path: &'static str,
    pub(crate) what: What,
    /// What `msg` says when it fails. Only those of the list and of pictures were ever observed.
    failed: &'static str,
    fields: &'static [Field],
}

/// What such a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    List,
    CachedList,
    Brief,
    Labels,
    AddLabel,
    SetLabels,
    Group,
    Members,
    Profile,
    Download,
}

/// One kind of message.
#[derive(Debug)]
pub(crate) struct SendRoute {
    /// The route after the prefix.
    pub(crate) path: &'static str,
    /// The kind's name in the ledger.
    pub(crate) kind: &'static str,
    /// What `msg` says when the send fails. Only those of text and image were ever observed.
    pub(crate) failed: &'static str,
    fields: &'static [Field],
    /// The `type` of the answer; `null` for some.
    pub(crate) answer_type: Option<u8>,
    /// Whether the answer has a `createTime` that is not `null`.
    pub(crate) has_time: bool,
    pub(crate) media: Media,
}

/// What the answer adds about an uploaded medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    None,
    Image,
    Video,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Text(&'static str),
    OptionalText(&'static str),
    Integer(&'static str),
}

use Field::{Integer, OptionalText, Text};

const SENT: &str = "发送消息失败";

/// Every kind of message, with its required fields in the order in which they are checked.
static SENDS: [SendRoute; 10] = [
    SendRoute {
        path: "/message/postText",
        kind: "text",
        failed: SENT,
        fields: &[Text("content"), OptionalText("ats")],
        answer_type: Some(1),
        has_time: true,
        media: Media::None,
    },
    SendRoute {
        path: "/message/postFile",
        kind: "file",
        failed: SENT,
        fields: &[Text("fileUrl"), Text("fileName")],
        answer_type: Some(6),
        has_time: true,
        media: Media::None,
    },
    SendRoute {
        path: "/message/postImage",
        kind: "image",
        failed: "发送图片失败",
        fields: &[Text("imgUrl")],
        answer_type: None,
        has_time: false,
        media: Media::Image,
    },
    SendRoute {
        path: "/message/postVoice",
        kind: "voice",
        failed: SENT,
        fields: &[Text("voiceUrl"), Integer("voiceDuration")],
        answer_type: None,
        has_time: true,
        media: Media::None,
    },
    SendRoute {
        path: "/message/postVideo",
        kind: "video",
        failed: SENT,
        fields: &[Text("videoUrl"), Text("thumbUrl"), Integer("videoDuration")],
        answer_type: None,
        has_time: false,
        media: Media::Video,
    },
    SendRoute {
        path: "/message/postLink",
        kind: "link",
        failed: SENT,
        fields: &[Text("title"), Text("desc"), Text("linkUrl"), Text("thumbUrl")],
        answer_type: Some(5),
        has_time: true,
        media: Media::None,
    },
    SendRoute {
        path: "/message/postNameCard",
        kind: "name_card",
        failed: SENT,
        fields: &[Text("nickName"), Text("nameCardWxid")],
        answer_type: Some(42),
        has_time: true,
        media: Media::None,
    },
    SendRoute {
        path: "/message/postEmoji",
        kind: "emoji",
        failed: SENT,
        fields: &[Text("emojiMd5"), Integer("emojiSize")],
        answer_type: None,
        has_time: false,
        media: Media::None,
    },
    SendRoute {
        path: "/message/postAppMsg",
        kind: "app_message",
        failed: SENT,
        fields: &[Text("appmsg")],
        answer_type: Some(0),
        has_time: true,
        media: Media::None,
    },
    SendRoute {
        path: "/message/postMiniApp",
        kind: "mini_program",
        failed: SENT,
        fields: &[
            Text("miniAppId"),
            Text("userName"),
            Text("title"),
            Text("displayName"),
            Text("pagePath"),
            Text("coverImgUrl"),
        ],
        answer_type: Some(33),
        has_time: true,
        media: Media::None,
    },
];

/// Every call that reads, and the labels.
static READS: [ReadRoute; 14] = [
    read("/contacts/fetchContactsList", What::List, "获取联系人列表失败", &[]),
    read("/contacts/fetchContactsListCache", What::CachedList, "获取联系人列表失败", &[]),
    read("/contacts/getBriefInfo", What::Brief, "获取联系人信息失败", &[]),
    read("/contacts/getDetailInfo", What::Brief, "获取联系人信息失败", &[]),
    read("/label/list", What::Labels, "获取标签列表失败", &[]),
    read("/label/add", What::AddLabel, "添加标签失败", &[Text("labelName")]),
    read("/label/modifyMemberList", What::SetLabels, "修改标签成员失败", &[OptionalText("labelIds")]),
    read("/group/getChatroomInfo", What::Group, "获取群信息失败", &[Text("chatroomId")]),
    read("/group/getChatroomMemberList", What::Members, "获取群成员列表失败", &[Text("chatroomId")]),
    read("/personal/getProfile", What::Profile, "获取个人资料失败", &[]),
    read("/message/downloadImage", What::Download, "下载图片失败", &[Text("xml"), Integer("type")]),
    read("/message/downloadVoice", What::Download, "下载语音失败", &[Text("xml"), Integer("msgId")]),
    read("/message/downloadVideo", What::Download, "下载视频失败", &[Text("xml")]),
    read("/message/downloadFile", What::Download, "下载文件失败", &[Text("xml")]),
];

const fn read(path: &'static str, what: What, failed: &'static str, fields: &'static [Field]) -> ReadRoute {
    ReadRoute { path, what, failed, fields }
}

impl Route {
    /// Finds the route of a path without its prefix.
    ///
    /// Either way of setting the callback is known under either prefix.
    pub(crate) fn find(path: &str) -> Option<Self> {
        match path {
            "/login/checkOnline" => Some(Self::CheckOnline),
            "/login/setCallback" | "/tools/setCallback" => Some(Self::SetCallback),
            _ => {
                let send = SENDS.iter().find(|send| send.path == path).map(Self::Send);
                send.or_else(|| READS.iter().find(|read| read.path == path).map(Self::Read))
            }
        }
    }

    /// Returns what `msg` says when the call fails for a reason of the account's.
    pub(crate) fn failed(self) -> &'static str {
        match self {
            Self::Send(send) => send.failed,
            Self::Read(read) => read.failed,
            Self::CheckOnline => "检查在线状态失败",
            Self::SetCallback => "设置回调失败",
        }
    }

    /// Checks the required fields, and the type of those that are there.
    ///
    /// GeWe was seen to name the first missing field; that it minds the type is our assumption, and
    /// the stricter one. A number may come as text, which the vendor's samples do too.
    pub(crate) fn check(self, body: &Map<String, Value>) -> Result<(), Refusal> {
        let fields: &[&[Field]] = match self {
            Self::Send(send) => &[&[Text("appId"), Text("toWxid")], send.fields],
            Self::Read(read) => &[&[Text("appId")], read.fields],
            Self::CheckOnline => &[&[Text("appId")]],
            Self::SetCallback => &[&[Text("token"), Text("callbackUrl")]],
        };
        fields.iter().copied().flatten().try_for_each(|field| field.check(body))
    }
}

impl Field {
    fn check(self, body: &Map<String, Value>) -> Result<(), Refusal> {
        let (Text(name) | OptionalText(name) | Integer(name)) = self;
        let value = body.get(name).unwrap_or(&Value::Null);
        let is_empty = value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty());
        let is_right = match self {
            OptionalText(_) if is_empty => true,
            _ if is_empty => return Err(Refusal::BadRequest(format!("{name}不可为空"))),
            Text(_) | OptionalText(_) => value.is_string(),
            Integer(_) => {
                value.is_i64() || value.as_str().is_some_and(|text| text.trim().parse::<i64>().is_ok())
            }
        };
        if is_right { Ok(()) } else { Err(Refusal::BadRequest(format!("{name}参数类型错误"))) }
    }
}
