//! A line of the timetable as it stands in the record and ticks.

use anyhow::Context;
use chrono::{DateTime, Utc};
use entropy_jobs::timetable::{CatchUp, Task, Timing, task};
use entropy_schema::schedules::Schedule;
use uuid::Uuid;

/// What a scheduler knows of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) task: &'static Task,
    pub(crate) timing: Timing,
    pub(crate) catch_up: CatchUp,
}

impl Line {
    /// Reads a row, or says why this program cannot: a newer one may have written it.
    pub(crate) fn read(row: &Schedule) -> anyhow::Result<Line> {
        Ok(Line {
            id: row.id,
            name: row.name.clone(),
            task: task(&row.task).with_context(|| format!("there is no task {}", row.task))?,
            timing: Timing::read(&row.cron, &row.timezone).context("its times cannot be read")?,
            catch_up: row.catch_up.parse().context("catch_up")?,
        })
    }

    /// Tells whether the row still says what this line says, and is not paused.
    pub(crate) fn is_still(&self, row: &Schedule) -> bool {
        !row.paused
            && self.name == row.name
            && self.task.name == row.task
            && self.timing.cron() == row.cron
            && self.timing.zone().name() == row.timezone
            && self.catch_up.as_str() == row.catch_up
    }

    /// Returns the first fire time after `at`.
    pub(crate) fn next_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.timing.next_after(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Schedule {
        Schedule {
            id: Uuid::now_v7(),
            name: "夜间清理".into(),
            task: "prune_history".into(),
            cron: "20 3 * * *".into(),
            timezone: "Asia/Shanghai".into(),
            catch_up: "run_once".into(),
            paused: false,
            last_run_at: None,
            last_job_id: None,
            updated_by: None,
            updated_at: DateTime::UNIX_EPOCH,
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_line_is_still_the_same_until_what_it_says_changes() {
        let row = row();
        let line = Line::read(&row).expect("a line");
        assert!(line.is_still(&row));
        let ran =
            Schedule { last_run_at: Some(Utc::now()), last_job_id: Some(Uuid::now_v7()), ..row.clone() };
        assert!(line.is_still(&ran));
        for changed in [
            Schedule { paused: true, ..row.clone() },
            Schedule { cron: "21 3 * * *".into(), ..row.clone() },
            Schedule { timezone: "UTC".into(), ..row.clone() },
            Schedule { catch_up: "skip".into(), ..row.clone() },
        ] {
            assert!(!line.is_still(&changed), "{changed:?}");
        }
    }

    #[test]
    fn what_this_program_does_not_know_is_no_line() {
        for unknown in [
            Schedule { task: "of_tomorrow".into(), ..row() },
            Schedule { cron: "每天".into(), ..row() },
            Schedule { timezone: "Nowhere/Land".into(), ..row() },
            Schedule { catch_up: "twice".into(), ..row() },
        ] {
            assert!(Line::read(&unknown).is_err(), "{unknown:?}");
        }
    }
}
