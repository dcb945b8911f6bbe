//! What a run came to.

use std::fmt;

use crate::harness::history::Fault;

/// What is known of a run without the record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) seed: u64,
    pub(super) answers: u64,
    pub(super) repeated: u64,
    pub(super) account_pauses: usize,
    pub(super) queue_pauses: usize,
    pub(super) uncertain_pauses: usize,
    pub(super) dropped: usize,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// The seed, for another run.
    pub(crate) seed: u64,
    /// What the phone received against what was promised.
    pub(crate) faults: Vec<Fault>,
    /// What the API answered, or the record says, that cannot be.
    pub(crate) breaches: Vec<String>,
    /// Messages that were accepted.
    pub(crate) asked: usize,
    /// Messages that came too late to be accepted.
    pub(crate) refused: usize,
    /// Messages that were sent.
    pub(crate) sent: usize,
    /// Messages that were called off in time.
    pub(crate) cancelled: usize,
    /// Messages whose deadline passed.
    pub(crate) expired: usize,
    /// Messages that were given up.
    pub(crate) dead: usize,
    /// Messages of which nobody can know: job and text.
    pub(crate) unknown: Vec<String>,
    /// Calls that were to send something.
    pub(crate) calls: usize,
    /// Messages that GeWe said yes to.
    pub(crate) arrived: usize,
    /// Those among them that it dropped in silence.
    pub(crate) dropped: usize,
    /// Runs that were entered into the ledger of costs.
    pub(crate) tallies: usize,
    /// Answers of the API.
    pub(crate) answers: u64,
    /// Requests that had to be made again.
    pub(crate) api_retries: u64,
    /// Pauses of accounts.
    pub(crate) account_pauses: usize,
    /// Pauses of queues.
    pub(crate) queue_pauses: usize,
    /// Pauses that prove nothing, because an older switch may have come between.
    pub(crate) uncertain_pauses: usize,
}

impl Report {
    pub(super) fn new(said: Said, breaches: Vec<String>) -> Report {
        Report {
            seed: said.seed,
            faults: Vec::new(),
            breaches,
            asked: 0,
            refused: 0,
            sent: 0,
            cancelled: 0,
            expired: 0,
            dead: 0,
            unknown: Vec::new(),
            calls: 0,
            arrived: 0,
            dropped: said.dropped,
            tallies: 0,
            answers: said.answers,
            api_retries: said.repeated,
            account_pauses: said.account_pauses,
            queue_pauses: said.queue_pauses,
            uncertain_pauses: said.uncertain_pauses,
        }
    }

    /// Returns how often a kind of fault, by [`Fault::name`], was found.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.faults.iter().filter(|fault| fault.name() == name).count()
    }

    /// Nothing was found that must not be.
    pub(crate) fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.breaches.is_empty()
    }

    /// Panics with the first of what was found that must not be.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert!(
            self.is_clean(),
            "{self}\nthe first faults: {:#?}\nthe first breaches: {:#?}",
            &self.faults[..self.faults.len().min(10)],
            &self.breaches[..self.breaches.len().min(10)],
        );
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, n: u64| writeln!(f, "  {what:<34}{n:>8}");
        line("messages accepted", self.asked as u64)?;
        line("  sent", self.sent as u64)?;
        line("  called off", self.cancelled as u64)?;
        line("  expired", self.expired as u64)?;
        line("  dead", self.dead as u64)?;
        line("  unknown", self.unknown.len() as u64)?;
        line("messages refused as too late", self.refused as u64)?;
        line("calls of the provider", self.calls as u64)?;
        line("  accepted", self.arrived as u64)?;
        line("  dropped by the provider", self.dropped as u64)?;
        line("runs in the ledger of costs", self.tallies as u64)?;
        line("answers of the API", self.answers)?;
        line("requests made again", self.api_retries)?;
        line("pauses of accounts", self.account_pauses as u64)?;
        line("pauses of queues", self.queue_pauses as u64)?;
        line("  of these uncertain", self.uncertain_pauses as u64)?;
        for name in Fault::NAMES {
            line(&format!("fault: {name}"), self.count(name) as u64)?;
        }
        line("breaches of the record or the API", self.breaches.len() as u64)?;
        for unknown in &self.unknown {
            writeln!(f, "  unknown: {unknown}")?;
        }
        write!(f, "  seed {}", self.seed)
    }
}
