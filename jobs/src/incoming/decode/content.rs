//! What a message holds, by its type: the text for people, what the kind has beside it, what there is to download.

use serde_json::{Value, json};

use super::fields::{clean, number_of};
use super::xml::{self, Element};
use crate::incoming::Media;

/// Characters of a message's text that are kept.
pub(super) const MAX_TEXT: usize = 20_000;
/// Characters of a title, name or address that are kept.
pub(super) const MAX_TITLE: usize = 1000;

/// What a message holds.
#[derive(Debug, PartialEq)]
pub(super) struct Content {
    pub(super) kind: &'static str,
    pub(super) text: String,
    pub(super) content: Option<Value>,
    pub(super) media: Option<Media>,
}

/// What a type of message came to.
#[derive(Debug, PartialEq)]
pub(super) enum Read {
    /// A message.
    Content(Content),
    /// Known to be of no consequence.
    Nothing,
    /// No type that we know.
    Unknown,
}

/// Reads a message of the classic `MsgType`. `silk`: the voice itself came with it.
pub(super) fn read(msg_type: i64, text: &str, silk: bool) -> Read {
    let document = || xml::read(text);
    let content = match msg_type {
        1 => Some(plain("text", text)),
        3 => document().and_then(|root| image(&root, text)),
        34 => document().and_then(|root| voice(&root, text, silk)),
        42 => document().map(|root| name_card(&root)),
        43 => document().and_then(|root| video(&root, text)),
        47 => document().map(|root| emoji(&root)),
        48 => document().and_then(|root| location(&root)),
        49 => match document().as_ref().and_then(|root| root.find("appmsg")) {
            Some(message) => match app_message(message, text) {
                Some(content) => Some(content),
                None => return Read::Nothing,
            },
            None => None,
        },
        50 => Some(Content { kind: "call", text: String::new(), content: None, media: None }),
        51 => return Read::Nothing,
        _ => return Read::Unknown,
    };
    // Somebody wrote something, and a person can still read it.
    Read::Content(content.unwrap_or_else(|| plain("other", text)))
}

fn plain(kind: &'static str, text: &str) -> Content {
    Content { kind, text: clean(text, MAX_TEXT), content: None, media: None }
}

fn media(xml: &str, bytes: Option<&str>) -> Option<Media> {
    let bytes = bytes.and_then(|bytes| bytes.parse().ok());
    Some(Media { xml: xml.replace('\0', ""), bytes })
}

fn title(text: Option<&str>) -> Option<String> {
    Some(clean(text?, MAX_TITLE)).filter(|text| !text.is_empty())
}

fn number(text: Option<&str>) -> Option<i64> {
    text?.trim().parse().ok()
}

fn image(root: &Element, xml: &str) -> Option<Content> {
    let image = root.find("img")?;
    let bytes = image.attribute("hdlength").or_else(|| image.attribute("length"));
    let content = json!({"md5": title(image.attribute("md5"))});
    Some(Content { kind: "image", text: String::new(), content: Some(content), media: media(xml, bytes) })
}

fn voice(root: &Element, xml: &str, silk: bool) -> Option<Content> {
    let voice = root.find("voicemsg")?;
    // `inline`: the sound itself is in the event's body.
    let content = json!({"duration_ms": number(voice.attribute("voicelength")), "inline": silk});
    Some(Content {
        kind: "voice",
        text: String::new(),
        content: Some(content),
        media: media(xml, voice.attribute("length")),
    })
}

fn video(root: &Element, xml: &str) -> Option<Content> {
    let video = root.find("videomsg")?;
    let content = json!({"duration_s": number(video.attribute("playlength"))});
    Some(Content {
        kind: "video",
        text: String::new(),
        content: Some(content),
        media: media(xml, video.attribute("length")),
    })
}

fn emoji(root: &Element) -> Content {
    let emoji = root.find("emoji").unwrap_or(root);
    let content = json!({"md5": title(emoji.attribute("md5")), "url": title(emoji.attribute("cdnurl"))});
    Content { kind: "emoji", text: String::new(), content: Some(content), media: None }
}

fn name_card(root: &Element) -> Content {
    let nickname = title(root.attribute("nickname"));
    let content = json!({
        "username": title(root.attribute("username")),
        "nickname": nickname,
        "alias": title(root.attribute("alias")),
        "province": title(root.attribute("province")),
        "city": title(root.attribute("city")),
    });
    Content { kind: "name_card", text: nickname.unwrap_or_default(), content: Some(content), media: None }
}

