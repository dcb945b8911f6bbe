//! The limiter against counting, and at the receiver.

use chrono::{DateTime, Utc};
use entropy_schema::sends::Windows;
use proptest::prelude::*;

use crate::limits::Limits;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A call as the record knows it. Times are milliseconds from some start.
#[derive(Debug, Clone, Copy)]
struct Call {
    account: usize,
    to: u8,
    /// The upper bound of when it was received.
    window_at: i64,
    /// When the provider received it.
    received_at: i64,
}

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_790_000_000_000 + ms).expect("a time")
}

/// What the statement in `schema/src/sends.rs` reads, written down plainly.
fn windows(calls: &[Call], account: usize, to: u8, limits: &Limits, now: i64) -> Windows {
    let nth_latest = |mut times: Vec<i64>, n: i32| {
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.get(usize::try_from(n - 1).expect("a limit")).map(|ms| at(*ms))
    };
    let own: Vec<i64> = calls.iter().filter(|c| c.account == account).map(|c| c.window_at).collect();
    let others = (0..=u8::MAX).filter(|other| *other != to).filter_map(|other| {
        let to_them = calls.iter().filter(|c| c.account == account && c.to == other);
        to_them.map(|c| c.window_at).filter(|at| *at > now - MINUTE).max()
    });
    Windows {
        now: at(now),
        last: nth_latest(own.clone(), 1),
        fills_minute: nth_latest(own.clone(), limits.messages_per_minute),
        fills_day: nth_latest(own, limits.messages_per_day),
        fills_token_hour: nth_latest(calls.iter().map(|c| c.window_at).collect(), limits.api_calls_per_hour),
        fills_recipients: nth_latest(others.collect(), limits.recipients_per_minute),
    }
}

/// Counts: may `account` write to `to` at `now`, if every call was received when the record says?
fn may_go(calls: &[Call], account: usize, to: u8, limits: &Limits, now: i64) -> bool {
    let own = || calls.iter().filter(move |c| c.account == account);
    let room = |n: usize, limit: i32| n < usize::try_from(limit).expect("a limit");
    let mut others: Vec<u8> =
        own().filter(|c| c.window_at > now - MINUTE && c.to != to).map(|c| c.to).collect();
    others.sort_unstable();
    others.dedup();
    own().all(|c| c.window_at <= now && now - c.window_at >= i64::from(limits.min_gap_ms))
        && room(own().filter(|c| c.window_at > now - MINUTE).count(), limits.messages_per_minute)
        && room(own().filter(|c| c.window_at > now - DAY).count(), limits.messages_per_day)
        && room(calls.iter().filter(|c| c.window_at > now - HOUR).count(), limits.api_calls_per_hour)
        && room(others.len(), limits.recipients_per_minute)
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..12_i32, prop_oneof![Just(0), 0..90_000_i32], 1..25_i32, 1..6_i32, 1..30_i32).prop_map(
        |(messages_per_minute, min_gap_ms, messages_per_day, recipients_per_minute, api_calls_per_hour)| {
            Limits {
                messages_per_minute,
                min_gap_ms,
                messages_per_day,
                recipients_per_minute,
                api_calls_per_hour,
            }
        },
    )
}

/// Calls that are over, at times that crowd around the ends of the windows.
fn history() -> impl Strategy<Value = Vec<Call>> {
    let ago = prop_oneof![
        0..2_000_i64,
        0..2 * MINUTE,
        (MINUTE - 3..MINUTE + 3),
        (HOUR - 3..HOUR + 3),
        (DAY - 3..DAY + 3),
        0..2 * DAY,
    ];
    let call = (0..3_usize, 0..6_u8, ago).prop_map(|(account, to, ago)| Call {
        account,
        to,
        window_at: -ago,
        received_at: -ago,
    });
    prop::collection::vec(call, 0..40)
}

proptest! {
    #[test]
    fn the_limiter_decides_as_counting_does(calls in history(), limits in limits(), to in 0..6_u8) {
        let decide = |now| limits.wait(&windows(&calls, 0, to, &limits, now));
        let free = may_go(&calls, 0, to, &limits, 0);
        prop_assert_eq!(decide(0).is_none(), free);
        if let Some(wait) = decide(0) {
            let delay = wait.delay.num_milliseconds();
            prop_assert!(delay > 0 && delay <= DAY, "{wait:?}");
            // The first moment at which counting agrees, and not before. Nothing else is sent meanwhile.
            prop_assert!(may_go(&calls, 0, to, &limits, delay), "{wait:?} is too early");
            prop_assert!(!may_go(&calls, 0, to, &limits, delay - 1), "{wait:?} is too late");
            prop_assert_eq!(decide(delay), None);
            prop_assert!(wait.delay_ms() > delay, "rounded up");
        }
    }

    #[test]
    fn a_call_under_way_keeps_every_window_shut_that_it_could_fill(
        calls in history(), limits in limits(), to in 0..6_u8,
    ) {
        let mut calls = calls;
        calls.push(Call { account: 0, to: 9, window_at: HOUR, received_at: 0 });
        // The account's own call is under way: its gap is open only after it. Without a gap the lane alone keeps calls apart.
        let fills = limits.min_gap_ms > 0 || limits.messages_per_minute == 1;
        prop_assert!(!fills || limits.wait(&windows(&calls, 0, to, &limits, 0)).is_some());
    }
}

