//! Answers by a model: the port to whoever runs it, and what is made of an answer.

pub mod deliver;
pub mod endpoint;
pub mod port;
pub mod text;
pub mod usage;
pub mod words;
