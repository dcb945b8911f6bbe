//! Answers by a model: the port to whoever runs it, and what is made of an answer.
//!
//! [`ai_reply`](crate::kinds::ai_reply) is where they are put together: `prepare`, call, `conclude`.

pub(crate) mod attachments;
pub mod breaker;
pub(crate) mod conclude;
pub mod deliver;
pub(crate) mod ending;
pub mod endpoint;
pub mod history;
pub mod overdue;
pub mod port;
pub(crate) mod prepare;
pub(crate) mod reconcile;
pub mod text;
pub mod usage;
pub mod words;
