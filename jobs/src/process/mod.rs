//! What every process boots with: configuration, logs, shutdown, a database that is up to date.

pub mod config;
pub mod migrated;
pub mod shutdown;
pub mod telemetry;
