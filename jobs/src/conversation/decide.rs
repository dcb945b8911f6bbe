//! Who answers a message: a pure function of what is known when it comes in.

use chrono::{DateTime, TimeDelta, Utc};

use super::mode::Mode;

/// What decides.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The account is answered for by machine.
    pub enabled: bool,
    /// Who answers in the conversation.
    pub mode: Mode,
    /// Kind of the message.
    pub kind: &'a str,
    /// The chat.
    pub peer_wxid: &'a str,
    /// Who wrote it.
    pub sender_wxid: &'a str,
    /// Tags of the chat and of who wrote.
    pub tags: &'a [String],
    /// The account was mentioned.
    pub mentions_me: bool,
    /// `off` or `at_only`.
    pub groups: &'a str,
    /// Only these people and groups.
    pub allow_wxids: &'a [String],
    /// Only contacts with one of these tags.
    pub allow_tags: &'a [String],
    /// Never these people and groups.
    pub block_wxids: &'a [String],
    /// Never contacts with one of these tags.
    pub block_tags: &'a [String],
    /// They want no more messages.
    pub opted_out: bool,
    /// A person of ours said: nothing that a machine writes.
    pub suppressed: bool,
    /// The provider's time of the message.
    pub sent_at: DateTime<Utc>,
    /// The database's time.
    pub now: DateTime<Utc>,
    /// A message that is older is not answered, in seconds.
    pub max_age_seconds: i32,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The AI.
    Answer,
    /// The AI would have, but it is too late: a person should look.
    Missed,
    /// Nobody by machine, and why.
    Nobody(Why),
}

/// Why nobody answers by machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Why {
    Disabled,
    Official,
    Kind,
    Mode,
    GroupsOff,
    NotMentioned,
    Blocked,
    NotAllowed,
    OptedOut,
    Suppressed,
}

/// Kinds that ask for no answer, or for one that no machine should give: notices, calls, money, what nobody can read.
const UNANSWERED: &[&str] = &["system", "call", "transfer", "red_packet", "other"];

/// Accounts of WeChat itself, which write to everybody.
const WECHAT_ITSELF: &[&str] = &[
    "weixin",
    "newsapp",
    "fmessage",
    "medianote",
    "floatbottle",
    "qmessage",
    "qqmail",
    "tmessage",
    "mphelper",
    "notifymessage",
    "weixinguanhaozhushou",
    "filehelper",
];

/// Tells whether somebody is a public account, or WeChat itself.
pub fn is_official(wxid: &str) -> bool {
    wxid.starts_with("gh_") || WECHAT_ITSELF.contains(&wxid)
}

/// Tells who answers a message.
pub fn decide(asked: &Asked<'_>) -> Decision {
    match nobody(asked) {
        Some(why) => Decision::Nobody(why),
        None if asked.sent_at + TimeDelta::seconds(asked.max_age_seconds.into()) < asked.now => {
            Decision::Missed
        }
        None => Decision::Answer,
    }
}

/// Tells whether a message is older than an answer may be. Any two times may be compared.
pub fn is_late(sent_at: DateTime<Utc>, now: DateTime<Utc>, max_age_seconds: i32) -> bool {
    now.signed_duration_since(sent_at) > TimeDelta::seconds(max_age_seconds.into())
}

