//! A fault that is planted into a good history is found, and nothing else is.

use proptest::prelude::*;

use super::limits::{Full, crowded, overfull};
use super::*;

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;

/// The times at which the planted pause and the deadlines lie: behind everything in a good history.
const LATER_US: i64 = 7 * 24 * 60 * MINUTE_US;

/// A history without a fault.
#[derive(Debug, Clone)]
struct History {
    asked: Vec<Ask>,
    arrived: Vec<Arrival>,
    rules: Rules,
}

/// What is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plant {
    Loss,
    Repetition,
    Stranger,
    Denial,
    Overtaking,
    Minute,
    Day,
    Recipients,
    Token,
    Gap,
    Early,
    Cancel,
    Pause,
    Expiry,
}

const PLANTS: [Plant; 14] = [
    Plant::Loss,
    Plant::Repetition,
    Plant::Stranger,
    Plant::Denial,
    Plant::Overtaking,
    Plant::Minute,
    Plant::Day,
    Plant::Recipients,
    Plant::Token,
    Plant::Gap,
    Plant::Early,
    Plant::Cancel,
    Plant::Pause,
    Plant::Expiry,
];

/// Draws a history: accounts, conversations, priorities, outcomes and gaps.
///
/// Its limits are exactly what it needs, so that one more of anything is too much.
fn histories() -> impl Strategy<Value = History> {
    let message = (0..3u8, 0..3u8, 0..2u8, 0..10u8, 1_000..20 * SECOND_US, 0..3 * SECOND_US);
    prop::collection::vec(message, 2..60).prop_map(|drawn| {
        let (mut asked, mut arrived, mut at_us) = (Vec::new(), Vec::new(), 0);
        for (n, (account, to, class, fate, gap_us, flight_us)) in drawn.into_iter().enumerate() {
            at_us += gap_us + flight_us;
            let message = Message {
                app_id: format!("wx_{account}"),
                to_wxid: format!("wxid_{to}"),
                text: format!("第 {n} 条"),
            };
            let outcome = match fate {
                0 => Outcome::NotSent,
                1 | 2 => Outcome::Unknown,
                _ => Outcome::Sent,
            };
            let gates_us = vec![at_us - flight_us];
            let ask = Ask { class, outcome, gates_us, ..Ask::new(message.clone()) };
            if outcome == Outcome::Sent || fate == 1 {
                arrived.push(Arrival { message, at_us, trace_id: None });
            }
            asked.push(ask);
        }
        let rules = tight(&arrived);
        History { asked, arrived, rules }
    })
}

/// The strictest rules that a history keeps.
fn tight(arrived: &[Arrival]) -> Rules {
    let app_ids: Vec<String> = (0..3).map(|n| format!("wx_{n}")).collect();
    let limits = |app_id: &String| {
        let sent: Vec<(i64, &str)> = arrived
            .iter()
            .filter(|arrival| arrival.message.app_id == *app_id)
            .map(|arrival| (arrival.at_us, arrival.message.to_wxid.as_str()))
            .collect();
        let times: Vec<i64> = sent.iter().map(|(at_us, _)| *at_us).collect();
        let gap_us = times.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(SECOND_US);
        Limits {
            per_minute: plain_worst(&times, MINUTE_US),
            per_day: Some(plain_worst(&times, 24 * 60 * MINUTE_US)),
            recipients_per_minute: Some(
                plain_crowded(&sent, MINUTE_US).into_iter().map(|full| full.count).max().unwrap_or(0),
            ),
            min_gap: Duration::from_micros(gap_us.unsigned_abs()),
        }
    };
    let times: Vec<i64> = arrived.iter().map(|arrival| arrival.at_us).collect();
    Rules {
        accounts: app_ids.iter().map(|app_id| (app_id.clone(), limits(app_id))).collect(),
        tokens: vec![TokenLimit { app_ids, per_hour: plain_worst(&times, 60 * MINUTE_US) }],
        ..Rules::default()
    }
}

