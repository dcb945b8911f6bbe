//! `entropy search`: the search engine's index, by hand.

use anyhow::Context;
use entropy_jobs::process::config::{Search, Stores, environment};
use entropy_jobs::process::shutdown;
use entropy_jobs::search::{MessageIndex, follow};
use entropy_schema::{Db, Profile};
use entropy_workers::adapters::elastic::Elastic;
use uuid::Uuid;

/// What `entropy search` can do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Put every message into the index of ELASTICSEARCH_URL, also those that are in it. Safe to repeat and to break off.
    Backfill {
        /// Begin after this message: where a run before this one ended.
        #[arg(long)]
        after: Option<Uuid>,
    },
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Backfill { after } = command;
    let stores = Stores::load(&environment)?;
    let index = Elastic::new(&Search::load(&environment)?)?.context("ELASTICSEARCH_URL is not set")?;
    let db = Db::new(stores.database_url.expose(), 1, Profile::Worker)?;
    index.prepare().await?;
    let stop = shutdown::on_signal()?;
    let mut last = after.unwrap_or_default();
    let put = follow(&db, &index, last, &stop, |put, at| {
        last = at;
        if put % 50_000 < 500 {
            eprintln!("{put} messages, at {at}");
        }
    })
    .await;
    match put {
        Ok(put) if stop.is_cancelled() => {
            println!("broken off after {put} messages; go on with --after {last}")
        }
        Ok(put) => println!("{put} messages are in the index"),
        Err(error) => return Err(error.context(format!("go on with --after {last}"))),
    }
    Ok(())
}
