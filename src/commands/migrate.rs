//! `entropy migrate`.

use anyhow::Context;
use entropy_jobs::process::config::environment;

/// What `entropy migrate` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Take the newest migration back instead. Loses what its tables hold.
    #[arg(long)]
    revert: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let url = environment("DATABASE_URL")
        .context("DATABASE_URL is not set (example: postgres://user:password@host:5432/entropy)")?;
    if args.revert {
        println!("reverted {}", entropy_schema::migrations::revert_last(&url).await?);
        return Ok(());
    }
    let applied =
        entropy_schema::migrations::run_pending(&url).await.context("cannot migrate DATABASE_URL")?;
    match applied.as_slice() {
        [] => println!("the database is up to date"),
        names => names.iter().for_each(|name| println!("applied {name}")),
    }
    Ok(())
}
