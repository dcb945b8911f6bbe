//! What a process, a table and Redis use, read from outside while they work, and whether it stays flat.
//!
//! [`Gauge`] collects one series per measured thing. A series is flat when the median of its last quarter lies no
//! further above that of its third quarter than its [`Bound`] allows: the first half is for warming up, a median is
//! deaf to one odd sample, and a leak shows in whatever is compared later.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use diesel::sql_query;
use diesel::sql_types::{BigInt, Integer, Text};
use diesel_async::RunQueryDsl;
use entropy_schema::Db;

use super::servers::RedisServer;

/// What one process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Bytes of memory that are resident.
    pub(crate) resident: u64,
    /// Open file descriptors, sockets among them.
    pub(crate) descriptors: u64,
    /// Threads.
    pub(crate) threads: u64,
}

/// Reads what a living process uses. None: it has ended.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    let resident = status_number(&status, "VmRSS:")? * 1024;
    Some(Usage { resident, descriptors, threads: status_number(&status, "Threads:")? })
}

fn status_number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Returns the memory that a process shares with nobody, in bytes. None: it has ended.
pub(crate) fn private_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(status_number(&status, "RssAnon:")? * 1024)
}

/// What a Redis holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RedisUsage {
    /// Bytes that it has allocated.
    pub(crate) memory: u64,
    /// Keys.
    pub(crate) keys: u64,
    /// Clients that are connected.
    pub(crate) clients: u64,
}

/// Reads what a Redis holds.
pub(crate) async fn redis_usage(redis: &RedisServer) -> RedisUsage {
    let info: String = redis.command(&["INFO"]).await;
    let number = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {info}"))
    };
    let keys: u64 = redis.command(&["DBSIZE"]).await;
    RedisUsage { memory: number("used_memory:"), keys, clients: number("connected_clients:") }
}

/// What a table holds.
#[derive(Debug, Clone, diesel::QueryableByName)]
pub(crate) struct TableUsage {
    /// The table.
    #[diesel(sql_type = Text)]
    pub(crate) name: String,
    /// Rows that live, counted and not estimated.
    #[diesel(sql_type = BigInt)]
    pub(crate) rows: i64,
    /// Rows that are dead and not yet vacuumed, as the server estimates them.
    #[diesel(sql_type = BigInt)]
    pub(crate) dead: i64,
    /// Bytes, with indexes.
    #[diesel(sql_type = BigInt)]
    pub(crate) bytes: i64,
}

/// Reads what every table of the record holds.
pub(crate) async fn tables(db: &Db) -> Vec<TableUsage> {
    let mut conn = db.conn().await.expect("a connection");
    // `query_to_xml` runs a statement that is made of a name: here one count for each table.
    sql_query(
        "SELECT relname::text AS name, n_dead_tup AS dead, pg_total_relation_size(relid) AS bytes, \
         (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || quote_ident(relname), false, true, '')) \
         )[1]::text::bigint AS rows FROM pg_stat_user_tables WHERE schemaname = 'public' ORDER BY relname",
    )
    .load(&mut conn)
    .await
    .expect("the tables")
}

#[derive(diesel::QueryableByName)]
struct Session {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

/// Returns how many sessions of clients Postgres serves in this database, and the memory that they share with nobody.
pub(crate) async fn sessions(db: &Db) -> (usize, u64) {
    let mut conn = db.conn().await.expect("a connection");
    let sessions: Vec<Session> = sql_query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'",
    )
    .load(&mut conn)
    .await
    .expect("the sessions");
    let memory = |session: &Session| private_memory(session.pid.unsigned_abs());
    (sessions.len(), sessions.iter().filter_map(memory).sum())
}

/// How much further up the last quarter may lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bound {
    /// As a share of the third quarter.
    pub(crate) share: f64,
    /// And so much beside it, in the series' own unit.
    pub(crate) beside: f64,
}

/// The medians of the third and of the last quarter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quarters {
    /// Of the third.
    pub(crate) third: f64,
    /// Of the last.
    pub(crate) last: f64,
}

impl Quarters {
    /// Reads them from a series. None: it is too short to say anything.
    pub(crate) fn of(series: &[f64]) -> Option<Quarters> {
        let quarter = series.len() / 4;
        if quarter == 0 {
            return None;
        }
        let (before, last) = series.split_at(series.len() - quarter);
        Some(Quarters { third: median(&before[before.len() - quarter..]), last: median(last) })
    }

    /// Tells whether nothing grew that should not. What shrinks is flat.
    pub(crate) fn are_flat(&self, bound: Bound) -> bool {
        self.last <= self.third * (1.0 + bound.share) + bound.beside
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

/// How a series is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// As a whole number.
    Count,
    /// As mebibytes.
    Bytes,
}

#[derive(Debug)]
struct Series {
    unit: Unit,
    /// None: it is shown and not judged.
    bound: Option<Bound>,
    values: Vec<f64>,
}

/// Series by name, all sampled at the same moments.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    series: BTreeMap<String, Series>,
}

