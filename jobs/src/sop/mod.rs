//! SOP campaigns without the world: what a plan says, whether it is sound, and what follows from it.
//!
//! Everything here is pure: no database, no clock, no network. What is needed from outside is handed in as data.
//!
//! Start reading at [`config`], the format; [`validate`] tells what is wrong with a plan, [`condition`],
//! [`template`] and [`split`] carry its data out.

pub mod calendar;
pub mod caps;
pub mod condition;
pub mod config;
pub mod finding;
pub mod late;
pub mod moment;
pub mod rehearsal;
pub mod slot;
pub mod split;
pub mod spread;
pub mod template;
pub mod templates;
pub mod validate;
pub mod window;
