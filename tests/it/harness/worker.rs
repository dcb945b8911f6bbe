//! A worker process that is this test binary started again: for kinds and for holds of which the product has none.

use entropy_jobs::process::config::{
    Ceilings, Fastgpt, Gewe, LogFormat, Media, Search, Stores, environment, vault,
};
use entropy_jobs::process::{shutdown, telemetry};
use entropy_jobs::registry::Registry;
use entropy_workers::{Settings, Worker};

/// Runs a worker, set up from the environment as any other, until it is told to stop.
pub(crate) fn run(registry: Registry) {
    entropy_jobs::step::arm().expect("the steps are armed");
    let _ = rustls::crypto::ring::default_provider().install_default();
    telemetry::init(LogFormat::load(&environment).expect("a format")).expect("a log");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let settings = Settings {
            stores: Stores::load(&environment).expect("the stores"),
            gewe: Gewe::load(&environment).expect("the provider"),
            fastgpt: Fastgpt::load(&environment).expect("the model's host"),
            ceilings: Ceilings::load(&environment).expect("the ceilings"),
            search: Search::load(&environment).expect("the search"),
            vault: vault(&environment).expect("the vault"),
            media: Media::load(&environment).expect("the media"),
            slots: 32,
        };
        let worker = Worker::new(settings).expect("a worker").with_registry(registry);
        worker.run(shutdown::on_signal().expect("signals")).await;
    });
}