/// One account's latencies: from the gate to the receipt, and from there to the record.
#[derive(Debug, Clone)]
struct Sender {
    latencies: Vec<(i64, i64, u8)>,
}

fn senders() -> impl Strategy<Value = Vec<Sender>> {
    let span = || prop_oneof![3 => 0..400_i64, 1 => 0..20_000_i64];
    let sender =
        prop::collection::vec((span(), span(), 0..8_u8), 1..40).prop_map(|latencies| Sender { latencies });
    prop::collection::vec(sender, 1..4)
}

/// Lets every account send whenever the limiter lets it, and returns what the provider received.
///
/// `shortfall_ms` records a call so much too early: with it the rule is wrong, and the test must notice.
fn greedy(senders: &[Sender], limits: &Limits, shortfall_ms: i64) -> Vec<Call> {
    #[derive(Clone, Copy)]
    enum Doing {
        Trying,
        Calling { call: usize },
    }
    let mut calls: Vec<Call> = Vec::new();
    let mut state: Vec<(i64, Doing, usize)> = senders.iter().map(|_| (0, Doing::Trying, 0)).collect();
    for _ in 0..4_000 {
        let next = (0..state.len())
            .filter(|a| state[*a].2 < senders[*a].latencies.len())
            .min_by_key(|a| state[*a].0);
        let Some(account) = next else { break };
        let (now, doing, done) = state[account];
        let (to_receipt, to_record, to) = senders[account].latencies[done];
        state[account] = match doing {
            Doing::Trying => match limits.wait(&windows(&calls, account, to, limits, now)) {
                Some(wait) => (now + wait.delay_ms(), Doing::Trying, done),
                None => {
                    let received_at = now + to_receipt;
                    calls.push(Call { account, to, window_at: now + HOUR, received_at });
                    (received_at + to_record, Doing::Calling { call: calls.len() - 1 }, done)
                }
            },
            Doing::Calling { call } => {
                calls[call].window_at = now - shortfall_ms;
                (now, Doing::Trying, done + 1)
            }
        };
    }
    calls
}

/// Describes the first rolling window, as the provider sees it, that holds more than its limit.
fn broken(calls: &[Call], limits: &Limits) -> Option<String> {
    let most = |limit: i32| usize::try_from(limit).expect("a limit");
    for call in calls {
        let since = call.received_at;
        let within =
            |period: i64| calls.iter().filter(move |c| (since..since + period).contains(&c.received_at));
        let own = |period: i64| within(period).filter(|c| c.account == call.account);
        let mut people: Vec<u8> = own(MINUTE).map(|c| c.to).collect();
        people.sort_unstable();
        people.dedup();
        let counts = [
            ("messages_per_minute", own(MINUTE).count(), most(limits.messages_per_minute)),
            ("messages_per_day", own(DAY).count(), most(limits.messages_per_day)),
            ("recipients_per_minute", people.len(), most(limits.recipients_per_minute)),
            ("api_calls_per_hour", within(HOUR).count(), most(limits.api_calls_per_hour)),
            ("min_gap", own(limits.min_gap_ms.into()).count(), 1.max(own(0).count())),
        ];
        for (limit, count, allowed) in counts {
            if count > allowed {
                return Some(format!("{limit}: {count} of {allowed} from {since} on"));
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_provider_sees_no_window_above_its_limit_whatever_the_latency(senders in senders(), limits in limits()) {
        let calls = greedy(&senders, &limits, 0);
        prop_assert_eq!(broken(&calls, &limits), None);
        prop_assert!(!calls.is_empty());
    }
}

#[test]
fn a_record_that_is_too_early_would_be_noticed() {
    let limits = Limits {
        messages_per_minute: 5,
        min_gap_ms: 0,
        messages_per_day: 500,
        recipients_per_minute: 15,
        api_calls_per_hour: 1000,
    };
    // The first call of a minute takes its time to arrive, the sixth does not.
    let latencies = (0..12).map(|n| if n == 0 { (900, 0, 1) } else { (0, 0, 1) }).collect();
    let senders = [Sender { latencies }];
    assert_eq!(broken(&greedy(&senders, &limits, 0), &limits), None);
    assert!(broken(&greedy(&senders, &limits, 900), &limits).is_some());
}

#[test]
fn a_backlog_is_sent_at_the_limit_and_not_below_it() {
    let limits = Limits {
        messages_per_minute: 10,
        min_gap_ms: 0,
        messages_per_day: 500,
        recipients_per_minute: 15,
        api_calls_per_hour: 1000,
    };
    let senders = [Sender { latencies: vec![(0, 0, 1); 101] }];
    let calls = greedy(&senders, &limits, 0);
    // Ten at once, and ten more each minute; a millisecond a round is for rounding.
    assert_eq!(calls.len(), 101);
    let last = calls.last().expect("calls").received_at;
    assert!((10 * MINUTE..10 * MINUTE + 20).contains(&last), "{last}");
}
