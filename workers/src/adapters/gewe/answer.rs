//! Reading an answer's JSON without trusting its size, its depth or its sense.
//!
//! Only the few fields that mean something are kept; whatever else there is, is passed over without being built. So an
//! answer of a megabyte takes no more than a megabyte, where a tree of tiny objects would take a hundred, and depth
//! that was never asked for is no obstacle. A field that is said twice makes the whole unreadable: nobody knows which
//! of the two GeWe meant.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The fields that are read, of the envelope, of its `data`, and of an older envelope that is packed into that.
const KNOWN: [&str; 8] = ["ret", "msg", "data", "newMsgId", "msgId", "createTime", "detail", "msg_err"];

/// The envelope and the object in it.
const DEPTH: u8 = 2;

/// Reads what is known of an answer. Lists, and objects that lie deeper, come out as null.
pub(super) fn read(bytes: &[u8]) -> Option<Value> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Known { depth: DEPTH }.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(value)
}

#[derive(Clone, Copy)]
struct Known {
    /// How many objects inside each other are still looked into.
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Known {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Known {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        let Some(depth) = self.depth.checked_sub(1) else {
            while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Value::Null);
        };
        while let Some(name) = object.next_key::<String>()? {
            if !KNOWN.contains(&name.as_str()) {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = object.next_value_seed(Known { depth })?;
            if kept.insert(name, value).is_some() {
                return Err(A::Error::custom("a field is there twice"));
            }
        }
        Ok(Value::Object(kept))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_known_is_kept() {
        let text = r#"{"ret":500,"msg":"a","more":{"msg":"b"},"data":{"code":"-1","msg":"c","x":[1],"detail":{"msg":1}}}"#;
        let expected = json!({"ret": 500, "msg": "a", "data": {"msg": "c", "detail": null}});
        assert_eq!(read(text.as_bytes()), Some(expected));
        assert_eq!(read(b"[1,2]"), Some(Value::Null));
        assert_eq!(read(br#""text""#), Some(json!("text")));
    }

    #[test]
    fn what_is_said_twice_or_not_to_its_end_is_not_read() {
        for text in [
            r#"{"ret":1,"ret":1}"#,
            r#"{"data":{"msg":1,"msg":2}}"#,
            "{} {}",
            r#"{"ret":"#,
            r#"{"more":[1,}"#,
            r#"{"more":"#,
            "",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(read(br#"{"more":1,"more":2}"#), Some(json!({})), "nobody asks for it");
    }

    #[test]
    fn nothing_is_built_of_a_tree_that_nobody_asked_for() {
        let tree = format!(
            "{{\"more\":[{}0],\"data\":[{}0],\"ret\":200}}",
            r#"{"":0},"#.repeat(50_000),
            "[],".repeat(50_000)
        );
        assert_eq!(read(tree.as_bytes()), Some(json!({"data": null, "ret": 200})));
        let deep = format!(
            "{{\"data\":{{\"msg\":{}{}}},\"ret\":0}}",
            "[{\"a\":".repeat(50_000),
            "0".to_owned() + &"}]".repeat(50_000)
        );
        assert_eq!(read(deep.as_bytes()), Some(json!({"data": {"msg": null}, "ret": 0})));
    }
}
