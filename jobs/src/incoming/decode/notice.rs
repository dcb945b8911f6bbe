//! Notices of WeChat itself: recalls, who came and went, announcements, configuration pushes.

use super::content::{MAX_TEXT, MAX_TITLE};
use super::fields::{clean, is_wxid, number_of};
use super::xml::{self, Element};
use crate::incoming::GroupEvent;

/// What a notice says.
#[derive(Debug, PartialEq)]
pub(super) enum Notice {
    /// A message was taken back.
    Recalled { session: Option<String>, new_msg_id: String },
    /// Something that people read.
    Text { what: Option<GroupEvent>, text: String },
    /// Of no consequence.
    Nothing,
    /// None that we know.
    Unknown,
}

/// Begins the types of configuration pushes.
const PUSHES: [&str; 6] = ["dynacfg", "functionmsg", "ClientCheck", "bizlivenotify", "gog", "ilink"];

/// Reads a notice in XML. None: it is no such XML.
pub(super) fn read(text: &str) -> Option<Notice> {
    let root = xml::read(text)?;
    let message = root.find("sysmsg").unwrap_or(&root);
    let kind = message.attribute("type").unwrap_or(&message.name);
    Some(match kind {
        "revokemsg" => {
            let revoked = message.find("revokemsg").filter(|found| found.child("newmsgid").is_some());
            let revoked = revoked.unwrap_or(message);
            let number = revoked.find_text("newmsgid").and_then(number_of).filter(|number| *number != 0);
            match number {
                Some(number) => Notice::Recalled {
                    session: revoked.find_text("session").filter(|wxid| is_wxid(wxid)).map(str::to_owned),
                    new_msg_id: number.to_string(),
                },
                None => Notice::Unknown,
            }
        }
        "pat" => Notice::Nothing,
        "sysmsgtemplate" => {
            let text = template(message);
            Notice::Text { what: Some(group_event(&text).unwrap_or(GroupEvent::Other)), text }
        }
        "mmchatroombarannouncememt" => {
            let text = message.find_text("content").unwrap_or_default();
            Notice::Text { what: Some(GroupEvent::Announced), text: clean(text, MAX_TEXT) }
        }
        "roomtoolstips" => {
            let text = message.find_text("title").or(message.find_text("template")).unwrap_or_default();
            Notice::Text { what: Some(GroupEvent::Announced), text: clean(text, MAX_TITLE) }
        }
        "NewXmlChatRoomAccessVerifyApplication" => {
            let text = message.find_text("text").unwrap_or_default();
            Notice::Text { what: Some(GroupEvent::Other), text: clean(text, MAX_TITLE) }
        }
        push if PUSHES.iter().any(|known| push.starts_with(known)) => Notice::Nothing,
        _ => Notice::Unknown,
    })
}

/// Tells what a notice is about. The phone's language is Chinese; in another one it is just a notice.
pub(super) fn group_event(text: &str) -> Option<GroupEvent> {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["将你移出", "将你踢出", "群聊已解散", "解散了该群", "解散了群聊", "已被解散"])
        || (text.starts_with("你被") && has(&["移出", "踢出"]))
        || text.starts_with("你已退出")
    {
        Some(GroupEvent::Left)
    } else if has(&["修改群名", "更改群名", "修改了群名"]) {
        Some(GroupEvent::Renamed)
    } else if has(&["移出", "加入了群聊", "加入群聊", "退出了群聊", "退出群聊", "进入群聊"])
    {
        Some(GroupEvent::Members)
    } else if has(&["群公告", "群待办"]) {
        Some(GroupEvent::Announced)
    } else {
        None
    }
}

/// Fills in the names that a template leaves open.
fn template(message: &Element) -> String {
    let Some(content) = message.find("content_template") else { return String::new() };
    let mut text = clean(content.text_of("template").unwrap_or_default(), MAX_TITLE);
    let mut links = Vec::new();
    if let Some(list) = content.child("link_list") {
        list.each("link", &mut |link| links.push(link));
    }
    for link in links.into_iter().take(20) {
        let Some(name) = link.attribute("name") else { continue };
        let mut names = Vec::new();
        link.each("nickname", &mut |found| names.extend(found.text()));
        let names = if names.is_empty() { vec![link.text_of("plain").unwrap_or_default()] } else { names };
        let names: Vec<String> = names.into_iter().take(20).map(|name| clean(name, 64)).collect();
        let names = clean(&names.join("、"), 200);
        text = clean(&text.replace(&format!("${name}$"), &names), MAX_TEXT);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_in() {
        let xml = "<sysmsg type=\"sysmsgtemplate\"><sysmsgtemplate><content_template type=\"tmpl_type_profile\">\
            <plain><![CDATA[]]></plain><template><![CDATA[\"$username$\"邀请\"$names$\"加入了群聊]]></template>\
            <link_list><link name=\"username\" type=\"link_profile\"><memberlist><member><username>wxid_a</username>\
            <nickname><![CDATA[李雷]]></nickname></member></memberlist></link><link name=\"names\"><memberlist>\
            <member><nickname>韩梅梅</nickname></member><member><nickname>小明</nickname></member></memberlist></link>\
            </link_list></content_template></sysmsgtemplate></sysmsg>";
        let text = "\"李雷\"邀请\"韩梅梅、小明\"加入了群聊".to_owned();
        assert_eq!(read(xml), Some(Notice::Text { what: Some(GroupEvent::Members), text }));
    }

    #[test]
    fn notices_are_told_apart_by_their_words() {
        for (text, what) in [
            ("你被\"李雷\"移出群聊", Some(GroupEvent::Left)),
            ("\"李雷\"将你移出了群聊", Some(GroupEvent::Left)),
            ("该群聊已被解散", Some(GroupEvent::Left)),
            ("你将\"韩梅梅\"移出了群聊", Some(GroupEvent::Members)),
            ("\"李雷\"修改群名为“老客户”", Some(GroupEvent::Renamed)),
            ("你已成为新群主", None),
        ] {
            assert_eq!(group_event(text), what, "{text}");
        }
    }

    #[test]
    fn a_recall_names_its_message_and_pushes_say_nothing() {
        let recall = "<sysmsg type=\"revokemsg\"><revokemsg><session>wxid_demo0000000009</session><msgid>510000001</msgid>\
            <newmsgid>7300000000000000101</newmsgid><replacemsg><![CDATA[\"Lee\" 撤回了一条消息]]></replacemsg></revokemsg>\
            </sysmsg>";
        let recalled = Notice::Recalled {
            session: Some("wxid_demo0000000009".into()),
            new_msg_id: "7300000000000000101".into(),
        };
        assert_eq!(read(recall), Some(recalled));
        assert_eq!(read("<sysmsg type=\"revokemsg\"><revokemsg/></sysmsg>"), Some(Notice::Unknown));
        assert_eq!(read("<sysmsg type=\"dynacfg_split\"><a/></sysmsg>"), Some(Notice::Nothing));
        assert_eq!(read("<sysmsg type=\"pat\"><pat/></sysmsg>"), Some(Notice::Nothing));
        assert_eq!(read("<sysmsg type=\"neu\"/>"), Some(Notice::Unknown));
        assert_eq!(read("你已添加了李雷"), None);
    }
}
