//! What time it is for campaigns.
//!
//! Everything that a plan says in days and hours goes by this clock; limits, leases, deadlines of jobs and who answers in a
//! conversation go by the database's own. In use the two are the same. A test lets weeks pass by putting a function of its own
//! in the place of `campaign_now()`, in its own database, for all processes at once.

pub use entropy_schema::campaigns::clock::now;
