//! The form of a plan: the JSON Schema, read by a program that knows the keywords which it uses.
//!
//! A general validator says of a wrong step that it matches none of nine forms. This one takes the form that the step's `type`
//! names, tells everything that is wrong with it at once, and how to write it. A test fails if the schema has a keyword or a
//! pattern that is not known here.
//!
//! It is stricter than the schema in four ways, which no schema says well: the zone exists, a length of time is at most ten
//! years, a whole number is written without a point and at most 2147483647, and conditions are not deeper than
//! [`MOST_DEPTH`].

use std::sync::LazyLock;

use chrono::DateTime;
use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::SCHEMA;
use super::condition::MOST_DEPTH;
use super::key::StepId;
use super::period::Period;
use super::rules::Yuan;
use super::window::LocalTime;
use crate::sop::finding::{Code, Finding, MOST_FINDINGS, child, shown};

/// The largest whole number that is taken, so that sums and the database's integers hold it.
const LARGEST: i64 = i32::MAX as i64;

static ROOT: LazyLock<Value> = LazyLock::new(|| {
    // The text is a part of the program, and a test reads it.
    serde_json::from_str(SCHEMA).expect("the schema is JSON")
});

/// Returns everything that is wrong with the form, in the order of the schema.
pub(super) fn check(config: &Value) -> Vec<Finding> {
    let mut check = Check { findings: Vec::new(), conditions: 0 };
    check.value(&ROOT, config, "");
    if let Some(zone) = config.get("timezone").and_then(Value::as_str)
        && zone.parse::<Tz>().is_err()
    {
        let message = format!("there is no time zone {}: use a name such as Asia/Shanghai", shown(zone));
        check.findings.push(Finding::new(Code::E01, "/timezone", message));
    }
    check.findings
}

struct Check {
    findings: Vec<Finding>,
    /// How many conditions stand around the present place.
    conditions: usize,
}

impl Check {
    fn say(&mut self, path: &str, message: impl Into<String>) {
        if !self.is_full() {
            self.findings.push(Finding::new(Code::E01, path, message));
        }
    }

