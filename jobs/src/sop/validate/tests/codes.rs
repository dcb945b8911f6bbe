//! `E02` to `E18` and the warnings.

use serde_json::json;

use super::*;
use crate::sop::finding::Code;

/// The steps' names, `s00` and so on.
fn name(at: usize) -> String {
    format!("s{at:02}")
}

#[test]
fn e02_two_steps_of_one_name() {
    let twice = plan(json!([send("a", "b"), wait("b", "PT1H", None), send("a", None)]));
    assert_eq!(told(&twice), pairs(&[("E02", "/steps/2/id")]));
    let once = plan(json!([send("a", "b"), wait("b", "PT1H", "c"), send("c", None)]));
    assert_eq!(told(&once), []);
    changed("/steps/5/arms/1/key", json!("article"), &[("E02", "/steps/5/arms/1/key")]);
}

#[test]
fn e03_a_way_to_a_step_that_is_not_there() {
    let lost = plan(json!([send("a", "b"), wait("b", "PT1H", "d"), send("c", None)]));
    assert_eq!(told(&lost), pairs(&[("E03", "/steps/1/next"), ("E05", "/steps/2")]));
    for pointer in [
        "/steps/0/next",
        "/steps/12/on_reply",
        "/steps/9/cases/0/next",
        "/steps/13/else",
        "/steps/5/arms/1/next",
    ] {
        let mut config = example();
        set(&mut config, pointer, json!("nowhere"));
        assert!(told(&config).contains(&("E03".to_owned(), pointer.to_owned())), "{pointer}");
    }
    // A way that ends is one that leads nowhere on purpose.
    changed("/steps/16/next", Value::Null, &[]);
    // Without a beginning, that nothing is reached says nothing more.
    changed("/entry", json!("d0"), &[("E03", "/entry")]);
}

#[test]
fn e04_a_circle_is_told_where_it_closes() {
    changed("/steps/15/next", json!("d2_wait"), &[("E04", "/steps/15/next"), ("E05", "/steps/18")]);
    let itself = plan(json!([send("a", "a")]));
    assert_eq!(told(&itself), pairs(&[("E04", "/steps/0/next")]));
    // Two ways to one step are no circle.
    changed("/steps/14/next", json!("done_silent"), &[("E05", "/steps/17")]);
    // One that is not reached is a circle all the same.
    let apart = plan(json!([send("a", None), wait("b", "PT1H", "c"), wait("c", "PT1H", "b")]));
    assert_eq!(told(&apart), pairs(&[("E04", "/steps/2/next"), ("E05", "/steps/1"), ("E05", "/steps/2")]));
}

#[test]
fn e04_a_circle_of_sixty_steps_is_found() {
    let steps: Vec<Value> = (0..60)
        .map(|at| json!({"id": name(at), "type": "wait", "for": "PT1H", "next": name((at + 1) % 60)}))
        .collect();
    let mut config = plan(json!(steps));
    let report = Organization::default().look(&config);
    let [finding] = report.errors.as_slice() else { panic!("{report:?}") };
    assert_eq!((finding.code, finding.path.as_str()), (Code::E04, "/steps/59/next"));
    assert!(
        finding.message.contains("s00 → s01") && finding.message.contains("60 steps"),
        "{}",
        finding.message
    );
    set(&mut config, "/steps/59/next", Value::Null);
    assert_eq!(told(&config), []);
}

#[test]
fn e05_a_step_to_which_no_way_leads() {
    let alone = plan(json!([send("a", None), send("b", None)]));
    assert_eq!(told(&alone), pairs(&[("E05", "/steps/1")]));
    // That another lost step leads to it does not help.
    let two = plan(json!([send("a", None), wait("b", "PT1H", "c"), wait("c", "PT1H", None)]));
    assert_eq!(told(&two), pairs(&[("E05", "/steps/1"), ("E05", "/steps/2")]));
}

