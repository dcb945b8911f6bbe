//! Address books: the friends, groups, labels and profile of each account.
//!
//! A book is set through the control API. An account without one knows nobody, but whoever is asked
//! for by name is answered with a contact made out of that name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What one account knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Book {
    pub(crate) profile: Profile,
    pub(crate) friends: Vec<Friend>,
    pub(crate) groups: Vec<Group>,
    pub(crate) labels: Vec<Label>,
    /// Official accounts, by id.
    pub(crate) officials: Vec<String>,
    /// How long the list of contacts takes.
    pub(crate) list_delay_ms: u64,
    /// How often the cached list answers without data before it has any.
    pub(crate) pending_polls: u32,
}

/// The account itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Profile {
    wxid: Option<String>,
    pub(crate) nickname: Option<String>,
    alias: Option<String>,
    mobile: Option<String>,
}

/// A friend.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Friend {
    pub(crate) wxid: String,
    pub(crate) nickname: String,
    pub(crate) remark: String,
    alias: Option<String>,
    /// By name; one that the book does not list is listed by this.
    labels: Vec<String>,
    avatar: Option<String>,
    sex: u8,
}

/// A group that was saved to the address book, or not.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Group {
    pub(crate) wxid: String,
    pub(crate) nickname: String,
    remark: String,
    owner: Option<String>,
    members: Vec<Member>,
    /// One that is not saved is missing from the list of contacts, and can still be asked for.
    unsaved: bool,
}

/// A member of a group.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Member {
    wxid: String,
    nickname: String,
    display_name: String,
}

/// A label of WeChat's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Label {
    id: u32,
    name: String,
}

impl Book {
    /// Lists friends and groups by id.
    pub(crate) fn everybody(&self) -> impl Iterator<Item = &str> {
        let friends = self.friends.iter().map(|friend| friend.wxid.as_str());
        friends.chain(self.groups.iter().map(|group| group.wxid.as_str()))
    }
}

/// All books, by device.
#[derive(Debug, Default)]
pub(crate) struct Books {
    books: BTreeMap<String, Book>,
    /// Labels of accounts without a book, in which whoever is asked for exists.
    loose: BTreeMap<String, Loose>,
}

/// The labels of an account without a book.
#[derive(Debug, Default)]
struct Loose {
    labels: Vec<Label>,
    /// Labels by the id of the friend.
    friends: BTreeMap<String, String>,
}

impl Books {
    /// Replaces an account's book. Labels that friends have and the book does not list are added to it.
    pub(crate) fn set(&mut self, app_id: &str, mut book: Book) {
        let names: Vec<_> = book.friends.iter().flat_map(|friend| friend.labels.clone()).collect();
        for name in names {
            if !book.labels.iter().any(|label| label.name == name) {
                let id = book.labels.iter().map(|label| label.id).max().unwrap_or(0) + 1;
                book.labels.push(Label { id, name });
            }
        }
        self.books.insert(app_id.to_owned(), book);
    }

    pub(crate) fn get(&self, app_id: &str) -> Option<&Book> {
        self.books.get(app_id)
    }

    /// Returns what a person or group of an account's book is called.
    pub(crate) fn name(&self, app_id: &str, wxid: &str) -> Option<String> {
        let book = self.books.get(app_id)?;
        let friend = book.friends.iter().find(|friend| friend.wxid == wxid).map(|friend| &friend.nickname);
        let group = book.groups.iter().find(|group| group.wxid == wxid).map(|group| &group.nickname);
        let own = book.profile.nickname.as_ref().filter(|_| book.profile.wxid.as_deref() == Some(wxid));
        friend.or(group).or(own).cloned()
    }

    /// Lists everybody by id.
    pub(crate) fn list(&self, app_id: &str) -> Value {
        let Some(book) = self.books.get(app_id) else {
            return json!({ "friends": ["weixin", "filehelper"], "chatrooms": [], "ghs": [] });
        };
        let system = ["weixin", "fmessage", "filehelper"].iter().map(|wxid| (*wxid).to_owned());
        let friends: Vec<_> = system.chain(book.friends.iter().map(|friend| friend.wxid.clone())).collect();
        let groups: Vec<_> =
            book.groups.iter().filter(|group| !group.unsaved).map(|group| &group.wxid).collect();
        json!({ "friends": friends, "chatrooms": groups, "ghs": book.officials })
    }

    /// Tells how long the list takes.
    pub(crate) fn list_delay_ms(&self, app_id: &str) -> u64 {
        self.books.get(app_id).map_or(0, |book| book.list_delay_ms.min(600_000))
    }

    /// Counts a look at the cached list, and tells whether there is one by now.
    pub(crate) fn poll(&mut self, app_id: &str) -> bool {
        match self.books.get_mut(app_id) {
            Some(book) if book.pending_polls > 0 => {
                book.pending_polls -= 1;
                false
            }
            _ => true,
        }
    }

