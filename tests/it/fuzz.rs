//! What reads bytes from outside, against seeds and random changes of them: the targets of `tests/fuzz`, without libFuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::harness::chaos;

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

/// How long each target is run in the short form.
const MILLISECONDS: u64 = 1200;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

/// The seeds of a target, by their file's name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder("corpus").join(target)).expect("a folder of seeds");
    let mut seeds: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("a seed"))
        })
        .collect();
    seeds.sort();
    seeds
}

fn names(files: PathBuf) -> BTreeSet<String> {
    let files = fs::read_dir(files).expect("a folder");
    files
        .map(|file| file.expect("a file").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect()
}

/// One change of a text.
#[derive(Debug, Clone)]
enum Change {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index, Index),
    Repeat(Index, Index),
}

/// What means something to one of the readers.
const WORDS: [&str; 34] = [
    "\"",
    "\\",
    "\\u0000",
    "\0",
    "\n",
    "\r\n",
    ":",
    ",",
    "{",
    "}",
    "[",
    "]",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "9223372036854775808",
    "18446744073709551616",
    "汉字",
    "😀",
    "e\u{301}",
    "\u{202e}",
    "\u{feff}",
    "%00",
    "%31",
    "..",
    "@",
    "0x7f",
    "::ffff:",
    "１２７",
    "。",
    " ",
    "=",
];

fn change() -> impl Strategy<Value = Change> {
    let piece = prop_oneof![
        3 => select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..6),
        1 => any::<char>().prop_map(|c| c.to_string().into_bytes()),
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (any::<Index>(), piece).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Cut(from, to)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let place = |index: &Index| index.index(bytes.len() + 1);
    let range = |from: &Index, to: &Index| {
        let (a, b) = (place(from), place(to));
        a.min(b)..a.max(b)
    };
    match change {
        Change::Replace(at, byte) => {
            let at = place(at);
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        Change::Insert(at, piece) => {
            let at = place(at);
            bytes.splice(at..at, piece.iter().copied());
        }
        Change::Cut(from, to) => {
            let range = range(from, to);
            bytes.drain(range);
        }
        Change::Repeat(from, to) => {
            let range = range(from, to);
            let piece = bytes[range.clone()].to_vec();
            bytes.splice(range.end..range.end, piece);
        }
    }
}

/// Seeds with a few changes, and now and then bytes that have nothing to do with any.
fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changed = (select(seeds), prop::collection::vec(change(), 0..6)).prop_map(|(mut bytes, changes)| {
        for change in &changes {
            apply(&mut bytes, change);
        }
        bytes
    });
    prop_oneof![19 => changed, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

/// Runs a target for its time and returns how often. What it dies of is made smaller in at most `shrinks` steps.
fn run(name: &str, target: targets::Target, shrinks: u32) -> u64 {
    let seeds = seeds(name);
    for (seed, bytes) in &seeds {
        println!("{name}: {seed}");
        target(bytes);
    }
    let inputs = inputs(seeds.into_iter().map(|(_, bytes)| bytes).collect());
    let time = match chaos::long() {
        true => Duration::from_secs(chaos::seconds(0)) / targets::TARGETS.len() as u32,
        false => Duration::from_millis(MILLISECONDS),
    };
    let seed = chaos::seed();
    println!("{name}: ENTROPY_CHAOS_SEED={seed}");
    let (began, mut runs, mut round) = (Instant::now(), 0, 0_u64);
    while began.elapsed() < time {
        let config =
            Config { cases: 128, failure_persistence: None, max_shrink_iters: shrinks, ..Config::default() };
        let mut entropy = [0; 32];
        entropy[..8].copy_from_slice(&seed.to_le_bytes());
        entropy[8..16].copy_from_slice(&round.to_le_bytes());
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &entropy));
        let outcome = runner.run(&inputs, |bytes| {
            target(&bytes);
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{name} after {runs} runs: {error}");
        }
        runs += 128;
        round += 1;
    }
    runs
}

/// A test per target, so that each is named where it fails.
macro_rules! survives {
    ($($test:ident: $target:ident,)*) => {
        $(#[test]
        fn $test() {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let runs = run(stringify!($target), targets::$target, 256);
            println!("{:<16} {runs:>9} inputs", stringify!($target));
        })*

        const TESTED: &[&str] = &[$(stringify!($target)),*];
    };
}

survives! {
    no_authorization_header_is_taken_without_our_signature: authorization,
    no_callback_is_misread_or_cannot_be_stored: callback,
    no_environment_is_taken_that_cannot_work_or_answered_with_its_secrets: config,
    a_cursor_leads_to_one_place: cursor,
    a_delivery_is_read_as_it_was_written: delivery,
    a_planned_failure_is_read_as_it_was_written: failure_header,
    no_answer_of_a_model_is_taken_that_cannot_be_kept_or_billed: fastgpt_answer,
    no_stream_is_taken_for_whole_before_its_end: fastgpt_stream,
    no_answer_of_the_provider_is_mistaken_for_proof: gewe_answer,
    no_request_is_our_fault: http,
    an_idempotency_key_is_taken_as_it_is_or_not_at_all: idempotency_key,
    stored_args_are_read_or_end_in_a_sentence: job_args,
    a_message_is_checked_without_being_repeated: message,
    no_address_inside_is_taken_for_one_outside: outbound_url,
    a_trace_id_is_well_formed: traceparent,
    no_plan_is_taken_that_cannot_run_or_refused_without_a_sentence: workflow_config,
}

#[test]
fn every_target_has_seeds_a_binary_and_a_test() {
    let all: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(folder("corpus")), all);
    assert_eq!(names(folder("fuzz_targets")), all);
    assert_eq!(TESTED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), all);
    let manifest = fs::read_to_string(folder("Cargo.toml")).expect("the manifest");
    for name in &all {
        assert!(!seeds(name).is_empty(), "{name} has no seeds");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not built");
    }
}

#[test]
fn the_target_of_args_knows_every_kind() {
    assert_eq!(entropy_jobs::kinds::registry().kinds().count(), targets::KINDS);
}

#[test]
#[should_panic(expected = "a broken promise")]
fn a_target_that_breaks_its_promise_is_found() {
    run("cursor", |bytes| assert!(!bytes.contains(&b'{'), "a broken promise"), 0);
}
