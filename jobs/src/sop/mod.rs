//! SOP campaigns without the world: what a plan says, whether it is sound, and what follows from it.
//!
//! Everything here is pure: no database, no clock, no network. What is needed from outside is handed in as data.
//!
//! Start reading at [`config`], the format; [`finding`] is what is said about one.

pub mod calendar;
pub mod caps;
pub mod config;
pub mod finding;
pub mod late;
pub mod moment;
pub mod rehearsal;
pub mod slot;
pub mod spread;
pub mod way;
pub mod window;
