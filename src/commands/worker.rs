//! `entropy worker`.

use entropy_jobs::process::config::{Ceilings, Fastgpt, Gewe, Media, Search, Stores, environment, vault};
use entropy_jobs::process::shutdown;
use entropy_workers::Settings;

/// What `entropy worker` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Attempts at once, of each queue.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    slots: u16,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let settings = Settings {
        stores: Stores::load(&environment)?,
        gewe: Gewe::load(&environment)?,
        fastgpt: Fastgpt::load(&environment)?,
        ceilings: Ceilings::load(&environment)?,
        search: Search::load(&environment)?,
        vault: vault(&environment)?,
        media: Media::load(&environment)?,
        slots: args.slots.into(),
    };
    entropy_workers::run(settings, shutdown::on_signal()?).await
}
