//! The statements of the record, over a real Postgres.

mod control;
mod dispatch;
mod enqueue;
mod finish;
mod gate;
mod presence;
mod properties;
mod rescue;
