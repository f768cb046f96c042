//! What an engine may offer beyond [`Backend`]: connecting by URL, migrating, joining a caller's transaction.

use std::future::Future;

use crate::{At, Backend, NewJob, Pushed, Result, Settled, Verdict};

/// Engines that are opened by a URL.
pub trait Connect: Backend {
    /// The URL schemes it answers to, such as `redis` and `rediss`.
    const SCHEMES: &'static [&'static str];

    /// Opens the engine.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a URL or options that cannot work,
    /// [`ErrorKind::Connection`](crate::ErrorKind::Connection) when the engine cannot be reached. The message never
    /// holds a password.
    fn connect(url: &str) -> impl Future<Output = Result<Self>> + Send;
}

/// One step of a schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migration {
    /// Rises from 1.
    pub version: u32,
    /// What it does, in a few words.
    pub name: &'static str,
}

/// Engines with a schema of their own.
pub trait Migrate: Backend {
    /// What [`migrate`](Self::migrate) would do. Changes nothing.
    fn pending(&self) -> impl Future<Output = Result<Vec<Migration>>> + Send;

    /// Brings the schema up to date and returns what was done. Safe to repeat, and safe from two processes at once.
    fn migrate(&self) -> impl Future<Output = Result<Vec<Migration>>> + Send;
}

/// Engines that can join a transaction of the caller's.
pub trait Transactional: Backend {
    /// What the verbs run on: a connection inside a transaction that the caller began and will end.
    type Conn: Send;

    /// [`Backend::push`] within the caller's transaction: the jobs exist if and only if it commits, and nobody sees
    /// them before. Jobs with a limit, with parents, or queued behind a holder may be stored Blocked and be let in by the
    /// next sweep, so that an open transaction never holds a worker up.
    fn push_in(
        &self,
        conn: &mut Self::Conn,
        jobs: &[NewJob],
        at: At,
    ) -> impl Future<Output = Result<Vec<Pushed>>> + Send;

    /// [`Backend::settle`] within the caller's transaction: the verdicts hold if and only if it commits. A lease that
    /// is lost before the commit makes the commit fail.
    fn settle_in(
        &self,
        conn: &mut Self::Conn,
        verdicts: &[Verdict],
        at: At,
    ) -> impl Future<Output = Result<Vec<Settled>>> + Send;
}