/// Counts every window anew.
fn plain_windows(times: &[i64], period_us: i64) -> Vec<Full> {
    let count = |from_us: i64| times.iter().filter(|&&at| at >= from_us && at < from_us + period_us).count();
    times.iter().map(|&from_us| Full { from_us, count: count(from_us) }).collect()
}

fn plain_worst(times: &[i64], period_us: i64) -> usize {
    plain_windows(times, period_us).into_iter().map(|full| full.count).max().unwrap_or(0)
}

fn plain_crowded(sent: &[(i64, &str)], period_us: i64) -> Vec<Full> {
    let count = |from_us: i64| {
        let within = sent.iter().filter(|(at, _)| *at >= from_us && *at < from_us + period_us);
        within.map(|(_, to)| to).collect::<std::collections::HashSet<_>>().len()
    };
    sent.iter().map(|&(from_us, _)| Full { from_us, count: count(from_us) }).collect()
}

impl History {
    fn faults(&self) -> Vec<Fault> {
        faults(&self.asked, &self.arrived, &self.rules)
    }

    /// Plants a fault somewhere and returns it; none: this history has no room for one of its kind.
    fn plant(&mut self, plant: Plant, at: prop::sample::Index) -> Option<Fault> {
        // Only what the fault is about is tight: one more message also fills a window.
        let tight = self.rules.clone();
        let loose = Limits {
            per_minute: usize::MAX,
            per_day: None,
            recipients_per_minute: None,
            min_gap: Duration::ZERO,
        };
        self.rules.accounts.values_mut().for_each(|limits| *limits = loose);
        self.rules.tokens.clear();
        match plant {
            Plant::Loss => {
                let n = self.pick(at, |history, n| history.outcome(n) == Some(Outcome::Sent))?;
                Some(Fault::Lost(self.arrived.remove(n).message))
            }
            Plant::Repetition => {
                let n = self.pick(at, |_, _| true)?;
                self.arrived.push(Arrival { at_us: LATER_US, ..self.arrived[n].clone() });
                Some(Fault::Repeated(self.arrived[n].message.clone(), 2))
            }
            Plant::Stranger => {
                let n = self.pick(at, |_, _| true)?;
                let mut stranger = Arrival { at_us: LATER_US, ..self.arrived[n].clone() };
                stranger.message.text = "谁？".into();
                self.arrived.push(stranger.clone());
                Some(Fault::Unasked(stranger.message))
            }
            Plant::Denial => {
                let n = self.pick(at, |_, _| true)?;
                let message = self.arrived[n].message.clone();
                self.ask(n).outcome = Outcome::NotSent;
                Some(Fault::Denied(message))
            }
            Plant::Overtaking => {
                // A message and the next of its conversation, both sent for certain, change places.
                let (n, next) = self.pick_with(at, |history, n| {
                    let later = (n + 1..history.arrived.len())
                        .filter(|&later| history.outcome(later) == Some(Outcome::Sent));
                    let mut same =
                        later.filter(|&later| history.conversation(later) == history.conversation(n));
                    (history.outcome(n) == Some(Outcome::Sent)).then(|| same.next()).flatten()
                })?;
                let late = self.arrived[n].message.clone();
                let by = self.arrived[next].message.clone();
                (self.arrived[n].message, self.arrived[next].message) = (by.clone(), late.clone());
                Some(Fault::Overtaken { late, by: by.text })
            }
            Plant::Minute => {
                let (app_id, times) = self.account(at)?;
                let limit = tight.accounts[&app_id].per_minute - 1;
                self.rules.accounts.get_mut(&app_id)?.per_minute = limit;
                let full = *plain_windows(&times, MINUTE_US).iter().find(|full| full.count > limit)?;
                Some(Fault::TooMany { app_id, from_us: full.from_us, count: full.count })
            }
            Plant::Day => {
                let (app_id, times) = self.account(at)?;
                self.rules.accounts.get_mut(&app_id)?.per_day = Some(times.len() - 1);
                Some(Fault::TooManyInDay { app_id, from_us: times[0], count: times.len() })
            }
            Plant::Recipients => {
                let (app_id, _) = self.account(at)?;
                let limit = tight.accounts[&app_id].recipients_per_minute? - 1;
                self.rules.accounts.get_mut(&app_id)?.recipients_per_minute = Some(limit);
                let own = self.arrived.iter().filter(|arrival| arrival.message.app_id == app_id);
                let sent: Vec<_> =
                    own.map(|arrival| (arrival.at_us, arrival.message.to_wxid.as_str())).collect();
                let full = *plain_crowded(&sent, MINUTE_US).iter().find(|full| full.count > limit)?;
                Some(Fault::TooManyRecipients { app_id, from_us: full.from_us, count: full.count })
            }
            Plant::Token => {
                let times: Vec<i64> = self.arrived.iter().map(|arrival| arrival.at_us).collect();
                let mut token = tight.tokens[0].clone();
                token.per_hour = token.per_hour.checked_sub(1)?;
                let windows = plain_windows(&times, 60 * MINUTE_US);
                let full = *windows.iter().find(|full| full.count > token.per_hour)?;
                self.rules.tokens = vec![token.clone()];
                Some(Fault::TooManyOfToken {
                    app_ids: token.app_ids,
                    from_us: full.from_us,
                    count: full.count,
                })
            }
            Plant::Gap => {
                let (app_id, times) = self.account(at)?;
                let gap = times.windows(2).map(|pair| (pair[1] - pair[0], pair[1])).min()?;
                let limits = self.rules.accounts.get_mut(&app_id)?;
                limits.min_gap = Duration::from_micros(gap.0.unsigned_abs() + 1);
                // Another pair may be just as close.
                let as_close = times.windows(2).filter(|pair| pair[1] - pair[0] <= gap.0).count();
                (as_close == 1).then_some(Fault::TooClose { app_id, at_us: gap.1, gap_us: gap.0 })
            }
            Plant::Early => {
                let n = self.pick(at, |_, _| true)?;
                let ask = self.ask(n);
                let at_us = ask.gates_us[0];
                ask.not_before_us = Some(at_us + 1);
                Some(Fault::SentTooEarly { message: ask.message.clone(), at_us })
            }
            Plant::Cancel => {
                let n = self.pick(at, |_, _| true)?;
                let ask = self.ask(n);
                let at_us = ask.gates_us[0];
                (ask.outcome, ask.cancelled_us) = (Outcome::NotSent, Some(at_us - 1));
                Some(Fault::SentAfterCancel { message: ask.message.clone(), at_us })
            }
            Plant::Pause => {
                let n = self.pick(at, |_, _| true)?;
                let ask = self.ask(n);
                let (message, at_us) = (ask.message.clone(), ask.gates_us[0]);
                let app_id = message.app_id.clone();
                self.rules.pauses.push(Pause { app_id, from_us: at_us, until_us: at_us });
                // Its neighbours' gates do not lie in it: they are a millisecond away.
                Some(Fault::SentWhilePaused { message, at_us })
            }
            Plant::Expiry => {
                let n = self.pick(at, |_, _| true)?;
                let ask = self.ask(n);
                let at_us = ask.gates_us[0];
                ask.expires_us = Some(at_us - 1);
                Some(Fault::SentAfterExpiry { message: ask.message.clone(), at_us })
            }
        }
    }

