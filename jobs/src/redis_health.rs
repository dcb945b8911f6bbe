//! Whether Redis is fit to carry deliveries: it answers, takes writes, and throws nothing away when its memory is full.
//!
//! What it holds can be made again from Postgres, so none of this loses a job. But a Redis that evicts keys would lose
//! deliveries without a word, again and again, and each would cost seconds until somebody missed it.

use std::fmt;

use redis::aio::ConnectionManager;
use redis::{RedisError, RedisResult};

/// How Redis stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It takes deliveries and keeps them.
    Fit,
    /// It takes writes, but does not say what it does when its memory is full: this user may not ask.
    Silent,
    /// It does not answer, or is still loading its file.
    Away(String),
    /// It answers and refuses writes: its memory or its disk is full, or it is a replica.
    Refuses(String),
    /// It is configured to throw away any key when its memory is full.
    Evicts {
        /// `maxmemory-policy`.
        policy: String,
        /// `maxmemory`, in bytes.
        maxmemory: u64,
    },
}

impl Health {
    /// One word, for machines that watch.
    pub fn word(&self) -> &'static str {
        match self {
            Health::Fit | Health::Silent => "ok",
            Health::Away(_) => "away",
            Health::Refuses(_) => "refuses_writes",
            Health::Evicts { .. } => "evicts",
        }
    }
}

/// Says what is wrong and what to change.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Health::Fit => f.write_str("Redis takes deliveries and keeps them"),
            Health::Silent => f.write_str(
                "Redis does not tell this user its maxmemory-policy (INFO is not permitted): make sure that it is noeviction",
            ),
            Health::Away(reason) => write!(f, "Redis is away: {reason}"),
            Health::Refuses(reason) => write!(
                f,
                "Redis refuses writes: {reason}. Give it memory or disk, remove what does not belong there, or point \
                 REDIS_URL at the primary"
            ),
            Health::Evicts { policy, maxmemory } => write!(
                f,
                "Redis would throw deliveries away: maxmemory-policy is {policy}, maxmemory {maxmemory} bytes. Change it: \
                 CONFIG SET maxmemory-policy noeviction, and in its configuration file"
            ),
        }
    }
}

/// Asks Redis. Leaves nothing behind there.
pub async fn examine(connection: &mut ConnectionManager, namespace: &str) -> Health {
    match (takes_writes(connection, namespace).await, memory(connection).await) {
        (Err(error), _) if refuses(&error) => Health::Refuses(error.to_string()),
        // A user who may not use this command may still use those that matter; pushing will tell.
        (Err(error), _) if error.code() != Some("NOPERM") => Health::Away(error.to_string()),
        (_, Ok(info)) => evicts(&info).unwrap_or(Health::Fit),
        (_, Err(error)) if error.code() == Some("NOPERM") => Health::Silent,
        (_, Err(error)) => Health::Away(error.to_string()),
    }
}

/// Tells whether Redis answered, and will not take writes until somebody changes something.
pub fn refuses(error: &RedisError) -> bool {
    matches!(error.code(), Some("OOM" | "MISCONF" | "READONLY" | "NOREPLICAS"))
}

/// A write of nothing: it makes no key, and is refused like any other write.
async fn takes_writes(connection: &mut ConnectionManager, namespace: &str) -> RedisResult<()> {
    redis::cmd("SETRANGE").arg(format!("{namespace}:nothing")).arg(0).arg("").query_async(connection).await
}

async fn memory(connection: &mut ConnectionManager) -> RedisResult<String> {
    redis::cmd("INFO").arg("memory").query_async(connection).await
}

/// Reads the policy from `INFO memory`, which answers where `CONFIG` is forbidden.
///
/// None of our keys has a time to live, so the `volatile-*` policies, the default of many hosted servers, find nothing of
/// ours to evict. Without `maxmemory` no policy does anything.
fn evicts(info: &str) -> Option<Health> {
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name));
    let maxmemory = field("maxmemory:")?.parse().ok()?;
    let policy = field("maxmemory_policy:")?;
    (maxmemory > 0 && policy.starts_with("allkeys-"))
        .then(|| Health::Evicts { policy: policy.to_owned(), maxmemory })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(maxmemory: u64, policy: &str) -> String {
        format!(
            "# Memory\r\nused_memory:1048576\r\nmaxmemory:{maxmemory}\r\nmaxmemory_human:1G\r\nmaxmemory_policy:{policy}\r\n"
        )
    }

    #[test]
    fn only_a_policy_that_can_touch_our_keys_counts() {
        for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
            let found = evicts(&info(1_000_000, policy));
            assert_eq!(found, Some(Health::Evicts { policy: policy.into(), maxmemory: 1_000_000 }));
            assert_eq!(evicts(&info(0, policy)), None, "without maxmemory nothing is evicted");
        }
        for policy in ["noeviction", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
            assert_eq!(evicts(&info(1_000_000, policy)), None, "{policy}");
        }
        assert_eq!(evicts("# Memory\r\nused_memory:1\r\n"), None, "a server that does not say");
    }

    #[test]
    fn the_line_says_what_to_change() {
        let line = Health::Evicts { policy: "allkeys-lru".into(), maxmemory: 100 }.to_string();
        assert!(line.contains("CONFIG SET maxmemory-policy noeviction"), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
}
