//! An organisation's holidays: those that the program brings along, with the years that it has written itself in their place.

use chrono::NaiveDate;
use entropy_schema::Conn;
use entropy_schema::alerts::{self, NewAlert, Severity};
use entropy_schema::campaigns::{calendars, facts};
use serde_json::{Value, json};
use uuid::Uuid;

use super::plan::Plans;
use crate::sop::calendar::{Calendar, Year};
use crate::sop::config::WorkflowConfig;
use crate::sop::config::step::{Count, Step, WaitFor};
use crate::sop::config::window::{Days, HolidayCalendar};

/// Reads the organisation's calendar.
pub async fn of(conn: &mut Conn, organization: Uuid) -> entropy_schema::Result<Calendar> {
    let rows = calendars::all(conn, organization).await?;
    Ok(with(rows.into_iter().map(|row| (row.year, year(row)))))
}

/// Returns the organisation's calendar, where what it has written itself was read with other things: an object of years. A
/// year that cannot be read is as if it had not been written.
pub fn corrected(years: Option<&Value>) -> Calendar {
    let years = years.and_then(Value::as_object).into_iter().flatten();
    with(
        years.filter_map(|(year, table)| {
            Some((year.parse().ok()?, serde_json::from_value(table.clone()).ok()?))
        }),
    )
}

/// Reads a stored year.
pub fn year(row: calendars::Calendar) -> Year {
    Year { holidays: row.holidays.into_iter().collect(), workdays: row.workdays.into_iter().collect() }
}

fn with(years: impl Iterator<Item = (i32, Year)>) -> Calendar {
    let mut calendar = Calendar::shipped();
    for (year, table) in years {
        calendar.replace(year, table);
    }
    calendar
}

/// Tells whether a plan asks which days are worked.
pub fn is_used_by(config: &WorkflowConfig) -> bool {
    let counts = |step: &Step| {
        let Step::Wait(wait) = step else { return false };
        matches!(&wait.wait, WaitFor::Until(until) if until.count == Count::Workday)
    };
    let window = &config.send_window;
    window.holiday_calendar == HolidayCalendar::Cn
        && (window.days == Days::Workday || config.steps.iter().any(counts))
}

/// Raises an alert if a plan of the organisation runs that asks which days are worked, and the table of a year is missing that
/// it will need: this year's, or from November on the next. Once for a year. True: it was raised now.
pub async fn warn(
    conn: &mut Conn,
    plans: &Plans,
    organization: Uuid,
    today: NaiveDate,
) -> entropy_schema::Result<bool> {
    let Some(year) = of(conn, organization).await?.misses(today) else { return Ok(false) };
    for running in facts::running(conn, organization).await? {
        let plan = plans.of(conn, running.id, running.version).await?;
        if !plan.is_some_and(|plan| is_used_by(&plan.config)) {
            continue;
        }
        let text = format!(
            "Campaigns that run count working days, and the holidays of {year} are not known: every weekday counts as worked. \
             Write them down with PUT /calendars/cn/{year} once they are published."
        );
        let alert = NewAlert {
            organization_id: organization,
            kind: "calendar_missing",
            severity: Severity::Warning,
            dedupe_key: &format!("calendar_missing:{year}"),
            text: &text,
            account_id: None,
            conversation_id: None,
            details: Some(json!({ "year": year, "sop_id": running.id })),
        };
        return alerts::raise(conn, &alert).await;
    }
    Ok(false)
}
