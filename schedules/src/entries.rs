//! The timetable: every schedule of the platform, with its reasons.

use std::str::FromStr;

use chrono::{DateTime, TimeZone, Utc};
use chrono_tz::Tz;
use entropy_jobs::enqueue::{NewJob, Options, new_job};
use entropy_jobs::kinds::check_risk::CheckRisk;
use entropy_jobs::kinds::check_silence::CheckSilence;
use entropy_jobs::kinds::each_account::{EachAccount, Work};
use entropy_jobs::kinds::expire_keys::ExpireKeys;
use entropy_jobs::kinds::index_messages::IndexMessages;
use entropy_jobs::kinds::prune_history::PruneHistory;
use entropy_jobs::kinds::prune_media::PruneMedia;
use entropy_jobs::kinds::reap_workers::ReapWorkers;
use entropy_jobs::kinds::settle_runs::SettleRuns;

use crate::due::CatchUp;

/// One line of the timetable.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Stored with every tick and part of its key: never rename one that is in use.
    pub name: &'static str,
    /// When it fires: second, minute, hour, day of month, month, day of week.
    pub cron: &'static str,
    /// The zone in which `cron` is read.
    pub zone: Tz,
    /// What happens to ticks that nobody was there for.
    pub catch_up: CatchUp,
    schedule: cron::Schedule,
    job: fn(Options) -> NewJob,
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
        Entry::new("prune_history", "0 20 3 * * *", Tz::Asia__Shanghai, RunOnce, |options| {
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
        }),
        // After the rows, for the same reasons. Half a year, as for what was sent: pictures are what people ask for later, and
        // what fills a disk.
        Entry::new("prune_media", "0 40 3 * * *", Tz::Asia__Shanghai, RunOnce, |options| {
            new_job(&PruneMedia { keep_days: 180 }, options)
        }),
        // Old login failures go with the keys, so it is hourly; and it is cheap, so a missed hour is made good at once.
        Entry::new("expire_keys", "0 0 * * * *", Tz::UTC, RunOnce, |options| {
            // Nobody repeats a request after a week.
            new_job(&ExpireKeys { keep_days: 7 }, options)
        }),
        // Away from the full hour, when the others are at work. An hour without it only leaves some rows on a page, so
        // nothing is made good.
        Entry::new("reap_workers", "0 17 * * * *", Tz::UTC, Skip, |options| {
            // A week is long enough to ask what became of a machine.
            new_job(&ReapWorkers { keep_days: 7 }, options)
        }),
        // Address books change slowly and reading them is work for the phones, so it is done once, at night, each account
        // at its own time of the three hours after this. A night without it is made good by the next.
        Entry::new("sync_contacts", "0 5 2 * * *", Tz::Asia__Shanghai, Skip, |options| {
            new_job(&EachAccount { work: Work::SyncContacts }, options)
        }),
        // The callback that an account was logged out may be lost, and then nobody knows until something is to be sent.
        Entry::new("check_online", "30 */10 * * * *", Tz::UTC, Skip, |options| {
            new_job(&EachAccount { work: Work::CheckOnline }, options)
        }),
        // What an answer cost that was lost: the records often know it a little later. A pass that finds nothing is one look
        // into an index.
        Entry::new("settle_runs", "20 */10 * * * *", Tz::UTC, Skip, |options| {
            new_job(&SettleRuns {}, options)
        }),
        // Echoes that have stopped are seen over some minutes at the earliest.
        Entry::new("check_risk", "50 */10 * * * *", Tz::UTC, Skip, |options| new_job(&CheckRisk {}, options)),
        // An alarm is as good as it is early.
        Entry::new("check_silence", "45 */5 * * * *", Tz::UTC, Skip, |options| {
            new_job(&CheckSilence {}, options)
        }),
    ]
    .into_iter()
    .map(|entry| entry.expect("the timetable holds valid expressions"))
    .collect()
}

