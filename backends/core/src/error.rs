//! The one error of the contract: what went wrong, in which verb, and whether anything was changed.

use std::fmt;

/// A result with the contract's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What sort of failure an [`Error`] is: what a program decides by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's input breaks a limit or a rule; the message names field, value and limit.
    Invalid,
    /// The engine could not be reached, or the connection broke.
    Connection,
    /// The engine did not answer in time.
    Timeout,
    /// The engine is there and refuses for now: loading, failing over, full, too many connections.
    Unavailable,
    /// What was asked for clashes with what is stored, such as a revival whose unique key another job holds.
    Conflict,
    /// What was asked for is not there.
    NotFound,
    /// The wrong state for what was asked, such as reviving a job that is not dead.
    WrongState,
    /// Bytes that cannot be understood: a payload, a stored record.
    Decode,
    /// A value that cannot be written in the chosen codec.
    Encode,
    /// Settings that cannot work: a URL, an option, server time mixed with virtual time.
    Config,
    /// The engine does not offer this.
    Unsupported,
    /// Anything else: a bug here or in the engine.
    Unexpected,
}

impl ErrorKind {
    const fn text(self) -> &'static str {
        match self {
            Self::Invalid => "invalid input",
            Self::Connection => "connection failed",
            Self::Timeout => "timed out",
            Self::Unavailable => "temporarily unavailable",
            Self::Conflict => "conflict",
            Self::NotFound => "not found",
            Self::WrongState => "wrong state",
            Self::Decode => "cannot decode",
            Self::Encode => "cannot encode",
            Self::Config => "configuration error",
            Self::Unsupported => "unsupported",
            Self::Unexpected => "unexpected failure",
        }
    }
}

/// What is known about the effect of a verb that failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Nothing was changed, and nothing will be.
    NotApplied,
    /// It may have happened: the request left, and no answer came back.
    Unknown,
}

/// A failure of a verb of the contract.
///
/// One concrete type for all engines: [`kind`](Self::kind) says what sort it is, [`effect`](Self::effect) whether
/// the verb may have happened, [`is_retryable`](Self::is_retryable) whether the same call may succeed later.
/// Passwords and URLs that hold one never appear in it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    effect: Effect,
    operation: &'static str,
    backend: &'static str,
    message: String,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind` of which it is known that nothing was changed.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            effect: Effect::NotApplied,
            operation: "",
            backend: "",
            message: message.into(),
            source: None,
        }))
    }

    /// [`ErrorKind::Invalid`]: the message names the field, the value and the limit.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Says that the verb may have happened all the same.
    #[must_use]
    pub fn effect_unknown(mut self) -> Self {
        self.0.effect = Effect::Unknown;
        self
    }

    /// Names the engine and the verb.
    #[must_use]
    pub fn during(mut self, backend: &'static str, operation: &'static str) -> Self {
        self.0.backend = backend;
        self.0.operation = operation;
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the verb may have happened.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// Whether the same call may succeed later without a change of its input.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::Unavailable)
    }

    /// The verb that failed, such as `settle`; empty when it failed before any.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The engine, such as `memory`; empty when it failed before one was asked.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.0.backend
    }

    /// The message alone, without kind, engine and verb.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, effect, operation, backend, message, .. } = &*self.0;
        f.write_str(kind.text())?;
        if !backend.is_empty() {
            write!(f, " ({backend} {operation})")?;
        }
        write!(f, ": {message}")?;
        if *effect == Effect::Unknown {
            f.write_str(" (it may have been applied all the same)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, effect, operation, backend, message, source } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("effect", effect)
            .field("operation", operation)
            .field("backend", backend)
            .field("message", message)
            .field("source", source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn it_says_what_happened_where_and_whether_it_may_have_been_applied() {
        let error = Error::new(ErrorKind::Connection, "the socket closed")
            .during("redis", "settle")
            .effect_unknown()
            .with_source("broken pipe");
        assert_eq!(
            error.to_string(),
            "connection failed (redis settle): the socket closed (it may have been applied all the same)"
        );
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Connection, Effect::Unknown));
        assert_eq!((error.backend(), error.operation()), ("redis", "settle"));
        assert_eq!(error.message(), "the socket closed");
        assert_eq!(error.source().unwrap().to_string(), "broken pipe");
        assert!(format!("{error:?}").contains("Unknown"));
    }

    #[test]
    fn only_what_may_pass_by_itself_is_retryable() {
        use ErrorKind as K;
        let all = [
            (K::Invalid, false),
            (K::Connection, true),
            (K::Timeout, true),
            (K::Unavailable, true),
            (K::Conflict, false),
            (K::NotFound, false),
            (K::WrongState, false),
            (K::Decode, false),
            (K::Encode, false),
            (K::Config, false),
            (K::Unsupported, false),
            (K::Unexpected, false),
        ];
        for (kind, retryable) in all {
            let error = Error::new(kind, "x");
            assert_eq!(error.is_retryable(), retryable, "{kind:?}");
            assert!(error.to_string().ends_with(": x"), "{error}");
            assert_eq!(error.effect(), Effect::NotApplied);
        }
    }

    #[test]
    fn it_fits_in_a_register() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
