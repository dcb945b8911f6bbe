//! Who calls, and what they may do.

pub(crate) mod caller;
pub(crate) mod passwords;
pub(crate) mod role;
pub(crate) mod throttle;
pub(crate) mod tokens;
