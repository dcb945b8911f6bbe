//! What happens around every operation: trace ids, limits, errors in one shape, headers, counters.

pub mod body;
pub mod layer;
pub mod operation;
pub mod origin;
