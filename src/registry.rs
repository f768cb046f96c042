//! The registry: from a stored name to the code that runs it, with the container already checked.

use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;
use windlass_core::{Kind, Kinds, QueueName};

use crate::codec::Codec;
use crate::context::Context;
use crate::handler::{Decision, FailureCause, Handler, Outcome, RunError};
use crate::job::Job;
use crate::middleware::{Ending, Middleware};
use crate::provide::FromContainer;
use crate::retry::Retry;
use crate::upgrade;

/// The jobs a worker can run, and the container that their dependencies come from. Cheap to clone.
///
/// Registering a job whose dependency the container lacks does not compile, and the message names the missing type.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use windlass::prelude::*;
/// # #[derive(Serialize, Deserialize, Job)]
/// # #[job(name = "greet")]
/// # struct Greet;
/// # #[derive(Clone)] struct Mailer;
/// # impl Handler for Greet {
/// #     type Deps = (Mailer,);
/// #     type Error = Fault;
/// #     async fn handle(_: Self, _: (Mailer,), _: &mut Context) -> Result<Outcome, Fault> { Ok(Outcome::Done) }
/// # }
/// #[derive(Provide)]
/// struct App {
///     mailer: Mailer,
/// }
///
/// let jobs = Registry::new(App { mailer: Mailer }).register::<Greet>();
/// ```
pub struct Registry<C = ()> {
    container: Arc<C>,
    jobs: Jobs,
}

/// A registry without the type of its container, as the worker sees it.
#[derive(Clone, Default)]
pub(crate) struct Jobs {
    runners: Arc<HashMap<Kind, Arc<dyn Runner>>>,
    layers: Arc<Vec<Arc<dyn Middleware>>>,
}

impl<C> Clone for Registry<C> {
    fn clone(&self) -> Self {
        Self { container: Arc::clone(&self.container), jobs: self.jobs.clone() }
    }
}

impl<C> fmt::Debug for Registry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<_> = self.jobs.runners.keys().collect();
        kinds.sort();
        f.debug_struct("Registry").field("kinds", &kinds).finish_non_exhaustive()
    }
}

impl<C: Send + Sync + 'static> Registry<C> {
    /// An empty registry over a container; `()` when no job needs anything.
    #[must_use]
    pub fn new(container: C) -> Self {
        Self { container: Arc::new(container), jobs: Jobs::default() }
    }

    /// Adds a job that handles itself.
    ///
    /// # Panics
    /// When its name or an alias is registered already: two handlers for one stored name cannot both be right.
    #[must_use]
    pub fn register<J>(self) -> Self
    where
        J: Job + Handler<J>,
        J::Deps: FromContainer<C>,
    {
        self.register_with::<J, J>()
    }

    /// Adds a job that `H` handles.
    ///
    /// # Panics
    /// As [`register`](Self::register).
    #[must_use]
    pub fn register_with<H, J>(mut self) -> Self
    where
        J: Job,
        H: Handler<J>,
        H::Deps: FromContainer<C>,
    {
        let runner: Arc<dyn Runner> =
            Arc::new(HandlerRunner::<C, H, J> { container: Arc::clone(&self.container), of: PhantomData });
        let runners = Arc::make_mut(&mut self.jobs.runners);
        let name = const { Kind::from_static(J::NAME) };
        for kind in std::iter::once(name).chain(J::ALIASES.iter().copied().map(Kind::from_static)) {
            assert!(
                runners.insert(kind.clone(), Arc::clone(&runner)).is_none(),
                "a handler for `{kind}` is registered already"
            );
        }
        self
    }

    /// Puts `layer` around every run; the first one added is the outermost.
    #[must_use]
    pub fn layer(mut self, layer: impl Middleware) -> Self {
        Arc::make_mut(&mut self.jobs.layers).push(Arc::new(layer));
        self
    }

    pub(crate) fn container(&self) -> &C {
        &self.container
    }

    pub(crate) fn jobs(&self) -> Jobs {
        self.jobs.clone()
    }
}

