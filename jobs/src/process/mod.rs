//! What every process boots with: configuration, logs, shutdown.

pub mod config;
pub mod shutdown;
pub mod telemetry;