    /// Describes people and groups; those that the book does not know are left out.
    pub(crate) fn brief(&self, app_id: &str, wxids: &[String], names: &BTreeMap<String, String>) -> Value {
        let book = self.books.get(app_id);
        let describe = |wxid: &String| {
            let Some(book) = book else {
                let name = names.get(wxid).cloned().unwrap_or_else(|| wxid.clone());
                let labels = self.loose.get(app_id).and_then(|loose| loose.friends.get(wxid));
                return Some(contact(wxid, &name, "", None, labels.map_or("", String::as_str), None, 0));
            };
            if let Some(friend) = book.friends.iter().find(|friend| friend.wxid == *wxid) {
                let id = |name: &String| {
                    let label = book.labels.iter().find(|label| label.name == *name)?;
                    Some(label.id.to_string())
                };
                let labels: Vec<_> = friend.labels.iter().filter_map(id).collect();
                return Some(contact(
                    wxid,
                    &friend.nickname,
                    &friend.remark,
                    friend.alias.as_deref(),
                    &labels.join(","),
                    friend.avatar.as_deref(),
                    friend.sex,
                ));
            }
            let group = book.groups.iter().find(|group| group.wxid == *wxid)?;
            Some(contact(wxid, &group.nickname, &group.remark, None, "", None, 0))
        };
        Value::Array(wxids.iter().filter_map(describe).collect())
    }

    /// Lists the labels.
    pub(crate) fn labels(&self, app_id: &str) -> Value {
        let loose = self.loose.get(app_id).map_or(&[][..], |loose| loose.labels.as_slice());
        let labels = self.books.get(app_id).map_or(loose, |book| book.labels.as_slice());
        let shown = |label: &Label| json!({ "labelId": label.id, "labelName": label.name });
        json!({ "labelList": labels.iter().map(shown).collect::<Vec<_>>() })
    }

    /// Makes a label, or finds the one that has the name.
    pub(crate) fn add_label(&mut self, app_id: &str, name: &str) -> Value {
        let labels = match self.books.get_mut(app_id) {
            Some(book) => &mut book.labels,
            None => &mut self.loose.entry(app_id.to_owned()).or_default().labels,
        };
        let known = labels.iter().find(|label| label.name == name).map(|label| label.id);
        let id = known.unwrap_or_else(|| {
            let id = labels.iter().map(|label| label.id).max().unwrap_or(0) + 1;
            labels.push(Label { id, name: name.to_owned() });
            id
        });
        json!({ "labelId": id, "labelName": name })
    }

    /// Makes the labels of friends these; all others they had are gone. False: there is no such label or friend.
    pub(crate) fn set_labels(&mut self, app_id: &str, ids: &str, wxids: &[String]) -> bool {
        let Some(book) = self.books.get_mut(app_id) else {
            let loose = self.loose.entry(app_id.to_owned()).or_default();
            let ids: Vec<&str> = ids.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
            let known = |id: &&str| loose.labels.iter().any(|label| label.id.to_string() == *id);
            if !ids.iter().all(known) {
                return false;
            }
            loose.friends.extend(wxids.iter().map(|wxid| (wxid.clone(), ids.join(","))));
            return true;
        };
        let ids = ids.split(',').map(str::trim).filter(|id| !id.is_empty());
        let name = |id: &str| {
            let label = book.labels.iter().find(|label| label.id.to_string() == id)?;
            Some(label.name.clone())
        };
        let Some(names) = ids.map(name).collect::<Option<Vec<String>>>() else { return false };
        let mut friends = book.friends.iter_mut().filter(|friend| wxids.contains(&friend.wxid)).peekable();
        if friends.peek().is_none() {
            return false;
        }
        friends.for_each(|friend| friend.labels.clone_from(&names));
        true
    }

    /// Describes a group, or `None` if there is no such group. Without a book, any group there is.
    pub(crate) fn group(&self, app_id: &str, wxid: &str) -> Option<Value> {
        let (nickname, remark, owner, members) = match self.books.get(app_id) {
            None => (wxid.to_owned(), String::new(), None, Vec::new()),
            Some(book) => {
                let group = book.groups.iter().find(|group| group.wxid == wxid)?.clone();
                (group.nickname, group.remark, group.owner, group.members)
            }
        };
        Some(json!({
            "chatroomId": wxid, "nickName": nickname, "pyInitial": "", "quanPin": "", "sex": 0, "remark": remark,
            "remarkPyInitial": null, "remarkQuanPin": null, "chatRoomNotify": 1, "chatRoomOwner": owner,
            "smallHeadImgUrl": "https://example.invalid/group/0", "memberList": members.iter().map(member).collect::<Vec<_>>()
        }))
    }

