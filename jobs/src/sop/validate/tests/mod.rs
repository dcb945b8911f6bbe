//! A failing example and a passing neighbour for every code; random plans.

mod codes;
mod form;
mod random;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike, NaiveDate};
use serde_json::{Value, json};

use super::{AccountLoad, Material, OrganizationCaps, Report, Surroundings, check};
use crate::ai::words::{Words, normalize};
use crate::sop::config::step::MaterialKind;
use crate::sop::config::window::Range;

/// The three days with a new lead, as the flow editor writes them.
fn example() -> Value {
    serde_json::from_str(include_str!("../../examples/new_lead_3_days.json")).expect("the example is JSON")
}

/// What the example's organisation has.
struct Organization {
    materials: BTreeMap<String, Material>,
    workflows: BTreeSet<String>,
    window: Option<Range>,
    caps: OrganizationCaps,
    words: Words,
    opt_out_words: Vec<String>,
    sender_names: Vec<String>,
    accounts: Vec<AccountLoad>,
}

impl Default for Organization {
    fn default() -> Organization {
        let material = |id: &str, kind| (id.to_owned(), Material { kind, approved: true });
        Organization {
            materials: BTreeMap::from([
                material("mat_outline", MaterialKind::File),
                material("mat_case_article", MaterialKind::Link),
                material("mat_trial_booking", MaterialKind::MiniProgram),
            ]),
            workflows: BTreeSet::from(["sales_assistant".to_owned()]),
            window: Some(serde_json::from_value(json!({"from": "09:00", "to": "21:00"})).expect("a range")),
            caps: OrganizationCaps {
                per_contact_per_day: Some(2),
                per_contact_per_week: Some(5),
                per_account_per_day: Some(150),
                max_unanswered: Some(4),
            },
            words: Words::new(&[]),
            opt_out_words: Vec::new(),
            sender_names: Vec::new(),
            accounts: Vec::new(),
        }
    }
}

impl Organization {
    fn with_words(words: &[(&str, &str)]) -> Organization {
        let list: Vec<_> = (0..)
            .zip(words)
            .map(|(id, (word, action))| entropy_schema::replies::SensitiveWord {
                id: uuid::Uuid::from_u128(id),
                normalized: normalize(word),
                action: (*action).to_owned(),
            })
            .collect();
        Organization { words: Words::new(&list), ..Organization::default() }
    }

    /// Looks at a plan on 2026-11-23. The first week of October is a holiday.
    fn look(&self, config: &Value) -> Report {
        let is_holiday = |date: NaiveDate| date.month() == 10 && date.day() <= 7;
        let around = Surroundings {
            materials: &self.materials,
            workflows: &self.workflows,
            window: self.window,
            caps: self.caps,
            words: Some(&self.words),
            opt_out_words: &self.opt_out_words,
            sender_names: &self.sender_names,
            accounts: &self.accounts,
            today: NaiveDate::from_ymd_opt(2026, 11, 23).expect("a day"),
            is_holiday: &is_holiday,
        };
        check(config, &around).0
    }

    /// Returns codes and places: errors, then warnings.
    fn told(&self, config: &Value) -> Vec<(String, String)> {
        let report = self.look(config);
        let all = report.errors.into_iter().chain(report.warnings);
        all.map(|finding| (finding.code.to_string(), finding.path)).collect()
    }
}

/// Puts a value where a pointer points to; what is not there yet is added to its object or list.
fn set(config: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    match config.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}")) {
        Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
        Value::Array(items) => {
            let at: usize = name.parse().expect("a place");
            if at < items.len() { items[at] = value } else { items.push(value) }
        }
        other => panic!("{pointer} points into {other}"),
    }
}

/// Takes a field away.
fn remove(config: &mut Value, pointer: &str) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let fields = config.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    fields.remove(name).unwrap_or_else(|| panic!("{pointer}"));
}

/// A plan with these steps that nobody could object to: for friends, who need not have agreed.
fn plan(steps: Value) -> Value {
    let entry = steps[0]["id"].clone();
    json!({
        "schema_version": 1,
        "timezone": "Asia/Shanghai",
        "trigger": {"type": "manual"},
        "audience": {"kind": "friend", "consent": {"required": false}},
        "send_window": {"days": "any", "ranges": [{"from": "09:00", "to": "21:00"}]},
        "caps": {"per_contact_per_day": 2, "per_account_per_day": 100, "max_unanswered": 4},
        "stop": [{"on": "reply", "do": "handoff"}],
        "entry": entry,
        "steps": steps,
    })
}

fn send(id: &str, next: impl Into<Option<&'static str>>) -> Value {
    json!({"id": id, "type": "send", "message": {"kind": "text", "text": "您好"}, "next": next.into()})
}

fn wait(id: &str, period: &str, next: impl Into<Option<&'static str>>) -> Value {
    json!({"id": id, "type": "wait", "for": period, "next": next.into()})
}

fn told(config: &Value) -> Vec<(String, String)> {
    Organization::default().told(config)
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(code, path)| ((*code).to_owned(), (*path).to_owned())).collect()
}

/// Changes the example in one place and says what must be told of it.
#[track_caller]
fn changed(pointer: &str, value: Value, expected: &[(&str, &str)]) {
    let mut config = example();
    set(&mut config, pointer, value.clone());
    assert_eq!(told(&config), pairs(expected), "{pointer} = {value}");
}
