//! Crash safety of a user's own job: it is run once undisturbed, and once for every place where its worker can crash, and
//! the worlds that come out are compared.

use std::fmt::Debug;

use windlass_core::StateKind;
use windlass_memory::MemoryBackend;

use super::crash::Step;
use super::drain::Drained;
use crate::codec::Codec;
use crate::job::Job;
use crate::queue::Queue;
use crate::registry::Registry;

/// Waits of a handler at which its worker is crashed at most: 1,000.
const MOST_WAITS: u32 = 1_000;

/// Repeating the job changes nothing: wherever its worker crashes (before, at every wait of, and after its handler, and
/// after the verdict), the world looks in the end as if it had not, and the same jobs were dispatched.
///
/// `world` makes a fresh registry for every run; `view` looks at its container, and what it returns is compared. Give
/// fakes of your services that remember what was done to them.
///
/// Returns at how many places the worker was crashed.
///
/// ```
/// # use std::collections::BTreeMap;
/// # use std::sync::{Arc, Mutex};
/// # use serde::{Deserialize, Serialize};
/// use windlass::prelude::*;
/// use windlass::testing::assert_idempotent;
///
/// /// A payment service that absorbs repeats by a key.
/// #[derive(Clone, Default)]
/// struct Payments(Arc<Mutex<BTreeMap<String, u32>>>);
///
/// #[derive(Serialize, Deserialize, Job)]
/// #[job(name = "charge")]
/// struct Charge { cents: u32 }
///
/// impl Handler for Charge {
///     type Deps = (Payments,);
///     type Error = Fault;
///
///     async fn handle(job: Self, (payments,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
///         payments.0.lock().unwrap().insert(cx.idempotency_key().to_string(), job.cents);
///         Ok(Outcome::Done)
///     }
/// }
///
/// #[derive(Clone, Default, Provide)]
/// struct App { payments: Payments }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// assert_idempotent(
///     Charge { cents: 995 },
///     || Registry::new(App::default()).register::<Charge>(),
///     async |app| app.payments.0.lock().unwrap().clone(),
/// )
/// .await;
/// # }
/// ```
///
/// # Panics
/// When a world differs; the message names the place of the crash and shows both.
pub async fn assert_idempotent<J, C, V>(
    job: J,
    world: impl Fn() -> Registry<C>,
    view: impl AsyncFn(&C) -> V,
) -> usize
where
    J: Job,
    C: Send + Sync + 'static,
    V: PartialEq + Debug,
{
    let undisturbed = once(&job, &world, &view, None).await;
    crash_everywhere(async |step| {
        let crashed = once(&job, &world, &view, Some(step)).await;
        assert!(
            crashed.view == undisturbed.view && crashed.dispatched == undisturbed.dispatched,
            "`{}` is not idempotent: after a crash {} the world is another one\n\n  undisturbed:  {:?}\n  after crash:  {:?}\n\n  dispatched undisturbed:\n{}\n  dispatched after crash:\n{}",
            J::NAME,
            place(step),
            undisturbed.view,
            crashed.view,
            lines(&undisturbed.dispatched),
            lines(&crashed.dispatched),
        );
        crashed
    })
    .await
}

/// Whatever crash befalls its worker, the job completes, and what it is for has `happened`, once or more.
///
/// Returns at how many places the worker was crashed.
///
/// # Panics
/// When it did not; the message names the place of the crash.
pub async fn assert_at_least_once<J, C>(
    job: J,
    world: impl Fn() -> Registry<C>,
    happened: impl AsyncFn(&C) -> bool,
) -> usize
where
    J: Job,
    C: Send + Sync + 'static,
{
    crash_everywhere(async |step| {
        let crashed = once(&job, &world, &happened, Some(step)).await;
        assert!(
            crashed.view && crashed.state == Some(StateKind::Completed),
            "`{}` is not done at least once: after a crash {} it is {} and its effect {}\n  failures: {:?}",
            J::NAME,
            place(step),
            crashed.state.map_or("gone", StateKind::as_str),
            if crashed.view { "happened" } else { "did not happen" },
            crashed.drained.failures,
        );
        crashed
    })
    .await
}

/// What came out of one run.
struct World<V> {
    view: V,
    /// Kind, queue and payload of everything but the job itself, sorted: a repeat may come later than others.
    dispatched: Vec<String>,
    state: Option<StateKind>,
    drained: Drained,
    /// Whether the handler was cut off while it waited, rather than done by then.
    cut_off: bool,
}

async fn once<J, C, V>(
    job: &J,
    world: impl Fn() -> Registry<C>,
    view: &impl AsyncFn(&C) -> V,
    crash: Option<Step>,
) -> World<V>
where
    J: Job,
    C: Send + Sync + 'static,
{
    let queue = Queue::<MemoryBackend>::fake();
    let jobs = world();
    // A job need not be `Clone`: its codec makes the copy, as it does on the way through an engine.
    let copy = Codec::Json.encode(J::NAME, job).and_then(|bytes| Codec::Json.decode::<J>(&bytes));
    let sent = match copy {
        Ok(copy) => queue.dispatch(copy).await,
        Err(error) => Err(error.into()),
    };
    let sent = sent.unwrap_or_else(|error| panic!("`{}` could not be dispatched: {error}", J::NAME));
    if let Some(step) = crash {
        queue.crash_worker(step);
    }
    let drained = queue.drain(&jobs).await;
    let snapshot = queue.snapshot();
    let others = snapshot.entries().iter().skip(1);
    let mut dispatched: Vec<String> = others
        .map(|entry| {
            format!("{} on \"{}\" {}", entry.kind(), entry.queue(), super::text::payload(entry.body()))
        })
        .collect();
    dispatched.sort();
    World {
        view: view(jobs.container()).await,
        dispatched,
        state: queue.backend().peek(sent.job_ref()).map(|record| record.state.kind()),
        drained,
        cut_off: queue.harness().is_some_and(|harness| harness.was_cut_off()),
    }
}

/// Runs once for each place of a crash, and counts them: at every wait until the handler is done before the next.
async fn crash_everywhere<V>(run: impl AsyncFn(Step) -> World<V>) -> usize {
    let mut places = 0;
    for step in [Step::BeforeHandler, Step::AfterHandler, Step::AfterSettle] {
        run(step).await;
        places += 1;
    }
    for wait in 1..=MOST_WAITS {
        if !run(Step::AtWait(wait)).await.cut_off {
            break;
        }
        places += 1;
    }
    places
}

fn place(step: Step) -> String {
    match step {
        Step::BeforeHandler => "before its handler".to_owned(),
        Step::AfterHandler => "after its handler, before its verdict".to_owned(),
        Step::AfterSettle => "after its verdict".to_owned(),
        Step::DuringHandler => "at the first wait of its handler".to_owned(),
        Step::AtWait(wait) => format!("at wait {wait} of its handler"),
    }
}

fn lines(dispatched: &[String]) -> String {
    if dispatched.is_empty() {
        return "    nothing".to_owned();
    }
    dispatched.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
