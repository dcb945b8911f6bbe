//! Short and long form of the tests that disturb: how long they last, from which seed, and where the figures go.

use std::fs::File;
use std::io::Write;

/// Returns how many seconds to go on: `ENTROPY_CHAOS_SECONDS`, or else `short`.
pub(crate) fn seconds(short: u64) -> u64 {
    number("ENTROPY_CHAOS_SECONDS").unwrap_or(short)
}

/// Whether this is the long form.
pub(crate) fn long() -> bool {
    std::env::var_os("ENTROPY_CHAOS_SECONDS").is_some()
}

/// Returns the seed: `ENTROPY_CHAOS_SEED`, or else a random one. Print it, so that the run can be repeated.
pub(crate) fn seed() -> u64 {
    number("ENTROPY_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..))
}

/// Prints figures, and in the long form appends them to the file that `ENTROPY_CHAOS_REPORT` names.
pub(crate) fn report(text: &str) {
    println!("{text}");
    let Some(path) = std::env::var_os("ENTROPY_CHAOS_REPORT").filter(|_| long()) else { return };
    let mut file = File::options().create(true).append(true).open(&path).expect("the report can be opened");
    // One write, so that scenarios that end at once do not mix.
    file.write_all(format!("{text}\n").as_bytes()).expect("the report can be written");
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}
