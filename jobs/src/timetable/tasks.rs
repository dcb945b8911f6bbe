//! The tasks: what a line of the timetable can name.

use crate::enqueue::{NewJob, Options, new_job};
use crate::kinds::check_calendars::CheckCalendars;
use crate::kinds::check_risk::CheckRisk;
use crate::kinds::check_silence::CheckSilence;
use crate::kinds::each_account::{EachAccount, Work};
use crate::kinds::expire_keys::ExpireKeys;
use crate::kinds::index_messages::IndexMessages;
use crate::kinds::prune_history::PruneHistory;
use crate::kinds::prune_media::PruneMedia;
use crate::kinds::reap_workers::ReapWorkers;
use crate::kinds::roll_up_costs::RollUpCosts;
use crate::kinds::settle_runs::SettleRuns;

/// Something that the platform does by the clock. It is a job, and a second one beside it would do nothing more.
#[derive(Debug)]
pub struct Task {
    /// Stored with every line that names it: never rename one.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// True: there is nothing to do where no search engine is configured.
    pub needs_search: bool,
    job: fn(Options) -> NewJob,
}

/// Every task, by name.
pub static TASKS: [Task; 12] = [
    Task {
        name: "check_calendars",
        about: "Raises an alert where campaigns go by workdays and the holidays of next year are not written down.",
        needs_search: false,
        job: |options| new_job(&CheckCalendars {}, options),
    },
    Task {
        name: "check_online",
        about: "Asks the provider which devices are online, each account at a time of its own.",
        needs_search: false,
        job: |options| new_job(&EachAccount { work: Work::CheckOnline }, options),
    },
    Task {
        name: "check_risk",
        about: "Holds accounts whose messages have stopped to come back as echoes.",
        needs_search: false,
        job: |options| new_job(&CheckRisk {}, options),
    },
    Task {
        name: "check_silence",
        about: "Raises an alert for online accounts from which nothing comes in.",
        needs_search: false,
        job: |options| new_job(&CheckSilence {}, options),
    },
    Task {
        name: "expire_keys",
        about: "Forgets idempotency keys after a week, and failed logins after a day.",
        needs_search: false,
        // Nobody repeats a request after a week.
        job: |options| new_job(&ExpireKeys { keep_days: 7 }, options),
    },
    Task {
        name: "index_messages",
        about: "Brings the index of the search engine up to date.",
        needs_search: true,
        job: |options| new_job(&IndexMessages {}, options),
    },
    Task {
        name: "prune_history",
        about: "Deletes ended jobs, sends, callback events and alerts whose time to be kept is over.",
        needs_search: false,
        job: |options| {
            // A month answers "what happened to that message"; dead jobs wait for a person, who may be on leave; who
            // was sent what is asked about for half a year.
            // The raw events are for finding out what the provider meant, and hold what customers wrote.
            let args = PruneHistory {
                keep_jobs_days: 30,
                keep_dead_days: 90,
                keep_sends_days: 180,
                keep_callbacks_days: 30,
                keep_alerts_days: 180,
            };
            new_job(&args, options)
        },
    },
    Task {
        name: "prune_media",
        about: "Deletes pictures, voices, videos and files of messages after half a year.",
        needs_search: false,
        // Half a year, as for what was sent: pictures are what people ask for later, and what fills a disk.
        job: |options| new_job(&PruneMedia { keep_days: 180 }, options),
    },
    Task {
        name: "reap_workers",
        about: "Forgets worker processes a week after their last sign of life.",
        needs_search: false,
        // A week is long enough to ask what became of a machine.
        job: |options| new_job(&ReapWorkers { keep_days: 7 }, options),
    },
    Task {
        name: "roll_up_costs",
        about: "Adds up the cost ledger by the hour, so that reports are quick.",
        needs_search: false,
        job: |options| new_job(&RollUpCosts {}, options),
    },
    Task {
        name: "settle_runs",
        about: "Enters what model calls did cost whose answers were lost.",
        needs_search: false,
        job: |options| new_job(&SettleRuns {}, options),
    },
    Task {
        name: "sync_contacts",
        about: "Fetches contacts, groups and labels of every account that is online, each at a time of its own within three hours.",
        needs_search: false,
        job: |options| new_job(&EachAccount { work: Work::SyncContacts }, options),
    },
];

/// Returns the task of this name.
pub fn task(name: &str) -> Option<&'static Task> {
    TASKS.iter().find(|task| task.name == name)
}

impl Task {
    /// Prepares its job.
    pub fn job(&self, options: Options) -> NewJob {
        (self.job)(options)
    }
}

impl PartialEq for Task {
    fn eq(&self, other: &Task) -> bool {
        self.name == other.name
    }
}

impl Eq for Task {}

#[cfg(test)]
mod tests {
    use entropy_schema::SYSTEM_ORGANIZATION;

    use super::*;
    use crate::class::Class;

    #[test]
    fn tasks_stand_in_the_order_of_their_names_each_once() {
        assert!(TASKS.is_sorted_by(|one, next| one.name < next.name));
        assert!(task("prune_history").is_some());
        assert!(task("no_such_task").is_none());
    }

    #[test]
    fn a_task_is_done_by_one_job_at_a_time() {
        for task in &TASKS {
            let options = Options {
                organization_id: SYSTEM_ORGANIZATION,
                class: Class::Campaign,
                scheduled_at: None,
                expires_at: None,
                idempotency: None,
                trace_id: String::new(),
                created_by: None,
            };
            assert!(task.job(options).unique_key.is_some(), "{}", task.name);
        }
    }
}
