//! From bytes to a plan: what is refused before anything is understood.
//!
//! Every byte is hostile. A text is refused by its size before it is looked at; a value by its size and depth, with a loop
//! and not by recursion.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::sop::finding::{Code, Finding, MOST_FINDINGS, child, shown};

/// The largest plan, in bytes of its text. One of 60 steps with the longest texts needs half of it.
pub const MOST_BYTES: usize = 1 << 20;

/// How deep lists and objects may stand in one another.
pub const MOST_DEPTH: usize = 64;

/// Reads the text of a plan.
///
/// Says what is too large, what is no JSON, and every field that stands twice in one object: readers differ in which one they
/// take, so that what was looked at might not be what runs.
pub fn read(text: &[u8]) -> Result<Value, Vec<Finding>> {
    if text.len() > MOST_BYTES {
        return Err(vec![too_large(text.len())]);
    }
    let twice = Twice::default();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value =
        Once(&twice).deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    let value = value.map_err(|error| vec![no_json(&error)])?;
    let findings = twice.findings.into_inner();
    if findings.is_empty() { Ok(value) } else { Err(findings) }
}

fn too_large(bytes: usize) -> Finding {
    let message =
        format!("the plan has {bytes} bytes and may have {MOST_BYTES}: shorten its texts, or split it up");
    Finding::new(Code::E01, "", message)
}

fn no_json(error: &serde_json::Error) -> Finding {
    let said = error.to_string();
    let what = if said.starts_with("number out of range") {
        "a number is too large"
    } else if said.starts_with("recursion limit") {
        "lists and objects stand too deep in one another"
    } else {
        "this is no JSON"
    };
    let message = format!("{what} in line {}, column {}: correct it there", error.line(), error.column());
    Finding::new(Code::E01, "", message)
}

/// Refuses a value that is larger or deeper than any plan, or has a character that no database keeps.
pub(super) fn fence(config: &Value) -> Result<(), Finding> {
    let mut bytes = 0_usize;
    let mut open: Vec<(&Value, usize)> = vec![(config, 0)];
    let nul = |text: &str| text.contains('\0');
    let mut has_nul = false;
    while let Some((value, depth)) = open.pop() {
        if depth > MOST_DEPTH {
            let message = format!(
                "lists and objects stand more than {MOST_DEPTH} deep in one another: make it flatter"
            );
            return Err(Finding::new(Code::E01, "", message));
        }
        bytes += match value {
            Value::String(text) => {
                has_nul |= nul(text);
                text.len() + 2
            }
            Value::Object(fields) => {
                open.extend(fields.values().map(|field| (field, depth + 1)));
                has_nul |= fields.keys().any(|name| nul(name));
                fields.keys().map(|name| name.len() + 4).sum::<usize>() + 2
            }
            Value::Array(items) => {
                open.extend(items.iter().map(|item| (item, depth + 1)));
                items.len() + 2
            }
            _ => 1,
        };
        if bytes > MOST_BYTES {
            return Err(Finding::new(
                Code::E01,
                "",
                format!("the plan is larger than {MOST_BYTES} bytes: shorten its texts, or split it up"),
            ));
        }
    }
    if has_nul {
        let message = "a text has the character U+0000, which cannot be stored: remove it";
        return Err(Finding::new(Code::E01, "", message));
    }
    Ok(())
}

/// What stands twice, and where we are.
#[derive(Default)]
struct Twice {
    place: RefCell<Vec<String>>,
    findings: RefCell<Vec<Finding>>,
}

impl Twice {
    fn note(&self, name: &str) {
        let mut findings = self.findings.borrow_mut();
        if findings.len() < MOST_FINDINGS {
            let place = self.place.borrow().iter().fold(String::new(), |path, part| child(&path, part));
            let message = format!("the field {} stands here twice: remove one of the two", shown(name));
            findings.push(Finding::new(Code::E01, child(&place, name), message));
        }
    }

    fn within<T>(&self, part: String, read: impl FnOnce() -> T) -> T {
        self.place.borrow_mut().push(part);
        let read = read();
        self.place.borrow_mut().pop();
        read
    }
}

/// Reads a value and notes fields that stand twice in an object. serde_json's own limit of the depth holds.
#[derive(Clone, Copy)]
struct Once<'a>(&'a Twice);

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = self.0.within(items.len().to_string(), || seq.next_element_seed(self))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut fields, mut seen) = (Map::new(), HashSet::new());
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                self.0.note(&name);
            }
            let value = self.0.within(name.clone(), || map.next_value_seed(self))?;
            if fields.len() > MOST_BYTES {
                return Err(A::Error::custom("too many fields"));
            }
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(text: &[u8]) -> Vec<Finding> {
        let findings = read(text).expect_err("refused");
        assert!(findings.iter().all(|finding| finding.code == Code::E01), "{findings:?}");
        findings
    }

    #[test]
    fn a_text_is_read_as_it_stands() {
        let text = r#"{"a": [1, -2, 0.5, "汉字", true, null], "b": {"a": {}}}"#;
        let value = json!({"a": [1, -2, 0.5, "汉字", true, null], "b": {"a": {}}});
        assert_eq!(read(text.as_bytes()), Ok(value));
    }

    #[test]
    fn a_field_that_stands_twice_is_named_with_its_place() {
        let text =
            r#"{"caps": {"a": 1, "a": 2}, "steps": [{}, {"id": 1, "x/y": 1, "id": 2, "x/y": 3}], "caps": 1}"#;
        let paths: Vec<_> = refused(text.as_bytes()).into_iter().map(|finding| finding.path).collect();
        assert_eq!(paths, ["/caps/a", "/steps/1/id", "/steps/1/x~1y", "/caps"]);
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        for (text, said) in [
            ("{\"a\": 1,}", "this is no JSON in line 1, column 9"),
            ("{\n \"a\": 1e999}", "a number is too large in line 2"),
            ("{} {}", "this is no JSON"),
            ("", "this is no JSON"),
            ("\u{feff}{}", "this is no JSON"),
        ] {
            let findings = refused(text.as_bytes());
            assert!(findings[0].message.starts_with(said), "{text}: {findings:?}");
        }
        refused(b"\"\xff\"");
        let deep = "[".repeat(100_000);
        assert!(refused(deep.as_bytes())[0].message.starts_with("lists and objects stand too deep"));
    }

    #[test]
    fn five_mebibytes_are_refused_by_their_size() {
        let text = format!("{{\"ui\": \"{}\"}}", "x".repeat(5 << 20));
        assert!(refused(text.as_bytes())[0].message.contains("may have 1048576"));
        let value = json!({"ui": {"x": "x".repeat(5 << 20)}});
        assert!(fence(&value).expect_err("refused").message.contains("larger than 1048576 bytes"));
        let many = json!({"ui": vec![0; MOST_BYTES]});
        assert!(fence(&many).is_err());
    }

    #[test]
    fn depth_and_nul_are_refused() {
        let mut deep = json!(1);
        for _ in 0..MOST_DEPTH {
            deep = json!([deep]);
        }
        assert_eq!(fence(&deep), Ok(()));
        assert!(fence(&json!([deep])).is_err());
        assert!(fence(&json!({"a": ["\0"]})).is_err());
        assert!(fence(&json!({"\0": 1})).is_err());
    }
}
