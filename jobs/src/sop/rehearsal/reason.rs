//! What messages wait for, as few bits: of ten thousand people each message has some.

use super::super::caps::Cap;
use super::super::slot::WINDOW;

/// Many messages of one account are due at once, and follow each other at its pace.
pub const SPREAD: &str = "spread";

/// The account has sent as many messages in a day as its limits allow, whoever they were for.
pub const MESSAGES_PER_DAY: &str = "messages_per_day";

/// The account's GeWe token has used up its calls of the hour.
pub const CALLS_PER_HOUR: &str = "api_calls_per_hour";

const ALL: [&str; 10] = [
    WINDOW,
    Cap::PerAccountPerDay.code(),
    Cap::NewContactsPerAccountPerDay.code(),
    Cap::PerContactPerDay.code(),
    Cap::PerContactPerWeek.code(),
    Cap::PerOrganizationPerDay.code(),
    Cap::MinGap.code(),
    SPREAD,
    MESSAGES_PER_DAY,
    CALLS_PER_HOUR,
];

pub(super) fn bit(code: &str) -> u16 {
    ALL.iter().position(|known| *known == code).map_or(0, |at| 1 << at)
}

pub(super) fn codes(bits: u16) -> impl Iterator<Item = &'static str> {
    ALL.into_iter().enumerate().filter(move |(at, _)| bits & (1 << at) != 0).map(|(_, code)| code)
}
