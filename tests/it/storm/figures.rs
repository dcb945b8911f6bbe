//! The figures of a storm, as text.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::time::Duration;

use super::plan::Strike;
use super::strike::Seen;
use crate::harness::traffic::Report;

/// What a storm came to.
#[derive(Debug)]
pub(crate) struct Figures<'a> {
    /// The seed, for another run.
    pub(crate) seed: u64,
    /// How long it lasted.
    pub(crate) duration: Duration,
    /// What was to be struck.
    pub(crate) plan: &'a [Strike],
    /// What was seen of the processes.
    pub(crate) seen: &'a Seen,
    /// How long it took afterwards until no job waited or ran.
    pub(crate) rest: Duration,
    /// Schedule ticks that happened.
    pub(crate) ticks: i64,
    /// What became of the messages.
    pub(crate) report: &'a Report,
    /// A line for each send of unknown outcome.
    pub(crate) unknown: &'a [String],
}

const VICTIMS: [&str; 5] = ["api", "worker", "scheduler", "redis", "postgres"];
const ACTIONS: [&str; 6] = ["kill -9", "SIGSTOP", "SIGTERM", "immediate", "file lost", "FLUSHALL"];

impl Display for Figures<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "kill storm, {} s, seed {}", self.duration.as_secs(), self.seed)?;
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for strike in self.plan {
            *counts.entry((strike.victim.kind(), strike.action.kind())).or_default() += 1;
        }
        writeln!(f, "  {:<10}{}", "", ACTIONS.map(|action| format!("{action:>10}")).concat())?;
        for victim in VICTIMS {
            let count = |action| counts.get(&(victim, action)).map_or_else(|| "-".into(), usize::to_string);
            writeln!(f, "  {victim:<10}{}", ACTIONS.map(|action| format!("{:>10}", count(action))).concat())?;
        }
        let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
        let slowest = self.seen.leaving.iter().max().copied().unwrap_or_default();
        let mut line = |what: &str, value: String| writeln!(f, "  {what:<34}{value:>8}");
        line("strikes", self.seen.strikes.to_string())?;
        line("no worker ran, seconds", seconds(self.seen.no_worker))?;
        line("left after SIGTERM", self.seen.leaving.len().to_string())?;
        line("  the slowest, seconds", seconds(slowest))?;
        line("at rest after the storm, seconds", seconds(self.rest))?;
        line("schedule ticks, each one job", self.ticks.to_string())?;
        line("faults of processes", self.seen.faults.len().to_string())?;
        writeln!(f, "{}", self.report)?;
        for unknown in self.unknown {
            writeln!(f, "  why unknown: {unknown}")?;
        }
        Ok(())
    }
}
