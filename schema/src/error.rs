//! What can go wrong between us and the database.

use diesel::result::DatabaseErrorKind;

/// A failed statement or a missing connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be had in time: the server is away, or the pool is exhausted.
    #[error("no database connection: {0}")]
    Unavailable(String),
    /// The statement failed.
    #[error("database: {0}")]
    Query(#[from] diesel::result::Error),
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Tells whether the same call may succeed in a moment without anybody changing anything in it.
    ///
    /// The server is away, starts, stops or fails over, is full or out of connections, or somebody else's lock was in
    /// the way.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Error::Unavailable(_) => true,
            Error::Query(error) => passes(error),
        }
    }

    /// Tells whether a lock that somebody else holds was in the way for too long. The same rows will be for a while;
    /// what shared the statement with them need not wait.
    pub fn is_contended(&self) -> bool {
        matches!(
            self,
            Error::Query(diesel::result::Error::DatabaseError(_, info))
                if CONTENDED.iter().any(|known| info.message().contains(known))
        )
    }

    /// Returns the name of the constraint that the statement ran into, if that is what happened.
    pub fn violated_constraint(&self) -> Option<&str> {
        match self {
            Error::Query(diesel::result::Error::DatabaseError(_, info)) => info.constraint_name(),
            _ => None,
        }
    }
}

fn passes(error: &diesel::result::Error) -> bool {
    use diesel::result::Error as Diesel;
    match error {
        Diesel::DatabaseError(kind, info) => {
            matches!(
                kind,
                DatabaseErrorKind::ClosedConnection
                    | DatabaseErrorKind::SerializationFailure
                    | DatabaseErrorKind::UnableToSendCommand
                    // A failover: this server serves readers only, until the other one has taken over.
                    | DatabaseErrorKind::ReadOnlyTransaction
            ) || (*kind == DatabaseErrorKind::Unknown
                && PASSING.iter().chain(CONTENDED).any(|known| info.message().contains(known)))
        }
        // The commit failed, and so did taking it back: the connection is gone.
        Diesel::RollbackErrorOnCommit { commit_error, rollback_error } => {
            passes(commit_error) || passes(rollback_error)
        }
        Diesel::BrokenTransactionManager => true,
        _ => false,
    }
}

/// What the server says of states that pass. The driver keeps the SQLSTATE to itself, so the words must do;
/// [`Db`](crate::Db) asks the server for English ones.
const PASSING: &[&str] = &[
    // 57014
    "canceling statement due to",
    // 40P01
    "deadlock detected",
    // 57P01, 57P02, 57P05, 25P03
    "terminating connection",
    // 57P03: starting up, shutting down, in recovery
    "the database system is",
    // 53300
    "too many clients",
    "too many connections",
    "remaining connection slots are reserved",
    // 53100
    "No space left on device",
    "Disk quota exceeded",
    // 53200; the second is the lock table's
    "out of memory",
    "out of shared memory",
    // 25006 of a server in recovery comes with this, too
    "during recovery",
    // From the driver
    "connection closed",
    "error communicating with the server",
];

/// 55P03: by `lock_timeout`, and by `NOWAIT`.
const CONTENDED: &[&str] = &["canceling statement due to lock timeout", "could not obtain lock on"];

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: DatabaseErrorKind, message: &str) -> Error {
        Error::Query(diesel::result::Error::DatabaseError(kind, Box::new(message.to_owned())))
    }

    /// Words of PostgreSQL 15, as its server sends them.
    #[test]
    fn what_passes_by_itself_is_worth_another_try() {
        for (state, message) in [
            ("57014", "canceling statement due to statement timeout"),
            ("57014", "canceling statement due to user request"),
            ("57014", "canceling statement due to conflict with recovery"),
            ("55P03", "canceling statement due to lock timeout"),
            ("55P03", "could not obtain lock on row in relation \"lanes\""),
            ("55P03", "could not obtain lock on relation \"lanes\""),
            ("40P01", "deadlock detected"),
            ("57P01", "terminating connection due to administrator command"),
            ("57P02", "terminating connection because of crash of another server process"),
            ("57P03", "the database system is starting up"),
            ("57P03", "the database system is shutting down"),
            ("57P03", "the database system is in recovery mode"),
            ("57P03", "the database system is not yet accepting connections"),
            ("57P05", "terminating connection due to idle-session timeout"),
            ("25P03", "terminating connection due to idle-in-transaction timeout"),
            ("53300", "sorry, too many clients already"),
            ("53300", "too many connections for role \"entropy\""),
            ("53300", "remaining connection slots are reserved for non-replication superuser connections"),
            ("53100", "could not extend file \"base/16384/16451\": No space left on device"),
            ("53200", "out of memory"),
            ("53200", "out of shared memory"),
            ("25006", "cannot acquire lock mode RowExclusiveLock on database objects during recovery"),
        ] {
            let error = said(DatabaseErrorKind::Unknown, message);
            assert!(error.is_unavailable(), "{state} {message}");
            assert_eq!(error.is_contended(), state == "55P03", "{state} {message}");
        }
        for (state, kind, message) in [
            (
                "25006",
                DatabaseErrorKind::ReadOnlyTransaction,
                "cannot execute UPDATE in a read-only transaction",
            ),
            (
                "40001",
                DatabaseErrorKind::SerializationFailure,
                "could not serialize access due to concurrent update",
            ),
            ("none", DatabaseErrorKind::UnableToSendCommand, "connection closed"),
            ("none", DatabaseErrorKind::ClosedConnection, "connection closed"),
        ] {
            assert!(said(kind, message).is_unavailable(), "{state} {message}");
        }
        assert!(Error::Unavailable("no free connection within 3 s".into()).is_unavailable());
        assert!(Error::Query(diesel::result::Error::BrokenTransactionManager).is_unavailable());
        let lost = diesel::result::Error::RollbackErrorOnCommit {
            commit_error: Box::new(diesel::result::Error::DatabaseError(
                DatabaseErrorKind::SerializationFailure,
                Box::new("could not serialize access".to_owned()),
            )),
            rollback_error: Box::new(diesel::result::Error::BrokenTransactionManager),
        };
        assert!(Error::Query(lost).is_unavailable());
    }

    #[test]
    fn what_would_fail_again_is_not() {
        for (kind, message) in [
            (
                DatabaseErrorKind::UniqueViolation,
                "duplicate key value violates unique constraint \"terminating connection\"",
            ),
            (DatabaseErrorKind::CheckViolation, "new row for relation \"jobs\" violates check constraint"),
            (DatabaseErrorKind::NotNullViolation, "null value in column \"kind\" of relation \"jobs\""),
            (DatabaseErrorKind::Unknown, "relation \"jobs\" does not exist"),
            (DatabaseErrorKind::Unknown, "permission denied for table jobs"),
            (DatabaseErrorKind::Unknown, "invalid byte sequence for encoding \"UTF8\": 0x00"),
            (DatabaseErrorKind::Unknown, "integer out of range"),
        ] {
            assert!(!said(kind, message).is_unavailable(), "{message}");
        }
        assert!(!Error::Query(diesel::result::Error::NotFound).is_unavailable());
        // The transaction of an enqueue asks with it to begin again at once.
        assert!(!Error::Query(diesel::result::Error::RollbackTransaction).is_unavailable());
    }
}
