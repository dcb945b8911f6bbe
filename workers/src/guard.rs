//! The limiter inside the process: governor, one cell per wxid, in front of every call to the provider.
//!
//! It counts in this process only and forgets with it. The limits that count are in the send records; this fence stands
//! in front of them so that no bug can flood an account.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use entropy_jobs::services::{AskGuard, FloodGuard};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Calls per minute of each wxid: the install's ceiling. An account's own, lower limit is the record's to keep.
pub struct Guard {
    limiter: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
}

impl Guard {
    /// Makes a guard that lets through `ceiling` calls a minute of each wxid.
    ///
    /// A burst of a whole minute's calls is let through: the send records admit it too, and they decide.
    pub fn new(ceiling: u32) -> Guard {
        let per_minute = NonZeroU32::new(ceiling).unwrap_or(NonZeroU32::MIN);
        Guard { limiter: RateLimiter::keyed(Quota::per_minute(per_minute)), clock: DefaultClock::default() }
    }

    /// Forgets cells that are full again: an account that has been quiet costs nothing.
    pub fn forget_quiet(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

impl FloodGuard for Guard {
    fn check(&self, wxid: &str) -> Result<(), Duration> {
        self.limiter
            .check_key(&wxid.to_owned())
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// Runs of the model per minute of each key, in front of the count in the record of the runs. A cell for each key, of
/// which there are as many as people have entered.
#[derive(Default)]
pub struct AskFence {
    /// By what the keys may do: one limiter has one quota.
    limiters: Mutex<HashMap<u32, Arc<DefaultKeyedRateLimiter<String>>>>,
    clock: DefaultClock,
}

impl AskGuard for AskFence {
    fn check(&self, key_hash: &str, per_minute: u32) -> Result<(), Duration> {
        let limiter = {
            let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
            let quota = Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN));
            limiters.entry(per_minute).or_insert_with(|| Arc::new(RateLimiter::keyed(quota))).clone()
        };
        limiter
            .check_key(&key_hash.to_owned())
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gets_what_its_workflow_says() {
        let fence = AskFence::default();
        assert_eq!(fence.check("key-1", 1), Ok(()));
        assert!(fence.check("key-1", 1).is_err());
        assert_eq!(fence.check("key-2", 1), Ok(()));
        assert_eq!(fence.check("key-1", 60), Ok(()), "a raised limit is in force at once");
    }

    #[test]
    fn a_wxid_gets_a_minutes_calls_at_once_and_then_waits() {
        let guard = Guard::new(40);
        for call in 0..40 {
            assert_eq!(guard.check("wxid_小李"), Ok(()), "call {call}");
        }
        let wait = guard.check("wxid_小李").expect_err("the minute is used up");
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(1500), "{wait:?}");
        assert_eq!(guard.check("wxid_other"), Ok(()));
    }
}
