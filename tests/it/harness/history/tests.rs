//! For each rule, histories that break it and the nearest ones that keep it.

use std::slice::from_ref;

use super::*;

const MINUTE_US: i64 = 60_000_000;
const SECOND_US: i64 = 1_000_000;
const IN_FLIGHT_US: i64 = 6_000_000;

const LIMITS: Limits =
    Limits { per_minute: 2, per_day: None, recipients_per_minute: None, min_gap: Duration::from_millis(10) };

fn rules(limits: Limits) -> Rules {
    Rules { accounts: HashMap::from([("wx_a".into(), limits), ("wx_b".into(), limits)]), ..Rules::default() }
}

fn message(to: &str, text: &str) -> Message {
    Message { app_id: "wx_a".into(), to_wxid: to.into(), text: text.into() }
}

fn messages() -> Vec<Message> {
    vec![
        message("wxid_1", "一甲"),
        message("wxid_2", "二甲"),
        message("wxid_1", "一乙"),
        message("wxid_2", "二乙"),
    ]
}

fn asked() -> Vec<Ask> {
    messages().into_iter().map(Ask::new).collect()
}

fn arrival(message: &Message, at_us: i64) -> Arrival {
    Arrival { message: message.clone(), at_us, trace_id: None }
}

/// One arrival per half minute: within the limits.
fn arrived(messages: &[Message]) -> Vec<Arrival> {
    (0..).zip(messages).map(|(n, message)| arrival(message, n * MINUTE_US / 2)).collect()
}

fn check(asked: &[Ask], arrived: &[Arrival], expected: &[Fault]) {
    assert_eq!(faults(asked, arrived, &rules(LIMITS)), expected);
}

/// Judges one message, which passed its gate at the first time and arrived at the second.
fn one(ask: Ask, gate_us: i64, arrived_us: i64, rules: &Rules) -> Vec<Fault> {
    let ask = Ask { gates_us: vec![gate_us], ..ask };
    faults(from_ref(&ask), &[arrival(&ask.message, arrived_us)], rules)
}

#[test]
fn a_good_history_has_no_fault() {
    check(&asked(), &arrived(&messages()), &[]);
}

#[test]
fn conversations_may_overtake_each_other() {
    let [a1, b1, a2, b2] = messages().try_into().unwrap();
    check(&asked(), &arrived(&[b1, b2, a1, a2]), &[]);
}

#[test]
fn a_lost_a_repeated_and_an_unasked_message_are_told_apart() {
    let [a1, b1, a2, b2] = messages().try_into().unwrap();
    let stranger = message("wxid_1", "谁？");
    let found = arrived(&[a1, a2.clone(), a2.clone(), b2, stranger.clone()]);
    check(&asked(), &found, &[Fault::Lost(b1), Fault::Repeated(a2, 2), Fault::Unasked(stranger)]);
}

#[test]
fn a_message_to_another_recipient_is_lost_here_and_unasked_there() {
    let mut found = arrived(&messages());
    found[1].message.to_wxid = "wxid_1".into();
    let stray = found[1].message.clone();
    check(&asked(), &found, &[Fault::Lost(messages()[1].clone()), Fault::Unasked(stray)]);
}

#[test]
fn a_message_of_unknown_outcome_may_be_missing_or_there_but_not_twice() {
    let mut asked = asked();
    asked[3].outcome = Outcome::Unknown;
    let all = messages();
    check(&asked, &arrived(&all[..3]), &[]);
    check(&asked, &arrived(&all), &[]);
    let twice = [all.clone(), vec![all[3].clone()]].concat();
    check(&asked, &arrived(&twice), &[Fault::Repeated(all[3].clone(), 2)]);
}

#[test]
fn a_message_that_the_record_denies_must_not_be_there() {
    let mut asked = asked();
    asked[3].outcome = Outcome::NotSent;
    let all = messages();
    check(&asked, &arrived(&all[..3]), &[]);
    check(&asked, &arrived(&all), &[Fault::Denied(all[3].clone())]);
}

#[test]
fn a_message_behind_a_later_one_of_its_conversation_is_out_of_order() {
    let [a1, b1, a2, b2] = messages().try_into().unwrap();
    let found = arrived(&[a2, b1, a1.clone(), b2]);
    check(&asked(), &found, &[Fault::Overtaken { late: a1, by: "一乙".into() }]);
}

#[test]
fn a_message_of_another_priority_may_go_first() {
    let [a1, b1, a2, b2] = messages().try_into().unwrap();
    let mut asked = asked();
    asked[2].class = 2;
    check(&asked, &arrived(&[a2, b1, a1, b2]), &[]);
}

#[test]
fn a_message_of_unknown_outcome_has_no_place_in_the_order() {
    let [a1, b1, a2, b2] = messages().try_into().unwrap();
    for unknown in [0, 2] {
        let mut asked = asked();
        asked[unknown].outcome = Outcome::Unknown;
        check(&asked, &arrived(&[a2.clone(), b1.clone(), a1.clone(), b2.clone()]), &[]);
    }
}