    /// Picks an arrival.
    fn pick(&self, at: prop::sample::Index, fits: impl Fn(&History, usize) -> bool) -> Option<usize> {
        self.pick_with(at, |history, n| fits(history, n).then_some(())).map(|(n, ())| n)
    }

    fn pick_with<T: Clone>(
        &self,
        at: prop::sample::Index,
        fits: impl Fn(&History, usize) -> Option<T>,
    ) -> Option<(usize, T)> {
        let fitting: Vec<(usize, T)> =
            (0..self.arrived.len()).filter_map(|n| Some((n, fits(self, n)?))).collect();
        (!fitting.is_empty()).then(|| at.get(&fitting).clone())
    }

    /// Picks an account that has sent something, and returns when.
    fn account(&self, at: prop::sample::Index) -> Option<(String, Vec<i64>)> {
        let app_id = self.arrived[self.pick(at, |_, _| true)?].message.app_id.clone();
        let own = self.arrived.iter().filter(|arrival| arrival.message.app_id == app_id);
        Some((app_id.clone(), own.map(|arrival| arrival.at_us).collect()))
    }

    fn ask(&mut self, arrival: usize) -> &mut Ask {
        let message = &self.arrived[arrival].message;
        self.asked.iter_mut().find(|ask| ask.message == *message).expect("it was asked for")
    }

