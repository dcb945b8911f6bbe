//! An organisation's holidays: those that the program brings along, with the years that it has written itself in their place.

use entropy_schema::Conn;
use entropy_schema::campaigns::calendars;
use uuid::Uuid;

use crate::sop::calendar::{Calendar, Year};

/// Reads the organisation's calendar.
pub async fn of(conn: &mut Conn, organization: Uuid) -> entropy_schema::Result<Calendar> {
    let mut calendar = Calendar::shipped();
    for row in calendars::all(conn, organization).await? {
        calendar.replace(row.year, year(row));
    }
    Ok(calendar)
}

/// Reads a stored year.
pub fn year(row: calendars::Calendar) -> Year {
    Year { holidays: row.holidays.into_iter().collect(), workdays: row.workdays.into_iter().collect() }
}