    fn is_full(&self) -> bool {
        self.findings.len() >= MOST_FINDINGS
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if self.is_full() {
            return;
        }
        if let Some(name) = schema["$ref"].as_str() {
            let is_condition = name.ends_with("/cond");
            if is_condition && self.conditions >= MOST_DEPTH {
                let message =
                    format!("conditions stand more than {MOST_DEPTH} deep in one another: make them flatter");
                return self.say(path, message);
            }
            self.conditions += usize::from(is_condition);
            self.value(referred(name), value, path);
            self.conditions -= usize::from(is_condition);
            return;
        }
        if let Some(wanted) = schema["type"].as_str()
            && !is_of_type(wanted, value)
        {
            return self.say(path, format!("this is {}, and must be {}", kind(value), type_name(wanted)));
        }
        if let Some(constant) = schema.get("const")
            && value != constant
        {
            return self.say(path, format!("this must be {constant}"));
        }
        if let Some(choices) = schema["enum"].as_array()
            && !choices.contains(value)
        {
            return self
                .say(path, format!("{} is none of the choices: use {}", seen(value), listed(choices)));
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, path),
            Value::Array(items) => self.array(schema, items, path),
            Value::String(text) => self.text(schema, text, path),
            Value::Number(_) => self.number(schema, value, path),
            Value::Null | Value::Bool(_) => {}
        }
        if let Some(branches) = schema["oneOf"].as_array() {
            self.one_of(branches, value, path);
        }
        if let Some(branches) = schema["anyOf"].as_array()
            && !branches.iter().any(|branch| has_required(branch, value))
        {
            self.say(path, format!("one of the fields {} is needed", alternatives(branches)));
        }
    }

    fn object(&mut self, schema: &Value, fields: &Map<String, Value>, path: &str) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                self.say(&child(path, name), format!("the field {name} is missing: add it"));
            }
        }
        if let Some(most) = schema["maxProperties"].as_u64()
            && fields.len() as u64 > most
        {
            return self
                .say(path, format!("there are {} entries, and at most {most} are allowed", fields.len()));
        }
        let known = schema["properties"].as_object();
        let others = schema.get("additionalProperties");
        for (name, value) in fields {
            match (known.and_then(|known| known.get(name)), others) {
                (Some(schema), _) => self.value(schema, value, &child(path, name)),
                (None, Some(Value::Bool(false))) => {
                    let message =
                        format!("there is no field {} here: remove it, or correct its name", shown(name));
                    self.say(&child(path, name), message);
                }
                (None, Some(schema)) => self.value(schema, value, &child(path, name)),
                (None, None) => {}
            }
            if self.is_full() {
                return;
            }
        }
    }

    fn array(&mut self, schema: &Value, items: &[Value], path: &str) {
        if let Some(least) = schema["minItems"].as_u64()
            && (items.len() as u64) < least
        {
            self.say(path, format!("there are {} entries, and at least {least} are needed", items.len()));
        }
        if let Some(most) = schema["maxItems"].as_u64()
            && items.len() as u64 > most
        {
            return self
                .say(path, format!("there are {} entries, and at most {most} are allowed", items.len()));
        }
        if schema["uniqueItems"] == true {
            // Such lists are of small numbers: what is not one of a few is told below, and there is no need to go on.
            for (at, item) in items.iter().enumerate().take(64) {
                if items[..at].contains(item) {
                    self.say(
                        &child(path, at),
                        format!("{} stands here twice: remove one of the two", seen(item)),
                    );
                }
            }
        }
        for (at, item) in items.iter().enumerate() {
            self.value(&schema["items"], item, &child(path, at));
            if self.is_full() {
                return;
            }
        }
    }

    fn text(&mut self, schema: &Value, text: &str, path: &str) {
        let bounds = (schema["minLength"].as_u64(), schema["maxLength"].as_u64());
        if bounds != (None, None) {
            let chars = text.chars().count() as u64;
            if bounds.0.is_some_and(|least| chars < least) {
                self.say(path, "this text is empty: write something");
            }
            if let Some(most) = bounds.1.filter(|most| chars > *most) {
                self.say(path, format!("this text has {chars} characters, and may have {most}: shorten it"));
            }
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && let Err(wanted) = matches(pattern, text)
        {
            self.say(path, format!("{} cannot be read: {wanted}", shown(text)));
        }
        if schema["format"] == "date-time"
            && (!text.contains('T') || DateTime::parse_from_rfc3339(text).is_err())
        {
            let wanted = "write a moment as 2026-12-01T09:30:00+08:00";
            self.say(path, format!("{} cannot be read: {wanted}", shown(text)));
        }
    }

    fn number(&mut self, schema: &Value, value: &Value, path: &str) {
        if schema["type"] != "integer" {
            return;
        }
        let Some(number) = value.as_i64().filter(|number| *number <= LARGEST) else {
            return self.say(path, format!("this number is too large: the largest is {LARGEST}"));
        };
        let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            let wanted = match (least, most) {
                (Some(least), Some(most)) => format!("from {least} to {most}"),
                (Some(least), None) => format!("{least} or more"),
                (None, most) => format!("{} or less", most.unwrap_or(LARGEST)),
            };
            self.say(path, format!("this is {number}, and must be {wanted}"));
        }
    }

    /// Takes the form that the value means to have, and says what is wrong with that.
    fn one_of(&mut self, branches: &[Value], value: &Value, path: &str) {
        // Fields of which exactly one is needed.
        if branches.iter().all(|branch| {
            branch.as_object().is_some_and(|branch| branch.len() == 1) && !required(branch).is_empty()
        }) {
            let given = branches.iter().filter(|branch| has_required(branch, value)).count();
            let names = alternatives(branches);
            return match given {
                0 => self.say(path, format!("one of the fields {names} is needed")),
                1 => {}
                _ => self.say(path, format!("only one of the fields {names} is allowed: remove the others")),
            };
        }
        let branches: Vec<&Value> = branches
            .iter()
            .map(|branch| match branch["$ref"].as_str() {
                Some(name) => referred(name),
                None => branch,
            })
            .collect();
        // Something, or null.
        if branches.iter().any(|branch| branch["type"] == "null") {
            let other = branches.iter().find(|branch| branch["type"] != "null");
            return match other {
                Some(schema) if !value.is_null() => self.value(schema, value, path),
                _ => {}
            };
        }
        let Value::Object(fields) = value else {
            return self.say(path, format!("this is {}, and must be an object", kind(value)));
        };
        // A field that names the form.
        for name in ["type", "kind"] {
            let names = |branch: &Value| choices(&branch["properties"][name]);
            if branches.iter().any(|branch| names(branch).is_empty()) {
                continue;
            }
            let field = child(path, name);
            return match fields.get(name) {
                None => {
                    let all: Vec<Value> = branches.iter().flat_map(|branch| names(branch)).collect();
                    self.say(&field, format!("the field {name} is missing: use {}", listed(&all)));
                }
                Some(given) => match branches.iter().find(|branch| names(branch).contains(given)) {
                    Some(branch) => self.value(branch, value, path),
                    None => {
                        let all: Vec<Value> = branches.iter().flat_map(|branch| names(branch)).collect();
                        let message = format!("{} is no {name}: use {}", seen(given), listed(&all));
                        self.say(&field, message);
                    }
                },
            };
        }
        // Fields that only one form has.
        let meant =
            branches.iter().find(|branch| required(branch).iter().any(|name| fields.contains_key(*name)));
        match meant {
            Some(branch) => self.value(branch, value, path),
            None => {
                let forms: Vec<String> =
                    branches.iter().map(|branch| required(branch).join(" and ")).collect();
                self.say(
                    path,
                    format!("this has none of the forms that are known: write {}", forms.join(", or ")),
                );
            }
        }
    }
}

