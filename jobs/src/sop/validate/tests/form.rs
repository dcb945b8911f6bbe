//! `E01`: the form.

use serde_json::json;

use super::*;
use crate::sop::config::{WorkflowConfig, reading, sha256};
use crate::sop::finding::{Code, MOST_FINDINGS};

#[test]
fn the_worked_example_is_sound() {
    let report = Organization::default().look(&example());
    assert_eq!(report, Report::default());
    let config = WorkflowConfig::parse(&example()).expect("a plan");
    assert_eq!(config.steps.len(), 19);
    let text = serde_json::to_string(&example()).expect("JSON");
    assert_eq!(reading::read(text.as_bytes()), Ok(example()));
}

#[test]
fn the_eight_broken_files_are_refused_with_their_place() {
    let until = json!({"day_offset": 1, "at": "10:00"});
    changed("/steps/1/until", until, &[("E01", "/steps/1")]);
    changed("/schema_version", json!(2), &[("E01", "/schema_version")]);
    let mut without_next = example();
    remove(&mut without_next, "/steps/2/next");
    assert_eq!(told(&without_next), pairs(&[("E01", "/steps/2/next")]));
    changed("/steps/1/for", json!("P"), &[("E01", "/steps/1/for")]);
    changed("/caps/max_unanswered", json!(9), &[("E01", "/caps/max_unanswered")]);
    changed("/steps/0/message/kind", json!("video"), &[("E01", "/steps/0/message/kind")]);
    changed("/send_window/ranges/1/to", json!("24:30"), &[("E01", "/send_window/ranges/1/to")]);
    changed("/caps/per_contact_per_dya", json!(1), &[("E01", "/caps/per_contact_per_dya")]);
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let mut config = example();
    set(&mut config, "/schema_version", json!(2));
    set(&mut config, "/steps/1/for", json!("PT"));
    set(&mut config, "/steps/5/arms/0/weight", json!(0));
    set(&mut config, "/steps/9/cases/0/when/any/0/op", json!("like"));
    set(&mut config, "/typo", json!(true));
    remove(&mut config, "/caps/max_unanswered");
    let mut found = told(&config);
    found.sort();
    let mut expected = pairs(&[
        ("E01", "/schema_version"),
        ("E01", "/steps/1/for"),
        ("E01", "/steps/5/arms/0/weight"),
        ("E01", "/steps/9/cases/0/when/any/0/op"),
        ("E01", "/typo"),
        ("E01", "/caps/max_unanswered"),
    ]);
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn each_field_is_told_what_to_be() {
    for (pointer, value, path, said) in [
        (
            "/timezone",
            json!("Mars/Olympus"),
            "/timezone",
            "there is no time zone \"Mars/Olympus\": use a name such as",
        ),
        ("/timezone", json!(8), "/timezone", "this is a number, and must be a text"),
        ("/trigger", json!("manual"), "/trigger", "this is a text, and must be an object"),
        (
            "/trigger",
            json!({"type": "daily"}),
            "/trigger/type",
            "\"daily\" is no type: use manual, once, cron or event",
        ),
        (
            "/trigger",
            json!({}),
            "/trigger/type",
            "the field type is missing: use manual, once, cron or event",
        ),
        ("/trigger", json!({"type": "once"}), "/trigger/at", "the field at is missing: add it"),
        ("/trigger", json!({"type": "once", "at": "2026-12-01 09:30"}), "/trigger/at", "write a moment as"),
        ("/trigger", json!({"type": "manual", "at": 1}), "/trigger/at", "there is no field \"at\" here"),
        ("/trigger/delay", json!("P9999D"), "/trigger/delay", "a length of time is at most 3650 days"),
        (
            "/caps/max_unanswered",
            json!(3.0),
            "/caps/max_unanswered",
            "a number with a point, and must be a whole number",
        ),
        ("/caps/max_unanswered", json!(-1), "/caps/max_unanswered", "this is -1, and must be from 1 to 5"),
        ("/caps/per_account_per_day", json!(0), "/caps/per_account_per_day", "must be 1 or more"),
        ("/caps/per_account_per_day", json!(3_000_000_000_u64), "/caps/per_account_per_day", "too large"),
        ("/caps/per_account_per_day", json!(u64::MAX), "/caps/per_account_per_day", "too large"),
        ("/caps/per_account_per_day", json!(1e30), "/caps/per_account_per_day", "too large"),
        (
            "/caps/ai_budget_yuan_per_enrollment",
            json!("1,5"),
            "/caps/ai_budget_yuan_per_enrollment",
            "write an amount",
        ),
        (
            "/caps/on_cap",
            json!("wait"),
            "/caps/on_cap",
            "\"wait\" is none of the choices: use defer, skip or exit",
        ),
        ("/entry", json!("第一步"), "/entry", "a name is a small letter"),
        ("/goal", json!({"tags": 1}), "/goal", "write all, or any, or not, or fact and op"),
        ("/goal", json!({"all": []}), "/goal/all", "at least 1 are needed"),
        ("/goal/fact", json!("user.name"), "/goal/fact", "write a fact as contact.tags"),
        ("/goal/value2", json!(1), "/goal/value2", "there is no field \"value2\" here"),
        ("/audience/max_size", json!(null), "/audience/max_size", "this is null, and must be a whole number"),
        ("/steps", json!([]), "/steps", "there are 0 entries, and at least 1 are needed"),
        ("/steps/0/message/text", json!(""), "/steps/0/message/text", "this text is empty"),
        (
            "/steps/0/message/text",
            json!("长".repeat(2001)),
            "/steps/0/message/text",
            "2001 characters, and may have 2000",
        ),
        ("/steps/0/next", json!(7), "/steps/0/next", "this is a number, and must be a text"),
        ("/steps/0/type", json!(["send"]), "/steps/0/type", "a list is no type: use send, ai_send"),
        (
            "/steps/15",
            json!({"id": "x", "type": "tag", "next": null}),
            "/steps/15",
            "one of the fields add and remove is needed",
        ),
        (
            "/steps/1",
            json!({"id": "x", "type": "wait", "next": null}),
            "/steps/1",
            "one of the fields for and until is needed",
        ),
        (
            "/steps/9/cases/0/when",
            json!([]),
            "/steps/9/cases/0/when",
            "this is a list, and must be an object",
        ),
        (
            "/send_window/weekdays",
            json!([1, 8]),
            "/send_window/weekdays/1",
            "this is 8, and must be from 1 to 7",
        ),
        ("/send_window/weekdays", json!([1, 1]), "/send_window/weekdays/1", "1 stands here twice"),
        ("/stop/0/after", json!("1 day"), "/stop/0/after", "write a length of time as PT30M"),
        ("/ui", json!({"x": "\u{0}"}), "", "U+0000"),
    ] {
        let mut config = example();
        set(&mut config, pointer, value.clone());
        let findings = WorkflowConfig::parse(&config).expect_err(pointer);
        let found = findings.iter().find(|finding| finding.path == path);
        let found = found.unwrap_or_else(|| panic!("{pointer} = {value}: {findings:?}"));
        assert_eq!(found.code, Code::E01);
        assert!(found.message.contains(said), "{pointer} = {value}: {}", found.message);
    }
}

#[test]
fn what_may_be_left_out_has_its_default() {
    let config = WorkflowConfig::parse(&plan(json!([send("a", None)]))).expect("a plan");
    assert_eq!(config.timezone, chrono_tz::Asia::Shanghai);
    let written = serde_json::to_value(&config).expect("JSON");
    assert_eq!(written["caps"]["on_cap"], "defer");
    assert_eq!(written["send_window"]["holiday_calendar"], "cn");
    assert_eq!(written["audience"]["exclude_other_active_sop"], true);
    assert_eq!(written.get("late"), None);
    let mut without_zone = plan(json!([send("a", None)]));
    remove(&mut without_zone, "/timezone");
    assert_eq!(WorkflowConfig::parse(&without_zone), Ok(config));
}

#[test]
fn an_answers_way_that_is_null_is_not_one_that_is_left_out() {
    let step = |on_reply: Option<Value>| {
        let mut step = json!({"id": "a", "type": "wait_reply", "timeout": "PT1H", "on_timeout": null});
        if let Some(on_reply) = on_reply {
            step["on_reply"] = on_reply;
        }
        let config = WorkflowConfig::parse(&plan(json!([step]))).expect("a plan");
        let written = serde_json::to_value(&config).expect("JSON");
        (written["steps"][0].get("on_reply").cloned(), WorkflowConfig::parse(&written) == Ok(config))
    };
    assert_eq!(step(None), (None, true));
    assert_eq!(step(Some(Value::Null)), (Some(Value::Null), true));
}

#[test]
fn conditions_stand_at_most_ten_deep() {
    let nested = |depth: usize| {
        let mut condition = json!({"fact": "time.hour", "op": "exists"});
        for _ in 1..depth {
            condition = json!({"not": condition});
        }
        let mut config = example();
        set(&mut config, "/goal", condition);
        config
    };
    assert_eq!(told(&nested(10)), []);
    assert_eq!(told(&nested(11)), pairs(&[("E01", &format!("/goal{}", "/not".repeat(10)))]));
    assert_eq!(told(&nested(40)), pairs(&[("E01", &format!("/goal{}", "/not".repeat(10)))]));
}

#[test]
fn a_config_of_five_mebibytes_is_answered_with_one_finding() {
    let mut config = example();
    set(&mut config, "/ui", json!({"note": "长".repeat(2 << 20)}));
    assert_eq!(told(&config), pairs(&[("E01", "")]));
    let text = serde_json::to_vec(&config).expect("JSON");
    assert_eq!(reading::read(&text).map_err(|findings| findings.len()), Err(1));
}

#[test]
fn a_plan_that_is_nothing_but_wrong_is_answered_shortly() {
    let fields: serde_json::Map<String, Value> =
        (0..50_000).map(|at| (format!("x{at}"), json!(at))).collect();
    let findings = WorkflowConfig::parse(&Value::Object(fields)).expect_err("refused");
    assert_eq!(findings.len(), MOST_FINDINGS);
    let long = WorkflowConfig::parse(&json!({"x\n".repeat(10_000): 1})).expect_err("refused");
    assert!(long.iter().all(|finding| finding.message.chars().count() < 200 && finding.path.len() < 300));
}

#[test]
fn the_hash_is_of_what_the_plan_says_and_not_of_how_it_is_laid_out() {
    let config = example();
    let mut fields: Vec<(String, Value)> =
        config.as_object().expect("an object").clone().into_iter().collect();
    fields.reverse();
    let turned: Value = Value::Object(fields.into_iter().collect());
    assert_eq!(sha256(&config), sha256(&turned));
    assert_eq!(sha256(&config).len(), 64);
    let mut other = example();
    set(&mut other, "/steps/0/label", json!("第一天"));
    assert_ne!(sha256(&config), sha256(&other));
}

#[test]
fn oracle_temporary() {
    let all: Vec<(Value, bool)> =
        serde_json::from_slice(&std::fs::read("/tmp/config-scratch/oracle.json").unwrap()).unwrap();
    let mut bad = 0;
    for (config, valid) in &all {
        let ours = WorkflowConfig::parse(config);
        if ours.is_ok() != *valid {
            bad += 1;
            println!("{valid} {:?}\n", ours.map(|_| ()));
        }
    }
    assert_eq!(bad, 0, "of {}", all.len());
}
