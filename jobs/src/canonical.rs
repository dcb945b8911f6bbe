//! One text for every JSON value, however its fields were ordered: what is hashed to tell whether two are the same.

use serde_json::Value;

/// Writes the text of a value, piece by piece.
pub fn canonical(value: &Value, write: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            write("{");
            for (name, field) in fields {
                write(&Value::String(name.clone()).to_string());
                write(":");
                canonical(field, write);
                write(",");
            }
            write("}");
        }
        Value::Array(items) => {
            write("[");
            for item in items {
                canonical(item, write);
                write(",");
            }
            write("]");
        }
        plain => write(&plain.to_string()),
    }
}
