//! Campaigns: how people move through plans, under a clock that the test moves.
//!
//! Over a real Postgres and without processes: what is due is handed out, carried on and sent by the code that the workers run.

mod accord;
mod freezing;
mod hostile;
mod many;
mod materials;
mod moving;
mod numbers;
mod rehearsed;
mod risk;
mod scene;
mod starting;
mod stopping;
mod three_days;
mod triggers;
mod waiting;
mod whole;
mod writing;

use scene::Scene;
