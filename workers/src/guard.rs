//! The limiter inside the process: governor, one cell per wxid, in front of every call to the provider.
//!
//! It counts in this process only and forgets with it. The limits that count are in the send records; this fence stands
//! in front of them so that no bug can flood an account.

use std::num::NonZeroU32;
use std::time::Duration;

use entropy_jobs::services::FloodGuard;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Calls per minute of each wxid, at most.
pub struct Guard {
    ceiling: u32,
    limiter: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
}

impl Guard {
    /// Makes a guard whose cells hold at most `ceiling` calls a minute.
    ///
    /// A burst of a whole minute's calls is let through: the send records admit it too, and they decide.
    pub fn new(ceiling: u32) -> Guard {
        let per_minute = NonZeroU32::new(ceiling).unwrap_or(NonZeroU32::MIN);
        Guard {
            ceiling,
            limiter: RateLimiter::keyed(Quota::per_minute(per_minute)),
            clock: DefaultClock::default(),
        }
    }

    /// Forgets cells that are full again: an account that has been quiet costs nothing.
    pub fn forget_quiet(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

impl FloodGuard for Guard {
    fn check(&self, wxid: &str, per_minute: u32) -> Result<(), Duration> {
        // All cells have the ceiling's quota; an account with a lower limit takes more of its cell per call.
        let weight = NonZeroU32::new((self.ceiling / per_minute.max(1)).max(1)).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_key_n(&wxid.to_owned(), weight) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.clock.now())),
            // One call weighs more than the cell holds: impossible while the weight is at most the ceiling.
            Err(_) => Err(Duration::from_secs(60)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_gets_its_minute_at_once_and_then_waits() {
        let guard = Guard::new(40);
        for _ in 0..10 {
            assert_eq!(guard.check("wxid_小李", 10), Ok(()));
        }
        assert!(guard.check("wxid_小李", 10).is_err());
        assert_eq!(guard.check("wxid_other", 10), Ok(()));
    }

    #[test]
    fn a_limit_that_does_not_divide_the_ceiling_is_never_undercut() {
        let guard = Guard::new(40);
        for n in 0..23 {
            assert_eq!(guard.check("wxid_a", 23), Ok(()), "call {n}");
        }
    }
}
