//! What people write of a line of the timetable: checked, and made a row of.

use chrono::DateTime;
use entropy_jobs::calendar::DEFAULT_ZONE;
use entropy_jobs::timetable::{self, CatchUp, NotATiming, TASKS, Task, Timing};
use entropy_schema::schedules::Schedule;
use poem_openapi::{Enum, Object};
use uuid::Uuid;

use crate::AppState;
use crate::auth::caller::Caller;
use crate::http::text::Text;
use crate::problem::{ApiError, FieldProblem};

/// What becomes of ticks that no scheduler was there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub(super) enum CatchUpPolicy {
    /// They are let go.
    Skip,
    /// The latest of them runs, once for all.
    RunOnce,
}

impl From<CatchUpPolicy> for CatchUp {
    fn from(policy: CatchUpPolicy) -> CatchUp {
        match policy {
            CatchUpPolicy::Skip => CatchUp::Skip,
            CatchUpPolicy::RunOnce => CatchUp::RunOnce,
        }
    }
}

/// A line to add.
#[derive(Object)]
#[oai(deny_unknown_fields)]
pub(super) struct CreateSchedule {
    /// Unique in the install: 1 to 64 characters. It never changes.
    name: Text,
    /// What is done, such as `sync_contacts`: the `task` of another line.
    task: Text,
    /// When: minute, hour, day of the month, month, day of the week, such as `30 9 * * 1-5`. A sixth field before them may say
    /// the second.
    cron: Text,
    /// IANA name of the zone in which `cron` is read; `Asia/Shanghai` if not given.
    timezone: Option<Text>,
    /// `skip` if not given.
    catch_up: Option<CatchUpPolicy>,
    /// It does not tick; false if not given.
    paused: Option<bool>,
}

/// What to change about a line. What is left out stays.
#[derive(Object)]
#[oai(deny_unknown_fields)]
pub(super) struct ChangeSchedule {
    /// Its own name, which does not change.
    pub(super) name: Option<Text>,
    /// Its own task, which does not change.
    task: Option<Text>,
    /// When, as when it is added.
    cron: Option<Text>,
    /// IANA name of the zone in which `cron` is read.
    timezone: Option<Text>,
    catch_up: Option<CatchUpPolicy>,
    /// True: it does not tick until this is false again. What came due meanwhile is let go.
    paused: Option<bool>,
}

/// Returns the line that somebody asks for, or says what is wrong with it.
pub(super) fn new_line(
    state: &AppState,
    caller: &Caller,
    asked: &CreateSchedule,
) -> Result<Schedule, ApiError> {
    let mut problems = Vec::new();
    let name = asked.name.trim();
    if !(1..=64).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        let message = "must have 1 to 64 characters and no control characters";
        problems.push(FieldProblem::new("name", "bad_name", message));
    }
    if task_here(state, &asked.task).is_none() {
        let known: Vec<&str> =
            TASKS.iter().filter(|task| is_here(state, task)).map(|task| task.name).collect();
        let message = format!("must be one of {}", known.join(", "));
        problems.push(FieldProblem::new("task", "unknown_task", message));
    }
    let timezone = asked.timezone.as_deref().unwrap_or(DEFAULT_ZONE.name());
    problems.extend(timing_problem(&asked.cron, timezone));
    if !problems.is_empty() {
        return Err(ApiError::unprocessable(problems));
    }
    Ok(Schedule {
        id: Uuid::now_v7(),
        name: name.to_owned(),
        task: asked.task.0.clone(),
        cron: asked.cron.0.clone(),
        timezone: timezone.to_owned(),
        catch_up: asked.catch_up.map_or(CatchUp::Skip, CatchUp::from).as_str().to_owned(),
        paused: asked.paused.unwrap_or_default(),
        last_run_at: None,
        last_job_id: None,
        updated_by: Some(caller.id),
        updated_at: DateTime::UNIX_EPOCH,
        created_at: DateTime::UNIX_EPOCH,
    })
}

/// Returns a line as somebody wants it, or says what is wrong with that.
pub(super) fn changed_line(old: &Schedule, asked: &ChangeSchedule) -> Result<Schedule, ApiError> {
    let mut problems = Vec::new();
    for (path, asked, stands) in [("name", &asked.name, &old.name), ("task", &asked.task, &old.task)] {
        if asked.as_deref().is_some_and(|asked| asked != stands) {
            let message = format!("does not change; this line has {stands}. Add another line instead");
            problems.push(FieldProblem::new(path, "cannot_change", message));
        }
    }
    let text = |asked: &Option<Text>, stands: &str| asked.as_deref().unwrap_or(stands).to_owned();
    let changed = Schedule {
        cron: text(&asked.cron, &old.cron),
        timezone: text(&asked.timezone, &old.timezone),
        catch_up: asked
            .catch_up
            .map_or(old.catch_up.clone(), |policy| CatchUp::from(policy).as_str().to_owned()),
        paused: asked.paused.unwrap_or(old.paused),
        ..old.clone()
    };
    problems.extend(timing_problem(&changed.cron, &changed.timezone));
    if problems.is_empty() { Ok(changed) } else { Err(ApiError::unprocessable(problems)) }
}

fn timing_problem(cron: &str, timezone: &str) -> Option<FieldProblem> {
    match Timing::read(cron, timezone) {
        Ok(_) => None,
        Err(error @ NotATiming::Zone) => {
            Some(FieldProblem::new("timezone", "unknown_timezone", error.to_string()))
        }
        Err(error @ NotATiming::Cron(_)) => Some(FieldProblem::new("cron", "bad_cron", error.to_string())),
    }
}

/// Returns the task of this name, unless there is nothing to do for it here.
pub(super) fn task_here(state: &AppState, name: &str) -> Option<&'static Task> {
    timetable::task(name).filter(|task| is_here(state, task))
}

fn is_here(state: &AppState, task: &Task) -> bool {
    !task.needs_search || state.has_search_engine
}
