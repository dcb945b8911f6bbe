//! The windows that the gate reads, over random send records.

use chrono::{DateTime, TimeDelta, Utc};
use entropy_schema::sends::{self, Limits};
use proptest::prelude::*;
use proptest::sample::select;
use uuid::Uuid;

use super::try_all;

const ACCOUNTS: usize = 3;

/// A send on record.
#[derive(Debug, Clone)]
struct Row {
    account: usize,
    token: u8,
    to: u8,
    /// How long ago it counts from; below zero: a call is under way.
    ago_ms: i64,
    counts: bool,
}

fn row() -> impl Strategy<Value = Row> {
    // None so close to the end of a minute that the test's own running time would decide.
    let ago = prop_oneof![
        2 => 0..50_000_i64,
        1 => 70_000..100_000_i64,
        1 => 100_000..100_000_000_i64,
        1 => Just(-3_600_000_i64),
    ];
    (0..ACCOUNTS, 0..2_u8, 0..5_u8, ago, prop::bool::weighted(0.8))
        .prop_map(|(account, token, to, ago_ms, counts)| Row { account, token, to, ago_ms, counts })
}

fn limits() -> impl Strategy<Value = Limits> {
    let few = || select(vec![1, 2, 3, 5, 8, 20]);
    (few(), few(), few(), few()).prop_map(|(per_minute, per_day, recipients_per_minute, token_per_hour)| {
        Limits { per_minute, per_day, recipients_per_minute, token_per_hour }
    })
}

fn nth_latest(times: impl Iterator<Item = DateTime<Utc>>, n: i32) -> Option<DateTime<Utc>> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times.reverse();
    times.get(usize::try_from(n - 1).expect("a limit")).copied()
}

#[test]
fn the_windows_are_those_of_the_records() {
    let inputs = (prop::collection::vec(row(), 0..40), limits(), 0..5_u8);
    try_all("the windows are those of the records", 48, &inputs, async |book, (rows, limits, to)| {
        let accounts: Vec<Uuid> = (0..ACCOUNTS).map(|_| Uuid::now_v7()).collect();
        let base = Utc::now();
        // Postgres keeps microseconds.
        let base = DateTime::from_timestamp_micros(base.timestamp_micros()).expect("a time");
        let at = |row: &Row| base - TimeDelta::milliseconds(row.ago_ms);
        let mut statements = String::new();
        for row in &rows {
            statements += &format!(
                "INSERT INTO sends (id, organization_id, account_id, token_key, job_id, attempt, to_wxid, message_kind, \
                 state, started_at, window_at, counts) VALUES ('{}', '{}', '{}', 'token{}', '{}', 1, 'wxid_{}', 'text', \
                 'failed', '{}', '{}', {});",
                Uuid::now_v7(),
                book.organization,
                accounts[row.account],
                row.token,
                Uuid::now_v7(),
                row.to,
                at(row).to_rfc3339(),
                at(row).to_rfc3339(),
                row.counts,
            );
        }
        book.run(&statements).await;
        let read =
            sends::windows(&mut *book.conn().await, accounts[0], "token0", &format!("wxid_{to}"), &limits)
                .await;
        let read = read.expect("the windows");
        let counting = || rows.iter().filter(|row| row.counts);
        let own = || counting().filter(|row| row.account == 0);
        let others = (0..5_u8).filter(|other| *other != to).filter_map(|other| {
            own()
                .filter(|row| row.to == other)
                .map(at)
                .filter(|at| *at > read.now - TimeDelta::minutes(1))
                .max()
        });
        let expected = [
            ("last", own().map(at).max(), read.last),
            ("fills_minute", nth_latest(own().map(at), limits.per_minute), read.fills_minute),
            ("fills_day", nth_latest(own().map(at), limits.per_day), read.fills_day),
            (
                "fills_token_hour",
                nth_latest(counting().filter(|row| row.token == 0).map(at), limits.token_per_hour),
                read.fills_token_hour,
            ),
            ("fills_recipients", nth_latest(others, limits.recipients_per_minute), read.fills_recipients),
        ];
        for (window, expected, found) in expected {
            if expected != found {
                return Err(format!("{window} is {found:?} and should be {expected:?}"));
            }
        }
        Ok(())
    });
}
