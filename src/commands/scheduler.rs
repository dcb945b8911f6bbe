//! `entropy scheduler`.

use entropy_jobs::process::config::{Stores, environment};
use entropy_jobs::process::shutdown;

pub(crate) async fn run() -> anyhow::Result<()> {
    let stores = Stores::load(&environment)?;
    entropy_schedules::run(&stores, shutdown::on_signal()?).await
}