    /// Lists the members of a group.
    pub(crate) fn members(&self, app_id: &str, wxid: &str) -> Option<Value> {
        let group = self.group(app_id, wxid)?;
        Some(json!({
            "memberList": group["memberList"], "chatroomOwner": group["chatRoomOwner"], "adminWxid": []
        }))
    }

    /// Describes the account itself.
    pub(crate) fn profile(&self, app_id: &str, wxid: &str) -> Value {
        let profile = self.books.get(app_id).map(|book| book.profile.clone()).unwrap_or_default();
        json!({
            "wxid": profile.wxid.as_deref().unwrap_or(wxid), "alias": profile.alias,
            "nickName": profile.nickname.as_deref().unwrap_or("沙箱"), "mobile": profile.mobile,
            "uin": 1_000_000_001, "sex": 1, "province": "Jiangsu", "city": "Nanjing", "signature": "", "country": "CN",
            "bigHeadImgUrl": "https://example.invalid/head/0", "smallHeadImgUrl": "https://example.invalid/head/132",
            "regCountry": "CN", "snsBgImg": null
        })
    }
}

fn member(member: &Member) -> Value {
    json!({
        "wxid": member.wxid, "nickName": member.nickname, "inviterUserName": null, "memberFlag": 1,
        "displayName": member.display_name, "bigHeadImgUrl": null, "smallHeadImgUrl": null
    })
}

fn contact(
    wxid: &str,
    nickname: &str,
    remark: &str,
    alias: Option<&str>,
    labels: &str,
    avatar: Option<&str>,
    sex: u8,
) -> Value {
    json!({
        "userName": wxid, "nickName": nickname, "pyInitial": "", "quanPin": "", "sex": sex, "remark": remark,
        "remarkPyInitial": "", "remarkQuanPin": "", "signature": null, "alias": alias, "snsBgImg": null,
        "country": "CN", "bigHeadImgUrl": avatar, "smallHeadImgUrl": avatar, "description": null,
        "cardImgUrl": null, "labelList": labels, "province": "Jiangsu", "city": "Nanjing", "phoneNumList": null
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books() -> Books {
        let mut books = Books::default();
        let book = json!({
            "friends": [{"wxid": "wxid_1", "nickname": "李雷", "remark": "李总", "labels": ["大客户", "华东"]}],
            "groups": [
                {"wxid": "1@chatroom", "nickname": "客户群", "members": [{"wxid": "wxid_1", "nickname": "李雷"}]},
                {"wxid": "2@chatroom", "nickname": "临时群", "unsaved": true}
            ],
            "labels": [{"id": 7, "name": "华东"}],
            "pending_polls": 1
        });
        books.set("wx_a", serde_json::from_value(book).unwrap());
        books
    }

    #[test]
    fn a_book_lists_what_was_saved_and_describes_the_rest_on_request() {
        let mut books = books();
        assert_eq!(books.list("wx_a")["chatrooms"], json!(["1@chatroom"]));
        assert!(books.group("wx_a", "2@chatroom").is_some() && books.group("wx_a", "3@chatroom").is_none());
        assert_eq!(books.members("wx_a", "1@chatroom").unwrap()["memberList"][0]["wxid"], "wxid_1");
        let brief = books.brief("wx_a", &["wxid_1".into(), "wxid_9".into()], &BTreeMap::new());
        assert_eq!(brief.as_array().unwrap().len(), 1);
        assert_eq!((&brief[0]["remark"], &brief[0]["labelList"]), (&json!("李总"), &json!("8,7")));
        assert!(!books.poll("wx_a") && books.poll("wx_a"));
    }

    #[test]
    fn the_labels_of_a_friend_are_written_as_a_whole() {
        let mut books = books();
        let id = books.add_label("wx_a", "高意向")["labelId"].clone();
        assert_eq!(books.add_label("wx_a", "高意向")["labelId"], id, "the same name is the same label");
        assert!(books.set_labels("wx_a", &format!("7,{id}"), &["wxid_1".into()]));
        let brief = books.brief("wx_a", &["wxid_1".into()], &BTreeMap::new());
        assert_eq!(brief[0]["labelList"], format!("7,{id}"));
        assert!(!books.set_labels("wx_a", "99", &["wxid_1".into()]), "no such label");
        assert!(!books.set_labels("wx_a", "7", &["wxid_9".into()]), "no such friend");
        assert!(books.set_labels("wx_a", "", &["wxid_1".into()]));
        assert_eq!(books.brief("wx_a", &["wxid_1".into()], &BTreeMap::new())[0]["labelList"], "");
    }

    #[test]
    fn without_a_book_whoever_is_asked_for_exists() {
        let books = Books::default();
        let names = BTreeMap::from([("wxid_1".to_owned(), "李雷".to_owned())]);
        assert_eq!(books.brief("wx_b", &["wxid_1".into()], &names)[0]["nickName"], "李雷");
    }
}