/// Returns the line that is in force where there is a search engine.
///
/// # Panics
///
/// If its expression is wrong, which a test rules out.
pub fn indexing() -> Entry {
    // A message can be found a minute after it was written. What a missed minute left out, the next one makes good.
    Entry::new("index_messages", "0 * * * * *", Tz::UTC, CatchUp::Skip, |options| {
        new_job(&IndexMessages {}, options)
    })
    .expect("a valid expression")
}

impl Entry {
    /// Makes an entry, or says what is wrong with its expression.
    pub fn new(
        name: &'static str,
        cron: &'static str,
        zone: Tz,
        catch_up: CatchUp,
        job: fn(Options) -> NewJob,
    ) -> Result<Entry, cron::error::Error> {
        Ok(Entry { name, cron, zone, catch_up, schedule: cron::Schedule::from_str(cron)?, job })
    }

    /// Returns the first fire time after `at`. None: there is none within a century.
    ///
    /// Depends on nothing but the entry and `at`, so that all schedulers agree. Where a clock is set back, a time that
    /// comes twice fires the first time only; where it is set forward, a time that is left out does not fire. Read
    /// hourly schedules in UTC, which has neither.
    pub fn next_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.schedule
            .after(&at.with_timezone(&self.zone))
            // In the hour that comes twice, the iterator also offers times before its start.
            .find(|found| {
                *found > at
                    && self.zone.from_local_datetime(&found.naive_local()).earliest().as_ref() == Some(found)
            })
            .map(|found| found.with_timezone(&Utc))
    }

    /// Prepares the job of one tick.
    pub(crate) fn job(&self, options: Options) -> NewJob {
        (self.job)(options)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use chrono::TimeDelta;

    use super::*;
    use crate::due::tests::{at, entry};

    #[test]
    fn every_entry_has_a_name_of_its_own() {
        let entries = entries();
        let names: HashSet<&str> = entries.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), entries.len());
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

    #[test]
    fn a_tick_is_not_after_itself_but_after_the_moment_before() {
        let hourly = entry("0 0 * * * *", Tz::UTC, CatchUp::Skip);
        assert_eq!(hourly.next_after(at("2026-11-22T12:00:00Z")), Some(at("2026-11-22T13:00:00Z")));
        assert_eq!(hourly.next_after(at("2026-11-22T11:59:59.999Z")), Some(at("2026-11-22T12:00:00Z")));
        assert_eq!(hourly.next_after(at("2026-11-22T12:00:00.001Z")), Some(at("2026-11-22T13:00:00Z")));
    }

    #[test]
    fn an_hour_that_comes_twice_fires_the_first_time_only() {
        // In New York 2026-11-01 has 01:30 at 05:30Z and again at 06:30Z.
        let daily = entry("0 30 1 * * *", Tz::America__New_York, CatchUp::Skip);
        assert_eq!(daily.next_after(at("2026-11-01T05:00:00Z")), Some(at("2026-11-01T05:30:00Z")));
        for later in
            ["2026-11-01T05:30:00Z", "2026-11-01T05:59:59.5Z", "2026-11-01T06:10:00Z", "2026-11-01T06:45:00Z"]
        {
            assert_eq!(daily.next_after(at(later)), Some(at("2026-11-02T06:30:00Z")), "after {later}");
        }
    }

    #[test]
    fn a_time_that_is_left_out_does_not_fire() {
        // In New York 2026-03-08 has no 02:30.
        let daily = entry("0 30 2 * * *", Tz::America__New_York, CatchUp::Skip);
        assert_eq!(daily.next_after(at("2026-03-07T12:00:00Z")), Some(at("2026-03-09T06:30:00Z")));
    }

    #[test]
    fn a_day_keeps_its_local_time_when_the_clock_is_set() {
        let daily = entry("0 0 9 * * *", Tz::America__New_York, CatchUp::Skip);
        assert_eq!(daily.next_after(at("2026-03-07T12:00:00Z")), Some(at("2026-03-07T14:00:00Z")));
        assert_eq!(daily.next_after(at("2026-03-08T12:00:00Z")), Some(at("2026-03-08T13:00:00Z")));
    }
}
