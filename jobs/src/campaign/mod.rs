//! Campaigns: how plans live, and what they are held against. What needs no database is in [`crate::sop`].

pub mod calendar;
pub mod life;
pub mod material;
pub mod surroundings;
pub mod trigger;
