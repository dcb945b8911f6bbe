//! Says what is wrong with a body that could not be read, field by field.
//!
//! The parser stops at the first mistake and names types, not fields. This module walks the body beside the schema
//! that the OpenAPI document is made of, and lists every mistake with its path. It never repeats a value: a body may
//! hold a password. It runs only for bodies that were refused.

use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use serde_json::Value;

use crate::problem::{ApiError, FieldProblem};

/// More mistakes than anybody reads.
pub(crate) const MAX_PROBLEMS: usize = 50;

/// Explains why `body` is not a `T`.
pub(crate) fn explain<T: Type>(body: &Value, at: &str) -> ApiError {
    let problems = problems::<T>(body, at);
    if problems.is_empty() {
        // The schema is satisfied, so it is a form that the schema cannot express.
        return ApiError::malformed(vec![FieldProblem::new(
            at,
            "invalid",
            "does not have the documented form",
        )]);
    }
    ApiError::malformed(problems)
}

/// Lists what is wrong with `body`, whose own path is `at`.
pub(crate) fn problems<T: Type>(body: &Value, at: &str) -> Vec<FieldProblem> {
    let mut registry = Registry::new();
    T::register(&mut registry);
    let mut walk = Walk { registry: &registry, problems: Vec::new() };
    walk.value(&T::schema_ref(), body, at, &[]);
    walk.problems
}

struct Walk<'a> {
    registry: &'a Registry,
    problems: Vec<FieldProblem>,
}

impl Walk<'_> {
    fn add(&mut self, path: &str, code: &str, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(FieldProblem::new(path, code, message));
        }
    }

    fn resolve<'s>(&'s self, schema: &'s MetaSchemaRef) -> Option<&'s MetaSchema> {
        match schema {
            MetaSchemaRef::Inline(schema) => Some(schema),
            MetaSchemaRef::Reference(name) => self.registry.schemas.get(name),
        }
    }

    /// `known` are fields that stand in the object although this schema does not name them.
    fn value(&mut self, schema: &MetaSchemaRef, value: &Value, path: &str, known: &[&str]) {
        let Some(schema) = self.resolve(schema).cloned() else { return };
        if let Some(discriminator) = &schema.discriminator {
            return self.tagged(discriminator.property_name, &discriminator.mapping, value, path);
        }
        // A described field of a named type is the type and its description, side by side.
        if !schema.all_of.is_empty() {
            for part in &schema.all_of {
                if self.resolve(part).is_some_and(|part| !part.ty.is_empty() || part.discriminator.is_some())
                {
                    self.value(part, value, path, known);
                }
            }
            return;
        }
        match schema.ty {
            "object" => self.object(&schema, value, path, known),
            "array" => self.array(&schema, value, path),
            "string" => self.string(&schema, value, path),
            "integer" if !fits_integer(value, schema.format) => {
                self.add(path, "wrong_type", "must be a whole number in range");
            }
            "number" if !value.is_number() => self.add(path, "wrong_type", "must be a number"),
            "boolean" if !value.is_boolean() => self.add(path, "wrong_type", "must be true or false"),
            _ => {}
        }
    }

    fn tagged(&mut self, tag: &str, mapping: &[(String, String)], value: &Value, path: &str) {
        let Some(object) = value.as_object() else {
            return self.add(path, "wrong_type", "must be an object");
        };
        let tag_path = join(path, tag);
        let kinds = || mapping.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>().join(", ");
        let Some(kind) = object.get(tag) else {
            return self.add(&tag_path, "missing", format!("is missing; it is one of {}", kinds()));
        };
        let found = kind.as_str().and_then(|kind| mapping.iter().find(|(name, _)| name == kind));
        let Some((_, reference)) = found else {
            return self.add(&tag_path, "unknown_value", format!("must be one of {}", kinds()));
        };
        let name = reference.rsplit('/').next().unwrap_or_default();
        // The variant is the tag and the object, side by side; only the object is looked at.
        let parts = self.registry.schemas.get(name).map(|schema| schema.all_of.clone()).unwrap_or_default();
        if let Some(object) = parts.last() {
            self.value(object, value, path, &[tag]);
        }
    }

    fn object(&mut self, schema: &MetaSchema, value: &Value, path: &str, known: &[&str]) {
        let Some(object) = value.as_object() else {
            return self.add(path, "wrong_type", "must be an object");
        };
        for (name, property) in &schema.properties {
            let path = join(path, name);
            let required = schema.required.contains(name);
            match object.get(*name) {
                None if required => self.add(&path, "missing", "is missing"),
                None => {}
                Some(Value::Null) if !required => {}
                Some(value) => self.value(property, value, &path, &[]),
            }
        }
        for name in object.keys() {
            let named = schema.properties.iter().any(|(property, _)| property == name);
            if !named && !known.contains(&name.as_str()) && schema.additional_properties.is_none() {
                self.add(
                    &join(path, &shown(name)),
                    "unknown_field",
                    "is not a field of this request; remove it",
                );
            }
        }
    }

    fn array(&mut self, schema: &MetaSchema, value: &Value, path: &str) {
        let Some(items) = value.as_array() else {
            return self.add(path, "wrong_type", "must be a list");
        };
        if let Some(item) = &schema.items {
            for (index, value) in items.iter().enumerate() {
                self.value(item, value, &format!("{path}[{index}]"), &[]);
            }
        }
    }

    fn string(&mut self, schema: &MetaSchema, value: &Value, path: &str) {
        let Some(text) = value.as_str() else {
            return self.add(path, "wrong_type", "must be a string");
        };
        if !schema.enum_items.is_empty() && !schema.enum_items.iter().any(|item| item == text) {
            let items: Vec<_> = schema.enum_items.iter().filter_map(Value::as_str).collect();
            return self.add(path, "unknown_value", format!("must be one of {}", items.join(", ")));
        }
        match schema.format {
            Some("uuid") if text.parse::<uuid::Uuid>().is_err() => {
                self.add(path, "wrong_form", "must be an id such as 01890a5d-ac96-774b-bcce-b302099a8057");
            }
            Some("date-time") if text.parse::<chrono::DateTime<chrono::Utc>>().is_err() => {
                self.add(path, "wrong_form", "must be a time such as 2026-11-22T09:30:00Z");
            }
            _ => {}
        }
    }
}

