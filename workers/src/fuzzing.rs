//! Doors for `tests/fuzz`: readers of outside bytes that are nobody else's business. Not part of the crate's promise.

pub use crate::adapters::gewe::read_answer_to_send;
