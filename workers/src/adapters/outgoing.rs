//! A request body that knows whether it left the machine.
//!
//! hyper asks for the body in the same step in which it writes the head, and flushes neither before it has the
//! body. So the moment at which the body is handed over is the last at which a request can be called back, on a
//! new connection as on a pooled one. The deadline is looked at there, and the caller learns from the
//! same place, not from the words of an error, whether a failed call may have arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use futures::future;
use futures::stream;

const WAITING: u8 = 0;
const WRITTEN: u8 = 1;
const LATE: u8 = 2;
const CALLED_BACK: u8 = 3;

/// What became of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapters) enum Fate {
    /// Never handed over, and never will be.
    CalledBack,
    /// The deadline had passed when it was about to be written.
    Late,
    /// Handed over to be written: all, some or none of it may have arrived.
    Written,
}

/// The caller's hold on a request body. Dropping it calls back a body that was not handed over yet.
#[derive(Debug)]
pub(in crate::adapters) struct Ticket(Arc<AtomicU8>);

impl Ticket {
    /// Calls the body back if it was not handed over yet, and tells what became of it, for good.
    pub(in crate::adapters) fn settle(&self) -> Fate {
        // One exchange decides between this side and the connection's task, which runs on another thread.
        let seen = self.0.compare_exchange(WAITING, CALLED_BACK, Ordering::AcqRel, Ordering::Acquire);
        match seen.unwrap_or_else(|now| now) {
            WAITING | CALLED_BACK => Fate::CalledBack,
            LATE => Fate::Late,
            _ => Fate::Written,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.settle();
    }
}

/// Makes the body and the hold on it.
///
/// Calls `handed_over` as the last thing before the body is written. The body cannot be read twice, which also keeps every layer below from repeating the request.
pub(in crate::adapters) fn outgoing(
    bytes: Vec<u8>,
    deadline: Instant,
    handed_over: fn(),
) -> (Ticket, reqwest::Body) {
    let state = Arc::new(AtomicU8::new(WAITING));
    let ticket = Ticket(Arc::clone(&state));
    let body = future::lazy(move |_| {
        let next = if Instant::now() < deadline { WRITTEN } else { LATE };
        match state.compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) if next == WRITTEN => {
                handed_over();
                Ok(bytes)
            }
            // The error makes hyper drop the connection with the unflushed head.
            _ => Err(std::io::Error::other("the request was called back before it was written")),
        }
    });
    (ticket, reqwest::Body::wrap_stream(stream::once(body)))
}
