//! Any text in any field.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::message::{MAX_TEXT_CHARS, Message, validate_wxid};
use crate::outbound_url::UrlPolicy;
use crate::process::telemetry::{new_trace_id, trace_id_of};
use crate::secret::Secret;
use crate::vault::Vault;

/// One character to whoever counts code points: an ideograph, an emoji outside the basic plane, a combining mark, one
/// of a family that is drawn as one.
const CHARACTERS: [char; 6] = ['汉', '😀', '\u{301}', 'a', '\u{200d}', '𠮷'];

fn any_message() -> impl Strategy<Value = Value> {
    let fields = prop::collection::vec(any::<String>(), 7);
    (0..10_usize, fields, any::<u32>()).prop_map(|(kind, f, n)| match kind {
        0 => json!({"kind": "text", "text": f[0], "ats": [f[1], f[2]]}),
        1 => json!({"kind": "image", "url": f[0]}),
        2 => json!({"kind": "file", "url": f[0], "name": f[1]}),
        3 => json!({"kind": "voice", "url": f[0], "duration_ms": n}),
        4 => json!({"kind": "video", "url": f[0], "thumb_url": f[1], "duration_s": n}),
        5 => json!({"kind": "link", "title": f[0], "desc": f[1], "url": f[2], "thumb_url": f[3]}),
        6 => json!({"kind": "mini_program", "app_id": f[0], "user_name": f[1], "title": f[2], "display_name": f[3],
            "page_path": f[4], "cover_url": f[5]}),
        7 => json!({"kind": "name_card", "wxid": f[0], "nickname": f[1]}),
        8 => json!({"kind": "emoji", "md5": f[0], "size": n}),
        _ => json!({"kind": "app_message", "xml": f[0]}),
    })
}

fn codes(message: &Value) -> Vec<&'static str> {
    let message: Message = serde_json::from_value(message.clone()).expect("a message");
    message.validate(&UrlPolicy::default()).iter().map(|problem| problem.code).collect()
}

proptest! {
    #[test]
    fn no_text_is_too_strange_to_be_checked(value in any_message()) {
        let message: Message = serde_json::from_value(value.clone()).expect("a message");
        let problems = message.validate(&UrlPolicy::default());
        prop_assert_eq!(&problems, &message.validate(&UrlPolicy::default()));
        for problem in problems {
            let fields = value.as_object().expect("fields").values().filter_map(Value::as_str);
            for text in fields.filter(|text| text.chars().count() > 5) {
                prop_assert!(!problem.message.contains(text), "{} repeats {text}", problem.message);
            }
        }
    }

    #[test]
    fn a_text_is_as_long_as_it_has_characters(
        characters in prop::collection::vec(select(&CHARACTERS[..]), 1..20),
        length in prop_oneof![Just(MAX_TEXT_CHARS), Just(MAX_TEXT_CHARS + 1), 1..2 * MAX_TEXT_CHARS],
    ) {
        let text: String = characters.iter().cycle().take(length).collect();
        let too_long = codes(&json!({"kind": "text", "text": text})).contains(&"too_long");
        prop_assert_eq!(too_long, length > MAX_TEXT_CHARS, "{} characters", length);
    }

    #[test]
    fn a_wxid_is_made_of_its_alphabet(wxid in prop_oneof!["[A-Za-z0-9_@.-]{0,70}", ".{0,70}"]) {
        let known = |c: char| c.is_ascii_alphanumeric() || "_@.-".contains(c);
        let fits = !wxid.is_empty() && wxid.chars().count() <= 64 && wxid.chars().all(known);
        prop_assert_eq!(validate_wxid(&wxid).is_ok(), fits);
    }

    #[test]
    fn a_trace_id_is_taken_whole_or_not_at_all(text in prop_oneof!["[0-9a-fA-F-]{0,60}", ".{0,60}", "00-[0-9a-f]{32}-[0-9a-f]{16}-01"]) {
        if let Some(id) = trace_id_of(&text) {
            prop_assert_eq!(id.len(), 32);
            let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            prop_assert!(id.bytes().all(lower));
            prop_assert_eq!(text.trim().split('-').nth(1), Some(id.as_str()));
        }
        let own = new_trace_id();
        let header = format!("00-{own}-00f067aa0ba902b7-01");
        prop_assert_eq!(trace_id_of(&header), Some(own));
    }

    #[test]
    fn a_sealed_text_opens_in_its_place_and_no_changed_one_does(secret in any::<String>(), place in any::<String>(), flip in any::<prop::sample::Index>()) {
        let vault = Vault::from_base64_key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("a key");
        let sealed = vault.seal(&Secret::new(secret.clone()), &place);
        let opened = vault.open(&sealed, &place).expect("opens");
        prop_assert_eq!(opened.expose(), secret.as_str());
        let elsewhere = vault.open(&sealed, &format!("{place}x"));
        prop_assert!(elsewhere.is_err());
        let mut changed = sealed.clone().into_bytes();
        let place_of_change = flip.index(changed.len());
        changed[place_of_change] = if changed[place_of_change] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        let opened = vault.open(&changed, &place);
        prop_assert!(changed == sealed || opened.is_err(), "{changed}");
    }
}