    fn outcome(&self, arrival: usize) -> Option<Outcome> {
        let message = &self.arrived[arrival].message;
        self.asked.iter().find(|ask| ask.message == *message).map(|ask| ask.outcome)
    }

    fn conversation(&self, arrival: usize) -> Option<(&str, &str, u8)> {
        let message = &self.arrived[arrival].message;
        let ask = self.asked.iter().find(|ask| ask.message == *message)?;
        Some((message.app_id.as_str(), message.to_wxid.as_str(), ask.class))
    }
}

proptest! {
    #[test]
    fn a_random_good_history_has_no_fault(history in histories()) {
        prop_assert_eq!(history.faults(), []);
    }

    #[test]
    fn a_planted_fault_of_every_kind_is_found_and_nothing_else(history in histories(), at: prop::sample::Index) {
        for plant in PLANTS {
            let mut broken = history.clone();
            let Some(fault) = broken.plant(plant, at) else { continue };
            let mut found = broken.faults();
            // A limit may be broken again later; every window told of must be one of the same kind.
            if matches!(plant, Plant::Minute | Plant::Recipients | Plant::Token) {
                prop_assert!(found.iter().all(|found| found.name() == fault.name()), "{:?}", found);
                found.truncate(1);
            }
            prop_assert_eq!(found, vec![fault], "{:?}", plant);
        }
    }

    #[test]
    fn sliding_windows_count_as_plain_ones_do(
        mut sent in prop::collection::vec((0..300 * SECOND_US, 0..5usize), 0..80),
        limit in 0..6usize,
    ) {
        sent.sort_unstable();
        let names = ["一", "二", "三", "四", "五"];
        let sent: Vec<(i64, &str)> = sent.into_iter().map(|(at_us, to)| (at_us, names[to])).collect();
        let times: Vec<i64> = sent.iter().map(|(at_us, _)| *at_us).collect();
        let minute = Duration::from_secs(60);
        let over = |windows: Vec<Full>| windows.into_iter().filter(|full| full.count > limit).collect::<Vec<_>>();
        // Of two that start at once, the plain count sees both from the first.
        let first = |windows: Vec<Full>| {
            let mut seen = std::collections::HashSet::new();
            windows.into_iter().filter(|full| seen.insert(full.from_us)).collect::<Vec<_>>()
        };
        prop_assert_eq!(
            first(overfull(&times, minute, 0)).into_iter().filter(|f| f.count > limit).collect::<Vec<_>>(),
            first(over(plain_windows(&times, MINUTE_US)))
        );
        prop_assert_eq!(first(crowded(&sent, minute, limit)), first(over(plain_crowded(&sent, MINUTE_US))));
        prop_assert_eq!(worst(&times, minute), plain_worst(&times, MINUTE_US));
    }
}

/// A plant that never finds room would prove nothing.
#[test]
fn every_fault_finds_room_in_most_histories() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut planted = [0; PLANTS.len()];
    for _ in 0..100 {
        let history = histories().new_tree(&mut runner).expect("a history").current();
        let at = any::<prop::sample::Index>().new_tree(&mut runner).expect("a place").current();
        for (n, plant) in PLANTS.into_iter().enumerate() {
            planted[n] += usize::from(history.clone().plant(plant, at).is_some());
        }
    }
    assert!(planted.iter().all(|&count| count > 50), "{planted:?} of {PLANTS:?}");
}
