//! What is struck when: a pure function of a seed.
//!
//! Each plan is three rows of strikes, side by side: one for the platform's processes, and slower ones for each of the
//! stores, because after every outage of Postgres the rescuer waits a lease's length before it believes in a death.
//! Nothing keeps a process alive for the sake of the others: at times all workers are down together, or both stores.

use std::collections::HashMap;
use std::fmt::{Display, Formatter};
use std::ops::RangeInclusive;
use std::time::Duration;

use fastrand::Rng;

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Victim {
    /// A process of the API.
    Api(usize),
    /// A worker.
    Worker(usize),
    /// A scheduler.
    Scheduler(usize),
    /// The store of the deliveries.
    Redis,
    /// The store of the record.
    Postgres,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// `kill -9`, and started again so much later.
    Kill(Duration),
    /// SIGSTOP, and so much later SIGCONT.
    Freeze(Duration),
    /// SIGTERM, and started again so long after it has left.
    Stop(Duration),
    /// Postgres is shut down as `pg_ctl stop --mode immediate` does, and started again so much later.
    Crash(Duration),
    /// Redis is killed, its file removed, and started again so much later.
    Forget(Duration),
    /// Redis is told `FLUSHALL`.
    Flush,
}

/// One strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strike {
    /// When, after the beginning.
    pub(crate) at: Duration,
    /// Who.
    pub(crate) victim: Victim,
    /// What.
    pub(crate) action: Action,
}

/// Processes of the API in a storm.
pub(crate) const APIS: usize = 2;
/// Workers in a storm.
pub(crate) const WORKERS: usize = 4;
/// Schedulers in a storm.
pub(crate) const SCHEDULERS: usize = 2;

/// The longest that a process may take to leave after SIGTERM.
pub(crate) const LEAVES_WITHIN: Duration = Duration::from_secs(30);

/// A process that was just started has to have got as far as listening for SIGTERM.
const SETTLED_AFTER: Duration = Duration::from_secs(4);

/// What can be in the hand of a row of strikes. Each is dealt before any comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Card {
    Kill,
    /// The victim and all others of its kind that are up: killed at once, started again one after the other.
    KillAll,
    Freeze,
    Stop,
    Crash,
    Forget,
    Flush,
}

const PROCESS_DECK: [Card; 10] = [
    Card::KillAll,
    Card::Kill,
    Card::Kill,
    Card::Kill,
    Card::Kill,
    Card::Kill,
    Card::Freeze,
    Card::Freeze,
    Card::Stop,
    Card::Stop,
];
const REDIS_DECK: [Card; 4] = [Card::Kill, Card::Forget, Card::Flush, Card::Freeze];
const POSTGRES_DECK: [Card; 3] = [Card::Kill, Card::Crash, Card::Freeze];

impl Victim {
    /// The kind of process, for tables.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Victim::Api(_) => "api",
            Victim::Worker(_) => "worker",
            Victim::Scheduler(_) => "scheduler",
            Victim::Redis => "redis",
            Victim::Postgres => "postgres",
        }
    }

    fn freezes_for(self) -> RangeInclusive<u64> {
        match self {
            // A lease is 15 s: some wake up to find their work given away, some do not.
            Victim::Api(_) | Victim::Worker(_) | Victim::Scheduler(_) => 5_000..=40_000,
            Victim::Redis | Victim::Postgres => 5_000..=15_000,
        }
    }
}

impl Display for Victim {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Victim::Api(n) | Victim::Worker(n) | Victim::Scheduler(n) => write!(f, "{} {n}", self.kind()),
            Victim::Redis | Victim::Postgres => f.write_str(self.kind()),
        }
    }
}

impl Action {
    /// The kind of strike, for tables.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Action::Kill(_) => "kill -9",
            Action::Freeze(_) => "SIGSTOP",
            Action::Stop(_) => "SIGTERM",
            Action::Crash(_) => "immediate",
            Action::Forget(_) => "file lost",
            Action::Flush => "FLUSHALL",
        }
    }

    /// How long the victim is out of action at most, apart from the time that a start takes.
    fn lasts(self) -> Duration {
        match self {
            Action::Kill(time) | Action::Freeze(time) | Action::Crash(time) | Action::Forget(time) => time,
            Action::Stop(pause) => LEAVES_WITHIN + pause,
            Action::Flush => Duration::ZERO,
        }
    }
}

