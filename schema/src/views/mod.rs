//! Read models: what lists and details show, joined and filtered in one statement each.
//!
//! Every statement names the organisation, is bounded by a limit, and walks an index in the order in which it answers.
//! Nothing here changes anything.
//!
//! | module | what it reads |
//! |---|---|
//! | [`jobs`] | jobs by state, kind, lane, account and time; ids for bulk work |
//! | [`waiting`] | what a waiting job waits for |
//! | [`sends`] | the send record, unknown outcomes first |
//! | [`lanes`], [`queues`], [`workers`] | what an operator looks at |
//! | [`conversations`] | chats, what was said in them, contacts |
//! | [`depths`] | gauges over all organisations, for metrics |

pub mod conversations;
pub mod depths;
pub mod jobs;
pub mod lanes;
pub mod queues;
pub mod sends;
pub mod waiting;
pub mod workers;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::pg::Pg;
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use uuid::Uuid;

/// A statement that is put together from the conditions that were asked for.
type Statement = BoxedSqlQuery<'static, Pg, SqlQuery>;

/// How far the clock of the process that makes ids may be from the database's.
const CLOCK_SKEW: TimeDelta = TimeDelta::hours(1);

/// Returns the smallest UUIDv7 of a moment.
pub(crate) fn first_id_of(at: DateTime<Utc>) -> Uuid {
    let millis = at.timestamp_millis().clamp(0, (1 << 48) - 1) as u128;
    Uuid::from_u128(millis << 80)
}

/// Returns an id below which nothing was made at or after `at`: lets a list by id skip to a time.
pub(crate) fn lower_bound(at: DateTime<Utc>) -> Uuid {
    first_id_of(at - CLOCK_SKEW)
}

/// Returns an id above which nothing was made before `at`.
pub(crate) fn upper_bound(at: DateTime<Utc>) -> Uuid {
    first_id_of(at + CLOCK_SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_of_a_moment_sorts_before_every_id_made_in_it() {
        let now = Utc::now();
        let id = Uuid::now_v7();
        assert!(first_id_of(now - TimeDelta::milliseconds(1)) < id);
        assert!(lower_bound(now) < id && id < upper_bound(now));
        assert_eq!(first_id_of(DateTime::UNIX_EPOCH - TimeDelta::days(1)), Uuid::nil());
    }
}
