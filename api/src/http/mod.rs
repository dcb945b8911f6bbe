//! What happens around every operation: trace ids, limits, errors in one shape, headers, counters.

pub(crate) mod body;
pub(crate) mod layer;
pub(crate) mod operation;
pub(crate) mod origin;
pub(crate) mod text;
pub(crate) mod upload;