impl Jobs {
    pub(crate) fn runner(&self, kind: &Kind) -> Option<&dyn Runner> {
        self.runners.get(kind).map(AsRef::as_ref)
    }

    /// Kinds whose own queue is none of `queues`, with that queue.
    pub(crate) fn outside_of(&self, queues: &[QueueName]) -> Vec<(&Kind, &'static str)> {
        let outside = |queue: &str| !queues.iter().any(|name| name == queue);
        let kinds = self.runners.iter().map(|(kind, runner)| (kind, runner.queue()));
        kinds.filter(|(_, queue)| outside(queue)).collect()
    }

    pub(crate) fn layers(&self) -> &[Arc<dyn Middleware>] {
        &self.layers
    }

    /// The same with one more layer around all others.
    pub(crate) fn outermost(mut self, layer: impl Middleware) -> Self {
        Arc::make_mut(&mut self.layers).insert(0, Arc::new(layer));
        self
    }

    /// The same with one more layer within all others.
    pub(crate) fn innermost(mut self, layer: impl Middleware) -> Self {
        Arc::make_mut(&mut self.layers).push(Arc::new(layer));
        self
    }

    /// What to claim: every name and alias, with the version its type has here.
    pub(crate) fn kinds(&self) -> Kinds {
        self.runners.iter().map(|(kind, runner)| (kind.clone(), runner.version())).collect()
    }
}

/// One kind of job, made ready to run: what remains of a handler and its container when their types are forgotten.
pub(crate) trait Runner: Send + Sync {
    fn version(&self) -> u16;
    /// The named queue its jobs go to unless told otherwise.
    fn queue(&self) -> &'static str;
    fn retry(&self) -> Retry;
    fn run<'a>(&'a self, cx: &'a mut Context) -> BoxFuture<'a, Ending>;
}

struct HandlerRunner<C, H, J> {
    container: Arc<C>,
    of: PhantomData<fn() -> (H, J)>,
}

impl<C, H, J> Runner for HandlerRunner<C, H, J>
where
    C: Send + Sync + 'static,
    J: Job,
    H: Handler<J>,
    H::Deps: FromContainer<C>,
{
    fn version(&self) -> u16 {
        J::VERSION
    }

    fn queue(&self) -> &'static str {
        J::QUEUE
    }

    fn retry(&self) -> Retry {
        J::RETRY
    }

    fn run<'a>(&'a self, cx: &'a mut Context) -> BoxFuture<'a, Ending> {
        Box::pin(async move {
            let body = cx.body();
            let codec = Codec::from_id(body.codec);
            let job = codec.and_then(|codec| upgrade::decode::<J>(codec, body.version, &body.payload));
            let job = match job {
                Ok(job) => job,
                Err(error) => {
                    // Its bytes will not change: Dead, where somebody can look at them.
                    let error = RunError::caused(FailureCause::Codec, error);
                    return Ending::Failed(RunError { decision: Decision::Bury, ..error });
                }
            };
            let deps = H::Deps::from_container(&self.container);
            match H::handle(job, deps, cx).await {
                Ok(Outcome::Value(output)) => match encode_output::<J>(&output, cx.body().codec) {
                    Ok(output) => Ending::Completed(output),
                    Err(error) => Ending::Failed(RunError::caused(FailureCause::Codec, error)),
                },
                Ok(Outcome::Settled(receipt)) => Ending::Settled(receipt),
                Ok(Outcome::Snooze(after)) => Ending::Snoozed(after),
                Ok(Outcome::Cancel(reason)) => Ending::Cancelled(reason),
                Err(error) => {
                    let decision = H::decide(&error);
                    Ending::Failed(RunError::decided(error.into(), decision))
                }
            }
        })
    }
}

/// Writes an output in the codec of its job; `()` is not kept.
pub(crate) fn encode_output<J: Job>(
    output: &J::Output,
    codec: u8,
) -> windlass_core::Result<Option<Box<[u8]>>> {
    if TypeId::of::<J::Output>() == TypeId::of::<()>() {
        return Ok(None);
    }
    Codec::from_id(codec)?.encode_part("output", J::NAME, output).map(Some)
}
