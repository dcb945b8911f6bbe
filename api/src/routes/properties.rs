//! Keys, hashes and cursors, with any text in them.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::enqueue::{checked_key, request_hash};
use crate::page;

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c,:{}\\[\\]\"汉 ]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(("[a-c\"汉]{0,3}", inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The same value, its fields put in the other way round.
fn turned(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(turned).collect(),
        Value::Object(fields) => {
            let turned: Map<String, Value> =
                fields.iter().rev().map(|(name, f)| (name.clone(), turned(f))).collect();
            Value::Object(turned)
        }
        plain => plain.clone(),
    }
}

/// The text of a value, its fields in reverse order.
fn reversed_text(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(reversed_text).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let field = |(name, field): (&String, &Value)| {
                format!("{}: {}", Value::from(name.as_str()), reversed_text(field))
            };
            format!("{{{}}}", fields.iter().rev().map(field).collect::<Vec<_>>().join(", "))
        }
        plain => plain.to_string(),
    }
}

proptest! {
    #[test]
    fn a_hash_does_not_depend_on_the_order_of_fields(value in json()) {
        prop_assert_eq!(request_hash(&value), request_hash(&turned(&value)));
        let read: Value = serde_json::from_str(&reversed_text(&value)).expect("JSON");
        prop_assert_eq!(read == value, request_hash(&read) == request_hash(&value));
    }

    #[test]
    fn two_requests_have_one_hash_only_if_they_are_one(a in json(), b in json()) {
        prop_assert_eq!(a == b, request_hash(&a) == request_hash(&b), "{} and {}", a, b);
    }

    #[test]
    fn a_cursor_is_read_as_it_was_made(text in any::<String>(), other in "[A-Za-z0-9_-]{0,24}") {
        prop_assert_eq!(page::decode(&page::encode(&text)).ok(), Some(text));
        if let Ok(inside) = page::decode(&other) {
            prop_assert_eq!(page::encode(&inside), other);
        }
    }

    #[test]
    fn a_key_has_as_many_characters_as_it_is_counted(
        character in prop::sample::select(vec!['汉', '😀', '\u{301}', 'k']), length in 0..400_usize,
    ) {
        let key: String = std::iter::repeat_n(character, length).collect();
        prop_assert_eq!(checked_key(Some(&key), "k").is_ok(), (1..=255).contains(&length));
    }

    #[test]
    fn a_key_is_kept_as_it_was_given(key in any::<String>()) {
        let fits = (1..=255).contains(&key.chars().count()) && !key.chars().any(char::is_control);
        match checked_key(Some(&key), "k") {
            Ok(kept) => prop_assert!(fits && kept.as_deref() == Some(key.as_str())),
            Err(error) => prop_assert!(!fits && (key.chars().count() < 4 || !error.detail().contains(&key))),
        }
    }
}
