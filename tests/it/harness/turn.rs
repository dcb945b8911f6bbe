//! Who runs beside whom.
//!
//! Tests run side by side. One that measures times, or that loads the machine for long, asks for the floor alone.

use tokio::sync::{Semaphore, SemaphorePermit};

/// More than there are test threads on any machine.
const PLACES: u32 = 64;

static FLOOR: Semaphore = Semaphore::const_new(PLACES as usize);

/// A place on the floor, until it is dropped. A test takes one; with two it could wait for itself.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held, not read")] SemaphorePermit<'static>);

/// Waits for a place beside others.
pub(crate) async fn shared() -> Turn {
    Turn(FLOOR.acquire().await.expect("the floor is never closed"))
}

/// Waits until no other test has a place, and keeps them away.
pub(crate) async fn alone() -> Turn {
    Turn(FLOOR.acquire_many(PLACES).await.expect("the floor is never closed"))
}