fn referred(name: &str) -> &'static Value {
    name.strip_prefix('#').and_then(|pointer| ROOT.pointer(pointer)).unwrap_or(&Value::Null)
}

fn required(schema: &Value) -> Vec<&str> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn has_required(schema: &Value, value: &Value) -> bool {
    required(schema).iter().all(|name| value.get(name).is_some())
}

fn alternatives(branches: &[Value]) -> String {
    branches.iter().flat_map(required).collect::<Vec<_>>().join(" and ")
}

/// Returns what a field may be: its only value, or its choices.
fn choices(schema: &Value) -> Vec<Value> {
    let constant = schema.get("const").cloned();
    constant.into_iter().chain(schema["enum"].as_array().into_iter().flatten().cloned()).collect()
}

fn listed(choices: &[Value]) -> String {
    let texts =
        choices.iter().map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned));
    let texts: Vec<String> = texts.collect();
    match texts.as_slice() {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => texts.concat(),
    }
}

fn is_of_type(wanted: &str, value: &Value) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        // Numbers beyond 64 bits are read as such with a point; they are whole, and too large.
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.abs() > 1e15)
        }
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

fn type_name(wanted: &str) -> &'static str {
    match wanted {
        "object" => "an object",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "boolean" => "true or false",
        _ => "null",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a point",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Returns a value as it is shown in a sentence.
fn seen(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text),
        Value::Number(number) => number.to_string(),
        other => kind(other).to_owned(),
    }
}

