//! Campaigns: how people move through plans, under a clock that the test moves.
//!
//! Over a real Postgres and without processes: what is due is handed out, carried on and sent by the code that the workers run.

mod moving;
mod risk;
mod scene;
mod stopping;
mod waiting;
mod whole;

use scene::Scene;
