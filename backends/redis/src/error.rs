//! What a server or a socket says, in the words of the contract: which kind, and whether the verb may have happened.

use redis::{RedisError, ServerErrorKind};
use windlass_core::{Error, ErrorKind};

/// What to do with the connection on which an error came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// It is sound.
    Keep,
    /// It is dead, silent, or leads to a server that is no longer the one that writes.
    Drop,
    /// The server does not know the script: send its source.
    Load,
    /// The node at this address owns the slot from now on.
    Moved(String),
    /// The node at this address has the slot's key already: ask it, this once.
    Ask(String),
}

/// Reads an error of a request that left (`sent`) or could not.
pub(crate) fn read(error: &RedisError, sent: bool) -> (Error, Then) {
    if error.is_timeout() {
        let text = if sent { "the server did not answer in time" } else { "no connection in time" };
        return (unsure(ErrorKind::Timeout, text, sent), Then::Drop);
    }
    let code = error.code().unwrap_or_default().to_owned();
    let detail = error.detail().unwrap_or_default();
    let known = |kind: ErrorKind, text: String| Error::new(kind, text);
    match error.kind() {
        redis::ErrorKind::Io | redis::ErrorKind::Parse => {
            (unsure(ErrorKind::Connection, &text_of(error), sent), Then::Drop)
        }
        redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
            (known(ErrorKind::Unavailable, "the server lost its scripts".to_owned()), Then::Load)
        }
        redis::ErrorKind::Server(ServerErrorKind::BusyLoading) => {
            (known(ErrorKind::Unavailable, "the server is loading its data".to_owned()), Then::Keep)
        }
        redis::ErrorKind::Server(ServerErrorKind::ReadOnly) => replica(),
        redis::ErrorKind::Server(ServerErrorKind::MasterDown) => {
            (known(ErrorKind::Unavailable, "the replica has lost its master".to_owned()), Then::Drop)
        }
        redis::ErrorKind::Server(ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain) => {
            (known(ErrorKind::Unavailable, format!("the cluster is not ready: {code} {detail}")), Then::Keep)
        }
        redis::ErrorKind::Server(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
            let address = error.redirect_node().map(|(address, _)| address.to_owned()).unwrap_or_default();
            let then = if kind == ServerErrorKind::Moved { Then::Moved(address) } else { Then::Ask(address) };
            (known(ErrorKind::Unavailable, "the slot is at another node".to_owned()), then)
        }
        redis::ErrorKind::AuthenticationFailed => {
            (known(ErrorKind::Config, "the server refused the user or the password".to_owned()), Then::Drop)
        }
        redis::ErrorKind::Server(ServerErrorKind::NoPerm) => {
            (known(ErrorKind::Config, format!("the user may not do this: {detail}")), Then::Keep)
        }
        redis::ErrorKind::InvalidClientConfig => (known(ErrorKind::Config, text_of(error)), Then::Drop),
        _ => match refused_in_script(detail) {
            Some("READONLY") => replica(),
            Some(code) => by_code(code, detail, error, sent),
            None => by_code(&code, detail, error, sent),
        },
    }
}

fn replica() -> (Error, Then) {
    let text = "the server is a replica now and takes no writes";
    (Error::new(ErrorKind::Unavailable, text), Then::Drop)
}

/// The refusal that Redis 6.2 wraps into an error of the script that it ended; later versions give it as it is. Only those
/// that meet a script's first write, so that nothing was written before: `OOM` is not looked at after it, the others hold for
/// every write.
fn refused_in_script(detail: &str) -> Option<&str> {
    let (_, refusal) = detail.strip_prefix("Error running script ")?.split_once(": -")?;
    let code = refusal.split_whitespace().next()?;
    ["OOM", "READONLY", "MISCONF"].contains(&code).then_some(code)
}

/// Codes that the client library has no names for, ours among them.
fn by_code(code: &str, detail: &str, error: &RedisError, sent: bool) -> (Error, Then) {
    let unavailable = |text: &str| (Error::new(ErrorKind::Unavailable, text.to_owned()), Then::Keep);
    match code {
        "WLMODE" => (
            Error::new(
                ErrorKind::Config,
                "this namespace is timed the other way: server time and virtual time cannot be mixed, use a namespace \
                 of its own for each",
            ),
            Then::Keep,
        ),
        "WLFORMAT" => (
            Error::new(
                ErrorKind::Config,
                format!("the data is of format {detail}, newer than this version of the library: update it"),
            ),
            Then::Keep,
        ),
        "WLPARENT" => (
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "parent {detail} is not stored: dispatch it first, or earlier in the same batch; a finished job is \
                     kept for its retention only"
                ),
            ),
            Then::Keep,
        ),
        "OOM" => unavailable("the server's memory is full (maxmemory)"),
        "BUSY" => unavailable("the server is busy with a script of somebody else's"),
        "MISCONF" => unavailable("the server cannot write to its disk and takes no writes"),
        "NOREPLICAS" => unavailable("the server has too few replicas and takes no writes"),
        "UNBLOCKED" => (unsure(ErrorKind::Unavailable, "the server changed its role", sent), Then::Drop),
        "NOAUTH" | "WRONGPASS" | "DENIED" => {
            (Error::new(ErrorKind::Config, "the server wants another user or password"), Then::Drop)
        }
        "ERR" if detail.contains("max number of clients") => {
            (Error::new(ErrorKind::Unavailable, "the server has too many clients"), Then::Drop)
        }
        // A script that fails half way keeps what it wrote.
        _ => (unsure(ErrorKind::Unexpected, &text_of(error), sent), Then::Keep),
    }
}

