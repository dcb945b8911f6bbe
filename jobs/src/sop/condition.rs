//! Conditions: what they may ask about, how, and what the answer is.
//!
//! A fact that has no value makes a test false, whatever is asked of it, `ne` too; `exists` is then false, and `not` around
//! either is true. A contact without tags has no value for `contact.tags`: `exists` asks for at least one.
//!
//! Tags are names and compared letter by letter. Other texts are compared without differences of width, case, blanks and
//! invisible characters, as sensitive words are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::config::condition::{Condition, MOST_DEPTH, Operator, Test};
use super::config::key::{ArmKey, StepId};
use super::finding::shown;
use crate::ai::words::normalize;

/// The most values that a list may have.
pub const MOST_VALUES: usize = 100;

/// The longest text that may be compared with, in characters.
pub const LONGEST_VALUE: usize = 200;

/// Something that can be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// `contact.tags`: the tags.
    Tags,
    /// `contact.source`: how the contact came to us.
    Source,
    /// `contact.added_days`: whole days since then.
    AddedDays,
    /// `contact.var.<name>`: a field of the contact.
    Variable(String),
    /// `enrollment.sent_count`: messages that were sent.
    SentCount,
    /// `enrollment.replied`: whether the customer has answered.
    Replied,
    /// `enrollment.arm.<step>`: the arm that a split has chosen.
    Arm(StepId),
    /// `conversation.mode`: who answers.
    Mode,
    /// `last_reply.text`: what the customer wrote last.
    ReplyText,
    /// `last_reply.age_hours`: how long ago.
    ReplyAgeHours,
    /// `time.hour`: the hour of the day, from 0 to 23.
    Hour,
    /// `time.is_workday`: whether people work today.
    IsWorkday,
}

/// What kind of value a fact has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Names.
    Tags,
    /// A text.
    Text,
    /// One of `ai`, `human`, `paused`.
    Mode,
    /// A number.
    Number,
    /// Yes or no.
    Flag,
    /// A text or a number: what teams write into fields is both.
    Free,
}

impl Fact {
    /// Reads a fact's name.
    pub fn parse(name: &str) -> Option<Fact> {
        match name {
            "contact.tags" => Some(Fact::Tags),
            "contact.source" => Some(Fact::Source),
            "contact.added_days" => Some(Fact::AddedDays),
            "enrollment.sent_count" => Some(Fact::SentCount),
            "enrollment.replied" => Some(Fact::Replied),
            "conversation.mode" => Some(Fact::Mode),
            "last_reply.text" => Some(Fact::ReplyText),
            "last_reply.age_hours" => Some(Fact::ReplyAgeHours),
            "time.hour" => Some(Fact::Hour),
            "time.is_workday" => Some(Fact::IsWorkday),
            _ => {
                if let Some(field) = name.strip_prefix("contact.var.") {
                    return (!field.is_empty()).then(|| Fact::Variable(field.to_owned()));
                }
                name.strip_prefix("enrollment.arm.").and_then(|step| StepId::parse(step).ok()).map(Fact::Arm)
            }
        }
    }

    /// Returns what kind of value it has.
    pub fn kind(&self) -> Kind {
        match self {
            Fact::Tags => Kind::Tags,
            Fact::Source | Fact::Arm(_) | Fact::ReplyText => Kind::Text,
            Fact::Mode => Kind::Mode,
            Fact::AddedDays | Fact::SentCount | Fact::ReplyAgeHours | Fact::Hour => Kind::Number,
            Fact::Replied | Fact::IsWorkday => Kind::Flag,
            Fact::Variable(_) => Kind::Free,
        }
    }
}

/// What a fact is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operand {
    Nothing,
    One(Scalar),
    List(Scalar),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scalar {
    Text,
    Mode,
    Number,
    Flag,
    TextOrNumber,
}