impl Display for Strike {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:7.1} s  {:<12} {}", self.at.as_secs_f64(), self.victim.to_string(), self.action.kind())?;
        match self.action {
            Action::Flush => Ok(()),
            Action::Kill(time)
            | Action::Freeze(time)
            | Action::Stop(time)
            | Action::Crash(time)
            | Action::Forget(time) => write!(f, ", {:.1} s", time.as_secs_f64()),
        }
    }
}

/// Returns the strikes of a storm in the order of their times. The same seed and length give the same strikes.
///
/// A victim is never struck while it is down, frozen or on its way out. When the storm ends, whoever is frozen goes on;
/// only a process that was asked to leave may take longer.
pub(crate) fn plan(seed: u64, duration: Duration) -> Vec<Strike> {
    let mut rng = Rng::with_seed(seed);
    let processes: Vec<Victim> = (0..APIS)
        .map(Victim::Api)
        .chain((0..WORKERS).map(Victim::Worker))
        .chain((0..SCHEDULERS).map(Victim::Scheduler))
        .collect();
    let mut strikes = row(&mut rng, duration, &processes, &PROCESS_DECK, 800..=2_800);
    strikes.extend(row(&mut rng, duration, &[Victim::Redis], &REDIS_DECK, 18_000..=32_000));
    strikes.extend(row(&mut rng, duration, &[Victim::Postgres], &POSTGRES_DECK, 35_000..=55_000));
    strikes.sort_by_key(|strike| strike.at);
    strikes
}

/// Returns the strikes of one row, with `gap` milliseconds between two of them.
fn row(
    rng: &mut Rng,
    duration: Duration,
    victims: &[Victim],
    deck: &[Card],
    gap: RangeInclusive<u64>,
) -> Vec<Strike> {
    let mut strikes = Vec::new();
    let mut hand: Vec<Card> = Vec::new();
    let mut free_from: HashMap<Victim, Duration> = HashMap::new();
    let longest = *gap.end();
    // The first strike comes early, so that a short storm has all rows in it.
    let mut at = millis(rng.u64(longest / 8..=longest / 2));
    while at + Duration::from_secs(1) < duration {
        if hand.is_empty() {
            hand.extend_from_slice(deck);
            rng.shuffle(&mut hand);
        }
        let is_free =
            |victim: &&Victim| free_from.get(*victim).is_none_or(|&since| since + SETTLED_AFTER <= at);
        let free: Vec<Victim> = victims.iter().filter(is_free).copied().collect();
        if let Some(&victim) = rng.choice(&free) {
            // The last freezes would outlive the storm.
            let place = hand.iter().rposition(|&card| card != Card::Freeze || fits(at, victim, duration));
            if let Some(card) = place.map(|place| hand.remove(place)) {
                let all = card == Card::KillAll;
                let hit = |other: &Victim| *other == victim || all && other.kind() == victim.kind();
                for victim in free.into_iter().filter(hit) {
                    let action = deal(rng, card, victim, duration - at);
                    free_from.insert(victim, at + action.lasts());
                    strikes.push(Strike { at, victim, action });
                }
            }
        }
        at += millis(rng.u64(gap.clone()));
    }
    strikes
}

fn fits(at: Duration, victim: Victim, duration: Duration) -> bool {
    at + millis(*victim.freezes_for().start()) <= duration
}

