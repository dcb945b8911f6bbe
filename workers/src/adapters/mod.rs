//! The providers behind the ports of `jobs`: one folder per provider.
//!
//! An adapter knows a wire and how its failures are to be read. It knows no job, no lane and no limit.

pub mod elastic;
pub mod fastgpt;
pub mod gewe;
pub mod media;
mod outgoing;
