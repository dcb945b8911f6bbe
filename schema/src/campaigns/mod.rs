//! Campaigns: plans, their versions, what they send, what stops them, and people on their way. One file per table.
//!
//! An enrollment is changed by whoever holds its row ([`enrollments::lock`]); its steps are changed under the same lock. In the order
//! of locks it comes after lanes, accounts, conversations, runs and contacts. A plan comes after all of them.

pub mod audience;
pub mod calendars;
pub mod candidates;
pub mod clock;
pub mod consents;
pub mod enrollments;
pub mod facts;
pub mod funnel;
pub mod materials;
pub mod plans;
pub mod prospects;
pub mod runs;
pub mod steps;
pub mod stops;
pub mod succession;
pub mod versions;
