//! The clock of campaigns: the database's, unless a test has put another function into its own database.
//!
//! Limits, leases and jobs keep the true clock ([`crate::clock`]).

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Timestamptz;
use diesel_async::RunQueryDsl;

use crate::cached::Cache;
use crate::{Conn, Result};

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

/// Reads the clock of campaigns.
pub async fn now(conn: &mut Conn) -> Result<DateTime<Utc>> {
    Ok(sql_query("SELECT campaign_now() AS now").cached().get_result::<Now>(conn).await?.now)
}
