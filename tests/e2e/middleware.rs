//! Middleware around runs and before dispatches.

use windlass::envelope::{Draft, Envelope, Raw};
use windlass::prelude::*;
use windlass::{ErrorKind, RunError, StateKind};

use super::support::*;

struct Named(&'static str, Journal);

#[windlass::async_trait]
impl Middleware for Named {
    async fn around(&self, cx: &mut Context, next: Next<'_>) -> Ending {
        assert!(format!("{next:?}").contains("layers_left"));
        self.1.write(format!("{} in", self.0));
        let ending = next.run(cx).await;
        self.1.write(format!("{} out {}", self.0, matches!(ending, Ending::Completed(_))));
        ending
    }
}

#[tokio::test]
async fn layers_go_around_each_other_in_the_order_they_were_added() {
    let world = World::new();
    world.dispatch(finish("job")).await;
    let journal = &world.journal;
    let jobs =
        world.jobs.clone().layer(Named("outer", journal.clone())).layer(Named("inner", journal.clone()));
    world.queue.drain(&jobs).await.assert_clean();
    assert_eq!(journal.lines(), ["outer in", "inner in", "job", "inner out true", "outer out true"]);
}

/// Ends runs by itself, as the tag says.
struct Gate;

#[windlass::async_trait]
impl Middleware for Gate {
    async fn around(&self, cx: &mut Context, next: Next<'_>) -> Ending {
        match cx.tags().first().map(String::as_str) {
            Some("snooze") if cx.fence().epoch == 1 => Ending::Snoozed(minutes(1)),
            Some("cancel") => Ending::Cancelled("gated".to_owned()),
            Some("fail") => Ending::Failed(RunError::new("the gate is closed")),
            Some("panic") => panic!("the gate fell"),
            Some("complete") => Ending::Completed(None),
            _ => next.run(cx).await,
        }
    }
}

#[tokio::test]
async fn a_layer_can_end_a_run_and_its_panic_is_the_runs() {
    let world = World::new();
    let jobs = world.jobs.clone().layer(Gate);
    let mut dispatched = Vec::new();
    for tag in ["snooze", "cancel", "fail", "panic", "complete", "run"] {
        dispatched.push((tag, world.queue.dispatch(finish(tag)).tag(tag).max_attempts(1).await.unwrap()));
    }
    world.queue.drain(&jobs).await;
    for (tag, job) in dispatched {
        let expected = match tag {
            "cancel" => StateKind::Cancelled,
            "fail" | "panic" => StateKind::Dead,
            _ => StateKind::Completed,
        };
        assert_eq!(world.state(&job).await, expected, "{tag}");
    }
    assert_eq!(world.journal.lines(), ["run", "snooze"]);
}

struct Stamp;

impl OnDispatch for Stamp {
    fn before(&self, draft: &mut Envelope<Raw, Draft>) -> windlass::Result<()> {
        if draft.queue().as_str() == "forbidden" {
            return Err(windlass::Error::new(ErrorKind::Invalid, "nobody dispatches there"));
        }
        draft.set_metadata("stamp", draft.kind().to_string());
        draft.set_priority(Priority::HIGH);
        Ok(())
    }
}

#[tokio::test]
async fn a_hook_can_stamp_and_refuse_dispatches_also_from_handlers() {
    let world = World::new();
    let queue = world.queue.clone().on_dispatch(Stamp);
    let job = queue.dispatch(finish("stamped")).await.unwrap();
    let recorded = world.find(&job).await;
    let windlass::Recorded::Ready(envelope) = recorded else { panic!("ready") };
    assert_eq!((envelope.metadata("stamp"), envelope.priority()), (Some("act"), Priority::HIGH));
    let error = queue.dispatch(finish("x")).on("forbidden").await.unwrap_err();
    assert!(error.to_string().contains("nobody dispatches there"));
    assert!(queue.dispatch_all([finish("y")]).on("forbidden").await.is_err());
    queue.dispatch(act("parent", Do::Then("child".to_owned(), Box::new(Do::Finish)))).await.unwrap();
    Worker::new(queue, world.jobs.clone()).until_empty().run().await.unwrap();
    let all = world.queue.backend().recorded();
    let child = all.last().unwrap();
    assert_eq!(child.body.priority, Priority::HIGH, "then-jobs pass the hook too");
    assert_eq!(all.len(), 3);
}
