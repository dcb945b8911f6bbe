//! workers
pub mod adapters;
