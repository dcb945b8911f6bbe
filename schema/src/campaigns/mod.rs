//! Campaigns: people on their way through plans. One file per table.
//!
//! An enrollment is changed by whoever holds its row ([`enrollments::lock`]); its steps are changed under the same lock. In the order
//! of locks it comes after contacts, plans, lanes, accounts and conversations.

pub mod clock;
pub mod consents;
pub mod enrollments;
pub mod facts;
pub mod steps;