/// The table of what may be asked of what, and with what it is compared.
fn operand(kind: Kind, operator: Operator) -> Option<Operand> {
    use Operator::{Contains, ContainsAny, Eq, Exists, Gt, Gte, In, Lt, Lte, Ne};
    let scalar = match kind {
        Kind::Tags | Kind::Text => Scalar::Text,
        Kind::Mode => Scalar::Mode,
        Kind::Number => Scalar::Number,
        Kind::Flag => Scalar::Flag,
        Kind::Free => Scalar::TextOrNumber,
    };
    match (kind, operator) {
        (_, Exists) => Some(Operand::Nothing),
        (Kind::Tags | Kind::Text | Kind::Free, Contains) => Some(Operand::One(Scalar::Text)),
        (Kind::Tags | Kind::Text | Kind::Free, ContainsAny) => Some(Operand::List(Scalar::Text)),
        (Kind::Text | Kind::Mode | Kind::Number | Kind::Flag | Kind::Free, Eq | Ne) => {
            Some(Operand::One(scalar))
        }
        (Kind::Text | Kind::Mode | Kind::Number | Kind::Free, In) => Some(Operand::List(scalar)),
        (Kind::Number | Kind::Free, Gt | Gte | Lt | Lte) => Some(Operand::One(Scalar::Number)),
        _ => None,
    }
}

/// Says what is wrong with a test, if anything is: the same table by which it is decided.
pub fn problem(test: &Test) -> Option<String> {
    let Some(fact) = Fact::parse(&test.fact) else {
        return Some(format!(
            "there is no fact {}: use contact.tags, contact.source, contact.added_days, contact.var.<name>, \
             enrollment.sent_count, enrollment.replied, enrollment.arm.<step>, conversation.mode, last_reply.text, \
             last_reply.age_hours, time.hour or time.is_workday",
            shown(&test.fact)
        ));
    };
    let (name, operator) = (&test.fact, test.op.name());
    let Some(operand) = operand(fact.kind(), test.op) else {
        return Some(format!("{operator} cannot be asked of {name}: use {}", operators(fact.kind())));
    };
    let wanted = match (operand, &test.value) {
        (Operand::Nothing, None | Some(Value::Bool(true))) => return None,
        (Operand::Nothing, _) => {
            return Some("exists needs no value: put the test into a not to ask for the opposite".to_owned());
        }
        (Operand::One(scalar), Some(value)) if scalar.takes(value) => return None,
        (Operand::List(scalar), Some(Value::Array(values))) => {
            if values.len() > MOST_VALUES {
                return Some(format!("a list has at most {MOST_VALUES} values"));
            }
            if !values.is_empty() && values.iter().all(|value| scalar.takes(value)) {
                return None;
            }
            format!("a list of {}", scalar.plural())
        }
        (Operand::One(scalar), _) => scalar.singular().to_owned(),
        (Operand::List(scalar), _) => format!("a list of {}", scalar.plural()),
    };
    Some(format!("{operator} compares {name} with {wanted}: change the value"))
}

/// Names what may be asked.
fn operators(kind: Kind) -> &'static str {
    match kind {
        Kind::Tags => "contains, contains_any or exists",
        Kind::Text => "eq, ne, in, contains, contains_any or exists",
        Kind::Mode => "eq, ne, in or exists",
        Kind::Number => "eq, ne, in, gt, gte, lt, lte or exists",
        Kind::Flag => "eq, ne or exists",
        Kind::Free => "eq, ne, in, contains, contains_any, gt, gte, lt, lte or exists",
    }
}

impl Scalar {
    fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (Scalar::Text | Scalar::TextOrNumber, Value::String(text)) => {
                text.chars().nth(LONGEST_VALUE).is_none() && !normalize(text).is_empty()
            }
            (Scalar::Mode, Value::String(text)) => matches!(text.as_str(), "ai" | "human" | "paused"),
            (Scalar::Number | Scalar::TextOrNumber, Value::Number(_)) => true,
            (Scalar::Flag, Value::Bool(_)) => true,
            _ => false,
        }
    }

    fn singular(self) -> &'static str {
        match self {
            Scalar::Text => "a text of 1 to 200 characters",
            Scalar::Mode => "\"ai\", \"human\" or \"paused\"",
            Scalar::Number => "a number",
            Scalar::Flag => "true or false",
            Scalar::TextOrNumber => "a text of 1 to 200 characters or a number",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Scalar::Text => "texts of 1 to 200 characters",
            Scalar::Mode => "\"ai\", \"human\" and \"paused\"",
            Scalar::Number => "numbers",
            Scalar::Flag => "true and false",
            Scalar::TextOrNumber => "texts of 1 to 200 characters or numbers",
        }
    }
}

