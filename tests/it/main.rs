//! The integration tests: one binary, over real servers and real processes.
//!
//! `harness` starts a private Postgres and Redis once, gives every test a database and a Redis namespace of its own,
//! and runs the platform as it is run in production: as processes of the one binary. Each module below is one subject.

mod harness;

mod api;
mod architecture;
mod crash;
mod envelope;
mod logs;
mod pickup;
mod plans;
mod record;
mod schema;
mod shutdown;
mod system;
mod waiting;

#[path = "../../src/servers.rs"]
mod servers;
#[path = "../../src/servers/tests.rs"]
mod servers_tests;