impl Gauge {
    /// Adds a sample. Without a bound the series is shown and not judged.
    pub(crate) fn note(&mut self, name: &str, unit: Unit, bound: Option<Bound>, value: f64) {
        let series = self.series.entry(name.to_owned());
        series.or_insert_with(|| Series { unit, bound, values: Vec::new() }).values.push(value);
    }

    /// Returns the table of all series that moved, and the names of those that are not flat.
    pub(crate) fn verdict(&self) -> (String, Vec<String>) {
        let mut table =
            format!("{:<32} {:>9} {:>9} {:>9} {:>9}  verdict\n", "", "begin", "highest", "3rd q.", "last q.");
        let mut growing = Vec::new();
        let mut still = 0;
        for (name, series) in &self.series {
            let Some(quarters) = Quarters::of(&series.values) else { continue };
            let flat = series.bound.map(|bound| quarters.are_flat(bound));
            if flat == Some(false) {
                growing.push(name.clone());
            }
            let begin = series.values[0];
            if series.values.iter().all(|value| *value == begin) {
                still += 1;
                continue;
            }
            let highest = series.values.iter().copied().fold(f64::MIN, f64::max);
            let _ = write!(table, "{name:<32}");
            for value in [begin, highest, quarters.third, quarters.last] {
                let _ = write!(table, " {:>9}", series.unit.show(value));
            }
            let verdict = match flat {
                Some(true) => "flat",
                Some(false) => "GROWS",
                None => "not judged",
            };
            let _ = writeln!(table, "  {verdict}");
        }
        let _ = writeln!(table, "and {still} that never moved");
        (table, growing)
    }
}
const MIB: f64 = 1024.0 * 1024.0;

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Count => format!("{value:.0}"),
            Unit::Bytes => format!("{:.1}M", value / MIB),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { share: 0.02, beside: 2.0 };

    fn is_flat(series: impl IntoIterator<Item = f64>) -> bool {
        Quarters::of(&series.into_iter().collect::<Vec<_>>()).expect("long enough").are_flat(BOUND)
    }

    /// Goes up and down by a tenth, as something does that is filled and emptied again and again.
    fn sawtooth(n: u32) -> f64 {
        100.0 + f64::from(n % 8)
    }

    #[test]
    fn what_is_filled_and_emptied_again_is_flat() {
        assert!(is_flat((0..120).map(sawtooth)));
    }

    #[test]
    fn what_warms_up_in_its_first_half_is_flat() {
        assert!(is_flat((0..120).map(|n| sawtooth(n) + f64::from(n.min(55)) * 10.0)));
    }

    #[test]
    fn what_grows_all_the_time_is_not_flat() {
        assert!(!is_flat((0..120).map(|n| sawtooth(n) + f64::from(n) * 0.5)));
    }

    #[test]
    fn what_starts_to_grow_late_is_not_flat() {
        assert!(!is_flat((0..120).map(|n| sawtooth(n) + f64::from(n.saturating_sub(80)))));
    }

    #[test]
    fn a_step_up_that_stays_is_not_flat_and_one_odd_sample_is() {
        assert!(!is_flat((0..120).map(|n| sawtooth(n) + if n > 95 { 20.0 } else { 0.0 })));
        assert!(is_flat((0..120).map(|n| sawtooth(n) + if n == 100 { 500.0 } else { 0.0 })));
    }

    #[test]
    fn what_shrinks_is_flat() {
        assert!(is_flat((0..120).map(|n| sawtooth(120 - n) + f64::from(120 - n))));
    }

    #[test]
    fn too_few_samples_say_nothing() {
        assert_eq!(Quarters::of(&[1.0, 2.0, 3.0]), None);
    }

    #[test]
    fn the_table_names_what_grows_and_only_that() {
        let mut gauge = Gauge::default();
        for n in 0..40 {
            gauge.note("worker 1 descriptors", Unit::Count, Some(BOUND), sawtooth(n) + f64::from(n));
            gauge.note("worker 1 memory", Unit::Bytes, Some(BOUND), 30.0 * MIB + sawtooth(n));
            gauge.note("worker 1 threads", Unit::Count, Some(BOUND), 4.0);
            gauge.note("rows of audit_log", Unit::Count, None, f64::from(n) * 100.0);
        }
        let (table, growing) = gauge.verdict();
        assert_eq!(growing, ["worker 1 descriptors"], "{table}");
        assert!(
            table.contains("GROWS") && table.contains("30.0M") && table.contains("not judged"),
            "{table}"
        );
        assert!(table.ends_with("and 1 that never moved\n"), "{table}");
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage(std::process::id()).expect("it lives");
        assert!(usage.resident > 1 << 20 && usage.descriptors >= 3 && usage.threads >= 1, "{usage:?}");
        assert_eq!(super::usage(u32::MAX), None);
    }
}
