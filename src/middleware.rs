//! Middleware: around runs, and before dispatches.

use async_trait::async_trait;
use windlass_core::Result;

use crate::context::Context;
use crate::envelope::{Draft, Envelope, Raw};
use crate::handler::RunError;
use crate::registry::Runner;
use crate::transaction::Receipt;

/// How a run ended, before it becomes a verdict.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ending {
    /// Done, with an encoded output if there is one to keep.
    Completed(Option<Box<[u8]>>),
    /// Settled in the handler's own transaction.
    Settled(Receipt),
    /// It wants to run again later.
    Snoozed(std::time::Duration),
    /// It is no longer wanted.
    Cancelled(String),
    /// It failed.
    Failed(RunError),
}

/// Something that happens around every run: measuring, tracing, setting up, giving up early.
///
/// ```
/// use windlass::prelude::*;
///
/// struct Quiet;
///
/// #[windlass::async_trait]
/// impl Middleware for Quiet {
///     async fn around(&self, cx: &mut Context, next: Next<'_>) -> Ending {
///         if cx.metadata("tenant") == Some("suspended") {
///             return Ending::Snoozed(minutes(5));
///         }
///         next.run(cx).await
///     }
/// }
/// ```
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Runs the rest with `next.run(cx)`, at most once, or ends the run without it. A panic counts as the run's.
    async fn around(&self, cx: &mut Context, next: Next<'_>) -> Ending;
}

/// The rest of the way to the handler.
pub struct Next<'a> {
    pub(crate) layers: &'a [std::sync::Arc<dyn Middleware>],
    pub(crate) runner: &'a dyn Runner,
}

impl Next<'_> {
    /// Goes on to the next layer, and in the end to the handler.
    pub async fn run(self, cx: &mut Context) -> Ending {
        match self.layers.split_first() {
            Some((layer, layers)) => layer.around(cx, Next { layers, runner: self.runner }).await,
            None => self.runner.run(cx).await,
        }
    }
}

impl std::fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next").field("layers_left", &self.layers.len()).finish_non_exhaustive()
    }
}

/// Something that happens before every dispatch of a queue handle: stamping trace ids, routing, refusing.
///
/// ```
/// use windlass::envelope::{Draft, Envelope, Raw};
/// use windlass::prelude::*;
///
/// struct Tenant(&'static str);
///
/// impl OnDispatch for Tenant {
///     fn before(&self, draft: &mut Envelope<Raw, Draft>) -> windlass::Result<()> {
///         draft.set_metadata("tenant", self.0);
///         Ok(())
///     }
/// }
///
/// let queue = Queue::new(MemoryBackend::new()).on_dispatch(Tenant("acme"));
/// ```
pub trait OnDispatch: Send + Sync + 'static {
    /// Sees the draft, may change it, and may refuse it.
    ///
    /// # Errors
    /// An error refuses the dispatch: nothing is stored, and whoever dispatched gets the error.
    fn before(&self, draft: &mut Envelope<Raw, Draft>) -> Result<()>;
}
