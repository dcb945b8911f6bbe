//! Small services that keep the house: each looks, acts and sleeps; none is needed for the others' correctness.

pub mod campaigns;
pub mod janitor;
pub mod redis_watch;
pub mod rescuer;