fn fits_integer(value: &Value, format: Option<&str>) -> bool {
    let Some(number) = value.as_i64() else { return value.is_u64() && format == Some("uint64") };
    match format {
        Some("int16") => i16::try_from(number).is_ok(),
        Some("int32") => i32::try_from(number).is_ok(),
        Some("uint16") => u16::try_from(number).is_ok(),
        Some("uint32") => u32::try_from(number).is_ok(),
        Some("uint64") => number >= 0,
        _ => true,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A name comes from the caller: it may be as long as the body, and hold what a terminal obeys.
pub(crate) fn shown(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use poem_openapi::Object;
    use serde_json::json;

    use super::*;

    #[derive(Object)]
    #[oai(deny_unknown_fields)]
    struct Inner {
        size: u16,
        id: Option<uuid::Uuid>,
    }

    #[derive(Object)]
    #[oai(deny_unknown_fields)]
    struct Outer {
        name: String,
        /// Described, and so wrapped in the schema.
        inner: Inner,
        list: Option<Vec<Inner>>,
        at: Option<chrono::DateTime<chrono::Utc>>,
    }

    fn found(body: Value) -> Vec<String> {
        problems::<Outer>(&body, "")
            .into_iter()
            .map(|problem| format!("{} {}", problem.path, problem.code.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn every_mistake_is_told_with_its_path() {
        assert_eq!(found(json!({"name": "a", "inner": {"size": 1}})), [""; 0]);
        assert_eq!(found(json!([])), [" wrong_type"]);
        assert_eq!(
            found(
                json!({"inner": {"size": -1, "id": "x", "more": 1}, "list": [{"size": 1}, {}], "at": "now", "z": 1})
            ),
            [
                "name missing",
                "inner.size wrong_type",
                "inner.id wrong_form",
                "inner.more unknown_field",
                "list[1].size missing",
                "at wrong_form",
                "z unknown_field",
            ]
        );
        assert_eq!(found(json!({"name": null, "inner": {"size": 1}, "list": null})), ["name wrong_type"]);
    }

    #[test]
    fn no_value_is_ever_repeated() {
        let body =
            json!({"name": ["hunter2"], "inner": "hunter2", "at": "hunter2", "list": {"a": "hunter2"}});
        let told = format!("{:?}", problems::<Outer>(&body, ""));
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[test]
    fn a_name_is_shown_cut_and_without_what_a_terminal_obeys() {
        assert_eq!(shown("字段\u{1b}[31m\n"), "字段\u{fffd}[31m\u{fffd}");
        assert_eq!(shown(&"字".repeat(1000)).chars().count(), 64);
    }
}