fn location(root: &Element) -> Option<Content> {
    let place = root.find("location")?;
    let (label, name) = (title(place.attribute("label")), title(place.attribute("poiname")));
    let content = json!({
        "latitude": title(place.attribute("x")),
        "longitude": title(place.attribute("y")),
        "label": label,
        "name": name,
        "city": title(place.attribute("cityname")),
    });
    let text = [name, label].into_iter().flatten().collect::<Vec<_>>().join(" ");
    Some(Content { kind: "location", text, content: Some(content), media: None })
}

/// None: the notice that an upload began; the file follows as a message of its own.
fn app_message(message: &Element, xml: &str) -> Option<Content> {
    let app_type = number(message.text_of("type")).unwrap_or_default();
    let name = title(message.text_of("title"));
    let description = title(message.text_of("des"));
    let text = message.text_of("title").map(|text| clean(text, MAX_TEXT)).unwrap_or_default();
    let url = title(message.text_of("url"));
    let mut found = Content { kind: "other", text, content: None, media: None };
    let content = match app_type {
        74 => return None,
        6 => {
            found.kind = "file";
            let attachment = message.child("appattach");
            let of = |name: &str| attachment.and_then(|attachment| attachment.text_of(name));
            found.media = media(xml, of("totallen"));
            json!({
                "name": name,
                "bytes": number(of("totallen")),
                "extension": title(of("fileext")),
                "notice_new_msg_id": id(of("overwrite_newmsgid")),
            })
        }
        19 | 40 => {
            found.kind = "chat_record";
            json!({"title": name, "description": description})
        }
        33 | 36 => {
            found.kind = "mini_program";
            let program = message.child("weappinfo");
            let of = |name: &str| title(program.and_then(|program| program.text_of(name)));
            json!({
                "title": name,
                "display_name": title(message.text_of("sourcedisplayname")),
                "username": of("username"),
                "app_id": of("appid"),
                "path": of("pagepath"),
                "icon": of("weappiconurl"),
            })
        }
        51 => {
            found.kind = "channel_feed";
            let feed = message.child("finderFeed");
            let of = |name: &str| title(feed.and_then(|feed| feed.text_of(name)));
            found.text = [of("nickname"), of("desc")].into_iter().flatten().collect::<Vec<_>>().join("：");
            json!({
                "object_id": of("objectId"),
                "object_nonce_id": of("objectNonceId"),
                "username": of("username"),
                "nickname": of("nickname"),
                "description": of("desc"),
            })
        }
        57 => {
            found.kind = "quote";
            let quoted = message.child("refermsg");
            let of = |name: &str| quoted.and_then(|quoted| quoted.text_of(name));
            json!({"quoted": {
                "new_msg_id": id(of("svrid")),
                "type": number(of("type")),
                "sender_wxid": title(of("chatusr").or(of("fromusr"))),
                "sender_name": title(of("displayname")),
                "text": quoted_text(number(of("type")), of("content").unwrap_or_default()),
            }})
        }
        2000 => {
            found.kind = "transfer";
            let pay = message.child("wcpayinfo");
            let of = |name: &str| title(pay.and_then(|pay| pay.text_of(name)));
            let memo = of("pay_memo");
            found.text = [of("feedesc"), memo.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ");
            json!({
                "step": number(pay.and_then(|pay| pay.text_of("paysubtype"))),
                "amount": of("feedesc"),
                "memo": memo,
                // So the provider spells it.
                "transaction_id": of("transcationid"),
                "transfer_id": of("transferid"),
            })
        }
        2001 => {
            found.kind = "red_packet";
            let pay = message.child("wcpayinfo");
            let of = |name: &str| title(pay.and_then(|pay| pay.text_of(name)));
            found.text = of("sendertitle").unwrap_or(found.text);
            json!({"title": of("sendertitle"), "pay_msg_id": of("paymsgid")})
        }
        // A link by its type, or by what it has: music and videos of other apps.
        _ if app_type == 5 || url.is_some() => {
            found.kind = "link";
            json!({
                "title": name,
                "description": description,
                "url": url,
                "thumbnail": title(message.text_of("thumburl")),
                "source": title(message.text_of("sourcedisplayname").or(message.text_of("sourceusername"))),
            })
        }
        other => json!({"app_type": other, "title": name, "description": description}),
    };
    found.content = Some(content);
    Some(found)
}

fn id(text: Option<&str>) -> Option<String> {
    number_of(text?).filter(|number| *number != 0).map(|number| number.to_string())
}

/// What a person reads of a message that was quoted.
fn quoted_text(msg_type: Option<i64>, text: &str) -> String {
    if msg_type == Some(1) || !text.trim_start().starts_with('<') {
        return clean(text, MAX_TITLE);
    }
    let title_of = |root: Element| root.find("appmsg").and_then(|message| title(message.text_of("title")));
    xml::read(text).and_then(title_of).unwrap_or_default()
}