/// What is known of a person at a moment.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The tags of the contact.
    pub tags: Vec<String>,
    /// How the contact came to us.
    pub source: Option<String>,
    /// Whole days since then.
    pub added_days: Option<i64>,
    /// The contact's fields; what is neither a text, a number nor a yes or no has no value.
    pub variables: BTreeMap<String, Value>,
    /// Messages that this enrollment has sent.
    pub sent_count: u32,
    /// Whether the customer has answered since it began.
    pub replied: bool,
    /// The arms that its splits have chosen.
    pub arms: BTreeMap<StepId, ArmKey>,
    /// Who answers in the conversation: `ai`, `human` or `paused`.
    pub mode: Option<String>,
    /// What the customer wrote last.
    pub last_reply_text: Option<String>,
    /// How many hours ago.
    pub last_reply_age_hours: Option<f64>,
    /// The hour of the day where the person is.
    pub hour: Option<u8>,
    /// Whether people work today.
    pub is_workday: Option<bool>,
}

/// A value of a fact.
enum Found<'a> {
    Tags(&'a [String]),
    Text(Cow<'a, str>),
    Number(f64),
    Flag(bool),
}

impl Facts {
    /// Decides a condition.
    pub fn meet(&self, condition: &Condition) -> bool {
        self.decide(condition, MOST_DEPTH)
    }

    fn decide(&self, condition: &Condition, depth: usize) -> bool {
        // Validation refuses deeper ones, so that this is only a fence.
        let Some(depth) = depth.checked_sub(1) else { return false };
        match condition {
            Condition::All(all) => all.all.iter().all(|condition| self.decide(condition, depth)),
            Condition::Any(any) => any.any.iter().any(|condition| self.decide(condition, depth)),
            Condition::Not(not) => !self.decide(&not.not, depth),
            Condition::Test(test) => self.test(test),
        }
    }

    fn test(&self, test: &Test) -> bool {
        if problem(test).is_some() {
            return false;
        }
        let Some(found) = Fact::parse(&test.fact).and_then(|fact| self.value(&fact)) else { return false };
        let Some(value) = &test.value else { return test.op == Operator::Exists };
        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
        match test.op {
            Operator::Exists => true,
            Operator::Eq => found.is(value),
            Operator::Ne => !found.is(value),
            Operator::In => list.iter().any(|value| found.is(value)),
            Operator::Contains => found.has(std::slice::from_ref(value)),
            Operator::ContainsAny => found.has(list),
            Operator::Gt => found.compares(value, |found, value| found > value),
            Operator::Gte => found.compares(value, |found, value| found >= value),
            Operator::Lt => found.compares(value, |found, value| found < value),
            Operator::Lte => found.compares(value, |found, value| found <= value),
        }
    }

    fn value(&self, fact: &Fact) -> Option<Found<'_>> {
        fn text(text: Option<&str>) -> Option<Found<'_>> {
            text.filter(|text| !text.is_empty()).map(|text| Found::Text(Cow::Borrowed(text)))
        }
        match fact {
            Fact::Tags => (!self.tags.is_empty()).then_some(Found::Tags(&self.tags)),
            Fact::Source => text(self.source.as_deref()),
            #[expect(clippy::cast_precision_loss, reason = "nobody has been a friend for 2^53 days")]
            Fact::AddedDays => self.added_days.map(|days| Found::Number(days as f64)),
            Fact::Variable(name) => match self.variables.get(name)? {
                Value::String(value) => text(Some(value)),
                Value::Number(number) => number.as_f64().map(Found::Number),
                Value::Bool(flag) => Some(Found::Text(Cow::Owned(flag.to_string()))),
                _ => None,
            },
            Fact::SentCount => Some(Found::Number(f64::from(self.sent_count))),
            Fact::Replied => Some(Found::Flag(self.replied)),
            Fact::Arm(step) => text(self.arms.get(step).map(ArmKey::as_str)),
            Fact::Mode => text(self.mode.as_deref()),
            Fact::ReplyText => text(self.last_reply_text.as_deref()),
            Fact::ReplyAgeHours => self.last_reply_age_hours.map(Found::Number),
            Fact::Hour => self.hour.map(|hour| Found::Number(f64::from(hour))),
            Fact::IsWorkday => self.is_workday.map(Found::Flag),
        }
    }
}