#[test]
fn e06_a_variable_that_is_not_declared() {
    let text = "我是{{机构名}}的{{姓名}}，{{姓名}}，回复退订";
    changed("/steps/0/message/text", json!(text), &[("E06", "/steps/0/message/text")]);
    changed("/steps/7/fallback_text", json!("{{姓名}}好"), &[("E06", "/steps/7/fallback_text")]);
    changed("/steps/7/instruction", json!("写给{{姓名}}"), &[("E06", "/steps/7/instruction")]);
    changed("/steps/7/instruction", json!("写给{{ 称呼 }}"), &[]);
    for broken in ["{{称呼", "{{}}", "{{{称呼}}}", "{{称{{呼}}}}"] {
        changed("/steps/7/fallback_text", json!(broken), &[("E06", "/steps/7/fallback_text")]);
    }
}

#[test]
fn e07_what_cannot_be_asked() {
    let goal = |fact: &str, op: &str, value: Value| json!({"fact": fact, "op": op, "value": value});
    changed("/goal", goal("contact.phone", "eq", json!("1")), &[("E07", "/goal")]);
    changed("/goal", goal("contact.tags", "gt", json!(1)), &[("E07", "/goal")]);
    changed("/goal", goal("contact.added_days", "gt", json!("三")), &[("E07", "/goal")]);
    changed("/goal", goal("contact.added_days", "gt", json!(3)), &[]);
    let filter = json!({"all": [goal("time.hour", "lt", json!(12)), {"not": goal("time.hour", "contains", json!("1"))}]});
    changed("/audience/filter", filter, &[("E07", "/audience/filter/all/1/not")]);
    // An arm is one of a split.
    changed("/goal", goal("enrollment.arm.d2_ab", "eq", json!("article")), &[]);
    changed("/goal", goal("enrollment.arm.d2_case", "eq", json!("article")), &[("E07", "/goal")]);
    changed("/steps/9/cases/0/when/any/1/value", json!(true), &[("E07", "/steps/9/cases/0/when/any/1")]);
    let many: Vec<Value> = (0..101).map(|hour| goal("time.hour", "eq", json!(hour))).collect();
    changed("/goal", json!({"any": many}), &[("E07", "/goal")]);
}

#[test]
fn e08_a_material_that_cannot_be_sent() {
    changed("/steps/2/message/material_id", json!("mat_lost"), &[("E08", "/steps/2/message/material_id")]);
    changed("/steps/2/message/kind", json!("image"), &[("E08", "/steps/2/message/material_id")]);
    let mut organization = Organization::default();
    organization.materials.get_mut("mat_outline").expect("a material").approved = false;
    assert_eq!(organization.told(&example()), pairs(&[("E08", "/steps/2/message/material_id")]));
}

#[test]
fn e09_a_workflow_that_is_not_there() {
    changed("/steps/7/workflow", json!("sales"), &[("E09", "/steps/7/workflow")]);
    assert_eq!(told(&example()), []);
}

#[test]
fn e10_a_window_that_never_opens_or_reaches_too_far() {
    let range = |from: &str, to: &str| json!([{"from": from, "to": to}]);
    changed("/send_window/ranges", range("08:59", "12:00"), &[("E10", "/send_window/ranges/0")]);
    changed("/send_window/ranges", range("12:00", "21:01"), &[("E10", "/send_window/ranges/0")]);
    changed("/send_window/ranges", range("09:00", "21:00"), &[]);
    changed("/send_window/days", json!("custom"), &[("E10", "/send_window/weekdays")]);
    changed("/send_window/weekdays", json!([1]), &[("E10", "/send_window/weekdays")]);
    let mut config = example();
    set(&mut config, "/send_window/days", json!("custom"));
    set(&mut config, "/send_window/weekdays", json!([]));
    assert_eq!(told(&config), pairs(&[("E10", "/send_window/weekdays")]));
    set(&mut config, "/send_window/weekdays", json!([6, 7]));
    assert_eq!(told(&config), []);
    let anytime = Organization { window: None, ..Organization::default() };
    set(&mut config, "/send_window/ranges", range("00:00", "23:59"));
    assert_eq!(anytime.told(&config), []);
}

#[test]
fn e11_more_than_the_organization_allows() {
    changed("/caps/per_contact_per_day", json!(3), &[("E11", "/caps/per_contact_per_day")]);
    changed("/caps/per_contact_per_week", json!(6), &[("E11", "/caps/per_contact_per_week")]);
    changed("/caps/per_account_per_day", json!(151), &[("E11", "/caps/per_account_per_day")]);
    changed("/caps/max_unanswered", json!(5), &[("E11", "/caps/max_unanswered")]);
    let free = Organization { caps: OrganizationCaps::default(), ..Organization::default() };
    let mut config = example();
    set(&mut config, "/caps/per_account_per_day", json!(100_000));
    assert_eq!(free.told(&config), []);
}

