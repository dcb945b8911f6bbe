//! The database: tables, rows and the statements over them.
//!
//! This crate knows rows, not policy: it has no opinion on when a job is retried or a message may be sent.
//! Query functions take the caller's connection, so that they take part in the caller's transaction.
//!
//! Start reading at [`record`], the statements that move a job from its enqueueing to its end; the other modules are
//! one per table.

pub mod abandoned;
pub mod accounts;
pub mod ai_runs;
pub mod alerts;
pub mod audit;
pub mod breakers;
pub mod budgets;
mod cached;
pub mod callbacks;
pub mod campaigns;
pub mod clock;
pub mod contact_syncs;
pub mod contacts;
pub mod conversations;
pub mod cost_rollups;
pub mod costs;
pub mod drafts;
mod error;
pub mod jobs;
pub mod labels;
pub mod lanes;
pub mod media;
pub mod messages;
pub mod migrations;
pub mod opt_outs;
mod pool;
pub mod presence;
pub mod queues;
pub mod record;
pub mod replies;
pub mod reports;
pub mod retention;
pub mod risk;
pub mod schedule_ticks;
pub mod schedules;
pub mod search;
pub mod sends;
pub mod settings;
pub mod tables;
pub mod turns;
pub mod users;
pub mod views;
pub mod words;
pub mod workers;

pub use diesel_async::AsyncPgConnection as Conn;
pub use error::{Error, Result};
pub use pool::{Db, PooledConn, Profile};

/// The organisation that owns the platform's own jobs.
pub const SYSTEM_ORGANIZATION: uuid::Uuid = uuid::Uuid::nil();