fn nobody(asked: &Asked<'_>) -> Option<Why> {
    if !asked.enabled {
        return Some(Why::Disabled);
    }
    if is_official(asked.peer_wxid) || is_official(asked.sender_wxid) {
        return Some(Why::Official);
    }
    if UNANSWERED.contains(&asked.kind) {
        return Some(Why::Kind);
    }
    if asked.mode != Mode::Ai {
        return Some(Why::Mode);
    }
    if asked.peer_wxid.ends_with("@chatroom") {
        if asked.groups != "at_only" {
            return Some(Why::GroupsOff);
        }
        if !asked.mentions_me {
            return Some(Why::NotMentioned);
        }
    }
    let listed = |wxids: &[String], tags: &[String]| {
        wxids.iter().any(|wxid| wxid == asked.peer_wxid || wxid == asked.sender_wxid)
            || tags.iter().any(|tag| asked.tags.contains(tag))
    };
    if listed(asked.block_wxids, asked.block_tags) {
        return Some(Why::Blocked);
    }
    let everybody = asked.allow_wxids.is_empty() && asked.allow_tags.is_empty();
    if !everybody && !listed(asked.allow_wxids, asked.allow_tags) {
        return Some(Why::NotAllowed);
    }
    if asked.opted_out {
        return Some(Why::OptedOut);
    }
    asked.suppressed.then_some(Why::Suppressed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A friend's text, seconds old, at an account that is answered for.
    fn plain() -> Asked<'static> {
        Asked {
            enabled: true,
            mode: Mode::Ai,
            kind: "text",
            peer_wxid: "wxid_customer",
            sender_wxid: "wxid_customer",
            tags: &[],
            mentions_me: false,
            groups: "off",
            allow_wxids: &[],
            allow_tags: &[],
            block_wxids: &[],
            block_tags: &[],
            opted_out: false,
            suppressed: false,
            sent_at: DateTime::UNIX_EPOCH,
            now: DateTime::UNIX_EPOCH + TimeDelta::seconds(3),
            max_age_seconds: 600,
        }
    }

    fn group() -> Asked<'static> {
        Asked { peer_wxid: "1@chatroom", groups: "at_only", mentions_me: true, ..plain() }
    }

    #[test]
    fn the_table_of_who_answers() {
        let customer = ["wxid_customer".to_owned()];
        let room = ["1@chatroom".to_owned()];
        let other = ["wxid_other".to_owned()];
        let vip = ["VIP".to_owned()];
        let late = DateTime::UNIX_EPOCH + TimeDelta::seconds(601);
        let nobody = Decision::Nobody;
        let table = [
            ("a friend's text", plain(), Decision::Answer),
            ("nothing was chosen", Asked { enabled: false, ..plain() }, nobody(Why::Disabled)),
            ("a person answers", Asked { mode: Mode::Human, ..plain() }, nobody(Why::Mode)),
            ("paused", Asked { mode: Mode::Paused, ..plain() }, nobody(Why::Mode)),
            ("a notice", Asked { kind: "system", ..plain() }, nobody(Why::Kind)),
            ("a call", Asked { kind: "call", ..plain() }, nobody(Why::Kind)),
            ("a picture", Asked { kind: "image", ..plain() }, Decision::Answer),
            ("a public account", Asked { peer_wxid: "gh_1", ..plain() }, nobody(Why::Official)),
            ("WeChat", Asked { peer_wxid: "weixin", ..plain() }, nobody(Why::Official)),
            ("mentioned in a group", group(), Decision::Answer),
            ("a group's chatter", Asked { mentions_me: false, ..group() }, nobody(Why::NotMentioned)),
            ("groups are off", Asked { groups: "off", ..group() }, nobody(Why::GroupsOff)),
            ("blocked", Asked { block_wxids: &customer, ..plain() }, nobody(Why::Blocked)),
            ("blocked in a group", Asked { block_wxids: &customer, ..group() }, nobody(Why::Blocked)),
            ("a blocked group", Asked { block_wxids: &room, ..group() }, nobody(Why::Blocked)),
            ("blocked by tag", Asked { block_tags: &vip, tags: &vip, ..plain() }, nobody(Why::Blocked)),
            ("somebody else is blocked", Asked { block_wxids: &other, ..plain() }, Decision::Answer),
            ("allowed", Asked { allow_wxids: &customer, ..plain() }, Decision::Answer),
            ("allowed by tag", Asked { allow_tags: &vip, tags: &vip, ..plain() }, Decision::Answer),
            ("not allowed", Asked { allow_wxids: &other, ..plain() }, nobody(Why::NotAllowed)),
            ("not allowed by tag", Asked { allow_tags: &vip, ..plain() }, nobody(Why::NotAllowed)),
            (
                "blocking wins",
                Asked { allow_wxids: &customer, block_tags: &vip, tags: &vip, ..plain() },
                nobody(Why::Blocked),
            ),
            ("opted out", Asked { opted_out: true, ..plain() }, nobody(Why::OptedOut)),
            ("suppressed", Asked { suppressed: true, ..plain() }, nobody(Why::Suppressed)),
            ("too old", Asked { now: late, ..plain() }, Decision::Missed),
            (
                "too old, and nobody's anyway",
                Asked { now: late, opted_out: true, ..plain() },
                nobody(Why::OptedOut),
            ),
            (
                "a clock that runs ahead",
                Asked { now: DateTime::UNIX_EPOCH - TimeDelta::hours(1), ..plain() },
                Decision::Answer,
            ),
        ];
        for (what, asked, expected) in table {
            assert_eq!(decide(&asked), expected, "{what}");
        }
    }
}