#[test]
fn e12_weights_that_are_not_a_whole() {
    changed("/steps/5/arms/0/weight", json!(49), &[("E12", "/steps/5/arms")]);
    let mut config = example();
    set(&mut config, "/steps/5/arms/0/weight", json!(1));
    set(&mut config, "/steps/5/arms/1/weight", json!(99));
    assert_eq!(told(&config), []);
}

#[test]
fn e13_times_that_come_too_often_or_never() {
    let cron = |cron: &str| json!({"type": "cron", "cron": cron});
    for wrong in ["*/30 9 * * *", "0 9 30 2 *", "every day", "* * * * * *"] {
        changed("/trigger", cron(wrong), &[("E13", "/trigger/cron")]);
    }
    changed("/trigger", cron("30 9 * * 1-5"), &[]);
    changed("/trigger", cron("0 * * * *"), &[]);
}

#[test]
fn e14_what_groups_do_not_do() {
    let in_group = |steps: Value| {
        let mut config = plan(steps);
        set(&mut config, "/audience/kind", json!("group"));
        config
    };
    let steps = json!([
        {"id": "a", "type": "wait_reply", "timeout": "PT1H", "on_timeout": "b"},
        {"id": "b", "type": "tag", "add": ["x"], "next": "c"},
        {"id": "c", "type": "handoff", "to": "owner", "note": "看一下", "next": null},
    ]);
    let expected = pairs(&[("E14", "/steps/0/type"), ("E14", "/steps/1/type"), ("E14", "/steps/2/type")]);
    assert_eq!(told(&in_group(steps.clone())), expected);
    assert_eq!(told(&plan(steps)), []);
    let branch = |fact: &str, op: &str, value: Value| {
        let when = json!({"any": [{"fact": fact, "op": op, "value": value}]});
        in_group(
            json!([{"id": "a", "type": "branch", "cases": [{"when": when, "next": null}], "else": null}]),
        )
    };
    assert_eq!(told(&branch("time.hour", "lt", json!(12))), []);
    assert_eq!(told(&branch("contact.tags", "contains", json!("活跃"))), []);
    let replied = branch("enrollment.replied", "eq", json!(true));
    assert_eq!(told(&replied), pairs(&[("E14", "/steps/0/cases/0/when/any/0/fact")]));
}

#[test]
fn e15_an_event_that_would_be_any() {
    let event = |event: &str| json!({"type": "event", "event": event});
    changed("/trigger", event("tag_added"), &[("E15", "/trigger/tags")]);
    changed("/trigger", event("keyword_received"), &[("E15", "/trigger/keywords")]);
    changed("/trigger", event("friend_added"), &[]);
    let mut tagged = event("tag_added");
    tagged["tags"] = json!(["新线索"]);
    changed("/trigger", tagged, &[]);
    let mut config = example();
    remove(&mut config, "/stop/2/tags");
    assert_eq!(told(&config), pairs(&[("E15", "/stop/2/tags")]));
}

#[test]
fn e16_a_range_that_ends_before_it_begins() {
    let range = |from: &str, to: &str| json!([{"from": "09:00", "to": "10:00"}, {"from": from, "to": to}]);
    changed("/send_window/ranges", range("12:00", "12:00"), &[("E16", "/send_window/ranges/1/to")]);
    changed("/send_window/ranges", range("20:00", "10:00"), &[("E16", "/send_window/ranges/1/to")]);
    changed("/send_window/ranges", range("12:00", "12:01"), &[]);
}

#[test]
fn e17_nobody_has_thought_of_an_answer() {
    let mut config = plan(json!([send("a", None)]));
    set(&mut config, "/stop", json!([]));
    assert_eq!(told(&config), pairs(&[("E17", "/stop")]));
    set(&mut config, "/audience/kind", json!("group"));
    assert_eq!(told(&config), []);
    let mut listens = plan(json!([
        send("a", "b"),
        {"id": "b", "type": "wait_reply", "timeout": "P1D", "on_timeout": null},
    ]));
    set(&mut listens, "/stop", json!([]));
    assert_eq!(told(&listens), []);
}

