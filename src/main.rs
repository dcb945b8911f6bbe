//! `entropy`: one binary, a subcommand for each process.
//!
//! This file parses the command line and hands over; each command has a file of its own in `commands`.

mod commands;
mod servers;

use clap::{Parser, Subcommand};

/// Entropy, a durable job platform for WeChat sales teams.
///
/// A message goes from the API into Postgres, through a Redis queue to a worker, and from there to GeWe, with every
/// limit kept and nothing lost or sent twice. To try it: `entropy dev`.
#[derive(Debug, Parser)]
#[command(name = "entropy", version, arg_required_else_help = true, after_long_help = commands::ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the database up to date. Safe to run at any time, also by several processes at once.
    Migrate(commands::migrate::Args),
    /// Serve HTTP: the API, its documentation at /docs, health and metrics.
    Api,
    /// Run jobs. Start as many as you like, on as many machines as you like; nothing has to be told about the others.
    Worker(commands::worker::Args),
    /// Tick the schedules. Several may run; each tick happens once.
    Scheduler,
    /// Stand in for GeWe: speaks its protocol, keeps a ledger of what "the phone" received, fails on request.
    Sandbox(commands::sandbox::Args),
    /// Run all of it, with a private Postgres and Redis, a sandbox and a demo login. For trying out and developing.
    Dev,
    /// Things an operator does by hand.
    #[command(subcommand)]
    Admin(commands::admin::Command),
    /// Compare costs with what the provider says.
    #[command(subcommand)]
    Costs(commands::costs::Command),
    /// Measure the whole path on private servers: bulk enqueue, drain, idle pickup.
    Bench(commands::bench::Args),
    /// Keep the search engine's index by hand.
    #[command(subcommand)]
    Search(commands::search::Command),
    /// Print the OpenAPI document.
    Openapi,
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let started = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = started.map_err(anyhow::Error::from).and_then(|runtime| {
        entropy_jobs::step::arm()?;
        commands::prepare()?;
        runtime.block_on(async {
            match cli.command {
                Command::Migrate(args) => commands::migrate::run(args).await,
                Command::Api => commands::api::run().await,
                Command::Worker(args) => commands::worker::run(args).await,
                Command::Scheduler => commands::scheduler::run().await,
                Command::Sandbox(args) => commands::sandbox::run(args).await,
                Command::Dev => commands::dev::run().await,
                Command::Admin(command) => commands::admin::run(command).await,
                Command::Costs(command) => commands::costs::run(command).await,
                Command::Bench(args) => commands::bench::run(args).await,
                Command::Search(command) => commands::search::run(command).await,
                Command::Openapi => commands::api::print_openapi(),
            }
        })
    });
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // One line: what is wrong, and with what.
            eprintln!("entropy: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
