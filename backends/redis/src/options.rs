//! The settings of a Redis engine.

use std::fmt;
use std::time::Duration;

use windlass_core::{Error, ErrorKind, Result, Retention};

use crate::sentinel::Sentinels;

/// What an acknowledged dispatch or verdict has reached.
///
/// It holds for `push`, `settle` and `settle_and_claim`. What could not reach it in time is an error that says
/// [`Effect::Unknown`](windlass_core::Effect::Unknown): it is stored, and may be lost with the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Durability {
    /// The server's memory. What it loses with the process is what its `appendfsync` or `save` allows.
    #[default]
    Fast,
    /// The server's disk: `WAITAOF 1 0`, since Redis 7.2. Older servers must have `appendfsync always`, or are refused
    /// at connect.
    Local,
    /// The memory of so many replicas: `WAIT`.
    Replicated(u8),
}

/// Settings of a Redis engine.
///
/// ```
/// use windlass_redis::{Durability, RedisOptions};
///
/// let options = RedisOptions::new("redis://127.0.0.1:6379").namespace("shop").durability(Durability::Local);
/// # drop(options);
/// ```
#[derive(Clone)]
#[must_use]
pub struct RedisOptions {
    pub(crate) url: String,
    pub(crate) namespace: String,
    pub(crate) retention: Retention,
    pub(crate) durability: Durability,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) allow_eviction: bool,
    pub(crate) root_certificates: Option<Vec<u8>>,
    pub(crate) sentinels: Option<Sentinels>,
}

impl RedisOptions {
    /// A server at `redis://` or `rediss://` (TLS, whose certificate is verified), or the master that Sentinels name at
    /// `redis+sentinel://[user:password@]host[:port][,host[:port]]../master[/database]`, with the defaults of everything
    /// else: namespace `windlass`, [`Durability::Fast`], timeouts of 5 s. A node of a cluster leads to all of them.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: "windlass".to_owned(),
            retention: Retention::default(),
            durability: Durability::default(),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
            allow_eviction: false,
            root_certificates: None,
            sentinels: None,
        }
    }

    /// What its keys begin with, so that several applications can share a server: 1 to 128 bytes of `a-z 0-9 _ . -`,
    /// beginning with a letter or a digit.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How long finished jobs are kept. All processes of a namespace should say the same: each forgets by its own setting.
    pub const fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// What an acknowledged dispatch or verdict has reached.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long to wait for a connection.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long to wait for an answer before the connection counts as dead.
    pub const fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Connects although the server may evict keys when it is full (`maxmemory-policy` other than `noeviction`): then
    /// jobs can vanish.
    pub const fn allow_eviction(mut self) -> Self {
        self.allow_eviction = true;
        self
    }

    /// Trusts these root certificates (PEM) instead of the system's, for `rediss://`.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    /// The same with the address taken apart.
    pub(crate) fn resolved(mut self) -> Result<Self> {
        if let Some(sentinels) = Sentinels::read(&self.url) {
            let sentinels = sentinels?;
            self.url.clone_from(&sentinels.base);
            self.sentinels = Some(sentinels);
        }
        Ok(self)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        windlass_core::QueueName::new(&self.namespace).map_err(|_| {
            Error::new(
                ErrorKind::Config,
                "the namespace is not a legal name: use 1 to 128 bytes of a-z, 0-9, '_', '.', '-', beginning with a \
                 letter or a digit",
            )
        })?;
        if self.connect_timeout.is_zero() || self.response_timeout.is_zero() {
            return Err(Error::new(ErrorKind::Config, "a timeout of 0 s would let no answer through"));
        }
        if self.durability == Durability::Replicated(0) {
            return Err(Error::new(
                ErrorKind::Config,
                "Replicated(0) waits for nobody: use Fast, or 1 and more",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for RedisOptions {
    /// Leaves the URL out: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("namespace", &self.namespace)
            .field("retention", &self.retention)
            .field("durability", &self.durability)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("allow_eviction", &self.allow_eviction)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_and_no_password_is_shown() {
        let fine = RedisOptions::new("redis://:secret@localhost");
        fine.validate().expect("the defaults");
        assert!(!format!("{fine:?}").contains("secret"));
        let bad = [
            fine.clone().namespace("a:b"),
            fine.clone().namespace("{x}"),
            fine.clone().response_timeout(Duration::ZERO),
            fine.clone().durability(Durability::Replicated(0)),
        ];
        for options in bad {
            assert_eq!(options.validate().expect_err("refused").kind(), ErrorKind::Config);
        }
    }
}