#[test]
fn a_rule_that_could_never_act_is_refused() {
    let mut config = example();
    remove(&mut config, "/stop/4/after");
    remove(&mut config, "/goal");
    assert_eq!(told(&config), pairs(&[("E01", "/stop/1/on"), ("E01", "/stop/4/after")]));
}

#[test]
fn e18_the_first_message_says_who_writes_and_how_to_opt_out() {
    let path = "/steps/0/message/text";
    changed(path, json!("我是{{机构名}}的顾问"), &[("E18", path)]);
    changed(path, json!("您好，回复“退订”即可"), &[("E18", path)]);
    changed(path, json!("您好"), &[("E18", path), ("E18", path)]);
    changed(path, json!("我是{{顾问名}}，不想收到请回复“退 订”"), &[]);
    // A name and a word of the organisation's own do too.
    let own = Organization {
        opt_out_words: vec!["别发了".to_owned()],
        sender_names: vec![String::new(), "熵变学堂".to_owned()],
        ..Organization::default()
    };
    let mut config = example();
    set(&mut config, path, json!("您好，这里是熵变学堂，回“别发了”就不再打扰"));
    assert_eq!(own.told(&config), []);
    assert_eq!(told(&config).len(), 2);
    // A material or a model's text is not such a message, on whatever way it comes first.
    changed(
        "/entry",
        json!("d1_outline"),
        &[("E05", "/steps/0"), ("E05", "/steps/1"), ("E18", "/steps/2/message")],
    );
    let mut split = example();
    set(&mut split, "/entry", json!("d2_ab"));
    let found: Vec<_> = told(&split).into_iter().filter(|(code, _)| code == "E18").collect();
    assert_eq!(found, pairs(&[("E18", "/steps/6/message"), ("E18", "/steps/7")]));
    // Who need not have agreed is not advertised to; nor are groups.
    let mut config = example();
    set(&mut config, path, json!("您好"));
    set(&mut config, "/audience/consent/required", json!(false));
    assert_eq!(told(&config), []);
}

#[test]
fn w01_more_messages_in_a_row_than_may_stay_unanswered() {
    changed("/caps/max_unanswered", json!(3), &[("W01", "/steps/11")]);
    changed("/caps/max_unanswered", json!(4), &[]);
    // What comes after an answer is counted anew.
    let steps = |on_reply: &'static str| {
        let mut config = plan(json!([
            send("a", "b"),
            {"id": "b", "type": "wait_reply", "timeout": "P1D", "on_reply": on_reply, "on_timeout": null},
            send("c", None),
        ]));
        set(&mut config, "/caps/max_unanswered", json!(1));
        config
    };
    assert_eq!(told(&steps("c")), []);
    let mut silent = steps("c");
    set(&mut silent, "/steps/1/on_timeout", json!("c"));
    assert_eq!(told(&silent), pairs(&[("W01", "/steps/2")]));
}

#[test]
fn w02_two_messages_at_once() {
    let at_once = plan(json!([send("a", "b"), send("b", None)]));
    assert_eq!(told(&at_once), pairs(&[("W02", "/steps/1")]));
    let no_wait = plan(json!([send("a", "b"), wait("b", "PT0S", "c"), send("c", None)]));
    assert_eq!(told(&no_wait), pairs(&[("W02", "/steps/2")]));
    let waits = plan(json!([send("a", "b"), wait("b", "PT1S", "c"), send("c", None)]));
    assert_eq!(told(&waits), []);
    // On one way of several, behind a step that takes no time.
    let case = json!({"when": {"fact": "time.hour", "op": "lt", "value": 12}, "next": "w"});
    let one_way = plan(json!([
        send("a", "b"),
        {"id": "b", "type": "branch", "cases": [case], "else": "c"},
        wait("w", "PT1H", "c"),
        send("c", None),
    ]));
    assert_eq!(told(&one_way), pairs(&[("W02", "/steps/3")]));
    let answered = plan(json!([
        send("a", "b"),
        {"id": "b", "type": "wait_reply", "timeout": "P1D", "on_reply": "c", "on_timeout": null},
        send("c", None),
    ]));
    assert_eq!(told(&answered), []);
}

