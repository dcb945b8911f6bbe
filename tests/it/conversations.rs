//! Conversations: what events do to the record, who answers, and that nobody answers over a person.
//!
//! Over a real Postgres and without processes: events are applied and gates passed by the code that the workers run, so
//! that a test can stop between any two steps.

mod arriving;
mod gate;
mod modes;
mod opt_outs;
mod scene;

use scene::Scene;
