//! Runs jobs: relay, apalis workers, attempts, rescuer, janitor.
//!
//! Start reading at [`relay`] (what may run now goes to Redis), then [`broker`] (the only file that names apalis), then
//! [`attempt`] (claim, run, record).

pub mod adapters;
pub mod attempt;
pub mod broker;
pub mod guard;
mod heartbeat;
mod loss;
pub mod maintenance;
pub mod presence;
mod process;
pub mod relay;

pub use process::{Settings, Worker, run};
