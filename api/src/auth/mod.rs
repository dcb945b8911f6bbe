//! Who calls, and what they may do.

pub mod caller;
pub mod passwords;
pub mod role;
pub mod throttle;
pub mod tokens;