fn unsure(kind: ErrorKind, text: &str, sent: bool) -> Error {
    let error = Error::new(kind, text.to_owned());
    if sent { error.effect_unknown() } else { error }
}

/// The error in its own words, which hold no URL.
fn text_of(error: &RedisError) -> String {
    windlass_core::limits::clip(&error.to_string(), 300)
}

#[cfg(test)]
mod tests {
    use windlass_core::Effect;

    use super::*;

    fn of(line: &str) -> (Error, Then) {
        let parsed = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("an answer");
        let redis::Value::ServerError(error) = parsed else { panic!("no error: {parsed:?}") };
        read(&error.into(), true)
    }

    #[test]
    fn every_class_of_refusal_has_its_kind_and_was_not_applied() {
        use ErrorKind as K;
        let all = [
            ("READONLY You can't write against a read only replica.", K::Unavailable, Then::Drop),
            ("LOADING Redis is loading the dataset in memory", K::Unavailable, Then::Keep),
            ("MASTERDOWN Link with MASTER is down", K::Unavailable, Then::Drop),
            ("CLUSTERDOWN Hash slot not served", K::Unavailable, Then::Keep),
            ("TRYAGAIN Multiple keys request during rehashing", K::Unavailable, Then::Keep),
            ("BUSY Redis is busy running a script.", K::Unavailable, Then::Keep),
            ("OOM command not allowed when used memory > 'maxmemory'.", K::Unavailable, Then::Keep),
            ("MISCONF Redis is configured to save RDB snapshots", K::Unavailable, Then::Keep),
            ("NOREPLICAS Not enough good replicas to write.", K::Unavailable, Then::Keep),
            ("NOSCRIPT No matching script. Please use EVAL.", K::Unavailable, Then::Load),
            ("ERR max number of clients reached", K::Unavailable, Then::Drop),
            ("MOVED 3999 127.0.0.1:6381", K::Unavailable, Then::Moved("127.0.0.1:6381".to_owned())),
            ("ASK 3999 127.0.0.1:6381", K::Unavailable, Then::Ask("127.0.0.1:6381".to_owned())),
            ("NOAUTH Authentication required.", K::Config, Then::Drop),
            ("WRONGPASS invalid username-password pair", K::Config, Then::Drop),
            ("NOPERM this user has no permissions", K::Config, Then::Keep),
            ("WLMODE timed the other way", K::Config, Then::Keep),
            ("WLFORMAT 2", K::Config, Then::Keep),
            ("WLPARENT 00000000-0000-0000-0000-000000000001", K::NotFound, Then::Keep),
            (
                "ERR Error running script (call to f_16): @user_script:32: @user_script: 32: -OOM command not allowed \
                 when used memory > 'maxmemory'.",
                K::Unavailable,
                Then::Keep,
            ),
            (
                "ERR Error running script (call to f_16): @user_script:32: @user_script: 32: -READONLY You can't write \
                 against a read only replica.",
                K::Unavailable,
                Then::Drop,
            ),
            (
                "ERR Error running script (call to f_16): @user_script:32: @user_script: 32: -MISCONF Redis is \
                 configured to save RDB snapshots",
                K::Unavailable,
                Then::Keep,
            ),
        ];
        for (line, kind, then) in all {
            let (error, what) = of(line);
            assert_eq!((error.kind(), what), (kind, then), "{line}: {error}");
            assert_eq!(error.effect(), Effect::NotApplied, "{line}");
        }
    }

    #[test]
    fn what_may_have_happened_says_so() {
        for line in [
            "ERR user_script:1: attempt to index a nil value",
            "ERR Error running script (call to f_16): @user_script:1: user_script:1: attempt to index a nil value",
            "ERR Error running script (call to f_16): @user_script:1: -WRONGTYPE Operation against a key",
        ] {
            let (error, then) = of(line);
            let wanted = (ErrorKind::Unexpected, Effect::Unknown, Then::Keep);
            assert_eq!((error.kind(), error.effect(), then), wanted, "{line}");
        }
        let (error, then) = of("UNBLOCKED force unblock from blocking operation");
        assert_eq!((error.effect(), then), (Effect::Unknown, Then::Drop));
        let broken = || RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        let late = || RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        for (error, kind) in [(broken(), ErrorKind::Connection), (late(), ErrorKind::Timeout)] {
            assert_eq!((read(&error, true).0.kind(), read(&error, true).1), (kind, Then::Drop));
            assert_eq!(read(&error, true).0.effect(), Effect::Unknown);
            assert_eq!(read(&error, false).0.effect(), Effect::NotApplied);
        }
    }
}
