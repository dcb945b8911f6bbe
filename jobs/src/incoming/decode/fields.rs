//! Reads single fields of a callback, however its sender spells and wraps them.

use chrono::{DateTime, TimeDelta, Utc};
use ring::digest::{Context, SHA256};
use serde_json::{Map, Value};

use crate::canonical::canonical;
use crate::message::validate_wxid;

/// An object with more fields is looked into by exact names only.
const MAX_LOOSE_FIELDS: usize = 256;

/// Returns a field by its name, or by the same letters in another case or with underscores.
pub(super) fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let object: &Map<String, Value> = object.as_object()?;
    if let Some(found) = object.get(name) {
        return Some(found);
    }
    if object.len() > MAX_LOOSE_FIELDS {
        return None;
    }
    let same = |known: &str| {
        let mut letters = known.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase());
        name.bytes().all(|byte| letters.next() == Some(byte.to_ascii_lowercase())) && letters.next().is_none()
    };
    object.iter().find(|(known, _)| same(known)).map(|(_, value)| value)
}

/// Returns a field's text, also if it is wrapped as `{"string": ..}`.
pub(super) fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    match field(object, name)? {
        Value::String(text) => Some(text),
        wrapped @ Value::Object(_) => field(wrapped, "string")?.as_str(),
        _ => None,
    }
}

/// Returns a field's text for people: cleaned, trimmed, not empty.
pub(super) fn words(object: &Value, name: &str, most: usize) -> Option<String> {
    Some(clean(text(object, name)?.trim(), most)).filter(|text| !text.is_empty())
}

/// Returns an id as the decimal number that it is, whether it was written as a number or as a text. Zero is no id.
pub(super) fn id(object: &Value, name: &str) -> Option<String> {
    let number = match field(object, name)? {
        Value::Number(number) => {
            number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from))?
        }
        Value::String(text) => number_of(text)?,
        _ => return None,
    };
    (number != 0).then(|| number.to_string())
}

/// Reads a text as the 64-bit number that an id is.
pub(super) fn number_of(text: &str) -> Option<i128> {
    let number: i128 = text.trim().parse().ok()?;
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number).then_some(number)
}

/// Returns a field's whole number.
pub(super) fn number(object: &Value, name: &str) -> Option<i64> {
    match field(object, name)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Returns whether a field says yes.
pub(super) fn yes(object: &Value, name: &str) -> Option<bool> {
    match field(object, name)? {
        Value::Bool(yes) => Some(*yes),
        Value::Number(number) => Some(number.as_i64() == Some(1)),
        Value::String(text) => Some(text.eq_ignore_ascii_case("true") || text == "1"),
        _ => None,
    }
}

/// Returns a field's wxid, if it is one.
pub(super) fn wxid(object: &Value, name: &str) -> Option<String> {
    let text = text(object, name)?.trim();
    is_wxid(text).then(|| text.to_owned())
}

/// Tells whether a text can be the name of a person or a group.
pub(super) fn is_wxid(text: &str) -> bool {
    validate_wxid(text).is_ok()
}

/// Returns a time in seconds or milliseconds. A time that cannot be is none.
pub(super) fn time(object: &Value, name: &str, received_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let number = number(object, name)?;
    // As seconds, that is the year 5138.
    let time = match number {
        100_000_000_000.. => DateTime::from_timestamp_millis(number),
        1.. => DateTime::from_timestamp(number, 0),
        _ => None,
    }?;
    // The provider's clock may be ahead, by minutes; a later time is an error or a lie.
    (time <= received_at + TimeDelta::hours(1)).then_some(time)
}

/// Takes out what no text for people has, and what Postgres does not store; cuts to `most` characters.
pub(super) fn clean(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).take(most).collect()
}

/// Returns `h:` and a hash of what names an event that has no id.
pub(super) fn hash_key(parts: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        // Lengths keep ["ab", "c"] and ["a", "bc"] apart.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    key_of(context)
}

/// Returns `h:` and a hash of what a body says, however its fields are ordered and whichever device said it.
pub(super) fn body_key(body: &Value) -> String {
    let mut context = Context::new(&SHA256);
    let mut write = |text: &str| context.update(text.as_bytes());
    match body {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields
                .iter()
                .filter(|(name, _)| {
                    !["appid", "wxid", "token"].iter().any(|known| name.eq_ignore_ascii_case(known))
                })
                .collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            for (name, value) in fields {
                write(name);
                canonical(value, &mut write);
            }
        }
        other => canonical(other, &mut write),
    }
    key_of(context)
}

fn key_of(context: Context) -> String {
    let digest = context.finish();
    digest.as_ref().iter().fold("h:".to_owned(), |mut key, byte| {
        key.push_str(&format!("{byte:02x}"));
        key
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_found_in_any_spelling() {
        let body =
            json!({"type_name": "AddMsg", "APPID": "wx_1", "Data": {"FromUserName": {"string": "wxid_a"}}});
        assert_eq!(text(&body, "TypeName"), Some("AddMsg"));
        assert_eq!(text(&body, "Appid"), Some("wx_1"));
        assert_eq!(text(&body, "AppidX"), None);
        assert_eq!(text(field(&body, "data").expect("data"), "FromUserName"), Some("wxid_a"));
    }

    #[test]
    fn ids_keep_all_their_digits() {
        let body = json!({"a": 7_300_000_000_000_000_101_u64, "b": "18446744073709551615", "c": 0, "d": 1.5,
            "e": "99999999999999999999", "f": -5, "g": " 7 "});
        let read = |name| id(&body, name);
        assert_eq!(read("a").as_deref(), Some("7300000000000000101"));
        assert_eq!(read("b").as_deref(), Some("18446744073709551615"));
        assert_eq!((read("c"), read("d"), read("e")), (None, None, None));
        assert_eq!((read("f").as_deref(), read("g").as_deref()), (Some("-5"), Some("7")));
    }

    #[test]
    fn times_are_read_in_both_units_and_never_from_a_far_future() {
        let now = DateTime::from_timestamp(1_790_000_200, 0).expect("a time");
        let body = json!({"s": 1_790_000_100, "ms": 1_790_000_100_000_i64, "text": "1790000100", "far": 95_000_000_000_i64,
            "farther": i64::MAX, "none": 0, "before": -5});
        let expected = DateTime::from_timestamp(1_790_000_100, 0);
        for name in ["s", "ms", "text"] {
            assert_eq!(time(&body, name, now), expected, "{name}");
        }
        for name in ["far", "farther", "none", "before", "missing"] {
            assert_eq!(time(&body, name, now), None, "{name}");
        }
    }

    #[test]
    fn a_text_is_cleaned_and_cut_by_characters() {
        assert_eq!(clean("你\0好\u{7}\n😀吗", 4), "你好\n😀");
    }

    #[test]
    fn the_order_of_fields_and_the_device_do_not_change_a_key() {
        let key = |text: &str| body_key(&serde_json::from_str(text).expect("JSON"));
        let one = key(r#"{"TypeName":"X","Appid":"wx_1","Data":{"a":1,"b":2}}"#);
        assert_eq!(one, key(r#"{"Data":{"b":2,"a":1},"Appid":"wx_2","TypeName":"X"}"#));
        assert_ne!(one, key(r#"{"TypeName":"X","Appid":"wx_1","Data":{"a":1,"b":3}}"#));
        assert_eq!(one.len(), 66);
        assert_ne!(hash_key(&["ab", "c"]), hash_key(&["a", "bc"]));
    }
}
