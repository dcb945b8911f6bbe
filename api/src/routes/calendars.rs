//! Holidays and make-up workdays, a year at a time.

use chrono::{DateTime, NaiveDate, Utc};
use diesel_async::AsyncConnection;
use entropy_jobs::sop::calendar::{Calendar, Fault, Year};
use entropy_schema::campaigns::calendars;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::json;
use uuid::Uuid;

use super::Tag;
use super::audit::Note;
use crate::AppState;
use crate::auth::caller::Caller;
use crate::auth::role::Role;
use crate::http::body::Body;
use crate::http::origin::Origin;
use crate::problem::{ApiError, FieldProblem};

/// Mainland China.
const COUNTRY: &str = "cn";

/// A year's days.
#[derive(Object)]
#[oai(deny_unknown_fields)]
struct PutCalendar {
    /// Days off, weekends within a holiday included, such as `2026-10-01`.
    holidays: Vec<NaiveDate>,
    /// Days of a weekend that are worked.
    workdays: Vec<NaiveDate>,
}

/// Where a year's days come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum CalendarSource {
    /// The organisation has written them.
    Organization,
    /// They came with the program.
    Shipped,
    /// Nobody has: each day goes by the week.
    None,
}

/// A year's days.
#[derive(Debug, Object)]
struct CalendarView {
    year: i32,
    /// Days off, in order.
    holidays: Vec<NaiveDate>,
    /// Days of a weekend that are worked, in order.
    workdays: Vec<NaiveDate>,
    source: CalendarSource,
    updated_by: Option<Uuid>,
    updated_at: Option<DateTime<Utc>>,
}

/// Calendars.
pub(super) struct Calendars;

#[OpenApi(tag = "Tag::Campaigns")]
impl Calendars {
    /// Shows a year's holidays and make-up workdays
    ///
    /// Of mainland China: as the organisation has written them, else as they came with the program.
    #[oai(path = "/calendars/cn/:year", method = "get", operation_id = "get_calendar")]
    async fn get(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        year: Path<i32>,
    ) -> Result<Json<CalendarView>, ApiError> {
        let year = checked(year.0)?;
        let mut conn = state.db.conn().await?;
        if let Some(row) = calendars::get(&mut conn, caller.organization_id, COUNTRY, year).await? {
            return Ok(Json(view(row)));
        }
        let shipped = Calendar::shipped();
        let table = shipped.year(year);
        Ok(Json(CalendarView {
            year,
            holidays: table.map(|table| table.holidays.iter().copied().collect()).unwrap_or_default(),
            workdays: table.map(|table| table.workdays.iter().copied().collect()).unwrap_or_default(),
            source: if table.is_some() { CalendarSource::Shipped } else { CalendarSource::None },
            updated_by: None,
            updated_at: None,
        }))
    }

    /// Writes a year's holidays and make-up workdays
    ///
    /// Needs the role manager. Replaces the whole year; holds for whatever is planned from now on.
    #[oai(path = "/calendars/cn/:year", method = "put", operation_id = "put_calendar")]
    async fn put(
        &self,
        state: Data<&AppState>,
        caller: Caller,
        origin: Origin,
        year: Path<i32>,
        body: Body<PutCalendar>,
    ) -> Result<Json<CalendarView>, ApiError> {
        caller.require(Role::Manager)?;
        let year = checked(year.0)?;
        let table = read(year, &body.0)?;
        let now = state.now().await;
        let mut conn = state.db.conn().await?;
        let row = calendars::Calendar {
            organization_id: caller.organization_id,
            country: COUNTRY.to_owned(),
            year,
            holidays: table.holidays.into_iter().collect(),
            workdays: table.workdays.into_iter().collect(),
            updated_by: Some(caller.id),
            updated_at: now,
        };
        conn.transaction(async |conn| {
            let old = calendars::get(conn, caller.organization_id, COUNTRY, year).await?;
            calendars::put(conn, &row).await?;
            let facts =
                |row: &calendars::Calendar| json!({"holidays": row.holidays, "workdays": row.workdays});
            let note =
                Note::new("calendar.update", "calendar", format!("{COUNTRY}/{year}")).after(facts(&row));
            let note = match &old {
                Some(old) => note.before(facts(old)),
                None => note,
            };
            note.write(conn, &caller, &origin).await
        })
        .await?;
        Ok(Json(view(row)))
    }
}

fn checked(year: i32) -> Result<i32, ApiError> {
    if (2000..=2200).contains(&year) {
        Ok(year)
    } else {
        Err(ApiError::not_found("calendar_not_found", "There are calendars for the years 2000 to 2200."))
    }
}

fn read(year: i32, asked: &PutCalendar) -> Result<Year, ApiError> {
    for (name, days) in [("holidays", &asked.holidays), ("workdays", &asked.workdays)] {
        if days.len() > 366 {
            return Err(ApiError::field(name, "too_many", "must have at most 366 days"));
        }
    }
    let table = Year {
        holidays: asked.holidays.iter().copied().collect(),
        workdays: asked.workdays.iter().copied().collect(),
    };
    let problems: Vec<FieldProblem> = table
        .faults(year)
        .into_iter()
        .map(|fault| {
            let (day, code) = match &fault {
                Fault::OtherYear(day, _) => (day, "other_year"),
                Fault::Both(day) => (day, "contradiction"),
            };
            let path = if table.holidays.contains(day) { "holidays" } else { "workdays" };
            FieldProblem::new(path, code, fault.to_string())
        })
        .take(100)
        .collect();
    if problems.is_empty() { Ok(table) } else { Err(ApiError::unprocessable(problems)) }
}

fn view(row: calendars::Calendar) -> CalendarView {
    CalendarView {
        year: row.year,
        holidays: row.holidays,
        workdays: row.workdays,
        source: CalendarSource::Organization,
        updated_by: row.updated_by,
        updated_at: Some(row.updated_at),
    }
}
