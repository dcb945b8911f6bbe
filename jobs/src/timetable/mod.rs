//! What the platform does by the clock: its tasks, and what a line of its timetable may say.
//!
//! The lines stand in the table `schedules`, where people change them over the API; the scheduler processes keep the time.
//! Both read a line through this module, so that they agree on when it fires. Pure.

mod tasks;
mod timing;

pub use tasks::{TASKS, Task, task};
pub use timing::{CatchUp, NotACatchUp, NotATiming, Timing};
