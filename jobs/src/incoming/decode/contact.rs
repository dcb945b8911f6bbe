//! Friends and groups: new ones, changed ones, removed ones, and people who ask.

use serde_json::Value;

use super::content::MAX_TITLE;
use super::fields::{clean, text, words, wxid};
use super::xml;
use crate::incoming::{ContactChange, What};

/// Characters of a name that are kept.
const MAX_NAME: usize = 200;

/// Reads what is new of a contact; `from` holds its fields.
pub(super) fn changed(from: &Value, became_friend: bool) -> Option<What> {
    Some(What::ContactChanged(ContactChange {
        wxid: wxid(from, "UserName")?,
        nickname: words(from, "NickName", MAX_NAME),
        // An empty one was taken away.
        remark: text(from, "Remark").map(|remark| clean(remark.trim(), MAX_NAME)),
        alias: words(from, "Alias", MAX_NAME),
        avatar: words(from, "BigHeadImgUrl", MAX_TITLE).or_else(|| words(from, "SmallHeadImgUrl", MAX_TITLE)),
        became_friend,
    }))
}

/// Reads who is no contact any more.
pub(super) fn removed(from: &Value) -> Option<What> {
    Some(What::ContactRemoved { wxid: wxid(from, "UserName")? })
}

/// Reads who wants to be a friend.
pub(super) fn request(content: &str) -> What {
    let asked = || {
        let root = xml::read(content)?;
        let name = root.attribute("fromusername").or(root.attribute("encryptusername"))?;
        let wxid = super::fields::is_wxid(name).then(|| name.to_owned())?;
        let of = |name| clean(root.attribute(name).unwrap_or_default(), MAX_TITLE);
        Some(What::FriendRequest { wxid, nickname: of("fromnickname"), greeting: of("content") })
    };
    asked().unwrap_or(What::Unknown)
}
