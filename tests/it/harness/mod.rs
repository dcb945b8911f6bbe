//! What the tests stand on. Start reading at [`Platform`].
//!
//! | module | what it owns |
//! |---|---|
//! | [`servers`] | one Postgres and one Redis per test run, a database per test |
//! | [`turn`] | who runs beside whom |
//! | [`process`] | child processes that are killed with the test, and their logs |
//! | [`worker`] | a worker process that is this test binary started again |
//! | [`platform`] | the whole platform: sandbox, API, workers, schedulers |
//! | [`shared`] | one platform for all tests that only look at an organisation of their own |
//! | [`client`] | HTTP: the API as somebody who is logged in, and the sandbox's switches |
//! | [`chaos`] | short and long form of the tests that disturb |
//! | [`book`] | the record without any process: for statements |
//! | [`gauge`] | what a process, a table and Redis use, and whether it stays flat |
//! | [`history`] | what the phone received against what was asked for |
//! | [`load`] | messages of several accounts and conversations, enqueued over HTTP |
//! | [`phone`] | a provider inside the test's process |
//! | [`traffic`] | everything that callers do, mixed, while processes die; and what became of it |
//! | [`invariants`] | what must hold in the record at any moment |

#![allow(dead_code, reason = "a kit: not every tool is in use at every moment")]

pub(crate) mod book;
pub(crate) mod chaos;
pub(crate) mod client;
pub(crate) mod gauge;
pub(crate) mod history;
pub(crate) mod invariants;
pub(crate) mod load;
pub(crate) mod phone;
pub(crate) mod platform;
pub(crate) mod process;
pub(crate) mod servers;
pub(crate) mod services;
pub(crate) mod shared;
pub(crate) mod traffic;
pub(crate) mod turn;
pub(crate) mod worker;

use std::time::{Duration, Instant};

pub(crate) use book::Book;
pub(crate) use client::{Client, Sandbox};
pub(crate) use platform::Platform;
pub(crate) use shared::Here;

/// How often a condition is looked at that gives no signal.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The answer of a condition: `bool`, `Option`, or `Result` whose error says how things stand.
pub(crate) trait Answer {
    /// What there is when the condition holds.
    type Value;

    /// Returns it, or how things stand.
    fn judge(self) -> Result<Self::Value, String>;
}

impl Answer for bool {
    type Value = ();

    fn judge(self) -> Result<(), String> {
        if self { Ok(()) } else { Err(String::new()) }
    }
}

impl<T> Answer for Option<T> {
    type Value = T;

    fn judge(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

impl<T> Answer for Result<T, String> {
    type Value = T;

    fn judge(self) -> Result<T, String> {
        self
    }
}

/// Waits until `check` holds and returns its value. The failure names `what` and how things stood at the end.
pub(crate) async fn eventually<A: Answer>(
    what: &str,
    timeout: Duration,
    mut check: impl AsyncFnMut() -> A,
) -> A::Value {
    let deadline = Instant::now() + timeout;
    loop {
        match check().await.judge() {
            Ok(value) => return value,
            Err(standing) if Instant::now() > deadline => {
                panic!("waited {timeout:?} in vain until {what}; {standing}")
            }
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// Seconds, for timeouts.
pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
