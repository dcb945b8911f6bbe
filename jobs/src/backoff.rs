//! How long a failed job waits before its next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);

/// Returns the wait before the next attempt, given how many attempts have failed.
///
/// Doubles from one second up to ten minutes, then takes off as much as a fifth. `jitter` lies in `0.0..1.0` and is
/// drawn by the caller, which keeps the schedule a pure function that a test can pin.
pub fn backoff(failed_attempts: u32, jitter: f64) -> Duration {
    // 2^10 seconds is already past the longest wait, so clamping here only keeps the shift in range.
    let doublings = failed_attempts.saturating_sub(1).min(10);
    let base = (FIRST * (1_u32 << doublings)).min(LONGEST);
    base.mul_f64(1.0 - 0.2 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_minutes() {
        assert_eq!(backoff(1, 0.0), Duration::from_secs(1));
        assert_eq!(backoff(2, 0.0), Duration::from_secs(2));
        assert_eq!(backoff(5, 0.0), Duration::from_secs(16));
        assert_eq!(backoff(u32::MAX, 0.0), LONGEST);
    }

    #[test]
    fn jitter_takes_off_at_most_a_fifth() {
        for attempt in 0..30 {
            let (longest, shortest) = (backoff(attempt, 0.0), backoff(attempt, 1.0));
            assert!(shortest >= longest.mul_f64(0.799) && shortest <= longest, "attempt {attempt}");
        }
    }
}
