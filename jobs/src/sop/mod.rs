//! SOP campaigns without the world: what a plan says, whether it is sound, and what follows from it.
//!
//! Everything here is pure: no database, no clock, no network. What is needed from outside is handed in as data.
