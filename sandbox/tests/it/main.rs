//! The sandbox over real HTTP, on a port of its own for each test.

mod books;
mod control;
mod customer;
mod failures;
mod fastgpt;
mod flood;
mod harness;
mod phone;
mod protocol;
mod sends;
