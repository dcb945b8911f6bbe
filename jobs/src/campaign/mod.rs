//! Campaigns: people on their way through plans. What needs no database is in [`crate::sop`].
//!
//! | module | what it owns |
//! |---|---|
//! | [`life`] | the states of a plan, and what people may do in each |
//! | [`surroundings`] | what plans are checked against: materials, workflows, the organisation's rules |
//! | [`calendar`] | holidays, as the organisation has corrected them |
//! | [`material`] | what is sent beside texts |
//! | [`trigger`] | when a plan begins by itself: a function |
//! | [`ticks`] | plans whose time has come |
//! | [`audience`] | whom a plan is meant for at a moment |
//! | [`run`] | an audience, brought in page by page |
//! | [`succession`] | people on an older version |
//! | [`clock`] | what time it is for campaigns |
//! | [`plan`] | approved versions, read once |
//! | [`situation`] | everything that is known around an enrollment |
//! | [`checks`] | whether something may be said now |
//! | [`rules`] | the rules of a plan that stop an enrollment |
//! | [`decide`] | where an enrollment goes from here: a function |
//! | [`say`] | what a step has to say, and who must look at it first |
//! | [`review`] | texts that wait for a person |
//! | `settled` | what became of a message |
//! | [`mod@write`] | a text that a model writes |
//! | [`advance`] | what that decides, written in one transaction |
//! | [`send`] | from a step to its message and its job |
//! | [`gate`] | the last look before a message leaves |
//! | [`dispatch`] | from what is due to jobs |
//! | [`dry_run`] | a plan played before it runs |
//! | [`overdue`] | people whose step waits for a job that has ended |
//! | [`enroll`] | who is brought in |
//! | [`events`] | what happens to contacts, as campaigns hear of it |
//! | [`why`] | why somebody was not written to, in words |
//!
//! An enrollment that waits is a row with a time, and nothing else: no job, nothing in Redis.

pub mod advance;
pub mod audience;
pub mod calendar;
pub mod checks;
pub mod clock;
pub mod decide;
pub mod dispatch;
pub mod dry_run;
pub mod enroll;
pub mod events;
pub mod gate;
pub mod life;
pub mod material;
pub mod overdue;
pub mod plan;
pub mod review;
pub mod rules;
pub mod run;
pub mod say;
pub mod send;
pub(crate) mod settled;
pub mod situation;
pub mod succession;
pub mod surroundings;
pub mod ticks;
pub mod trigger;
pub mod why;
pub mod write;
