//! Work that a tenant may have done once at a time in a process, since it takes memory and a processor for a while.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

/// Who has such work done just now.
#[derive(Debug, Clone, Default)]
pub(crate) struct OneEach(Arc<Mutex<HashSet<Uuid>>>);

/// The right to have it done; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    running: OneEach,
    who: Uuid,
}

impl OneEach {
    /// Takes the tenant's turn; none: it has one already.
    pub(crate) fn take(&self, who: Uuid) -> Option<Turn> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(who);
        taken.then(|| Turn { running: self.clone(), who })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_one_turn_at_a_time_and_others_have_theirs() {
        let running = OneEach::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let turn = running.take(one).expect("nobody has it");
        assert!(running.take(one).is_none() && running.take(other).is_some());
        drop(turn);
        assert!(running.take(one).is_some());
    }
}
