//! Holidays and make-up workdays, as organisations have corrected them.

use chrono::{DateTime, NaiveDate, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use crate::tables::calendars;
use crate::{Conn, Result};

/// The days of a year, in place of those that the program brings along.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = calendars, treat_none_as_null = true)]
pub struct Calendar {
    /// The tenant.
    pub organization_id: Uuid,
    /// `cn`.
    pub country: String,
    /// The year.
    pub year: i32,
    /// Days off.
    pub holidays: Vec<NaiveDate>,
    /// Days of a weekend that are worked.
    pub workdays: Vec<NaiveDate>,
    /// Who wrote it.
    pub updated_by: Option<Uuid>,
    /// When.
    pub updated_at: DateTime<Utc>,
}

/// Returns all years that the organisation has written itself.
pub async fn all(conn: &mut Conn, organization: Uuid) -> Result<Vec<Calendar>> {
    Ok(calendars::table
        .filter(calendars::organization_id.eq(organization))
        .order(calendars::year)
        .select(Calendar::as_select())
        .load(conn)
        .await?)
}

/// Returns a year, if the organisation has written it itself.
pub async fn get(conn: &mut Conn, organization: Uuid, country: &str, year: i32) -> Result<Option<Calendar>> {
    Ok(calendars::table
        .find((organization, country, year))
        .select(Calendar::as_select())
        .first(conn)
        .await
        .optional()?)
}

/// Writes a year. The last one to write wins.
pub async fn put(conn: &mut Conn, calendar: &Calendar) -> Result<()> {
    diesel::insert_into(calendars::table)
        .values(calendar)
        .on_conflict((calendars::organization_id, calendars::country, calendars::year))
        .do_update()
        .set(calendar)
        .execute(conn)
        .await?;
    Ok(())
}
