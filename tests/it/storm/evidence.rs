//! What a storm leaves behind: sends of which nobody can know, processes that panicked, and, for whoever looks into a
//! fault, the record and the provider's side beside the logs.

use std::fs;

use diesel::sql_query;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;

use crate::harness::Platform;

/// Everything that moves.
const TABLES: [&str; 11] = [
    "jobs",
    "pending",
    "leases",
    "lanes",
    "attempts",
    "sends",
    "job_endings",
    "idempotency_keys",
    "workers",
    "schedule_ticks",
    "wechat_accounts",
];

#[derive(diesel::QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    row: String,
}

/// Sends of unknown outcome, unless the message was sent all the same.
const UNKNOWN: &str = "\
SELECT 'job ' || s.job_id || ': ' || coalesce(s.error_code, '?') || ', ' || coalesce(s.error_message, '?') AS row
FROM sends s WHERE s.state = 'unknown'
    AND NOT EXISTS (SELECT FROM sends t WHERE t.job_id = s.job_id AND t.state = 'sent') ORDER BY s.id";

/// Returns a line for each send of unknown outcome: its job and why nobody can know.
pub(crate) async fn unknown(platform: &Platform) -> Vec<String> {
    rows(platform, UNKNOWN).await
}

/// Returns a line for each log of a process in which something panicked.
pub(crate) fn panics(logs: &[(String, String)]) -> Vec<String> {
    let panicked = |(name, log): &(String, String)| {
        let line = log.lines().find(|line| line.contains("panicked"))?;
        Some(format!("{name}: {line}"))
    };
    logs.iter().filter(|(name, _)| name.ends_with(".log")).filter_map(panicked).collect()
}

/// Writes the record, the sandbox's ledger and its calls into the directory of the logs, a JSON value per line.
pub(crate) async fn keep(platform: &Platform) {
    for table in TABLES {
        let statement = format!("SELECT row_to_json(t)::text AS row FROM {table} t");
        write(platform, table, rows(platform, &statement).await.into_iter());
    }
    write(platform, "ledger", platform.sandbox.entries().await.iter().map(ToString::to_string));
    write(platform, "calls", platform.sandbox.calls().await.iter().map(ToString::to_string));
    let log = platform.database.server_log().await;
    write(platform, "postgres", [log].into_iter());
}

async fn rows(platform: &Platform, statement: &str) -> Vec<String> {
    let mut conn = platform.db.conn().await.expect("a connection");
    let rows: Vec<Row> = sql_query(statement).load(&mut conn).await.expect("the record can be read");
    rows.into_iter().map(|row| row.row).collect()
}

fn write(platform: &Platform, name: &str, lines: impl Iterator<Item = String>) {
    let text: String = lines.map(|line| line + "\n").collect();
    let path = platform.dir().join(format!("{name}.jsonl"));
    fs::write(&path, text).unwrap_or_else(|error| eprintln!("{} was not kept: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_in_the_log_of_a_process() {
        let log = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let logs = [
            log("01-api.log", "{\"message\":\"api listening\"}\n"),
            log("02-worker.log", "started\nthread 'main' panicked at src/a.rs:1:2:\nno\n"),
            log("attempts.jsonl", "\"the attempt panicked\""),
        ];
        assert_eq!(panics(&logs), ["02-worker.log: thread 'main' panicked at src/a.rs:1:2:"]);
    }
}