#[test]
fn those_around_a_message_of_unknown_outcome_keep_their_order() {
    let [a1, unknown, a3] = ["一", "二", "三"].map(|text| message("wxid_1", text));
    let mut asked = [a1.clone(), unknown, a3.clone()].map(Ask::new);
    asked[1].outcome = Outcome::Unknown;
    check(&asked, &arrived(&[a3, a1.clone()]), &[Fault::Overtaken { late: a1, by: "三".into() }]);
}

#[test]
fn a_rolling_minute_is_found_wherever_it_starts() {
    let mut history = arrived(&messages());
    // 0, 30, 60 and 89.999999 s: the third and the fourth share a minute with the second.
    history[3].at_us -= 1;
    let fault = Fault::TooMany { app_id: "wx_a".into(), from_us: MINUTE_US / 2, count: 3 };
    check(&asked(), &history, &[fault]);
}

#[test]
fn a_full_minute_apart_is_far_enough() {
    let mut history = arrived(&messages());
    for (n, arrival) in (0..).zip(&mut history) {
        arrival.at_us = n / 2 * MINUTE_US + n % 2 * 10_000;
    }
    check(&asked(), &history, &[]);
}

#[test]
fn each_account_has_a_minute_of_its_own() {
    let mut asked = asked();
    let mut history = arrived(&messages());
    for n in [2, 3] {
        asked[n].message.app_id = "wx_b".into();
        history[n].message.app_id = "wx_b".into();
        history[n].at_us -= MINUTE_US;
    }
    check(&asked, &history, &[]);
}

#[test]
fn a_rolling_day_is_found_wherever_it_starts() {
    const DAY_US: i64 = 24 * 60 * MINUTE_US;
    let daily = rules(Limits { per_day: Some(3), ..LIMITS });
    let mut history = arrived(&messages());
    history[3].at_us = DAY_US;
    assert_eq!(faults(&asked(), &history, &daily), []);
    history[3].at_us -= 1;
    let fault = Fault::TooManyInDay { app_id: "wx_a".into(), from_us: 0, count: 4 };
    assert_eq!(faults(&asked(), &history, &daily), [fault]);
}

#[test]
fn recipients_are_counted_once_in_a_rolling_minute() {
    let crowd = rules(Limits { per_minute: 10, recipients_per_minute: Some(1), ..LIMITS });
    let [a1, b1, a2, b2] = messages().try_into().unwrap();
    let asked = asked();
    let mut history = [(&a1, 0), (&a2, SECOND_US), (&b1, 61 * SECOND_US), (&b2, 62 * SECOND_US)]
        .map(|(m, at)| arrival(m, at));
    assert_eq!(faults(&asked, &history, &crowd), []);
    history[2].at_us -= 1;
    let fault = Fault::TooManyRecipients { app_id: "wx_a".into(), from_us: SECOND_US, count: 2 };
    assert_eq!(faults(&asked, &history, &crowd), [fault]);
}

#[test]
fn the_accounts_of_a_token_share_its_hour() {
    const HOUR_US: i64 = 60 * MINUTE_US;
    let mut asked = asked();
    let mut history = arrived(&messages());
    for n in [1, 3] {
        asked[n].message.app_id = "wx_b".into();
        history[n].message.app_id = "wx_b".into();
    }
    let app_ids = vec!["wx_a".to_owned(), "wx_b".to_owned()];
    let token = |app_ids: &[String]| Rules {
        tokens: vec![TokenLimit { app_ids: app_ids.to_vec(), per_hour: 3 }],
        ..rules(LIMITS)
    };
    history[3].at_us = HOUR_US - 1;
    let fault = Fault::TooManyOfToken { app_ids: app_ids.clone(), from_us: 0, count: 4 };
    assert_eq!(faults(&asked, &history, &token(&app_ids)), [fault]);
    assert_eq!(faults(&asked, &history, &token(&app_ids[..1])), []);
    history[3].at_us = HOUR_US;
    assert_eq!(faults(&asked, &history, &token(&app_ids)), []);
}

#[test]
fn a_gap_that_is_too_small_is_found() {
    let mut history = arrived(&messages());
    history[1].at_us = 10_000;
    check(&asked(), &history, &[]);
    history[1].at_us = 9_999;
    check(&asked(), &history, &[Fault::TooClose { app_id: "wx_a".into(), at_us: 9_999, gap_us: 9_999 }]);
}

#[test]
fn a_scheduled_message_is_not_sent_before_its_time() {
    let ask = Ask { not_before_us: Some(MINUTE_US), ..asked().remove(0) };
    let early = |at_us| [Fault::SentTooEarly { message: ask.message.clone(), at_us }];
    let rules = rules(LIMITS);
    assert_eq!(one(ask.clone(), MINUTE_US, MINUTE_US, &rules), []);
    assert_eq!(one(ask.clone(), MINUTE_US - 1, MINUTE_US + 1, &rules), early(MINUTE_US - 1));
    // Whatever the record says of its gate.
    let no_gate = faults(from_ref(&ask), &[arrival(&ask.message, MINUTE_US - 1)], &rules);
    assert_eq!(no_gate, early(MINUTE_US - 1));
}

