//! Answers by a model: the port to whoever runs it, and what is made of an answer.

pub mod port;
pub mod usage;
