//! Campaigns played by hand and at random.

use std::collections::HashMap;

use proptest::prelude::*;

use serde_json::{Value, json};

use super::super::window::{Days, Range, Window};
use super::*;
use crate::calendar::zone;

fn shanghai(text: &str) -> DateTime<Utc> {
    format!("{text}+08:00").parse().expect("a time")
}

/// A part of a plan without forks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leg {
    Send,
    Wait(Value),
}

fn period(text: &str) -> Leg {
    Leg::Wait(json!({ "for": text }))
}

fn workday(day_offset: u16, at: &str) -> Leg {
    Leg::Wait(json!({ "until": { "from": "start", "day_offset": day_offset, "at": at, "count": "workday" } }))
}

/// The plan of these legs, a step each.
fn config(way: &[Leg], on_cap: OnCap) -> WorkflowConfig {
    let last = way.len().saturating_sub(1);
    let steps = way.iter().enumerate().map(|(at, leg)| {
        let next = (at < last).then(|| format!("s{}", at + 1));
        let mut step = json!({ "id": format!("s{at}"), "next": next });
        let fields = step.as_object_mut().expect("an object");
        match leg {
            Leg::Send => {
                fields.insert("type".into(), json!("send"));
                fields.insert("message".into(), json!({ "kind": "text", "text": "您好" }));
            }
            Leg::Wait(wait) => {
                fields.insert("type".into(), json!("wait"));
                fields.extend(wait.as_object().expect("an object").clone());
            }
        }
        step
    });
    with_steps(json!(steps.collect::<Vec<_>>()), "s0", on_cap)
}

/// A plan of these steps.
fn with_steps(steps: Value, entry: &str, on_cap: OnCap) -> WorkflowConfig {
    let plan = json!({
        "schema_version": 1,
        "trigger": { "type": "manual" },
        "audience": { "kind": "friend", "consent": { "required": false } },
        "send_window": { "days": "workday", "ranges": [{ "from": "09:30", "to": "12:00" }] },
        "caps": { "per_contact_per_day": 2, "per_account_per_day": 150, "max_unanswered": 3, "on_cap": on_cap },
        "stop": [{ "on": "reply", "do": "exit" }],
        "entry": entry,
        "steps": steps,
    });
    serde_json::from_value(plan).expect("a plan")
}

/// 09:30 to 12:00 and 14:00 to 20:30 on workdays.
fn working_hours(calendar: &Calendar) -> Opening<'_> {
    let ranges = [(570, 720), (840, 1230)].map(|(from, to)| Range::new(from, to).expect("a range"));
    Opening::new(zone(None), &Window::new(Days::Workdays, ranges), calendar)
}

fn three_days() -> Vec<Leg> {
    vec![
        Leg::Send,
        period("PT30M"),
        Leg::Send,
        period("PT20H"),
        workday(1, "10:00"),
        Leg::Send,
        workday(2, "15:00"),
        Leg::Send,
        period("P2D"),
    ]
}

fn caps() -> Caps {
    Caps { max_unanswered: 10, new_contacts_per_account_per_day: None, ..caps::DEFAULTS }
}

fn account(pace_seconds: i64) -> Account {
    let first_login = Some("2026-01-01".parse().expect("a day"));
    Account {
        pace: TimeDelta::seconds(pace_seconds),
        standing: Standing { first_login, released: None },
        sent: 0,
        new_contacts: 0,
        limits: Vec::new(),
    }
}

fn recipients(count: usize, accounts: usize, enters_at: DateTime<Utc>) -> Vec<Recipient> {
    let recipient = |number: usize| Recipient {
        id: Uuid::from_u128(number as u128),
        account: number % accounts,
        opening: 0,
        enters_at,
        contact: [0; 7],
        contact_last: None,
        unanswered: 0,
        answered_at: None,
        added_at: None,
        facts: Facts::default(),
        answers: false,
        unsayable: Vec::new(),
    };
    (0..count).map(recipient).collect()
}

/// Plays a campaign from Friday night on.
fn play(caps: &Caps, config: &WorkflowConfig, accounts: &[Account], recipients: &[Recipient]) -> Rehearsal {
    let calendar = Calendar::shipped();
    let openings = [working_hours(&calendar)];
    rehearse(&Plan {
        now: shanghai("2026-11-20T21:40:00"),
        zone: zone(None),
        calendar: &calendar,
        caps,
        config,
        organization_sent: 0,
        openings: &openings,
        limits: &[],
        accounts,
        recipients,
    })
}

