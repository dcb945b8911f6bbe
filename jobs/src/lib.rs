//! What a job is: the trait, the registry of kinds, enqueueing, the lifecycle, and the gate before every send.
//!
//! This crate does no I/O except through the database crate and the ports in [`provider`] and [`services`]. It does
//! not know HTTP, apalis or governor.
//!
//! Start reading at [`job::Job`], then [`lifecycle`], then [`kinds::send_message`].

pub mod ai;
pub mod background;
pub mod backoff;
pub mod batch;
pub mod calendar;
pub mod campaign;
pub mod canonical;
pub mod class;
pub mod contact_source;
pub mod conversation;
pub mod enqueue;
pub mod gate;
pub mod incoming;
pub mod job;
pub mod kinds;
pub mod lifecycle;
pub mod limits;
pub mod media;
pub mod message;
pub mod metrics;
pub mod outbound_url;
pub mod pricing;
pub mod process;
#[cfg(test)]
mod properties;
pub mod provider;
pub mod redis_health;
pub mod registry;
pub mod repricing;
pub mod risk;
pub mod search;
pub mod secret;
pub mod services;
pub mod sop;
pub mod spending;
pub mod step;
pub mod timetable;
pub mod vault;
pub mod wake;
pub mod why;