#[test]
fn a_message_does_not_pass_its_gate_after_it_is_cancelled() {
    let ask = Ask { cancelled_us: Some(MINUTE_US), outcome: Outcome::NotSent, ..asked().remove(0) };
    let rules = rules(LIMITS);
    let fault = |at_us| [Fault::SentAfterCancel { message: ask.message.clone(), at_us }];
    assert_eq!(faults(from_ref(&ask), &[], &rules), []);
    assert_eq!(one(ask.clone(), MINUTE_US + 1, MINUTE_US + 2, &rules), fault(MINUTE_US + 1));
    // A gate is enough: whether the call then failed is luck.
    let gate_only = Ask { gates_us: vec![MINUTE_US + 1], ..ask.clone() };
    assert_eq!(faults(&[gate_only], &[], &rules), fault(MINUTE_US + 1));
    let failed_before = Ask { gates_us: vec![MINUTE_US - 1], ..ask.clone() };
    assert_eq!(faults(&[failed_before], &[], &rules), []);
    // And so is an arrival of which the record knows nothing.
    let late_us = MINUTE_US + IN_FLIGHT_US + 1;
    assert_eq!(faults(from_ref(&ask), &[arrival(&ask.message, late_us)], &rules), fault(late_us));
}

#[test]
fn a_message_that_the_api_called_cancelled_must_not_be_there_at_all() {
    let ask = Ask { cancelled_us: Some(MINUTE_US), ..asked().remove(0) };
    let denied = [Fault::Denied(ask.message.clone())];
    assert_eq!(one(ask, MINUTE_US - 2, MINUTE_US - 1, &rules(LIMITS)), denied);
}

#[test]
fn a_message_does_not_pass_its_gate_while_its_account_is_paused() {
    let (from_us, until_us) = (MINUTE_US, 2 * MINUTE_US);
    let pause = |app_id: &str| Pause { app_id: app_id.into(), from_us, until_us };
    let rules = |pauses: Vec<Pause>| Rules { pauses, ..rules(LIMITS) };
    let paused = rules(vec![pause("wx_b"), pause("wx_a")]);
    let ask = asked().remove(0);
    let fault = |at_us| [Fault::SentWhilePaused { message: ask.message.clone(), at_us }];
    // It may have left before the pause and arrive in it, but not much later.
    assert_eq!(one(ask.clone(), from_us - 1, from_us + IN_FLIGHT_US, &paused), []);
    let late_us = from_us + IN_FLIGHT_US + 1;
    assert_eq!(one(ask.clone(), from_us - 1, late_us, &paused), fault(late_us));
    assert_eq!(one(ask.clone(), from_us, from_us + 1, &paused), fault(from_us));
    assert_eq!(one(ask.clone(), until_us, until_us + 1, &paused), fault(until_us));
    assert_eq!(one(ask.clone(), until_us + 1, until_us + 2, &paused), []);
    assert_eq!(one(ask.clone(), from_us + 1, from_us + 2, &rules(vec![pause("wx_b")])), []);
}

#[test]
fn a_slow_provider_may_take_a_message_later() {
    let pauses = vec![Pause { app_id: "wx_a".into(), from_us: MINUTE_US, until_us: 2 * MINUTE_US }];
    let slow = Rules { pauses, allowance: IN_FLIGHT + Duration::from_secs(10), ..rules(LIMITS) };
    let ask = asked().remove(0);
    assert_eq!(one(ask.clone(), MINUTE_US - 1, MINUTE_US + 16 * SECOND_US, &slow), []);
    assert_eq!(one(ask, MINUTE_US - 1, MINUTE_US + 16 * SECOND_US + 1, &slow).len(), 1);
}

#[test]
fn a_message_does_not_pass_its_gate_after_its_deadline() {
    let ask = Ask { expires_us: Some(MINUTE_US), ..asked().remove(0) };
    let rules = rules(LIMITS);
    let fault = |at_us| [Fault::SentAfterExpiry { message: ask.message.clone(), at_us }];
    assert_eq!(one(ask.clone(), MINUTE_US, MINUTE_US + IN_FLIGHT_US, &rules), []);
    assert_eq!(one(ask.clone(), MINUTE_US + 1, MINUTE_US + 2, &rules), fault(MINUTE_US + 1));
    let late_us = MINUTE_US + IN_FLIGHT_US + 1;
    assert_eq!(one(ask.clone(), MINUTE_US, late_us, &rules), fault(late_us));
}

#[test]
fn the_worst_window_is_found_wherever_it_starts() {
    let times = [0, 40, 59, 60, 61, 99, 100].map(|s| s * SECOND_US);
    assert_eq!(worst(&times, Duration::from_secs(60)), 5, "from 40 to 99 s");
    assert_eq!(worst(&[], Duration::from_secs(60)), 0);
}