fn friday() -> DateTime<Utc> {
    shanghai("2026-11-20T21:42:00")
}

fn times(rehearsal: &Rehearsal) -> Vec<String> {
    let local = |planned: &Planned| planned.at.with_timezone(&zone(None)).format("%a %H:%M:%S").to_string();
    rehearsal.planned.iter().map(local).collect()
}

#[test]
fn one_person_gets_the_example_at_the_times_worked_out_by_hand() {
    let played =
        play(&caps(), &config(&three_days(), OnCap::Defer), &[account(6)], &recipients(1, 1, friday()));
    assert_eq!(times(&played), ["Mon 09:30:00", "Mon 10:00:00", "Tue 10:00:00", "Wed 15:00:00"]);
    assert!(played.planned.iter().all(|planned| planned.outcome == Outcome::Sent));
    assert_eq!(played.planned.iter().map(|planned| planned.step).collect::<Vec<_>>(), [0, 2, 5, 7]);
    assert_eq!((played.ends_at, played.bottleneck), (Some(shanghai("2026-11-25T15:00:00")), None));
}

#[test]
fn the_example_is_played_as_it_is_written() {
    let text = include_str!("../examples/new_lead_3_days.json");
    let plan: super::super::config::WorkflowConfig = serde_json::from_str(text).expect("a plan");
    let first_arm = |id: &Uuid| {
        let arm = |step: &Step| match step {
            Step::Split(split) => Some((split.arms[0].clone(), split::arm(split, *id).cloned())),
            _ => None,
        };
        plan.steps.iter().filter_map(arm).all(|(first, drawn)| Some(first) == drawn)
    };
    let calendar = Calendar::shipped();
    let holidays = calendar.chosen(plan.send_window.holiday_calendar);
    let opening = Opening::new(plan.timezone, &Window::from(&plan.send_window), holidays)
        .within(&Window::outside(21 * 60, 9 * 60), &calendar);
    // Tagged on the Friday before the last workday of the National Day, and on an ordinary one. Two minutes of
    // delay.
    let mut everybody = recipients(2, 2, friday());
    everybody[0].enters_at = shanghai("2026-10-09T21:42:00");
    let ids = (0..).map(Uuid::from_u128).filter(first_arm);
    for (recipient, id) in everybody.iter_mut().zip(ids) {
        recipient.id = id;
    }
    let played = rehearse(&Plan {
        now: shanghai("2026-10-09T21:40:00"),
        zone: plan.timezone,
        calendar: holidays,
        caps: &Caps::from(&plan.caps),
        config: &plan,
        organization_sent: 0,
        openings: &[opening],
        limits: &[],
        accounts: &[account(6), account(6)],
        recipients: &everybody,
    });
    let sent = |who: usize| {
        let own = played.planned.iter().filter(move |planned| planned.recipient == who);
        own.map(|planned| (plan.steps[planned.step].id().as_str(), planned.at)).collect::<Vec<_>>()
    };
    assert_eq!(
        sent(0),
        [
            ("d1_hello", shanghai("2026-10-10T09:30:00")), // A Saturday that is worked.
            ("d1_outline", shanghai("2026-10-10T10:00:00")),
            ("d2_case", shanghai("2026-10-12T10:00:00")),
            ("d3_invite", shanghai("2026-10-13T15:00:00")),
        ]
    );
    assert_eq!(
        sent(1),
        [
            ("d1_hello", shanghai("2026-11-23T09:30:00")),
            ("d1_outline", shanghai("2026-11-23T10:00:00")),
            ("d2_case", shanghai("2026-11-24T10:00:00")),
            ("d3_invite", shanghai("2026-11-25T15:00:00")),
        ]
    );
}

