//! The numbered steps of a job's way, as places at which a test lets the process die.
//!
//! The list is the section "Steps" of `docs/RELIABILITY.md`. Built for use, [`step!`](crate::step!) is empty and
//! [`arm`] does nothing: only the tests switch on the feature of the `fail` crate that fills them.

#[doc(hidden)]
pub use fail::fail_point;

/// Marks a numbered step: `step!("relay.picked")`.
///
/// In a test's build, a process that was started with `FAILPOINTS="relay.picked=2*off->return"` ends here when it
/// comes by the third time: at once, as by `kill -9`, with nothing unwound and nothing flushed.
#[macro_export]
macro_rules! step {
    ($name:literal) => {{
        #[inline(always)]
        fn step() {
            $crate::step::fail_point!($name, |_| ::std::process::abort());
        }
        step();
    }};
}

/// Reads `FAILPOINTS` (`step=actions;…`, in the words of the `fail` crate), in a test's build.
pub fn arm() -> anyhow::Result<()> {
    if !fail::has_failpoints() {
        return Ok(());
    }
    let Ok(points) = std::env::var("FAILPOINTS") else { return Ok(()) };
    for point in points.split(';').filter(|point| !point.is_empty()) {
        let (name, actions) = point.split_once('=').ok_or_else(|| anyhow::anyhow!("FAILPOINTS: {point}"))?;
        fail::cfg(name, actions).map_err(|error| anyhow::anyhow!("FAILPOINTS: {name}: {error}"))?;
    }
    Ok(())
}
