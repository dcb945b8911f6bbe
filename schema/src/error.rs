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
    /// Tells whether the same call may succeed in a moment without anybody changing anything.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Error::Unavailable(_) => true,
            Error::Query(diesel::result::Error::DatabaseError(kind, info)) => {
                matches!(
                    kind,
                    DatabaseErrorKind::ClosedConnection
                        | DatabaseErrorKind::SerializationFailure
                        | DatabaseErrorKind::UnableToSendCommand
                ) || connection_lost(info.message())
            }
            Error::Query(diesel::result::Error::BrokenTransactionManager) => true,
            Error::Query(_) => false,
        }
    }

    /// Returns the name of the constraint that the statement ran into, if that is what happened.
    pub fn violated_constraint(&self) -> Option<&str> {
        match self {
            Error::Query(diesel::result::Error::DatabaseError(_, info)) => info.constraint_name(),
            _ => None,
        }
    }
}

/// Recognises the messages of a server that goes away under a statement; the driver gives them no kind of their own.
fn connection_lost(message: &str) -> bool {
    [
        "terminating connection",
        "connection closed",
        "the database system is",
        "error communicating with the server",
        "canceling statement due to",
        "deadlock detected",
    ]
    .iter()
    .any(|known| message.contains(known))
}
