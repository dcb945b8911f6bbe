//! The last tick that each schedule has enqueued: what catching up starts from.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::tables::schedule_ticks;
use crate::{Conn, Result};

/// Returns the last tick of `name`, if there was one.
pub async fn last(conn: &mut Conn, name: &str) -> Result<Option<DateTime<Utc>>> {
    Ok(schedule_ticks::table.find(name).select(schedule_ticks::last_tick_at).first(conn).await.optional()?)
}

/// Remembers a tick. An older one than the last changes nothing.
pub async fn remember(conn: &mut Conn, name: &str, at: DateTime<Utc>) -> Result<()> {
    diesel::sql_query(
        "INSERT INTO schedule_ticks (name, last_tick_at) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET last_tick_at = GREATEST(schedule_ticks.last_tick_at, excluded.last_tick_at)",
    )
    .bind::<diesel::sql_types::Text, _>(name)
    .bind::<diesel::sql_types::Timestamptz, _>(at)
    .execute(conn)
    .await?;
    Ok(())
}
