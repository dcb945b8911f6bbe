//! The timetable as the program brings it, with its reasons. What a task is, the jobs' crate says.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use entropy_jobs::timetable::{CatchUp, Timing};

/// One line of the timetable as the program brings it. People may change it in the record.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name, which is also that of its task: never rename one that is in use.
    pub name: &'static str,
    /// When it fires.
    pub timing: Timing,
    /// What happens to ticks that nobody was there for.
    pub catch_up: CatchUp,
}

/// Returns the timetable.
///
/// # Panics
///
/// If an expression is wrong, which a test rules out.
pub fn entries() -> Vec<Entry> {
    use CatchUp::{RunOnce, Skip};
    [
        // Deleting is the heaviest work that we bring about ourselves, so it runs when the teams sleep; they are in
        // China, whatever the zone of the server. Without catching up, a machine that is switched off every night
        // would never prune.
        ("prune_history", "20 3 * * *", Tz::Asia__Shanghai, RunOnce),
        // After the rows, for the same reasons.
        ("prune_media", "40 3 * * *", Tz::Asia__Shanghai, RunOnce),
        // Old login failures go with the keys, so it is hourly; and it is cheap, so a missed hour is made good at once.
        ("expire_keys", "0 * * * *", Tz::UTC, RunOnce),
        // Away from the full hour, when the others are at work. An hour without it only leaves some rows on a page, so
        // nothing is made good.
        ("reap_workers", "17 * * * *", Tz::UTC, Skip),
        // Address books change slowly and reading them is work for the phones, so it is done once, at night, each account
        // at its own time of the three hours after this. A night without it is made good by the next.
        ("sync_contacts", "5 2 * * *", Tz::Asia__Shanghai, Skip),
        // The callback that an account was logged out may be lost, and then nobody knows until something is to be sent.
        ("check_online", "30 */10 * * * *", Tz::UTC, Skip),
        // What an answer cost that was lost: the records often know it a little later. A pass that finds nothing is one look
        // into an index.
        ("settle_runs", "20 */10 * * * *", Tz::UTC, Skip),
        // Echoes that have stopped are seen over some minutes at the earliest.
        ("check_risk", "40 */10 * * * *", Tz::UTC, Skip),
        // Reports read what is not added up yet line by line, so they are as quick as this is often.
        ("roll_up_costs", "50 */10 * * * *", Tz::UTC, Skip),
        // Next year's holidays are published in November, and somebody has to write them down before they are needed. A day
        // without a look is made good by the next.
        ("check_calendars", "10 9 * * *", Tz::Asia__Shanghai, Skip),
        // An alarm is as good as it is early.
        ("check_silence", "45 */5 * * * *", Tz::UTC, Skip),
    ]
    .into_iter()
    .map(|(name, cron, zone, catch_up)| Entry::new(name, cron, zone, catch_up))
    .collect()
}

/// Returns the line that is in force where there is a search engine.
///
/// # Panics
///
/// If its expression is wrong, which a test rules out.
pub fn indexing() -> Entry {
    // A message can be found a minute after it was written. What a missed minute left out, the next one makes good.
    Entry::new("index_messages", "* * * * *", Tz::UTC, CatchUp::Skip)
}

impl Entry {
    fn new(name: &'static str, cron: &str, zone: Tz, catch_up: CatchUp) -> Entry {
        let timing = Timing::new(cron, zone).expect("the timetable holds valid expressions");
        Entry { name, timing, catch_up }
    }

    /// Returns the first fire time after `at`, unless somebody has changed the line.
    pub fn next_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.timing.next_after(at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use chrono::TimeDelta;
    use entropy_jobs::timetable::{TASKS, task};

    use super::*;
    use crate::due::tests::at;

    #[test]
    fn every_entry_has_a_name_of_its_own_and_a_task() {
        let entries = entries();
        let names: HashSet<&str> = entries.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), entries.len());
        for entry in entries.iter().chain([&indexing()]) {
            assert!(
                task(entry.name).is_some_and(|task| task.needs_search == (entry.name == "index_messages"))
            );
        }
    }

    #[test]
    fn every_task_is_done_by_some_entry() {
        let names: HashSet<&str> = entries().iter().chain([&indexing()]).map(|entry| entry.name).collect();
        assert!(TASKS.iter().all(|task| names.contains(task.name)), "{names:?}");
    }

    #[test]
    fn no_entry_fires_more_often_than_once_a_minute() {
        for entry in entries().into_iter().chain([indexing()]) {
            let mut tick = entry.next_after(at("2026-01-01T00:00:00Z")).expect("fires");
            for _ in 0..2000 {
                let next = entry.next_after(tick).expect("goes on");
                assert!(next - tick >= TimeDelta::minutes(1), "{} fires at {tick} and {next}", entry.name);
                tick = next;
            }
        }
    }

    #[test]
    fn history_is_pruned_in_the_chinese_night() {
        let entries = entries();
        let prune = entries.iter().find(|entry| entry.name == "prune_history").expect("listed");
        assert_eq!(prune.next_after(at("2026-11-22T12:00:00Z")), Some(at("2026-11-22T19:20:00Z")));
        assert_eq!(prune.next_after(at("2026-11-22T19:20:00Z")), Some(at("2026-11-23T19:20:00Z")));
    }
}
