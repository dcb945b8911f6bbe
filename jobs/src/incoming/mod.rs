//! What the provider tells us of its own accord, in one form whatever its format. Plain data.
//!
//! [`decode`] makes these out of a body; [`conversation`](crate::conversation) applies them to the record.

pub mod decode;
pub mod intake;

use chrono::{DateTime, Utc};
use serde_json::Value;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The device that it came from.
    pub app_id: String,
    /// The account's own id in WeChat; the provider leaves it out at times.
    pub wxid: Option<String>,
    /// The provider's word for the event: `AddMsg`, `TEXT`, `Offline`.
    pub type_name: String,
    /// Names the event: the same key from the same account is the same event. See `callback_keys`.
    pub key: String,
    /// What it says.
    pub what: What,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Somebody wrote something, perhaps the account's owner on the phone.
    Message(Message),
    /// A message was taken back.
    Recalled {
        /// The chat.
        peer_wxid: String,
        /// The message.
        new_msg_id: String,
    },
    /// A friend or group is new, or something of it has changed.
    ContactChanged(ContactChange),
    /// A friend is no friend any more, or the account is out of the group.
    ContactRemoved {
        /// Who, or which group.
        wxid: String,
    },
    /// Somebody wants to be a friend. Nothing is accepted by us.
    FriendRequest {
        /// Who.
        wxid: String,
        /// The name given.
        nickname: String,
        /// What was written with it.
        greeting: String,
    },
    /// Something happened in a group: renamed, announcement, somebody came or went.
    Group {
        /// The group.
        group_wxid: String,
        /// What.
        what: GroupEvent,
        /// The notice as the phone shows it.
        text: String,
    },
    /// The account's own state.
    Account(AccountEvent),
    /// Known, and of no consequence: phone state, configuration pushes, pats.
    Ignored,
    /// Not known. Kept as it came, and counted.
    Unknown,
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The chat: the other person, or the group.
    pub peer_wxid: String,
    /// Who wrote it. In a chat of two: the other person, or the account itself.
    pub sender_wxid: String,
    /// The account's owner wrote it, on the phone.
    pub from_me: bool,
    /// Its kind, as it is stored: `text`, `image`, `voice`, `video`, `emoji`, `file`, `link`, `mini_program`, `quote`,
    /// `chat_record`, `location`, `name_card`, `transfer`, `red_packet`, `channel_feed`, `call`, `system`, `other`.
    pub kind: &'static str,
    /// What a person reads: the text, a link's title, a file's name.
    pub text: String,
    /// What the kind has beside its text.
    pub content: Option<Value>,
    /// The account was mentioned by name.
    pub mentions_me: bool,
    /// Everybody was mentioned.
    pub mentions_all: bool,
    /// The name of the sender, if the event tells it.
    pub sender_name: Option<String>,
    /// The provider's global id; where it has none, the event's key.
    pub new_msg_id: String,
    /// The provider's local id.
    pub msg_id: Option<String>,
    /// The provider's time.
    pub sent_at: DateTime<Utc>,
    /// What there is to be downloaded.
    pub media: Option<Media>,
}

impl Message {
    /// Tells whether the chat is a group.
    pub fn is_group(&self) -> bool {
        self.peer_wxid.ends_with("@chatroom")
    }
}

/// What it takes to download a message's media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// The message's XML, which the provider wants back.
    pub xml: String,
    /// Bytes, as far as the message tells.
    pub bytes: Option<u64>,
}

/// What is new of a friend or a group. None: not told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContactChange {
    /// Who.
    pub wxid: String,
    /// The name.
    pub nickname: Option<String>,
    /// What the account's owner calls it.
    pub remark: Option<String>,
    /// The WeChat number.
    pub alias: Option<String>,
    /// Address of the picture.
    pub avatar: Option<String>,
    /// The event says that this person became a friend.
    pub became_friend: bool,
}

/// What happened in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupEvent {
    /// The account was removed, or the group dissolved.
    Left,
    /// It has another name.
    Renamed,
    /// Somebody came or went.
    Members,
    /// An announcement or a to-do.
    Announced,
    /// Anything else.
    Other,
}

/// What became of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountEvent {
    /// It is not logged in any more.
    Offline,
    /// Its session was ended from outside: on the phone, by another device, or by WeChat.
    LoggedOut,
    /// WeChat asks for a verification of the login.
    Verification,
    /// It is logged in.
    Online,
    /// The provider tries to bring it back.
    Reconnecting,
    /// Logging in failed.
    LoginFailed,
}
