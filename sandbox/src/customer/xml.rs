//! The XML inside messages, as WeChat writes it.

use super::requests::Fields;

/// Escapes a text for an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

pub(super) fn image(fields: &Fields) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<msg>\n\t<img aeskey=\"{key}\" encryver=\"1\" cdnthumbaeskey=\"{key}\" \
         cdnthumburl=\"3057020100044b{key}\" cdnthumblength=\"2048\" cdnmidimgurl=\"3057020100044b{key}\" \
         length=\"{length}\" md5=\"{key}\" />\n</msg>",
        key = fields.media_id,
        length = fields.bytes,
    )
}

pub(super) fn voice(fields: &Fields) -> String {
    format!(
        "<msg><voicemsg endflag=\"1\" cancelflag=\"0\" forwardflag=\"0\" voiceformat=\"4\" voicelength=\"{}\" \
         length=\"{}\" bufid=\"0\" aeskey=\"{key}\" voiceurl=\"3052020100044b{key}\" voicemd5=\"\" \
         clientmsgid=\"49{key}\" fromusername=\"{}\" /></msg>",
        fields.seconds * 1000,
        fields.bytes,
        escape(&fields.sender),
        key = fields.media_id,
    )
}

pub(super) fn video(fields: &Fields) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<msg>\n\t<videomsg aeskey=\"{key}\" cdnvideourl=\"3057020100044b{key}\" \
         cdnthumbaeskey=\"{key}\" cdnthumburl=\"3057020100044b{key}\" length=\"{}\" playlength=\"{}\" \
         cdnthumblength=\"8063\" fromusername=\"{}\" md5=\"{key}\" isad=\"0\" />\n</msg>",
        fields.bytes,
        fields.seconds,
        escape(&fields.sender),
        key = fields.media_id,
    )
}

pub(super) fn emoji(fields: &Fields) -> String {
    format!(
        "<msg><emoji fromusername=\"{}\" type=\"2\" idbuffer=\"media:0_0\" md5=\"{key}\" len=\"{}\" \
         cdnurl=\"http://wxapp.tc.qq.com/{key}\" aeskey=\"{key}\" width=\"240\" height=\"240\" /></msg>",
        escape(&fields.sender),
        fields.bytes,
        key = fields.media_id,
    )
}

pub(super) fn location(fields: &Fields) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<msg>\n\t<location x=\"39.903740\" y=\"116.397827\" scale=\"15\" label=\"{}\" \
         poiname=\"{}\" poiid=\"City\" maptype=\"roadmap\" cityname=\"北京市\" />\n</msg>",
        escape(&fields.description),
        escape(&fields.title),
    )
}

pub(super) fn name_card(fields: &Fields) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<msg username=\"v3_{key}@stranger\" nickname=\"{}\" alias=\"\" sex=\"1\" \
         province=\"江苏\" city=\"南京\" antispamticket=\"v4_{key}@stranger\" />\n",
        escape(&fields.title),
        key = fields.media_id,
    )
}

pub(super) fn friend_request(fields: &Fields) -> String {
    format!(
        "<msg fromusername=\"{}\" encryptusername=\"v3_{key}@stranger\" fromnickname=\"{}\" content=\"{}\" \
         scene=\"6\" ticket=\"v4_{key}@stranger\" />",
        escape(&fields.sender),
        escape(&fields.nickname),
        escape(&fields.text),
        key = fields.media_id,
    )
}

/// An `appmsg` with what its type adds.
pub(super) fn app(fields: &Fields, app_type: u16, inner: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<msg>\n\t<appmsg appid=\"\" sdkver=\"0\">\n\t\t<title>{}</title>\n\t\t<des>{}</des>\n\
         \t\t<type>{app_type}</type>\n\t\t<url>{}</url>\n\t\t{inner}\n\t</appmsg>\n\t\
         <fromusername>{}</fromusername>\n\t<scene>0</scene>\n</msg>\n",
        escape(&fields.title),
        escape(&fields.description),
        escape(&fields.url),
        escape(&fields.sender),
    )
}

pub(super) fn attachment(fields: &Fields) -> String {
    let extension = fields.title.rsplit_once('.').map_or("bin", |(_, extension)| extension);
    format!(
        "<appattach><totallen>{}</totallen><fileext>{}</fileext><attachid>@cdn_{key}_1</attachid>\
         <cdnattachurl>3057020100044b{key}</cdnattachurl><aeskey>{key}</aeskey></appattach><md5>{key}</md5>",
        fields.bytes,
        escape(extension),
        key = fields.media_id,
    )
}

pub(super) fn quoted(fields: &Fields, own_wxid: &str) -> String {
    let Some(quote) = &fields.quote else { return String::new() };
    format!(
        "<refermsg><type>1</type><svrid>{}</svrid><fromusr>{}</fromusr><chatusr>{}</chatusr>\
         <displayname>{}</displayname><content>{}</content></refermsg>",
        escape(&quote.new_msg_id),
        escape(quote.from.as_deref().unwrap_or(own_wxid)),
        escape(&fields.sender),
        escape(&fields.nickname),
        escape(&quote.text),
    )
}

pub(super) fn revoked(session: &str, msg_id: u32, new_msg_id: &str, nickname: &str) -> String {
    format!(
        "<sysmsg type=\"revokemsg\"><revokemsg><session>{}</session><msgid>{msg_id}</msgid>\
         <newmsgid>{}</newmsgid><replacemsg><![CDATA[\"{}\" 撤回了一条消息]]></replacemsg></revokemsg></sysmsg>",
        escape(session),
        escape(new_msg_id),
        nickname.replace("]]>", ""),
    )
}

/// A notice of a group: who came, who went.
pub(super) fn template(text: &str, link_name: &str, wxid: &str, nickname: &str) -> String {
    format!(
        "<sysmsg type=\"sysmsgtemplate\"><sysmsgtemplate><content_template type=\"tmpl_type_profile\">\
         <plain><![CDATA[]]></plain><template><![CDATA[{}]]></template><link_list>\
         <link name=\"{link_name}\" type=\"link_profile\"><memberlist><member><username><![CDATA[{}]]></username>\
         <nickname><![CDATA[{}]]></nickname></member></memberlist></link></link_list></content_template>\
         </sysmsgtemplate></sysmsg>",
        text.replace("]]>", ""),
        wxid.replace("]]>", ""),
        nickname.replace("]]>", ""),
    )
}

pub(super) fn announcement(text: &str) -> String {
    format!(
        "<sysmsg type=\"mmchatroombarannouncememt\"><mmchatroombarannouncememt><content><![CDATA[{}]]></content>\
         </mmchatroombarannouncememt></sysmsg>",
        text.replace("]]>", "")
    )
}

/// Whom a message mentions.
pub(super) fn source(mentioned: &[String]) -> String {
    if mentioned.is_empty() {
        return "<msgsource></msgsource>".to_owned();
    }
    format!("<msgsource><atuserlist><![CDATA[,{}]]></atuserlist></msgsource>", mentioned.join(","))
}