impl Found<'_> {
    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Found::Text(found), Value::String(value)) => normalize(found) == normalize(value),
            (Found::Flag(found), Value::Bool(value)) => found == value,
            (Found::Tags(_), _) => false,
            _ => self.compares(value, |found, value| found == value),
        }
    }

    fn has(&self, values: &[Value]) -> bool {
        let mut values = values.iter().filter_map(Value::as_str);
        match self {
            Found::Tags(tags) => values.any(|value| tags.iter().any(|tag| tag == value)),
            Found::Text(text) => {
                let text = normalize(text);
                values.any(|value| text.contains(&normalize(value)))
            }
            Found::Number(number) => {
                let text = number.to_string();
                values.any(|value| text.contains(&normalize(value)))
            }
            Found::Flag(_) => false,
        }
    }

    /// Compares as numbers; what is none compares as nothing.
    fn compares(&self, value: &Value, compare: fn(f64, f64) -> bool) -> bool {
        let found = match self {
            Found::Number(number) => Some(*number),
            Found::Text(text) => number(text),
            Found::Tags(_) | Found::Flag(_) => None,
        };
        let value = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => number(text),
            _ => None,
        };
        found.zip(value).is_some_and(|(found, value)| compare(found, value))
    }
}

/// Reads a number that somebody has written into a field.
fn number(text: &str) -> Option<f64> {
    normalize(text).parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn condition(value: Value) -> Condition {
        serde_json::from_value(value).expect("a condition")
    }

    fn li() -> Facts {
        Facts {
            tags: vec!["高意向".to_owned(), "新线索".to_owned()],
            source: Some("朋友圈广告".to_owned()),
            added_days: Some(3),
            variables: BTreeMap::from([
                ("score".to_owned(), json!("８０ ")),
                ("level".to_owned(), json!(7)),
                ("vip".to_owned(), json!(true)),
                ("empty".to_owned(), json!("")),
                ("list".to_owned(), json!(["a"])),
            ]),
            sent_count: 2,
            replied: false,
            arms: BTreeMap::from([(
                StepId::parse("d2_ab").expect("a name"),
                ArmKey::parse("article").expect("a name"),
            )]),
            mode: Some("ai".to_owned()),
            last_reply_text: Some("暂时 不\u{200b}需要，ＯＫ？".to_owned()),
            last_reply_age_hours: Some(1.5),
            hour: Some(10),
            is_workday: Some(true),
        }
    }

    fn check(fact: &str, op: &str, value: Value, expected: bool) {
        let test = condition(json!({"fact": fact, "op": op, "value": value}));
        assert_eq!(li().meet(&test), expected, "{fact} {op} {value}");
    }

    #[test]
    fn each_fact_is_compared_as_its_kind_is() {
        for (fact, op, value, expected) in [
            ("contact.tags", "contains", json!("高意向"), true),
            ("contact.tags", "contains", json!("高"), false),
            ("contact.tags", "contains_any", json!(["已成交", "新线索"]), true),
            ("contact.tags", "contains_any", json!(["已成交"]), false),
            ("contact.source", "eq", json!("朋友圈 广告"), true),
            ("contact.source", "ne", json!("扫码"), true),
            ("contact.source", "in", json!(["扫码", "朋友圈广告"]), true),
            ("contact.source", "contains", json!("广告"), true),
            ("contact.added_days", "gte", json!(3), true),
            ("contact.added_days", "gt", json!(3), false),
            ("contact.added_days", "lt", json!(3.5), true),
            ("contact.added_days", "lte", json!(2), false),
            ("contact.added_days", "in", json!([1, 3]), true),
            ("contact.var.score", "gte", json!(80), true),
            ("contact.var.score", "eq", json!("80"), true),
            ("contact.var.score", "eq", json!(80), true),
            ("contact.var.score", "gt", json!(80), false),
            ("contact.var.level", "eq", json!("7"), true),
            ("contact.var.level", "in", json!([6, "7"]), true),
            ("contact.var.level", "contains", json!("7"), true),
            ("contact.var.vip", "eq", json!("true"), true),
            ("enrollment.sent_count", "eq", json!(2), true),
            ("enrollment.replied", "eq", json!(false), true),
            ("enrollment.replied", "ne", json!(false), false),
            ("enrollment.arm.d2_ab", "eq", json!("article"), true),
            ("conversation.mode", "in", json!(["human", "paused"]), false),
            ("last_reply.text", "contains_any", json!(["不需要", "不考虑"]), true),
            ("last_reply.text", "contains", json!("ok"), true),
            ("last_reply.text", "eq", json!("不需要"), false),
            ("last_reply.age_hours", "lt", json!(2), true),
            ("time.hour", "gte", json!(9), true),
            ("time.is_workday", "eq", json!(true), true),
        ] {
            check(fact, op, value, expected);
        }
    }

    #[test]
    fn what_has_no_value_is_not_this_and_not_something_else() {
        let stranger = Facts::default();
        for fact in [
            "contact.tags",
            "contact.source",
            "contact.added_days",
            "contact.var.score",
            "enrollment.arm.d2_ab",
            "conversation.mode",
            "last_reply.text",
            "last_reply.age_hours",
            "time.hour",
            "time.is_workday",
        ] {
            let exists = json!({"fact": fact, "op": "exists"});
            assert!(!stranger.meet(&condition(exists.clone())), "{fact}");
            assert!(stranger.meet(&condition(json!({"not": exists}))), "{fact}");
        }
        for (fact, op, value) in [
            ("contact.source", "ne", json!("扫码")),
            ("contact.added_days", "lt", json!(1000)),
            ("contact.var.score", "ne", json!(1)),
            ("conversation.mode", "ne", json!("ai")),
        ] {
            let test = json!({"fact": fact, "op": op, "value": value});
            assert!(!stranger.meet(&condition(test.clone())), "{fact}");
            assert!(stranger.meet(&condition(json!({"not": test}))), "{fact}");
        }
        for nothing in ["empty", "list", "unknown"] {
            check(&format!("contact.var.{nothing}"), "exists", Value::Null, false);
        }
        // What is no number is neither more nor less than one; it is something else than one.
        check("contact.source", "exists", json!(true), true);
        check("contact.var.vip", "gt", json!(0), false);
        check("contact.var.vip", "lte", json!(0), false);
        check("contact.var.vip", "ne", json!(0), true);
    }

    #[test]
    fn conditions_are_combined() {
        let yes = json!({"fact": "time.hour", "op": "eq", "value": 10});
        let no = json!({"fact": "time.hour", "op": "eq", "value": 11});
        for (value, expected) in [
            (json!({"all": [yes, yes]}), true),
            (json!({"all": [yes, no]}), false),
            (json!({"any": [no, yes]}), true),
            (json!({"any": [no, no]}), false),
            (json!({"not": no}), true),
            (json!({"all": [{"any": [no, {"not": no}]}, yes]}), true),
        ] {
            assert_eq!(li().meet(&condition(value.clone())), expected, "{value}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said_and_is_false() {
        for (fact, op, value) in [
            ("contact.phone", "exists", Value::Null),
            ("contact.var.", "exists", Value::Null),
            ("enrollment.arm.9", "exists", Value::Null),
            ("contact.tags", "eq", json!("高意向")),
            ("contact.tags", "contains", json!(["高意向"])),
            ("contact.tags", "contains_any", json!("高意向")),
            ("contact.tags", "contains_any", json!([])),
            ("contact.tags", "contains", json!(" ")),
            ("contact.tags", "contains", Value::Null),
            ("contact.source", "gt", json!(1)),
            ("contact.added_days", "eq", json!("3")),
            ("contact.added_days", "contains", json!("3")),
            ("enrollment.replied", "eq", json!(1)),
            ("enrollment.replied", "in", json!([true])),
            ("conversation.mode", "eq", json!("robot")),
            ("conversation.mode", "contains", json!("ai")),
            ("time.is_workday", "exists", json!(false)),
            ("contact.source", "eq", json!("长".repeat(201))),
            ("contact.source", "in", json!(vec!["a"; 101])),
        ] {
            let Condition::Test(test) = condition(json!({"fact": fact, "op": op, "value": value})) else {
                panic!("a test")
            };
            let said = problem(&test).unwrap_or_else(|| panic!("{fact} {op} {value}"));
            assert!(said.contains(':') || said.contains("at most"), "{said}");
            assert!(!li().meet(&Condition::Test(test)), "{fact} {op} {value}");
        }
    }
}