fn deal(rng: &mut Rng, card: Card, victim: Victim, left: Duration) -> Action {
    let pause = millis(rng.u64(100..=5_000));
    match card {
        Card::Kill | Card::KillAll => Action::Kill(pause.min(left)),
        Card::Freeze => Action::Freeze(millis(rng.u64(victim.freezes_for())).min(left)),
        Card::Stop => Action::Stop(pause.min(left)),
        Card::Crash => Action::Crash(pause.min(left)),
        Card::Forget => Action::Forget(pause.min(left)),
        Card::Flush => Action::Flush,
    }
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SHORT: Duration = Duration::from_secs(60);
    const LONG: Duration = Duration::from_secs(1200);

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        assert_eq!(plan(7, LONG), plan(7, LONG));
        assert_ne!(plan(7, LONG), plan(8, LONG));
    }

    #[test]
    fn a_short_storm_strikes_25_times_and_every_kind_of_process() {
        for seed in 0..200 {
            let plan = plan(seed, SHORT);
            assert!(plan.len() >= 25, "seed {seed}: {} strikes", plan.len());
            let kinds: HashSet<&str> = plan.iter().map(|strike| strike.victim.kind()).collect();
            assert_eq!(kinds.len(), 5, "seed {seed}: {kinds:?}");
        }
    }

    #[test]
    fn every_kind_of_strike_hits_every_kind_of_process_in_20_minutes() {
        let process = ["kill -9", "SIGSTOP", "SIGTERM"];
        let expected: HashSet<(&str, &str)> = ["api", "worker", "scheduler"]
            .into_iter()
            .flat_map(|victim| process.map(|action| (victim, action)))
            .chain(["kill -9", "SIGSTOP", "file lost", "FLUSHALL"].map(|action| ("redis", action)))
            .chain(["kill -9", "SIGSTOP", "immediate"].map(|action| ("postgres", action)))
            .collect();
        for seed in 0..50 {
            let plan = plan(seed, LONG);
            let found = plan.iter().map(|strike| (strike.victim.kind(), strike.action.kind())).collect();
            assert_eq!(expected, found, "seed {seed}");
            let victims: HashSet<Victim> = plan.iter().map(|strike| strike.victim).collect();
            assert_eq!(victims.len(), APIS + WORKERS + SCHEDULERS + 2, "seed {seed}");
        }
    }

    #[test]
    fn nobody_is_struck_while_down_or_frozen() {
        for seed in 0..50 {
            let mut back: HashMap<Victim, Duration> = HashMap::new();
            for strike in plan(seed, LONG) {
                let free = back.get(&strike.victim).is_none_or(|&since| since <= strike.at);
                assert!(free, "seed {seed}: {strike}");
                back.insert(strike.victim, strike.at + strike.action.lasts());
            }
        }
    }

    #[test]
    fn at_times_several_workers_are_killed_at_once() {
        for seed in 0..50 {
            let mut at_once: HashMap<Duration, usize> = HashMap::new();
            for strike in plan(seed, LONG).iter().filter(|strike| strike.victim.kind() == "worker") {
                *at_once.entry(strike.at).or_default() += 1;
            }
            assert!(at_once.values().any(|&workers| workers >= 2), "seed {seed}");
        }
    }

    #[test]
    fn strikes_are_in_order_and_end_with_the_storm() {
        for seed in 0..50 {
            for duration in [SHORT, LONG] {
                let plan = plan(seed, duration);
                assert!(plan.is_sorted_by_key(|strike| strike.at), "seed {seed}");
                for strike in plan {
                    let leaving = match strike.action {
                        Action::Stop(_) => LEAVES_WITHIN,
                        _ => Duration::ZERO,
                    };
                    assert!(strike.at + strike.action.lasts() <= duration + leaving, "seed {seed}: {strike}");
                }
            }
        }
    }

    #[test]
    fn some_zombies_outlive_their_lease_and_some_do_not() {
        let freezes: Vec<Duration> = plan(7, LONG)
            .into_iter()
            .filter_map(|strike| match (strike.victim, strike.action) {
                (Victim::Worker(_), Action::Freeze(time)) => Some(time),
                _ => None,
            })
            .collect();
        let lease = Duration::from_secs(15);
        assert!(freezes.iter().any(|&time| time < lease) && freezes.iter().any(|&time| time > lease));
        assert!(freezes.iter().all(|time| (millis(5_000)..=millis(40_000)).contains(time)), "{freezes:?}");
    }
}
