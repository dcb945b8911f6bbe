//! Statistics of the hot tables, brought up to date when these have grown.
//!
//! Sessions plan the hot statements once, mostly while nothing waits, and over an empty table every index costs the same. If a
//! hundred thousand jobs then come within seconds, such a plan may walk an index from end to end for each of them, until Postgres
//! has analysed the table by itself, which takes up to a minute. An `ANALYZE` has the plans of all sessions made anew.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;

use crate::cached::Cache;
use crate::{Conn, Result};

/// Tables whose size is looked at: those that are empty on a quiet day.
///
/// Size is what their files have in pages. Up to 16 pages, about a thousand rows, no plan is bad; from there on each doubling
/// counts, so a burst of any size costs a handful of analyses.
const GROWN: &str = "\
SELECT c.relname::text AS name FROM pg_class c
WHERE c.oid IN ('pending'::regclass, 'leases'::regclass, 'lanes'::regclass)
    AND pg_relation_size(c.oid) > 2 * GREATEST(c.relpages, 8) * current_setting('block_size')::bigint";

#[derive(QueryableByName)]
struct Table {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Analyses the tables that have at least doubled since they were last analysed. Returns their names.
///
/// One that is being vacuumed or analysed at this moment is left out: that does the same.
pub async fn refresh(conn: &mut Conn) -> Result<Vec<String>> {
    let grown: Vec<Table> = sql_query(GROWN).cached().load(conn).await?;
    let names: Vec<String> = grown.into_iter().map(|table| table.name).collect();
    for name in &names {
        sql_query(format!("ANALYZE (SKIP_LOCKED) {name}")).execute(conn).await?;
    }
    Ok(names)
}
