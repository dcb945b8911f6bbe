//! The statements that move a job from its enqueueing to its end.
//!
//! Locks are always taken in the order leases, pending, lanes, and within one table in the order of ids, so that no two
//! of these statements wait for each other in a circle.
//!
//! Statements that mark a lane set `busy_job_id = NULL` although they have just read, under the lane's lock, that it is:
//! Postgres checks a row's constraints on the version that the statement's snapshot saw, before it notices that the row
//! has a later one, and in that old version the lane may have been busy.
//!
//! Times are compared as `column <= (SELECT clock_timestamp())`: the bare function is volatile, which keeps Postgres from
//! using it as the bound of an index scan.
//!
//! | module | what it does | who calls it |
//! |---|---|---|
//! | [`enqueue`] | creates jobs, claims keys, marks lanes | anyone, in the transaction of the cause |
//! | [`dispatch`] | hands out what may run now | the relay |
//! | [`claim`] | gives a delivery to one worker, keeps it | workers |
//! | [`finish`] | records how attempts ended | workers, the rescuer |
//! | [`rescue`] | finds lost deliveries and dead workers' jobs | the rescuer |
//! | [`control`] | cancel, revive, resolve | operators over the API |
//! | [`reschedule`] | moves the time of a job that waits for it | whoever collects for it |
//! | [`statistics`] | has statements planned anew over tables that have grown | the relay |

pub mod claim;
pub mod control;
pub mod dispatch;
pub mod enqueue;
pub mod finish;
pub mod reschedule;
pub mod rescue;
pub mod statistics;
