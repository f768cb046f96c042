//! What a failure means: its kind, and whether the verb may have happened.

use sqlx::error::DatabaseError;
use windlass_core::{Error, ErrorKind};

/// How a failure of one statement is to be taken.
pub(crate) enum Failure {
    /// The server undid it because of others that ran beside it: worth another try at once.
    Again(Error),
    /// Tell the caller.
    Final(Error),
}

/// A failure to open a connection: nothing was asked yet.
pub(crate) fn connecting(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::Database(answer) => of_answer(&*answer).with_source(sqlx::Error::Database(answer)),
        sqlx::Error::PoolTimedOut => Error::new(
            ErrorKind::Unavailable,
            "no connection became free in time: the pool is too small, or the server does not answer",
        ),
        sqlx::Error::PoolClosed => Error::new(ErrorKind::Connection, "the pool of connections was closed"),
        sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => {
            Error::new(ErrorKind::Config, "the connection's settings cannot work").with_source(error)
        }
        _ => Error::new(ErrorKind::Connection, "the server cannot be reached").with_source(error),
    }
}

/// A failure of a statement that was sent. `changes` says whether it was to change anything.
pub(crate) fn of_statement(error: sqlx::Error, changes: bool) -> Failure {
    let unknown = |error: Error| if changes { error.effect_unknown() } else { error };
    match error {
        sqlx::Error::Database(answer) => {
            let code = answer.code().unwrap_or_default().into_owned();
            let error = of_answer(&*answer).with_source(sqlx::Error::Database(answer));
            match code.as_str() {
                // Deadlock, serialization failure, two pushes of one id at the same time: undone as a whole.
                "40001" | "40P01" | "23505" => Failure::Again(error),
                // The backend was ended. It may have been just after the commit.
                "57P01" | "57P02" | "57P05" | "08000" | "08003" | "08006" | "08P01" => {
                    Failure::Final(unknown(error))
                }
                _ => Failure::Final(error),
            }
        }
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Failure::Final(unknown(
                Error::new(ErrorKind::Connection, "the connection broke while the server was asked")
                    .with_source(error),
            ))
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            Failure::Final(unknown(
                Error::new(ErrorKind::Decode, "the answer of the server cannot be read").with_source(error),
            ))
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Failure::Final(connecting(error)),
        _ => {
            Failure::Final(unknown(Error::new(ErrorKind::Unexpected, "the driver failed").with_source(error)))
        }
    }
}

/// Whether the server gave a statement up because a lock was not free in time.
pub(crate) fn is_lock_timeout(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<sqlx::Error>());
    source.and_then(sqlx::Error::as_database_error).and_then(DatabaseError::code).as_deref() == Some("55P03")
}

/// What an answer of the server means, by its SQLSTATE. Unless the caller knows better, the server undid the statement.
fn of_answer(answer: &dyn DatabaseError) -> Error {
    let code = answer.code().unwrap_or_default();
    let (kind, advice) = match &*code {
        "WL002" => (ErrorKind::NotFound, ""),
        "40001" | "40P01" | "23505" => {
            (ErrorKind::Unavailable, ": it ran into others at the same time; try again")
        }
        "57014" => {
            (ErrorKind::Timeout, ": the server's statement timeout is too short, or somebody cancelled it")
        }
        "55P03" => (ErrorKind::Timeout, ": a lock was not free in time"),
        "25P02" => (ErrorKind::WrongState, ": an earlier statement of this transaction failed; roll it back"),
        "25006" => {
            (ErrorKind::Unavailable, ": the server takes no writes, as a standby or while failing over")
        }
        "3F000" | "42P01" | "42883" | "42704" => {
            (ErrorKind::Config, ": the namespace is not there or not up to date; run `migrate`")
        }
        "42501" => (ErrorKind::Config, ": the role lacks a grant; see the engine's page on roles"),
        "WL001" | "WL003" | "28000" | "28P01" | "3D000" => (ErrorKind::Config, ""),
        code if code.starts_with("53") => (ErrorKind::Unavailable, ": the server is out of a resource"),
        "57P03" => (ErrorKind::Unavailable, ": the server is starting or stopping"),
        code if code.starts_with("57P") || code.starts_with("08") => {
            (ErrorKind::Connection, ": the server ended the connection")
        }
        code if code.starts_with("58") => (ErrorKind::Unavailable, ": the server's machine failed"),
        _ => (ErrorKind::Unexpected, ""),
    };
    let shown = if code.starts_with("WL") {
        answer.message().to_owned()
    } else {
        format!("{} (SQLSTATE {code}){advice}", answer.message())
    };
    Error::new(kind, shown)
}
