//! Slows down guessing: failed logins are counted by name and by network address.
//!
//! Ask while holding a [`Turn`](super::passwords::Turn), and record a failure before giving it back: then a thousand
//! guesses at once get no further than guesses one by one.

use entropy_schema::{Conn, users};

use crate::problem::ApiError;

/// How far back failures count.
const WINDOW_S: i64 = 300;
/// Failures of one name after which it has to wait.
const PER_NAME: i64 = 5;
/// Failures from one address after which it has to wait; many people may share it.
const PER_ADDRESS: i64 = 30;

/// The two things that failures are counted by.
#[derive(Debug)]
pub(crate) struct Subjects {
    name: String,
    address: Option<String>,
}

impl Subjects {
    /// Of a login with `username` from `address`.
    pub(crate) fn new(username: &str, address: Option<&str>) -> Self {
        Subjects {
            name: format!("name:{}", username.to_lowercase()),
            address: address.map(|address| format!("address:{address}")),
        }
    }

    /// Refuses the login if either has failed too often, and says for how long.
    pub(crate) async fn check(&self, conn: &mut Conn) -> Result<(), ApiError> {
        let mut wait_s = 0;
        let limits = [(Some(&self.name), PER_NAME), (self.address.as_ref(), PER_ADDRESS)];
        for (subject, limit) in limits.into_iter().filter_map(|(subject, limit)| subject.map(|s| (s, limit)))
        {
            let failures = users::failures(conn, subject, WINDOW_S).await?;
            if failures.count >= limit {
                wait_s = wait_s.max(failures.oldest_leaves_in_s.max(1));
            }
        }
        if wait_s == 0 {
            return Ok(());
        }
        let detail = format!("Too many failed logins. Wait {wait_s} seconds and try again.");
        Err(ApiError::too_many("login_throttled", detail, wait_s.unsigned_abs()))
    }

    /// Counts a failure.
    pub(crate) async fn failed(&self, conn: &mut Conn) -> Result<(), ApiError> {
        users::add_failure(conn, &self.name).await?;
        if let Some(address) = &self.address {
            users::add_failure(conn, address).await?;
        }
        Ok(())
    }

    /// Forgets the failures of the name. Those of the address stay: one good login must not buy thirty guesses more.
    pub(crate) async fn succeeded(&self, conn: &mut Conn) -> Result<(), ApiError> {
        Ok(users::clear_failures(conn, &self.name).await?)
    }
}
