//! The statements of the record, over a real Postgres.

mod control;
mod dispatch;
mod enqueue;
mod finish;
mod gate;
mod properties;
mod rescue;
