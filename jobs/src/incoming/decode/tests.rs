use serde_json::json;

use super::*;
use crate::incoming::{AccountEvent, GroupEvent, Message};

const OWN: &str = "wxid_sandboxself0001";
const FRIEND: &str = "wxid_demo0000000009";
const GROUP: &str = "10000000001@chatroom";

fn arrival(body: &Value) -> Arrival {
    match read(body.to_string().as_bytes()).expect("an event") {
        Incoming::Event(arrival) => *arrival,
        Incoming::Probe => panic!("a probe: {body}"),
    }
}

fn message(body: &Value) -> Message {
    match event(body).what {
        What::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

fn classic(msg_type: i64, from: &str, to: &str, content: &str) -> Value {
    json!({"TypeName": "AddMsg", "Appid": "wx_SandboxDevice00000001", "Wxid": OWN, "Data": {
        "MsgId": 510_000_001, "FromUserName": {"string": from}, "ToUserName": {"string": to}, "MsgType": msg_type,
        "Content": {"string": content}, "Status": 3, "ImgStatus": 1, "ImgBuf": {"iLen": 0}, "CreateTime": 1_790_000_100,
        "MsgSource": "<msgsource></msgsource>", "PushContent": "李雷 : 你好", "NewMsgId": 7_300_000_000_000_000_101_u64,
        "MsgSeq": 810_000_001}})
}

fn flat(word: &str, fields: Value) -> Value {
    let mut body = json!({"appid": "wx_SandboxDevice00000001", "wxid": OWN, "msgType": word, "msgId": 510_000_001,
        "newMsgId": 7_300_000_000_000_000_101_u64, "createTime": 1_790_000_100_000_i64, "fromUser": FRIEND, "toUser": OWN,
        "pushContent": "李雷 : 你好", "isSelf": false});
    for (name, field) in fields.as_object().expect("fields") {
        body[name] = field.clone();
    }
    body
}

#[test]
fn a_text_is_the_same_in_both_formats_and_in_lower_case() {
    let nested = classic(1, FRIEND, OWN, "多少钱？");
    let mut lower = json!({"type_name": "AddMsg", "appid": "wx_SandboxDevice00000001", "wxid": OWN});
    lower["data"] = nested["Data"].clone();
    let flat = flat("TEXT", json!({"content": "多少钱？"}));
    let of_nested = event(&nested);
    assert_eq!(of_nested.key, "m:7300000000000000101");
    let said = message(&nested);
    assert_eq!((said.peer_wxid.as_str(), said.sender_wxid.as_str(), said.from_me), (FRIEND, FRIEND, false));
    assert_eq!(
        (said.kind, said.text.as_str(), said.sender_name.as_deref()),
        ("text", "多少钱？", Some("李雷"))
    );
    assert_eq!(
        (said.new_msg_id.as_str(), said.msg_id.as_deref()),
        ("7300000000000000101", Some("510000001"))
    );
    assert_eq!(said.sent_at.timestamp(), 1_790_000_100);
    for other in [lower, flat] {
        assert_eq!(message(&other), said);
        assert_eq!(event(&other).key, of_nested.key);
    }
    let mut as_text = nested;
    as_text["Data"]["NewMsgId"] = json!("7300000000000000101");
    assert_eq!(event(&as_text).key, of_nested.key);
}

#[test]
fn the_three_probes_and_an_empty_body_are_probes() {
    for probe in [
        "",
        " \n",
        "{}",
        r#"{"testMsg":"回调地址链接成功！","token":"t"}"#,
        r#"{"msg":"设置订阅成功!!","callBackUrl":"http://example.com/x"}"#,
        r#"{"message":"验证回调地址是否可用"}"#,
        r#""验证回调地址是否可用""#,
        "验证回调地址是否可用",
    ] {
        assert_eq!(read(probe.as_bytes()), Ok(Incoming::Probe), "{probe}");
    }
    for (body, error) in [
        ("{", Undecodable::NotJson),
        ("你好", Undecodable::NotJson),
        ("[]", Undecodable::NoDevice),
        ("1", Undecodable::NoDevice),
        (r#"{"TypeName":"AddMsg"}"#, Undecodable::NoDevice),
        (r#"{"Appid":7}"#, Undecodable::NoDevice),
    ] {
        assert_eq!(read(body.as_bytes()), Err(error), "{body}");
    }
}

#[test]
fn what_the_owner_types_on_the_phone_is_from_me() {
    for body in [
        classic(1, OWN, FRIEND, "我来回复"),
        flat("TEXT", json!({"fromUser": OWN, "toUser": FRIEND, "content": "我来回复", "isSelf": true})),
    ] {
        let said = message(&body);
        assert_eq!((said.peer_wxid.as_str(), said.sender_wxid.as_str(), said.from_me), (FRIEND, OWN, true));
        assert_eq!(said.sender_name, None);
    }
    let said = message(&classic(1, OWN, GROUP, "abc:\n大家好"));
    assert_eq!((said.peer_wxid.as_str(), said.sender_wxid.as_str(), said.from_me), (GROUP, OWN, true));
    assert_eq!(said.text, "abc:\n大家好");
    // The account's own wxid may be missing from the event.
    let mut body = classic(1, OWN, FRIEND, "我来回复");
    body.as_object_mut().expect("fields").remove("Wxid");
    let setting = Setting { own_wxid: Some(OWN), received_at: Utc::now() };
    assert!(matches!(event_in(&body, &setting).what, What::Message(Message { from_me: true, .. })));
}

#[test]
fn a_group_message_names_its_sender_and_who_is_mentioned() {
    let mut body = classic(1, GROUP, OWN, "wxid_demo0000000009:\n@小熵\u{2005}在吗");
    body["Data"]["MsgSource"] =
        json!(format!("<msgsource><atuserlist><![CDATA[,{OWN}]]></atuserlist></msgsource>"));
    body["Data"]["PushContent"] = json!("李雷在群聊中@了你");
    let said = message(&body);
    assert_eq!((said.peer_wxid.as_str(), said.sender_wxid.as_str()), (GROUP, FRIEND));
    assert_eq!(said.text, "@小熵\u{2005}在吗");
    assert!(said.is_group() && said.mentions_me && !said.mentions_all);
    assert_eq!(said.sender_name.as_deref(), Some("李雷"));
    let with_prefix = json!({"fromUser": FRIEND, "fromGroup": GROUP, "content": "wxid_demo0000000009:\n@小熵\u{2005}在吗",
        "pushContent": "李雷在群聊中@了你"});
    let mut without = with_prefix.clone();
    without["content"] = json!("@小熵\u{2005}在吗");
    let mut in_from = with_prefix.clone();
    in_from["fromUser"] = json!(GROUP);
    in_from["fromGroup"] = Value::Null;
    for fields in [with_prefix, without, in_from] {
        assert_eq!(message(&flat("TEXT", fields)), said);
    }
    let mut all = body.clone();
    all["Data"]["MsgSource"] = json!("<msgsource><atuserlist>notify@all</atuserlist></msgsource>");
    all["Data"]["PushContent"] = json!("李雷 : @所有人");
    let said = message(&all);
    assert!(said.mentions_all && !said.mentions_me);
    // A group's message that does not say which group is nobody's.
    let lost = flat("TEXT", json!({"content": "wxid_demo0000000009:\n在吗"}));
    assert_eq!(event(&lost).what, What::Unknown);
}

#[test]
fn every_type_of_message_has_its_kind() {
    let app = |inside: &str| format!("<msg><appmsg>{inside}</appmsg></msg>");
    let cases = [
        (3, "IMAGE", "<msg><img aeskey=\"a\" length=\"2048\" md5=\"m\"/></msg>".to_owned(), "image", ""),
        (34, "VOICE", "<msg><voicemsg voicelength=\"1500\" length=\"900\"/></msg>".into(), "voice", ""),
        (42, "CARD", "<msg username=\"v3_x\" nickname=\"韩梅梅\"/>".into(), "name_card", "韩梅梅"),
        (43, "VIDEO", "<msg><videomsg length=\"77\" playlength=\"8\"/></msg>".into(), "video", ""),
        (47, "EMOJI", "<msg><emoji md5=\"m\" cdnurl=\"http://x/y\"/></msg>".into(), "emoji", ""),
        (
            48,
            "LOCATION",
            "<msg><location x=\"31.2\" y=\"121.4\" label=\"南京路1号\" poiname=\"外滩\"/></msg>".into(),
            "location",
            "外滩 南京路1号",
        ),
        (
            49,
            "LINK",
            app("<title>新品</title><des>介绍</des><type>5</type><url>https://a/b</url>"),
            "link",
            "新品",
        ),
        (
            49,
            "FILE",
            app("<title>报价.pdf</title><type>6</type><appattach><totallen>12345</totallen>\
            <fileext>pdf</fileext></appattach>"),
            "file",
            "报价.pdf",
        ),
        (49, "CHAT_RECORD", app("<title>聊天记录</title><type>19</type>"), "chat_record", "聊天记录"),
        (
            49,
            "MINI_PROGRAM",
            app("<title>下单</title><type>33</type><weappinfo><appid>wx1</appid></weappinfo>"),
            "mini_program",
            "下单",
        ),
        (
            49,
            "FINDER_FEED",
            app("<title>x</title><type>51</type><finderFeed><nickname>号主</nickname><desc>视频</desc>\
            </finderFeed>"),
            "channel_feed",
            "号主：视频",
        ),
        (
            49,
            "QUOTE",
            app(
                "<title>就要这个</title><type>57</type><refermsg><type>1</type><svrid>7300000000000000100</svrid>\
            <content>A 款</content></refermsg>",
            ),
            "quote",
            "就要这个",
        ),
        (
            49,
            "TRANSFER",
            app("<type>2000</type><wcpayinfo><feedesc>￥0.10</feedesc><pay_memo>定金</pay_memo></wcpayinfo>"),
            "transfer",
            "￥0.10 定金",
        ),
        (
            49,
            "RED_PACKET",
            app("<type>2001</type><wcpayinfo><sendertitle>恭喜发财</sendertitle></wcpayinfo>"),
            "red_packet",
            "恭喜发财",
        ),
        (49, "APP_MSG", app("<title>歌</title><type>3</type><url>https://a/m</url>"), "link", "歌"),
        (49, "APP_MSG", app("<title>新花样</title><type>4711</type>"), "other", "新花样"),
        (49, "APP_MSG", "<msg><appmsg><title>坏的".into(), "other", "<msg><appmsg><title>坏的"),
    ];
    for (number, word, content, kind, text) in cases {
        let nested = message(&classic(number, FRIEND, OWN, &content));
        assert_eq!((nested.kind, nested.text.as_str()), (kind, text), "{content}");
        assert_eq!(message(&flat(word, json!({"content": content}))), nested);
        let downloadable = ["image", "voice", "video", "file"].contains(&kind);
        assert_eq!(nested.media.is_some(), downloadable, "{content}");
        if let Some(media) = nested.media {
            assert_eq!(media.xml, content);
            assert!(media.bytes.is_some());
        }
    }
    let quote = message(&classic(
        49,
        FRIEND,
        OWN,
        &app("<title>要</title><type>57</type><refermsg><type>49</type>\
        <svrid>73</svrid><content>&lt;msg&gt;&lt;appmsg&gt;&lt;title&gt;报价&lt;/title&gt;&lt;/appmsg&gt;&lt;/msg&gt;</content>\
        </refermsg>"),
    ));
    assert_eq!(quote.content.expect("content")["quoted"]["text"], "报价");
    assert_eq!(message(&classic(50, FRIEND, OWN, "<voip/>")).kind, "call");
}

#[test]
fn what_is_of_no_consequence_is_ignored_and_what_nobody_knows_is_unknown() {
    for body in [
        classic(51, OWN, OWN, "<msg><op id='4'/></msg>"),
        classic(49, FRIEND, OWN, "<msg><appmsg><title>a.pdf</title><type>74</type></appmsg></msg>"),
        classic(10_002, FRIEND, OWN, "<sysmsg type=\"pat\"><pat/></sysmsg>"),
        classic(10_002, "weixin", OWN, "<sysmsg type=\"dynacfg\"/>"),
        json!({"TypeName": "FinderMsg", "Appid": "wx_1", "Data": {}}),
        flat("PAT_MSG", json!({"content": "拍了拍"})),
        json!({"appid": "wx_1", "msgType": "Long_Serve_Close"}),
    ] {
        assert_eq!(event(&body).what, What::Ignored, "{body}");
    }
    for body in [
        classic(4711, FRIEND, OWN, "?"),
        classic(10_002, FRIEND, OWN, "<sysmsg type=\"brandneu\"/>"),
        classic(1, "weird wxid!", OWN, "x"),
        json!({"TypeName": "Neuigkeit", "Appid": "wx_1"}),
        json!({"Appid": "wx_1"}),
        json!({"TypeName": "ModContacts", "Appid": "wx_1", "Data": {"UserName": {}}}),
        flat("UNKNOWN", json!({"content": "x"})),
    ] {
        assert_eq!(event(&body).what, What::Unknown, "{body}");
    }
}

#[test]
fn notices_are_recalls_group_events_or_lines_of_the_chat() {
    let recall = "<sysmsg type=\"revokemsg\"><revokemsg><session>wxid_demo0000000009</session><msgid>510000001</msgid>\
        <newmsgid>7300000000000000101</newmsgid></revokemsg></sysmsg>";
    let mut nested = classic(10_002, FRIEND, OWN, recall);
    nested["Data"]["NewMsgId"] = json!(510_000_777);
    let flat_one = flat("REVOKE_MSG", json!({"content": recall, "newMsgId": 510_000_778}));
    let expected = What::Recalled { peer_wxid: FRIEND.into(), new_msg_id: "7300000000000000101".into() };
    assert_eq!(event(&nested).what, expected);
    assert_eq!(event(&nested).key, event(&flat_one).key);
    assert_eq!(event(&flat_one).what, expected);

    let text = "你被\"李雷\"移出群聊";
    let removed = What::Group { group_wxid: GROUP.into(), what: GroupEvent::Left, text: text.into() };
    let stamp = 1_790_000_100;
    let nested = classic(10_000, GROUP, OWN, text);
    let system =
        flat("SYSTEM", json!({"fromUser": GROUP, "content": text, "msgId": stamp, "newMsgId": stamp}));
    let word = flat("REMOVE_FROM_GROUP", json!({"fromUser": GROUP, "content": text}));
    for body in [&nested, &system, &word] {
        assert_eq!(event(body).what, removed, "{body}");
        assert_eq!(event(body).key, event(&nested).key, "{body}");
    }
    let line = message(&classic(10_000, FRIEND, OWN, "你已添加了李雷，现在可以开始聊天了。"));
    assert_eq!((line.kind, line.peer_wxid.as_str()), ("system", FRIEND));
    let announcement = "<sysmsg type=\"mmchatroombarannouncememt\"><mmchatroombarannouncememt><content>明天放假</content>\
        </mmchatroombarannouncememt></sysmsg>";
    let announced =
        What::Group { group_wxid: GROUP.into(), what: GroupEvent::Announced, text: "明天放假".into() };
    assert_eq!(event(&classic(10_002, FRIEND, GROUP, announcement)).what, announced);
}

#[test]
fn two_notices_of_one_second_with_the_same_borrowed_id_are_two() {
    let stamp = 1_790_000_100;
    let notice = |text| flat("SYSTEM", json!({"content": text, "msgId": stamp, "newMsgId": stamp}));
    assert_ne!(event(&notice("甲")).key, event(&notice("乙")).key);
    assert!(event(&notice("甲")).key.starts_with("h:"));
}

#[test]
fn contacts_come_change_and_go() {
    let nested = json!({"TypeName": "ModContacts", "Appid": "wx_1", "Data": {"UserName": {"string": FRIEND},
        "NickName": {"string": "李雷"}, "Remark": {"string": ""}, "Alias": "lilei", "SmallHeadImgUrl": "https://a/b",
        "Description": "\u{1}\u{2}"}});
    let What::ContactChanged(change) = event(&nested).what else { panic!("no change") };
    assert_eq!(change.wxid, FRIEND);
    assert_eq!((change.nickname.as_deref(), change.remark.as_deref()), (Some("李雷"), Some("")));
    assert_eq!((change.alias.as_deref(), change.avatar.as_deref()), (Some("lilei"), Some("https://a/b")));
    assert!(!change.became_friend);
    let confirmed = event(&flat("FRIEND_CONFIRM", json!({"content": "x"}))).what;
    assert!(
        matches!(confirmed, What::ContactChanged(change) if change.wxid == FRIEND && change.became_friend)
    );
    let gone = What::ContactRemoved { wxid: FRIEND.into() };
    let deleted =
        json!({"TypeName": "DelContacts", "Appid": "wx_1", "Data": {"UserName": {"string": FRIEND}}});
    assert_eq!(event(&deleted).what, gone);
    assert_eq!(event(&flat("DEL_CONTACTS", json!({"userName": FRIEND}))).what, gone);
    assert_eq!(
        event(&flat("DEL_CONTACTS", json!({"content": format!("{{\"UserName\":\"{FRIEND}\"}}")}))).what,
        gone
    );
    let request = "<msg fromusername=\"wxid_demo0000000010\" encryptusername=\"v3_x@stranger\" fromnickname=\"小金\" \
        content=\"我是小金\" scene=\"6\" ticket=\"v4_x@stranger\"/>";
    let asked = What::FriendRequest {
        wxid: "wxid_demo0000000010".into(),
        nickname: "小金".into(),
        greeting: "我是小金".into(),
    };
    assert_eq!(event(&classic(37, "fmessage", OWN, request)).what, asked);
    assert_eq!(
        event(&flat("FRIEND_VERIFY", json!({"fromUser": "fmessage", "content": request}))).what,
        asked
    );
}

#[test]
fn an_account_comes_and_goes_again_and_each_time_counts() {
    for (word, expected) in [
        ("LOGIN_SUCCESS", AccountEvent::Online),
        ("RECONNECT_SUCCESS", AccountEvent::Online),
        ("LONG_SUCCESS", AccountEvent::Online),
        ("LONG_CONNECTED", AccountEvent::Online),
        ("LOGIN_ERROR", AccountEvent::LoginFailed),
        ("LOGOUT", AccountEvent::LoggedOut),
        ("Offline", AccountEvent::Offline),
        ("RECONNECT_FAIL", AccountEvent::Offline),
        ("RECONNECT_FAILED", AccountEvent::Offline),
        ("RECONNECT_START", AccountEvent::Reconnecting),
        ("LONG_DISCONNECTED", AccountEvent::Reconnecting),
        ("LONG_FAIL", AccountEvent::Reconnecting),
    ] {
        let body =
            json!({"appid": "wx_1", "wxid": OWN, "msgType": word, "createTime": 1_790_000_200_000_i64});
        let arrival = arrival(&body);
        assert_eq!(arrival.event.what, What::Account(expected), "{word}");
        assert_eq!(arrival.repeats_after_s, None, "its time tells it from the next one");
    }
    let offline = arrival(&json!({"TypeName": "Offline", "Appid": "wx_1", "Wxid": OWN}));
    assert_eq!(offline.event.what, What::Account(AccountEvent::Offline));
    let at = |seconds| DateTime::from_timestamp(seconds, 0).expect("a time");
    assert_eq!(offline.key(at(1_790_000_040)), offline.key(at(1_790_000_099)));
    assert_ne!(offline.key(at(1_790_000_040)), offline.key(at(1_790_000_100)));
    let text = arrival(&classic(1, FRIEND, OWN, "在吗"));
    assert_eq!(text.key(at(0)), "m:7300000000000000101");
}

#[test]
fn pictures_are_left_out_and_short_voices_kept() {
    let mut image = classic(3, FRIEND, OWN, "<msg><img/></msg>");
    image["Data"]["ImgBuf"] = json!({"iLen": 9, "buffer": "AAAAAAAAAAAA"});
    assert_eq!(arrival(&image).body["Data"]["ImgBuf"], json!({"iLen": 9}));
    let mut voice = classic(34, FRIEND, OWN, "<msg><voicemsg length=\"9\"/></msg>");
    voice["Data"]["ImgBuf"] = json!({"iLen": 9, "buffer": "AAAAAAAAAAAA"});
    let kept = arrival(&voice);
    assert_eq!(kept.body["Data"]["ImgBuf"]["buffer"], "AAAAAAAAAAAA");
    let What::Message(said) = kept.event.what else { panic!("no message") };
    assert_eq!(said.content.expect("content")["inline"], true);
    voice["Data"]["ImgBuf"]["buffer"] = json!("A".repeat(MAX_VOICE + 1));
    assert_eq!(arrival(&voice).body["Data"]["ImgBuf"], json!({"iLen": 9}));
}

#[test]
fn hostile_texts_become_texts_that_can_be_stored() {
    let body = classic(1, FRIEND, OWN, &format!("a\0b\u{1}{}", "长".repeat(30_000)));
    let said = message(&body);
    assert_eq!(said.text.chars().count(), MAX_TEXT);
    assert!(said.text.starts_with("ab长"));
    let stored = arrival(&body).body.to_string();
    assert!(!stored.contains("\\u0000"));
    let broken =
        br#"{"TypeName":"AddMsg","Appid":"wx_1","Wxid":"wxid_a","Data":{"FromUserName":{"string":"wxid_b"},
        "ToUserName":{"string":"wxid_a"},"MsgType":1,"Content":{"string":"x\ud83dy"},"NewMsgId":9}}"#;
    let Ok(Incoming::Event(arrival)) = read(broken) else { panic!("not read") };
    assert!(matches!(arrival.event.what, What::Message(Message { text, .. }) if text == "x\u{fffd}y"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read(deep.as_bytes()), Err(Undecodable::NotJson));
}
