//! Answers that may be a few seconds old: what a hot path would otherwise ask the database each time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A map that forgets. Holds a bounded number of entries; each counts for `lifetime`.
#[derive(Debug)]
pub(crate) struct Fresh<K, V> {
    lifetime: Duration,
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

/// Past this many entries the old ones are thrown out.
const CAPACITY: usize = 20_000;

impl<K: Eq + Hash + Clone, V: Clone> Fresh<K, V> {
    /// Makes an empty map.
    pub(crate) fn new(lifetime: Duration) -> Self {
        Fresh { lifetime, entries: Mutex::new(HashMap::new()) }
    }

    /// Returns the value if it is fresh.
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let entries = self.lock();
        entries.get(key).filter(|(at, _)| at.elapsed() < self.lifetime).map(|(_, value)| value.clone())
    }

    /// Keeps a value that was read just now.
    pub(crate) fn put(&self, key: K, value: V) {
        let mut entries = self.lock();
        if entries.len() >= CAPACITY {
            entries.retain(|_, (at, _)| at.elapsed() < self.lifetime);
            if entries.len() >= CAPACITY {
                entries.clear();
            }
        }
        entries.insert(key, (Instant::now(), value));
    }

    /// Changes a fresh value in place; its age stays.
    pub(crate) fn change(&self, key: &K, change: impl FnOnce(&mut V)) {
        if let Some((_, value)) = self.lock().get_mut(key) {
            change(value);
        }
    }

    /// Forgets a value: it was changed by this process.
    pub(crate) fn forget(&self, key: &K) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, (Instant, V)>> {
        // A panic under the lock leaves at worst an entry too many or too few.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_until_its_lifetime_is_over_or_it_is_forgotten() {
        let fresh = Fresh::new(Duration::from_secs(3600));
        fresh.put(1, "a");
        assert_eq!(fresh.get(&1), Some("a"));
        fresh.forget(&1);
        assert_eq!(fresh.get(&1), None);
        let stale = Fresh::new(Duration::ZERO);
        stale.put(1, "a");
        assert_eq!(stale.get(&1), None);
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let fresh = Fresh::new(Duration::from_secs(3600));
        for key in 0..(2 * CAPACITY) {
            fresh.put(key, ());
        }
        assert!(fresh.lock().len() <= CAPACITY);
    }
}
