//! Campaigns: how people move through plans, under a clock that the test moves.
//!
//! Over a real Postgres and without processes: what is due is handed out, carried on and sent by the code that the workers run.

mod hostile;
mod many;
mod moving;
mod scene;
mod stopping;
mod three_days;
mod waiting;
mod whole;

use scene::Scene;
