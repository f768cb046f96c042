//! What an engine under test gives the suite, and the runner of one property.
//!
//! The runner knows what every property ends with: the counts that the engine keeps must be those of its listing.

use std::future::Future;

use windlass_core::{Backend, Inspect, Manage, Result, Retention, Transactional};

use crate::World;

/// A fresh, empty namespace of an engine, timed virtually, and its siblings.
///
/// It lives as long as the property runs: drop what it made (files, schemas, keys) in its `Drop`.
pub trait Env: Send + Sync + 'static {
    /// The engine.
    type Backend: Backend + Inspect + Manage;

    /// The engine on the namespace of this environment.
    fn backend(&self) -> &Self::Backend;

    /// A second handle on the same store, as another process would have it. A clone where there is no other way.
    fn second(&self) -> impl Future<Output = Self::Backend> + Send {
        std::future::ready(self.backend().clone())
    }

    /// The engine on another fresh namespace, with this retention.
    fn with_retention(&self, retention: Retention) -> impl Future<Output = Self::Backend> + Send;

    /// The engine on another fresh namespace that no verb has touched yet, to be timed by its server.
    fn server_timed(&self) -> impl Future<Output = Self::Backend> + Send;

    /// Names of properties that this engine does not hold, each with the reason.
    #[must_use]
    fn skips() -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// An environment whose engine joins a caller's transaction.
pub trait TransactionalEnv: Env<Backend: Transactional> {
    /// Begins a transaction.
    fn begin(&self) -> impl Future<Output = Result<Conn<Self>>> + Send;

    /// Commits it.
    fn commit(&self, conn: Conn<Self>) -> impl Future<Output = Result<()>> + Send;

    /// Rolls it back.
    fn rollback(&self, conn: Conn<Self>) -> impl Future<Output = Result<()>> + Send;
}

/// What carries a transaction of an environment's engine.
pub type Conn<E> = <<E as Env>::Backend as Transactional>::Conn;

/// Runs one property in a fresh environment, or says why the engine skips it.
///
/// # Panics
/// When the property does not hold, or when the engine's counts differ from its listing afterwards.
#[doc(hidden)]
pub async fn run<E: Env>(
    name: &str,
    fresh: impl AsyncFnOnce() -> E,
    property: impl AsyncFnOnce(&mut World<E>),
) {
    if let Some((_, reason)) = E::skips().iter().find(|(skipped, _)| *skipped == name) {
        println!("skipped: {reason}");
        return;
    }
    let mut world = World::new(fresh().await);
    property(&mut world).await;
    world.check_counts().await;
}
