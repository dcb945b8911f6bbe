//! Random histories against models that are written down naively from `docs/ARCHITECTURE.md`.

mod choice;
mod life;
mod model;
mod windows;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tokio::runtime::Runtime;

use crate::harness::{Book, chaos};

/// Runs `case` with a book for random inputs: `short` of them, or as many as fit into the time of the long form.
///
/// The book is the same for all cases; each starts by emptying it.
fn try_all<S: Strategy>(
    what: &str,
    short: u32,
    strategy: &S,
    case: impl AsyncFn(&Book, S::Value) -> Result<(), String>,
) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = Runtime::new().expect("a runtime");
    let book = runtime.block_on(Book::open());
    let seed = chaos::seed();
    println!("{what}: ENTROPY_CHAOS_SEED={seed}");
    let began = std::time::Instant::now();
    let (mut cases, mut round) = (0, 0_u64);
    while round == 0 || (chaos::long() && began.elapsed().as_secs() < chaos::seconds(0) / 3) {
        let mut entropy = [0; 32];
        entropy[..8].copy_from_slice(&seed.to_le_bytes());
        entropy[8..16].copy_from_slice(&round.to_le_bytes());
        let config =
            Config { cases: short, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &entropy);
        let outcome = TestRunner::new_with_rng(config, random).run(strategy, |input| {
            runtime
                .block_on(async {
                    empty(&book).await;
                    case(&book, input).await
                })
                .map_err(TestCaseError::fail)
        });
        if let Err(error) = outcome {
            panic!("{what}: {error}");
        }
        cases += short;
        round += 1;
    }
    chaos::report(&format!("{what:<60} {cases:>8} cases"));
    runtime.block_on(async { drop(book) });
}

async fn empty(book: &Book) {
    book.run(
        "DELETE FROM jobs; DELETE FROM pending; DELETE FROM leases; DELETE FROM lanes; DELETE FROM attempts; \
         DELETE FROM job_endings; DELETE FROM sends; DELETE FROM idempotency_keys; DELETE FROM unique_keys; \
         DELETE FROM queue_pauses",
    )
    .await;
}
