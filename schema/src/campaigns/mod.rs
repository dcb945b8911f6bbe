//! Campaigns: plans, their versions, what they send, when they may, and what stops them. One file per table.

pub mod calendars;
pub mod materials;
pub mod plans;
pub mod stops;
pub mod versions;
