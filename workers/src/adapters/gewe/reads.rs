//! What is read through GeWe: address books, and where media can be fetched. And what may be written twice: labels.
//!
//! Only the fields that are used are built of an answer, each with a limit, and a field of another type than expected is
//! as good as missing.

use std::fmt;

use entropy_jobs::contact_source::{BRIEF, Brief, ContactSource, Listing};
use entropy_jobs::media::{ImageSize, Wanted};
use entropy_jobs::provider::{Device, SendError};
use entropy_schema::contact_syncs::Member;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::client::GeweClient;
use super::errors;

/// Characters of a name that are kept.
const MAX_NAME: usize = 200;
/// Characters of an address that are kept.
const MAX_ADDRESS: usize = 1000;

/// A text, a number as text, or nothing.
#[derive(Debug, Default)]
struct Said(Option<String>);

impl Said {
    /// Returns the text without what the record cannot store, cut at `most` characters.
    fn text(self, most: usize) -> String {
        let text = self.0.unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(most).collect::<String>().trim().to_owned()
    }

    fn some(self, most: usize) -> Option<String> {
        Some(self.text(most)).filter(|text| !text.is_empty())
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SaidVisitor)
    }
}

struct SaidVisitor;

impl<'de> Visitor<'de> for SaidVisitor {
    type Value = Said;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Said, E> {
        Ok(Said(Some(text.to_owned())))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Said, E> {
        Ok(Said(Some(number.to_string())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Said, E> {
        Ok(Said(Some(number.to_string())))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Said, E> {
        Ok(Said(None))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Said, E> {
        Ok(Said(None))
    }

    fn visit_unit<E: Error>(self) -> Result<Said, E> {
        Ok(Said(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Said, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Said(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Said, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Said(None))
    }
}

#[derive(Deserialize)]
struct Frame<T> {
    #[serde(default = "none")]
    data: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

#[derive(Deserialize)]
struct ListData {
    friends: Option<Vec<Said>>,
    chatrooms: Option<Vec<Said>>,
    ghs: Option<Vec<Said>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BriefData {
    #[serde(default)]
    user_name: Said,
    #[serde(default)]
    nick_name: Said,
    #[serde(default)]
    remark: Said,
    #[serde(default)]
    alias: Said,
    #[serde(default)]
    small_head_img_url: Said,
    #[serde(default)]
    big_head_img_url: Said,
    #[serde(default)]
    label_list: Said,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LabelsData {
    label_list: Option<Vec<LabelData>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LabelData {
    #[serde(default)]
    label_id: Said,
    #[serde(default)]
    label_name: Said,
}

/// What a call says that only does something: nothing, or whatever it likes.
type Nothing = IgnoredAny;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MembersData {
    member_list: Option<Vec<MemberData>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemberData {
    #[serde(default)]
    wxid: Said,
    #[serde(default)]
    nick_name: Said,
    #[serde(default)]
    display_name: Said,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileData {
    #[serde(default)]
    file_url: Said,
}

fn ids(list: Option<Vec<Said>>) -> Vec<String> {
    list.unwrap_or_default().into_iter().filter_map(|id| id.some(MAX_NAME)).collect()
}

impl From<ListData> for Listing {
    fn from(data: ListData) -> Listing {
        Listing { friends: ids(data.friends), groups: ids(data.chatrooms), officials: ids(data.ghs) }
    }
}

impl From<BriefData> for Brief {
    fn from(data: BriefData) -> Brief {
        let labels = data.label_list.text(MAX_ADDRESS);
        Brief {
            wxid: data.user_name.text(MAX_NAME),
            nickname: data.nick_name.text(MAX_NAME),
            remark: data.remark.text(MAX_NAME),
            alias: data.alias.some(MAX_NAME),
            avatar: data.small_head_img_url.some(MAX_ADDRESS).or(data.big_head_img_url.some(MAX_ADDRESS)),
            label_ids: labels
                .split(',')
                .map(str::trim)
                .filter(|id| !id.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }
}

impl GeweClient {
    /// Asks for something and reads the answer's `data`. None: there is none.
    async fn read<T: DeserializeOwned>(
        &self,
        route: &str,
        mut body: Value,
        device: &Device,
        slow: bool,
        trace_id: &str,
    ) -> Result<Option<T>, SendError> {
        body["appId"] = device.app_id.as_str().into();
        let bounds = if slow { self.patient(trace_id) } else { self.prompt(trace_id) };
        let answer = self.call(route, &body, &device.token, bounds).await?;
        let frame: Result<Frame<T>, _> = serde_json::from_slice(&answer.raw);
        frame.map(|frame| frame.data).map_err(|_| errors::unreadable(&answer.raw, &device.token))
    }

    /// Asks where a medium is, as an address that this client understands.
    pub(crate) async fn locate(
        &self,
        device: &Device,
        wanted: Wanted<'_>,
        trace_id: &str,
    ) -> Result<String, SendError> {
        let (route, body) = match wanted {
            Wanted::Image { xml, size } => {
                let size = match size {
                    ImageSize::Original => 1,
                    ImageSize::Normal => 2,
                    ImageSize::Thumbnail => 3,
                };
                ("/message/downloadImage", json!({ "xml": xml, "type": size }))
            }
            Wanted::Voice { xml, msg_id } => {
                ("/message/downloadVoice", json!({ "xml": xml, "msgId": msg_id }))
            }
            Wanted::Video { xml } => ("/message/downloadVideo", json!({ "xml": xml })),
            Wanted::File { xml } => ("/message/downloadFile", json!({ "xml": xml })),
        };
        let data: Option<FileData> = self.read(route, body, device, true, trace_id).await?;
        let address = data.and_then(|data| data.file_url.some(4096));
        let address = address.ok_or_else(|| errors::unreadable(b"", &device.token))?;
        let url = self.profile().download_url(self.base_url(), &address);
        // What is no address of a file comes out as it is, and is refused by whoever fetches it.
        Ok(url.map_or(address, String::from))
    }
}

impl ContactSource for GeweClient {
    fn list<'a>(
        &'a self,
        device: &'a Device,
        cached: bool,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Listing>, SendError>> {
        Box::pin(async move {
            let route =
                if cached { "/contacts/fetchContactsListCache" } else { "/contacts/fetchContactsList" };
            let data: Option<ListData> = self.read(route, json!({}), device, !cached, trace_id).await?;
            // An object without its lists is what a cache holds that is not filled yet.
            Ok(data.filter(|data| data.friends.is_some()).map(Listing::from))
        })
    }

    fn brief<'a>(
        &'a self,
        device: &'a Device,
        wxids: &'a [String],
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Brief>, SendError>> {
        Box::pin(async move {
            let asked = &wxids[..wxids.len().min(BRIEF)];
            let body = json!({ "wxids": asked });
            let data: Option<Vec<BriefData>> =
                self.read("/contacts/getBriefInfo", body, device, false, trace_id).await?;
            Ok(data.unwrap_or_default().into_iter().map(Brief::from).collect())
        })
    }

    fn labels<'a>(
        &'a self,
        device: &'a Device,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, String)>, SendError>> {
        Box::pin(async move {
            let data: Option<LabelsData> =
                self.read("/label/list", json!({}), device, false, trace_id).await?;
            let labels = data.and_then(|data| data.label_list).unwrap_or_default();
            let named =
                |label: LabelData| Some((label.label_id.some(MAX_NAME)?, label.label_name.some(MAX_NAME)?));
            Ok(labels.into_iter().filter_map(named).collect())
        })
    }

    fn members<'a>(
        &'a self,
        device: &'a Device,
        group: &'a str,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Member>, SendError>> {
        Box::pin(async move {
            let body = json!({ "chatroomId": group });
            let data: Option<MembersData> =
                self.read("/group/getChatroomMemberList", body, device, false, trace_id).await?;
            let members = data.and_then(|data| data.member_list).unwrap_or_default();
            let known = |member: MemberData| {
                Some(Member {
                    wxid: member.wxid.some(MAX_NAME)?,
                    nickname: member.nick_name.text(MAX_NAME),
                    display_name: member.display_name.text(MAX_NAME),
                })
            };
            Ok(members.into_iter().filter_map(known).collect())
        })
    }

    fn make_label<'a>(
        &'a self,
        device: &'a Device,
        name: &'a str,
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<String, SendError>> {
        Box::pin(async move {
            let body = json!({ "labelName": name });
            let data: Option<LabelData> = self.read("/label/add", body, device, false, trace_id).await?;
            let id = data.and_then(|label| label.label_id.some(MAX_NAME));
            id.ok_or_else(|| errors::unreadable(b"", &device.token))
        })
    }

    fn set_labels<'a>(
        &'a self,
        device: &'a Device,
        wxid: &'a str,
        label_ids: &'a [String],
        trace_id: &'a str,
    ) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            let body = json!({ "labelIds": label_ids.join(","), "wxIds": [wxid] });
            let _: Option<Nothing> =
                self.read("/label/modifyMemberList", body, device, false, trace_id).await?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data<T: DeserializeOwned>(text: &str) -> Option<T> {
        serde_json::from_str::<Frame<T>>(text).expect("an answer").data
    }

    #[test]
    fn a_list_that_is_not_there_yet_is_told_from_an_empty_one() {
        assert!(data::<ListData>(r#"{"ret":200,"msg":"操作成功"}"#).is_none());
        assert!(data::<ListData>(r#"{"ret":200,"data":null}"#).is_none());
        let empty: ListData = data(r#"{"data":{"friends":[],"chatrooms":null}}"#).expect("a list");
        assert!(empty.friends.is_some() && empty.ghs.is_none());
        let list: ListData =
            data(r#"{"data":{"friends":["wxid_a",null,7,""],"ghs":["gh_1"]}}"#).expect("a list");
        let list = Listing::from(list);
        assert_eq!(list.friends, ["wxid_a", "7"]);
        assert_eq!(list.officials, ["gh_1"]);
    }

    #[test]
    fn a_contact_is_read_whatever_the_other_fields_are() {
        let text = r#"{"ret":200,"data":[{"userName":"wxid_a","nickName":"李\u0000雷","remark":null,"alias":"",
            "smallHeadImgUrl":{"a":1},"bigHeadImgUrl":"http://a.example/b","labelList":"8, 7,","sex":[1]}]}"#;
        let briefs: Vec<BriefData> = data(text).expect("contacts");
        let brief = Brief::from(briefs.into_iter().next().expect("one"));
        let expected = Brief {
            wxid: "wxid_a".into(),
            nickname: "李雷".into(),
            avatar: Some("http://a.example/b".into()),
            label_ids: vec!["8".into(), "7".into()],
            ..Brief::default()
        };
        assert_eq!(brief, expected);
    }
}
