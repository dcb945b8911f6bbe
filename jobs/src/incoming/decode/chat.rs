//! What both formats say of something in a chat, and what it comes to: who wrote, where, to whom.

use chrono::{DateTime, Utc};

use super::content::{self, Read};
use super::fields::{clean, hash_key, is_wxid};
use super::notice::{self, Notice};
use super::{MAX_TEXT, Said};
use crate::incoming::{GroupEvent, Message, What};

/// Ends an @-mention in a text.
const MENTION_END: char = '\u{2005}';

/// What an event says of something in a chat, before it is understood.
#[derive(Debug)]
pub(super) struct Sheet<'a> {
    /// The account's own wxid.
    pub(super) own: Option<&'a str>,
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a str>,
    /// The group, where the format names it.
    pub(super) group: Option<&'a str>,
    /// The account's owner wrote it, where the format says so.
    pub(super) is_self: Option<bool>,
    /// The classic number of the type.
    pub(super) msg_type: i64,
    /// What the format's own word says of a notice that has no XML.
    pub(super) group_event: Option<GroupEvent>,
    pub(super) text: &'a str,
    pub(super) push: Option<&'a str>,
    /// The list of those who are mentioned, where there is one.
    pub(super) mentioned: Option<String>,
    pub(super) new_msg_id: Option<String>,
    pub(super) msg_id: Option<String>,
    pub(super) sent_at: Option<DateTime<Utc>>,
    /// The voice itself came with it.
    pub(super) silk: bool,
    /// When it came in.
    pub(super) received_at: DateTime<Utc>,
}

/// Who wrote where.
struct Place<'a> {
    peer: &'a str,
    sender: &'a str,
    from_me: bool,
    /// The text without the sender's wxid.
    text: &'a str,
}

impl<'a> Sheet<'a> {
    /// Understands it. `key` names the event if nothing in it does.
    pub(super) fn read(&self, key: impl FnOnce() -> String) -> Said {
        let Some(place) = self.place() else { return Said { key: key(), what: What::Unknown } };
        match self.msg_type {
            10_000 => {
                self.notice(&place, Notice::Text { what: self.group_event, text: self.line(&place) }, key)
            }
            10_002 => match (notice::read(place.text), self.group_event) {
                (Some(Notice::Unknown) | None, Some(what)) => {
                    let text = notice::read(place.text).is_none().then(|| self.line(&place));
                    let notice = Notice::Text { what: Some(what), text: text.unwrap_or_default() };
                    self.notice(&place, notice, key)
                }
                (Some(notice), _) => self.notice(&place, notice, key),
                (None, None) => Said { key: key(), what: What::Unknown },
            },
            _ => self.message(&place, key),
        }
    }