#[test]
fn an_account_serves_one_after_the_other_and_goes_on_on_the_next_day() {
    let caps = Caps { per_account_per_day: 2, ..caps() };
    let way = vec![Leg::Send, workday(1, "10:00"), Leg::Send];
    let everybody = recipients(3, 1, friday());
    let played = play(&caps, &config(&way, OnCap::Defer), &[account(6)], &everybody);
    // On Monday two of three. The third is first on Tuesday, its day of start; one of the others follows at ten,
    // the other on Wednesday, when the third comes back at ten.
    let expected =
        ["Mon 09:30:00", "Mon 09:30:06", "Tue 09:30:00", "Tue 10:00:00", "Wed 09:30:00", "Wed 10:00:00"];
    assert_eq!(times(&played), expected);
    assert_eq!(played.bottleneck, Some(0));
    let order: Vec<usize> = played.planned.iter().map(|planned| planned.recipient).collect();
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn of_those_who_are_put_off_to_one_moment_whoever_came_to_the_message_first_goes_first() {
    let way = vec![Leg::Send, period("PT1H"), Leg::Send];
    // Three a day, and one message a day to each of them.
    let caps = Caps { per_account_per_day: 3, per_contact_per_day: 1, ..caps() };
    let mut everybody = recipients(5, 1, friday());
    // Somebody who comes on Monday, before the first three are due again.
    everybody[0].enters_at = shanghai("2026-11-23T10:00:00");
    let played = play(&caps, &config(&way, OnCap::Defer), &[account(6)], &everybody);
    let on = |day: &str| -> Vec<usize> {
        let of_day = played.planned.iter().zip(times(&played)).filter(|(_, time)| time.starts_with(day));
        of_day.map(|(planned, _)| planned.recipient).collect()
    };
    // 4 waits since Friday, 0 since Monday at ten, and the others since an hour after their first message.
    assert_eq!(
        [on("Mon"), on("Tue"), on("Wed"), on("Thu")],
        [vec![1, 2, 3], vec![4, 0, 1], vec![2, 3, 4], vec![0],]
    );
}

#[test]
fn who_never_answered_waits_behind_nobody_who_came_later() {
    let caps = Caps { per_account_per_day: 3, new_contacts_per_account_per_day: Some(2), ..caps() };
    let mut everybody = recipients(6, 1, friday());
    for known in [2, 4, 5] {
        everybody[known].answered_at = Some(friday());
    }
    let played = play(&caps, &config(&[Leg::Send], OnCap::Defer), &[account(6)], &everybody);
    let order: Vec<usize> = played.planned.iter().map(|planned| planned.recipient).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
    let one = Caps { new_contacts_per_account_per_day: Some(1), ..caps };
    let played = play(&one, &config(&[Leg::Send], OnCap::Defer), &[account(6)], &everybody);
    let order: Vec<usize> = played.planned.iter().map(|planned| planned.recipient).collect();
    // 1 and 3 each wait for a day on which there is room for somebody new.
    assert_eq!(order, [0, 2, 4, 1, 5, 3]);
}

#[test]
fn people_who_never_answered_have_a_cap_of_their_own() {
    let caps = Caps { new_contacts_per_account_per_day: Some(1), ..caps() };
    let mut everybody = recipients(4, 1, friday());
    everybody[3].answered_at = Some(friday());
    let way = vec![Leg::Send, period("PT30M"), Leg::Send];
    let played = play(&caps, &config(&way, OnCap::Defer), &[account(6)], &everybody);
    let mut by_day: Vec<(String, usize)> = Vec::new();
    for (time, planned) in times(&played).iter().zip(&played.planned) {
        by_day.push((time[..3].to_owned(), planned.recipient));
    }
    let on = |day: &str| {
        let mut who: Vec<usize> = by_day.iter().filter(|(on, _)| on == day).map(|(_, who)| *who).collect();
        who.sort_unstable();
        who
    };
    // Both messages on one day are one person; whoever has answered is not counted.
    let days = ["Mon", "Tue", "Wed"].map(on);
    assert_eq!(days.map(|who| who.len()), [4, 2, 2]);
    assert_eq!(on("Mon").iter().filter(|who| **who == 3).count(), 2);
}

#[test]
fn a_cap_may_leave_out_or_end_and_a_shut_window_never_opens() {
    let caps = Caps { per_account_per_day: 1, ..caps() };
    let way = vec![Leg::Send, period("P1D"), Leg::Send];
    let outcomes = |on_cap| {
        let played = play(&caps, &config(&way, on_cap), &[account(6)], &recipients(2, 1, friday()));
        played.planned.iter().map(|planned| planned.outcome).collect::<Vec<_>>()
    };
    let full = Cap::PerAccountPerDay.code();
    assert_eq!(outcomes(OnCap::Exit), [Outcome::Sent, Outcome::Exited(full), Outcome::Sent]);
    assert_eq!(
        outcomes(OnCap::Skip),
        [Outcome::Sent, Outcome::Skipped(full), Outcome::Sent, Outcome::Skipped(full)]
    );
    let calendar = Calendar::default();
    let openings = [Opening::new(zone(None), &Window::new(Days::Any, []), &calendar)];
    let everybody = recipients(2, 1, friday());
    let played = rehearse(&Plan {
        now: friday(),
        zone: zone(None),
        calendar: &calendar,
        caps: &caps,
        config: &config(&way, OnCap::Defer),
        organization_sent: 0,
        openings: &openings,
        limits: &[],
        accounts: &[account(6)],
        recipients: &everybody,
    });
    assert!(played.planned.iter().all(|planned| planned.outcome == Outcome::Exited(slot::NO_WINDOW)));
    assert_eq!((played.planned.len(), played.ends_at, played.bottleneck), (2, None, None));
}

#[test]
fn a_cap_that_lets_nothing_through_ends_the_rehearsal() {
    let caps = Caps { per_account_per_day: 0, ..caps() };
    let played =
        play(&caps, &config(&three_days(), OnCap::Defer), &[account(6)], &recipients(2, 1, friday()));
    assert_eq!(
        played.planned.iter().map(|planned| planned.outcome).collect::<Vec<_>>(),
        [Outcome::Exited(slot::NO_WINDOW); 2]
    );
}

#[test]
fn ten_thousand_recipients_stay_within_caps_and_window_and_nobody_is_looked_at_in_vain() {
    let mut accounts = vec![account(6); 20];
    // New on Friday: twenty a day, then fifty.
    accounts[7].standing.first_login = Some("2026-11-20".parse().expect("a day"));
    accounts[7].pace = TimeDelta::seconds(60);
    let six =
        [Leg::Send, period("PT1H"), Leg::Send, workday(1, "10:00"), Leg::Send, period("P1D"), Leg::Send];
    let six = [&six[..], &[period("P2D"), Leg::Send, period("P3D"), Leg::Send]].concat();
    let six = config(&six, OnCap::Defer);
    let everybody = recipients(10_000, 20, friday());
    let caps = Caps { per_contact_per_week: Some(5), new_contacts_per_account_per_day: Some(30), ..caps() };
    let calendar = Calendar::shipped();
    let openings = [working_hours(&calendar)];
    let plan = Plan {
        now: shanghai("2026-11-20T21:40:00"),
        zone: zone(None),
        calendar: &calendar,
        caps: &caps,
        config: &six,
        organization_sent: 0,
        openings: &openings,
        limits: &[],
        accounts: &accounts,
        recipients: &everybody,
    };
    let mut play = Play::new(&plan);
    let mut turns = 0;
    while play.turn() {
        turns += 1;
    }
    let played = play.end();
    // The work grows with the messages, not with how many wait for an account each day.
    assert!(turns < 70_000, "{turns}");
    assert_eq!(played.planned.len(), 60_000);
    assert_eq!(played.bottleneck, Some(7));

    let mut by_account: HashMap<(usize, NaiveDate), u32> = HashMap::new();
    let mut by_contact: HashMap<(usize, NaiveDate), u32> = HashMap::new();
    let mut last: HashMap<usize, DateTime<Utc>> = HashMap::new();
    for planned in &played.planned {
        assert_eq!(planned.outcome, Outcome::Sent);
        assert!(openings[0].is_open(planned.at));
        let (day, account) = (day_of(planned.at, zone(None)), planned.recipient % 20);
        *by_account.entry((account, day)).or_default() += 1;
        *by_contact.entry((planned.recipient, day)).or_default() += 1;
        if let Some(before) = last.insert(account, planned.at) {
            assert!(planned.at - before >= accounts[account].pace);
        }
    }
    for ((account, day), sent) in by_account {
        assert!(sent <= accounts[account].standing.allowance(150, day), "{account} {day} {sent}");
    }
    assert!(by_contact.values().all(|sent| *sent <= 2));
}

/// Plays steps for somebody from Monday at ten on; returns the steps that come to a message or to an early end.
fn lead(steps: Value, change: impl Fn(&mut Recipient)) -> Vec<(String, String, Outcome)> {
    let mut plan = with_steps(steps, "first", OnCap::Defer);
    let deadline = json!({ "on": "deadline", "do": "exit", "after": "P3D" });
    plan.stop.push(serde_json::from_value(deadline).expect("a rule"));
    let mut everybody = recipients(1, 1, shanghai("2026-11-23T10:00:00"));
    change(&mut everybody[0]);
    let played = play(&caps(), &plan, &[account(6)], &everybody);
    let named = |planned: &Planned| plan.steps[planned.step].id().as_str().to_owned();
    let lines = played.planned.iter().zip(times(&played));
    lines.map(|(planned, time)| (named(planned), time, planned.outcome)).collect()
}

fn line(step: &str, time: &str, outcome: Outcome) -> (String, String, Outcome) {
    (step.to_owned(), time.to_owned(), outcome)
}

fn text(id: &str, next: Value) -> Value {
    json!({ "id": id, "type": "send", "message": { "kind": "text", "text": "您好" }, "next": next })
}

#[test]
fn who_goes_which_way_is_asked_at_the_fork_with_what_the_plan_has_done_before() {
    let tagged = json!({ "fact": "contact.tags", "op": "contains", "value": "已问候" });
    let morning = json!({ "fact": "time.hour", "op": "lt", "value": 12 });
    let steps = json!([
        text("first", json!("mark")),
        { "id": "mark", "type": "tag", "add": ["已问候"], "next": "fork" },
        { "id": "fork", "type": "branch", "cases": [{ "when": tagged, "next": "rest" }], "else": "never" },
        { "id": "rest", "type": "wait", "for": "PT5H", "next": "hour" },
        { "id": "hour", "type": "branch", "cases": [{ "when": morning, "next": "never" }], "else": "second" },
        text("second", json!("long")),
        { "id": "long", "type": "wait", "for": "P5D", "next": "never" },
        text("never", Value::Null),
    ]);
    let lines = lead(steps, |_| {});
    // The deadline ends the long wait.
    let expected = [
        line("first", "Mon 10:00:00", Outcome::Sent),
        line("second", "Mon 15:00:00", Outcome::Sent),
        line("never", "Thu 10:00:00", Outcome::Exited("deadline")),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn who_answers_goes_the_way_of_answers_and_is_not_written_to_where_there_is_none() {
    let steps = |on_reply: Value| {
        json!([
            text("first", json!("listen")),
            { "id": "listen", "type": "wait_reply", "timeout": "PT2H", "on_reply": on_reply, "on_timeout": "silent" },
            text("silent", Value::Null),
            text("thanks", Value::Null),
        ])
    };
    let first = line("first", "Mon 10:00:00", Outcome::Sent);
    let silent = line("silent", "Mon 14:00:00", Outcome::Sent);
    assert_eq!(lead(steps(json!("thanks")), |_| {}), [first.clone(), silent]);
    let thanks = line("thanks", "Mon 10:00:06", Outcome::Sent);
    assert_eq!(lead(steps(json!("thanks")), |one| one.answers = true), [first.clone(), thanks]);
    let listens = json!([
        text("first", json!("listen")),
        { "id": "listen", "type": "wait_reply", "timeout": "PT2H", "on_timeout": "silent" },
        text("silent", Value::Null),
    ]);
    assert_eq!(lead(listens, |one| one.answers = true), [first]);
}

#[test]
fn a_message_that_cannot_be_made_is_left_out_or_ends_the_way() {
    let steps = json!([text("first", json!("second")), text("second", Value::Null)]);
    let without = |exits| {
        lead(steps.clone(), move |one: &mut Recipient| one.unsayable = vec![(0, "missing_variable", exits)])
    };
    let second = line("second", "Mon 10:00:00", Outcome::Sent);
    let skipped = line("first", "Mon 10:00:00", Outcome::Skipped("missing_variable"));
    assert_eq!(without(OnMissingVariable::Skip), [skipped, second]);
    let exited = line("first", "Mon 10:00:00", Outcome::Exited("missing_variable"));
    assert_eq!(without(OnMissingVariable::Exit), [exited]);
}

#[test]
fn accounts_that_share_a_token_share_its_hour_and_each_gets_its_turn() {
    let calendar = Calendar::shipped();
    let openings = [working_hours(&calendar)];
    let limits = [Limit { most: 4, period: TimeDelta::hours(1), used: Vec::new() }];
    let accounts = [0; 2].map(|_| Account { limits: vec![(0, reason::CALLS_PER_HOUR)], ..account(6) });
    let everybody = recipients(12, 2, shanghai("2026-11-23T10:00:00"));
    let plan = config(&[Leg::Send], OnCap::Defer);
    let played = rehearse(&Plan {
        now: shanghai("2026-11-23T10:00:00"),
        zone: zone(None),
        calendar: &calendar,
        caps: &caps(),
        config: &plan,
        organization_sent: 0,
        openings: &openings,
        limits: &limits,
        accounts: &accounts,
        recipients: &everybody,
    });
    assert_eq!(played.ends_at, Some(shanghai("2026-11-23T14:00:06")));
    for hour in played.planned.chunks(4) {
        let of_first = hour.iter().filter(|planned| planned.recipient % 2 == 0).count();
        assert_eq!(of_first, 2, "{hour:?}");
    }
    let second_hour: Vec<&str> = played.planned[7].waited_for().collect();
    assert_eq!(second_hour, [reason::CALLS_PER_HOUR]);
}

#[test]
fn a_message_says_what_it_waits_for() {
    let caps = Caps { per_account_per_day: 2, ..caps() };
    let everybody = recipients(3, 1, friday());
    let played = play(&caps, &config(&[Leg::Send], OnCap::Defer), &[account(6)], &everybody);
    let waited: Vec<Vec<&str>> =
        played.planned.iter().map(|planned| planned.waited_for().collect()).collect();
    assert_eq!(waited, [vec!["window"], vec!["window", "spread"], vec!["window", "per_account_per_day"]]);
}

/// A recipient of a random campaign: account, hours after the trigger, whether there was an answer before.
fn anybody() -> impl Strategy<Value = (usize, i64, bool)> {
    (0..3_usize, 0..100_i64, any::<bool>())
}

fn leg() -> impl Strategy<Value = Leg> {
    prop_oneof![
        4 => Just(Leg::Send),
        1 => (0..3000_u32).prop_map(|minutes| period(&format!("PT{minutes}M"))),
        1 => (0..5_u16).prop_map(|days| workday(days, "10:00")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn everybody_gets_everything_once_in_order_and_within_every_cap(
        everybody in proptest::collection::vec(anybody(), 1..12),
        way in proptest::collection::vec(leg(), 1..7),
        (per_day, per_week, per_account) in (1..3_u32, 2..6_u32, 1..5_u32),
        (strangers, organization, gap) in (1..4_u32, 3..9_u32, 0..300_u32),
    ) {
        let caps = Caps {
            per_contact_per_day: per_day,
            per_contact_per_week: Some(per_week),
            per_account_per_day: per_account,
            new_contacts_per_account_per_day: Some(strangers),
            per_organization_per_day: Some(organization),
            min_gap: [Some(format!("PT{gap}M").parse().expect("a period")), None],
            max_unanswered: 100,
        };
        let base = recipients(everybody.len(), 3, friday());
        let chosen = |(recipient, (account, hours, answered_before)): (Recipient, &(usize, i64, bool))| Recipient {
            account: *account,
            enters_at: friday() + TimeDelta::hours(*hours),
            answered_at: answered_before.then(friday),
            ..recipient
        };
        let people: Vec<Recipient> = base.into_iter().zip(&everybody).map(chosen).collect();
        let accounts = [account(6), account(60), account(600)];
        let played = play(&caps, &config(&way, OnCap::Defer), &accounts, &people);

        let sends: Vec<usize> = (0..way.len()).filter(|leg| way[*leg] == Leg::Send).collect();
        let calendar = Calendar::shipped();
        let opening = working_hours(&calendar);
        let day = |planned: &Planned| day_of(planned.at, zone(None));
        for (who, recipient) in people.iter().enumerate() {
            let own: Vec<&Planned> = played.planned.iter().filter(|planned| planned.recipient == who).collect();
            prop_assert_eq!(own.iter().map(|planned| planned.step).collect::<Vec<_>>(), sends.clone());
            for (before, planned) in own.iter().enumerate() {
                prop_assert!(planned.at >= recipient.enters_at && opening.is_open(planned.at));
                let in_days = |length| own.iter().filter(|other| {
                    (0..length).contains(&(day(planned) - day(other)).num_days())
                }).count() as u32;
                prop_assert!(in_days(1) <= per_day && in_days(7) <= per_week);
                if let Some(next) = own.get(before + 1) {
                    prop_assert!(next.at - planned.at >= TimeDelta::minutes(gap.into()));
                }
            }
        }
        for planned in &played.planned {
            prop_assert_eq!(planned.outcome, Outcome::Sent);
            let people = &people;
            let of = |other: &Planned, account| people[other.recipient].account == account;
            let of_day = |account: Option<usize>| played.planned.iter().filter(move |other| {
                day(other) == day(planned) && account.is_none_or(|account| of(other, account))
            });
            let account = people[planned.recipient].account;
            prop_assert!(of_day(None).count() as u32 <= organization);
            prop_assert!(of_day(Some(account)).count() as u32 <= per_account);
            let mut new: Vec<usize> = of_day(Some(account)).map(|other| other.recipient).collect();
            new.retain(|who| people[*who].answered_at.is_none());
            new.sort_unstable();
            new.dedup();
            prop_assert!(new.len() as u32 <= strangers);
        }
    }
}