/// Matches one of the schema's patterns, or says how it is written.
fn matches(pattern: &str, text: &str) -> Result<(), String> {
    match pattern {
        "^[a-z][a-z0-9_]{0,39}$" => StepId::parse(text).map(|_| ()).map_err(|error| error.to_string()),
        "^([01][0-9]|2[0-3]):[0-5][0-9]$" => said(text.parse::<LocalTime>()),
        "^P(?=.)([0-9]+D)?(T(?=.)([0-9]+H)?([0-9]+M)?([0-9]+S)?)?$" => said(text.parse::<Period>()),
        "^[0-9]+(\\.[0-9]{1,6})?$" => said(text.parse::<Yuan>()),
        "^(contact|enrollment|conversation|last_reply|time)\\.[a-z_]+(\\.[a-z0-9_]+)?$" => {
            if is_fact_name(text) {
                Ok(())
            } else {
                Err("write a fact as contact.tags or contact.var.score".to_owned())
            }
        }
        // A test fails first.
        _ => Err("it has a form that is not known".to_owned()),
    }
}

fn said<T, E: ToString>(read: Result<T, E>) -> Result<(), String> {
    read.map(|_| ()).map_err(|error| error.to_string())
}

fn is_fact_name(text: &str) -> bool {
    let mut parts = text.split('.');
    let subject = parts.next().unwrap_or_default();
    let lower =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let word = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    matches!(subject, "contact" | "enrollment" | "conversation" | "last_reply" | "time")
        && parts.next().is_some_and(lower)
        && parts.next().is_none_or(word)
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Visits every schema in the schema.
    fn walk(schema: &Value, visit: &mut dyn FnMut(&Map<String, Value>)) {
        let Some(keywords) = schema.as_object() else { return };
        visit(keywords);
        for (name, value) in keywords {
            match name.as_str() {
                "properties" | "$defs" => {
                    value.as_object().expect("an object").values().for_each(|schema| walk(schema, visit))
                }
                "oneOf" | "anyOf" => {
                    value.as_array().expect("a list").iter().for_each(|schema| walk(schema, visit))
                }
                "items" | "additionalProperties" => walk(value, visit),
                _ => {}
            }
        }
    }

    #[test]
    fn every_keyword_and_every_pattern_of_the_schema_is_known() {
        let known: BTreeSet<&str> = [
            "$defs",
            "$id",
            "$ref",
            "$schema",
            "additionalProperties",
            "anyOf",
            "const",
            "default",
            "enum",
            "format",
            "items",
            "maxItems",
            "maxLength",
            "maxProperties",
            "maximum",
            "minItems",
            "minLength",
            "minimum",
            "oneOf",
            "pattern",
            "properties",
            "required",
            "type",
            "uniqueItems",
        ]
        .into();
        let mut patterns = BTreeSet::new();
        walk(&ROOT, &mut |schema| {
            for (name, value) in schema {
                assert!(known.contains(name.as_str()), "the keyword {name} is not known");
                match name.as_str() {
                    "pattern" => drop(patterns.insert(value.as_str().expect("a text").to_owned())),
                    "format" => assert_eq!(value, "date-time"),
                    "type" => assert_ne!(type_name(value.as_str().expect("one type")), ""),
                    "$ref" => assert!(!referred(value.as_str().expect("a text")).is_null(), "{value}"),
                    "minLength" => assert_eq!(value, 1),
                    "anyOf" => {
                        let branches = value.as_array().expect("a list");
                        assert!(
                            branches.iter().all(|branch| branch.as_object().expect("an object").len() == 1)
                        );
                    }
                    _ => {}
                }
            }
        });
        assert_eq!(patterns.len(), 5);
        for pattern in patterns {
            let said = matches(&pattern, "\u{0}").expect_err("no pattern takes it");
            assert!(!said.contains("not known"), "{pattern}");
        }
    }

    #[test]
    fn facts_are_named_as_the_pattern_says() {
        for name in ["contact.tags", "contact.var.score_1", "last_reply.age_hours", "time.x"] {
            assert!(is_fact_name(name), "{name}");
        }
        for name in [
            "",
            "contact",
            "contact.",
            "contact.tags.",
            "contact.1",
            "contact.a.b.c",
            "user.x",
            "contact.标签",
            "Contact.a",
        ] {
            assert!(!is_fact_name(name), "{name}");
        }
    }
}
