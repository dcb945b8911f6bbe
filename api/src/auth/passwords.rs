//! Passwords at rest: argon2id in the PHC form.

use std::sync::LazyLock;

use anyhow::{Context, anyhow};
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use entropy_jobs::secret::Secret;
use tokio::sync::Semaphore;

use crate::problem::ApiError;

/// Hashes at once. Each takes 19 MiB and a core for some tens of milliseconds.
const AT_ONCE: usize = 2;
/// People who wait for their turn; more are asked to come back.
const WAITING: usize = 128;

/// Hashes passwords away from the threads that serve requests.
#[derive(Debug)]
pub(crate) struct Passwords {
    turns: Semaphore,
    places: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        Passwords { turns: Semaphore::new(AT_ONCE), places: Semaphore::new(WAITING) }
    }
}

/// A turn at hashing. While it is held, at most one other login is being decided.
pub(crate) struct Turn<'a> {
    _place: tokio::sync::SemaphorePermit<'a>,
    _turn: tokio::sync::SemaphorePermit<'a>,
}

impl Passwords {
    /// Waits for a turn. Fails at once when too many wait already.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, ApiError> {
        let place = self.places.try_acquire().map_err(|_| {
            ApiError::too_many("too_many_logins", "Too many people are logging in. Try again in a moment.", 1)
        })?;
        let turn = self.turns.acquire().await.map_err(ApiError::internal)?;
        Ok(Turn { _place: place, _turn: turn })
    }
}

impl Turn<'_> {
    /// Hashes a password.
    pub(crate) async fn hash(&self, password: Secret) -> Result<String, ApiError> {
        tokio::task::spawn_blocking(move || hash(&password))
            .await
            .map_err(ApiError::internal)?
            .map_err(ApiError::internal)
    }

    /// Tells whether `password` is the one that was hashed. Without a hash it takes as long and says no, so that the
    /// time does not tell whether a name exists.
    pub(crate) async fn verify(&self, password: Secret, hashed: Option<String>) -> Result<bool, ApiError> {
        tokio::task::spawn_blocking(move || {
            let known = hashed.is_some();
            let hashed = hashed.unwrap_or_else(|| DUMMY.clone());
            verify(&password, &hashed) && known
        })
        .await
        .map_err(ApiError::internal)
    }
}

/// A hash that no password has been given to.
static DUMMY: LazyLock<String> =
    LazyLock::new(|| hash(&Secret::new(uuid::Uuid::new_v4().to_string())).unwrap_or_default());

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

/// Hashes a password, on the calling thread: for the command line.
pub fn hash(password: &Secret) -> anyhow::Result<String> {
    let salt = SaltString::generate(&mut OsRng);
    let hashed = argon2().hash_password(password.expose().as_bytes(), &salt);
    Ok(hashed.map_err(|error| anyhow!("{error}")).context("hashing a password")?.to_string())
}

fn verify(password: &Secret, hashed: &str) -> bool {
    PasswordHash::new(hashed)
        .is_ok_and(|hashed| argon2().verify_password(password.expose().as_bytes(), &hashed).is_ok())
}

/// Says what is wrong with a new password, if anything.
pub fn problem(password: &str) -> Option<&'static str> {
    match password.chars().count() {
        0..8 => Some("is too short; use at least 8 characters"),
        8..=200 => None,
        _ => Some("is too long; use at most 200 characters"),
    }
}

/// Says what is wrong with a new username, if anything.
pub fn username_problem(username: &str) -> Option<&'static str> {
    if !(3..=64).contains(&username.chars().count()) {
        return Some("must have 3 to 64 characters");
    }
    let plain = |c: char| !c.is_control() && !c.is_whitespace();
    (!username.chars().all(plain)).then_some("must not contain spaces or control characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_person_passes() {
        let passwords = Passwords::default();
        let turn = passwords.turn().await.expect("a turn");
        let right = || Secret::new("correct horse");
        let hashed = turn.hash(right()).await.expect("a hash");
        assert!(hashed.starts_with("$argon2id$"), "{hashed}");
        assert!(turn.verify(right(), Some(hashed.clone())).await.expect("an answer"));
        assert!(!turn.verify(Secret::new("wrong horse"), Some(hashed)).await.expect("an answer"));
        assert!(!turn.verify(right(), None).await.expect("an answer"));
    }

    #[test]
    fn names_and_passwords_have_their_lengths() {
        assert!(problem("1234567").is_some() && problem("12345678").is_none());
        assert!(problem(&"密".repeat(200)).is_none() && problem(&"密".repeat(201)).is_some());
        assert!(username_problem("ab").is_some() && username_problem("李小龙").is_none());
        assert!(username_problem("a b c").is_some() && username_problem(&"a".repeat(65)).is_some());
    }
}