#[test]
fn w03_a_models_text_that_nobody_looks_at() {
    changed("/steps/7/review", json!("none"), &[("W03", "/steps/7/review")]);
    let mut config = example();
    remove(&mut config, "/steps/7/review");
    assert_eq!(told(&config), pairs(&[("W03", "/steps/7")]));
}

#[test]
fn w04_more_messages_than_the_accounts_may_send() {
    let with = |recipients: &[u64]| Organization {
        accounts: recipients
            .iter()
            .map(|recipients| AccountLoad {
                name: "小李的号".to_owned(),
                recipients: *recipients,
                per_day: 100,
            })
            .collect(),
        ..Organization::default()
    };
    // Four messages over three days, and two days in which an answer is waited for that is not followed by one.
    assert_eq!(with(&[75]).told(&example()), []);
    assert_eq!(with(&[10, 76]).told(&example()), pairs(&[("W04", "/caps/per_account_per_day")]));
    let report = with(&[10, 500, 76]).look(&example());
    let message = &report.warnings[0].message;
    assert!(
        message.contains("about 2000 messages of the account \"小李的号\" take 20 days at 100 a day"),
        "{message}"
    );
    let one = plan(json!([send("a", None)]));
    assert_eq!(with(&[100]).told(&one), []);
    assert_eq!(with(&[101]).told(&one), pairs(&[("W04", "/caps/per_account_per_day")]));
    assert_eq!(with(&[u64::MAX]).told(&one).len(), 1);
}

#[test]
fn w05_every_date_is_a_holiday() {
    let once = |at: &str| {
        let mut config = plan(json!([send("a", "b"), wait("b", "P1D", "c"), send("c", None)]));
        set(&mut config, "/trigger", json!({"type": "once", "at": at}));
        config
    };
    // The seventh is the last day off: the second message is sent on a working day.
    assert_eq!(told(&once("2026-10-06T09:30:00+08:00")), pairs(&[("W05", "/trigger/at")]));
    assert_eq!(told(&once("2026-10-07T09:30:00+08:00")), []);
    // In Shanghai it is the first of October already.
    assert_eq!(told(&once("2026-09-30T17:00:00Z")), pairs(&[("W05", "/trigger/at")]));
    let mut nobodys = once("2026-10-06T09:30:00+08:00");
    set(&mut nobodys, "/send_window/holiday_calendar", json!("none"));
    assert_eq!(told(&nobodys), []);
    let cron = |cron: &str| json!({"type": "cron", "cron": cron});
    changed("/trigger", cron("0 10 1-7 10 *"), &[("W05", "/trigger/cron")]);
    changed("/trigger", cron("0 10 1-8 10 *"), &[]);
}

#[test]
fn w06_a_sensitive_word() {
    let organization = Organization::with_words(&[("大纲", "mask"), ("稳赚", "block"), ("您", "review")]);
    let found = organization.told(&example());
    let expected = pairs(&[
        ("W06", "/steps/0/message/text"),
        ("W06", "/steps/7/fallback_text"),
        ("W06", "/variables/称呼/default"),
    ]);
    assert_eq!(found, expected);
    assert_eq!(Organization::with_words(&[("稳赚", "block")]).told(&example()), []);
}

#[test]
fn errors_and_warnings_come_together() {
    let mut config = example();
    set(&mut config, "/steps/0/message/text", json!("{{谁}}"));
    set(&mut config, "/steps/7/workflow", json!("nobody"));
    set(&mut config, "/steps/7/review", json!("none"));
    set(&mut config, "/caps/max_unanswered", json!(3));
    set(&mut config, "/send_window/ranges/0/from", json!("06:00"));
    let text = "/steps/0/message/text";
    let expected = pairs(&[
        ("E06", text),
        ("E09", "/steps/7/workflow"),
        ("E10", "/send_window/ranges/0"),
        ("E18", text),
        ("E18", text),
        ("W01", "/steps/11"),
        ("W03", "/steps/7/review"),
    ]);
    assert_eq!(told(&config), expected);
}
