//! The sandbox over real HTTP, on a port of its own for each test.

mod control;
mod failures;
mod harness;
mod phone;
mod protocol;
mod sends;
