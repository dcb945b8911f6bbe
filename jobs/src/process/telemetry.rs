//! Logs: one subscriber per process, JSON or text, filtered by `RUST_LOG`.
//!
//! What is never logged: tokens, passwords, keys, message text. Types that hold such things print `***` or counts.

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use super::config::LogFormat;

/// Installs the subscriber. Logs go to stderr; stdout is for what a command was asked to print.
pub fn init(format: LogFormat) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives).context("RUST_LOG is not a list of filters")?,
        // apalis tells every start and stop of its inner workers; its errors are what an operator needs.
        Err(_) => EnvFilter::new("info,apalis_core=warn"),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
        LogFormat::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init()
        }
    }
    .context("logging was set up twice")
}

/// Returns a new trace id: 32 hexadecimal digits, as in W3C trace context.
pub fn new_trace_id() -> String {
    format!("{:032x}", uuid::Uuid::new_v4().as_u128())
}

/// Reads the trace id out of a `traceparent` header, if it is well formed and not all zeros.
pub fn trace_id_of(traceparent: &str) -> Option<String> {
    let mut parts = traceparent.trim().split('-');
    let (_version, id) = (parts.next()?, parts.next()?);
    let well_formed = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    (well_formed && id.bytes().any(|b| b != b'0')).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_taken_from_a_well_formed_traceparent_only() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id_of(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
        assert_eq!(trace_id_of("00-4bf9-00f067aa0ba902b7-01"), None);
        assert_eq!(trace_id_of(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))), None);
        assert_eq!(trace_id_of("nonsense"), None);
    }
}
