//! The integration tests: one binary, over real servers and real processes.
//!
//! `harness` starts a private Postgres and Redis once, gives every test a database and a Redis namespace of its own,
//! and runs the platform as it is run in production: as processes of the one binary. Each module below is one subject.

mod harness;

mod accuracy;
mod ai_reply;
mod api;
mod architecture;
mod budgets;
mod callbacks;
mod campaigns;
mod clocks;
mod contacts_sync;
mod conversations;
mod cost_rollups;
mod costs;
mod crash;
mod crash_matrix;
mod dialogue;
mod envelope;
mod fastgpt;
mod flood;
mod fuzz;
mod labels;
mod logs;
mod media;
mod migrations;
mod pickup;
mod plans;
mod presence;
mod provider;
mod record;
mod retention;
mod schedules;
mod schema;
mod search;
mod shutdown;
mod soak;
mod stores;
mod storm;
mod system;
mod takeover;
mod traffic;
mod upgrade;
mod waiting;

#[path = "../../src/servers.rs"]
mod servers;
#[path = "../../src/servers/tests.rs"]
mod servers_tests;