    /// None: nobody can tell which chat it belongs to.
    fn place(&self) -> Option<Place<'a>> {
        let is_group = |wxid: &&str| wxid.ends_with("@chatroom");
        let group = self.group.or(self.from).filter(is_group).or(self.to.filter(is_group));
        // A line such as `wxid:` that somebody types is text; in front of it stands who it is from.
        let is_from = |wxid: &&str| {
            self.from == Some(*wxid) || group == Some(*wxid) || self.from.is_some_and(|from| is_group(&from))
        };
        let (named, text) = match self.text.split_once(":\n") {
            Some((wxid, rest)) if is_wxid(wxid) && is_from(&wxid) => (Some(wxid), rest),
            _ => (None, self.text),
        };
        let place = match group {
            Some(group) => {
                let sender = named.or(self.from.filter(|from| !is_group(from))).unwrap_or(group);
                let from_me = self.is_self.unwrap_or(self.own == Some(sender));
                let sender = if from_me { self.own.unwrap_or(sender) } else { sender };
                Place { peer: group, sender, from_me, text }
            }
            // Only groups put the sender in front: it is a group's message that does not say which group.
            None if named.is_some() && self.msg_type < 10_000 => return None,
            None => {
                let from_me = self.is_self.unwrap_or(self.own.is_some() && self.from == self.own);
                let peer = if from_me { self.to } else { self.from }?;
                let sender = if from_me { self.own.or(self.from)? } else { peer };
                Place { peer, sender, from_me, text }
            }
        };
        (is_wxid(place.peer) && is_wxid(place.sender)).then_some(place)
    }

    fn message(&self, place: &Place<'_>, key: impl FnOnce() -> String) -> Said {
        let content = match content::read(self.msg_type, place.text, self.silk) {
            Read::Content(content) => content,
            Read::Nothing => return self.said(What::Ignored, key),
            Read::Unknown => return self.said(What::Unknown, key),
        };
        let (mentions_me, mentions_all) = self.mentions();
        let key = self.usable_id().map_or_else(key, |id| format!("m:{id}"));
        let what = What::Message(Message {
            peer_wxid: place.peer.to_owned(),
            sender_wxid: place.sender.to_owned(),
            from_me: place.from_me,
            kind: content.kind,
            text: content.text,
            content: content.content,
            mentions_me: mentions_me && !place.from_me,
            mentions_all: mentions_all && !place.from_me,
            sender_name: if place.from_me { None } else { self.sender_name() },
            new_msg_id: self.usable_id().map_or_else(|| key.clone(), str::to_owned),
            msg_id: self.msg_id.clone(),
            sent_at: self.sent_at.unwrap_or(self.received_at),
            media: content.media,
        });
        Said { key, what }
    }

    fn notice(&self, place: &Place<'_>, notice: Notice, key: impl FnOnce() -> String) -> Said {
        match notice {
            Notice::Recalled { session, new_msg_id } => {
                // A message is taken back once, and the notice's own id is none that can be relied on.
                let key = hash_key(&["recalled", &new_msg_id]);
                let peer_wxid = match session {
                    Some(session) if !place.peer.ends_with("@chatroom") && Some(&*session) != self.own => {
                        session
                    }
                    _ => place.peer.to_owned(),
                };
                Said { key, what: What::Recalled { peer_wxid, new_msg_id } }
            }
            Notice::Text { what, text } => {
                let at = self.sent_at.map(|at| at.timestamp().to_string()).unwrap_or_default();
                // The newer format gives notices an id that others have too.
                let key = match at.as_str() {
                    "" => key(),
                    at => hash_key(&["notice", place.peer, at, &text]),
                };
                if place.peer.ends_with("@chatroom") {
                    let what = notice::group_event(&text).or(what).unwrap_or(GroupEvent::Other);
                    let group_wxid = place.peer.to_owned();
                    return Said { key, what: What::Group { group_wxid, what, text } };
                }
                let what = What::Message(Message {
                    peer_wxid: place.peer.to_owned(),
                    sender_wxid: place.sender.to_owned(),
                    from_me: place.from_me,
                    kind: "system",
                    text,
                    content: None,
                    mentions_me: false,
                    mentions_all: false,
                    sender_name: None,
                    new_msg_id: key.clone(),
                    msg_id: self.msg_id.clone(),
                    sent_at: self.sent_at.unwrap_or(self.received_at),
                    media: None,
                });
                Said { key, what }
            }
            Notice::Nothing => self.said(What::Ignored, key),
            Notice::Unknown => self.said(What::Unknown, key),
        }
    }

    fn said(&self, what: What, key: impl FnOnce() -> String) -> Said {
        Said { key: self.usable_id().map_or_else(key, |id| format!("m:{id}")), what }
    }

    fn line(&self, place: &Place<'_>) -> String {
        clean(place.text.trim(), MAX_TEXT)
    }

    /// Returns the global id, unless it is a time that was put in its place.
    fn usable_id(&self) -> Option<&str> {
        let id = self.new_msg_id.as_deref()?;
        let is_time = id.len() == 10 && self.msg_id.as_deref() == Some(id);
        (!is_time).then_some(id)
    }

    /// Returns whether the account, and whether everybody is mentioned.
    fn mentions(&self) -> (bool, bool) {
        let listed = |wxid: &str| {
            self.mentioned.as_deref().is_some_and(|list| list.split(',').any(|found| found.trim() == wxid))
        };
        let push = self.push.unwrap_or_default();
        let me = self.own.is_some_and(listed) || push.ends_with("在群聊中@了你");
        let all = listed("notify@all")
            || listed("announcement@all")
            || push.contains("@了所有人")
            || self.text.contains(&format!("@所有人{MENTION_END}"));
        (me, all)
    }

    /// Returns the name of the sender as the notification shows it.
    fn sender_name(&self) -> Option<String> {
        let push = self.push?;
        let name =
            push.strip_suffix("在群聊中@了你").or_else(|| push.split_once(" : ").map(|(name, _)| name))?;
        let name = clean(name.trim(), 65);
        (1..=64).contains(&name.chars().count()).then_some(name)
    }
}
