//! What SQLite's errors mean to the contract.

use sqlx::error::DatabaseError;
use windlass_core::{Error, ErrorKind};

/// Why a step failed: the contract refuses it, or the database does.
#[derive(Debug)]
pub(crate) enum Fail {
    /// The step decided so before it wrote anything.
    Refused(Error),
    /// The database: whatever the transaction has written is void.
    Database(sqlx::Error),
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<sqlx::Error> for Fail {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Fail> for Error {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Refused(error) => error,
            Fail::Database(error) => translated(error),
        }
    }
}

/// The result of a step within a transaction.
pub(crate) type Step<T> = Result<T, Fail>;

/// SQLite's primary result code, when the error is SQLite's.
pub(crate) fn code(error: &sqlx::Error) -> Option<u8> {
    let code: u32 = error.as_database_error().and_then(DatabaseError::code)?.parse().ok()?;
    // The low byte of an extended code is the primary one.
    u8::try_from(code & 0xff).ok()
}

const PERM: u8 = 3;
const BUSY: u8 = 5;
const LOCKED: u8 = 6;
const READONLY: u8 = 8;
const IOERR: u8 = 10;
const CORRUPT: u8 = 11;
const FULL: u8 = 13;
const CANTOPEN: u8 = 14;
const NOTADB: u8 = 26;

/// Whether another process holds the lock, or did in this moment.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(BUSY | LOCKED))
}

/// Whether the connection is of no use any more, and a new one may be.
pub(crate) fn is_broken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::WorkerCrashed | sqlx::Error::Io(_))
        || matches!(code(error), Some(PERM | READONLY | IOERR | CORRUPT | CANTOPEN | NOTADB))
}

/// The contract's error. Nothing was changed: what failed was rolled back, or was never begun.
pub(crate) fn translated(error: sqlx::Error) -> Error {
    let error = match error {
        // One of the contract's own on its way through a transaction.
        sqlx::Error::Decode(inner) => match inner.downcast::<Error>() {
            Ok(own) => return *own,
            Err(other) => sqlx::Error::Decode(other),
        },
        other => other,
    };
    let (kind, message) = match code(&error) {
        Some(BUSY | LOCKED) => (
            ErrorKind::Timeout,
            "another process held the database's lock for longer than `busy_timeout`".to_owned(),
        ),
        Some(FULL) => {
            (ErrorKind::Unavailable, "the disk is full, or the database has reached `max_bytes`".to_owned())
        }
        Some(READONLY) => {
            (ErrorKind::Unavailable, "the database file or its folder cannot be written".to_owned())
        }
        Some(IOERR) => (ErrorKind::Unavailable, format!("the disk failed: {error}")),
        Some(CANTOPEN | PERM) => (
            ErrorKind::Connection,
            "the database file cannot be opened: is its folder there, and may it be written?".to_owned(),
        ),
        Some(CORRUPT) => {
            (ErrorKind::Unexpected, "the database file is damaged: restore it from a backup".to_owned())
        }
        Some(NOTADB) => (ErrorKind::Config, "the file is not a SQLite database".to_owned()),
        _ => match &error {
            sqlx::Error::WorkerCrashed | sqlx::Error::Io(_) | sqlx::Error::PoolClosed => {
                (ErrorKind::Connection, "the connection to the database is gone".to_owned())
            }
            sqlx::Error::PoolTimedOut => {
                (ErrorKind::Timeout, "no reading connection became free in time".to_owned())
            }
            _ => (ErrorKind::Unexpected, error.to_string()),
        },
    };
    Error::new(kind, message).with_source(error)
}
