//! The fake: assertions, draining, and runs that repeat. What failures say is pinned in `tests/harness`.

use windlass::prelude::*;

use super::support::*;

#[derive(serde::Serialize, serde::Deserialize, Job)]
#[job(name = "send_email", queue = "mail", aliases("old_email"))]
struct SendEmail {
    to: String,
}

#[derive(serde::Serialize, serde::Deserialize, Job)]
#[job(name = "old_email")]
struct OldEmail {
    to: String,
}

fn email(to: &str) -> SendEmail {
    SendEmail { to: to.to_owned() }
}

#[tokio::test]
async fn assertions_hold_when_they_should() {
    let queue = Queue::<MemoryBackend>::fake();
    queue.assert_nothing_dispatched();
    queue.assert_not_dispatched::<SendEmail>();
    queue.assert_dispatched_times::<SendEmail>(0);
    queue.dispatch(email("ada@example.com")).await.unwrap();
    queue.dispatch(OldEmail { to: "bob@example.com".to_owned() }).await.unwrap();
    queue.assert_dispatched::<SendEmail>();
    queue.assert_dispatched_with(|job: &SendEmail| job.to == "bob@example.com");
    queue.assert_dispatched_times::<SendEmail>(2);
    queue.assert_not_dispatched::<Act>();
    assert_eq!(
        queue.dispatched::<SendEmail>().get().iter().map(|job| job.to.as_str()).collect::<Vec<_>>(),
        ["ada@example.com", "bob@example.com"]
    );
}

#[tokio::test]
async fn they_still_hold_after_the_jobs_have_run_or_were_cancelled() {
    let world = World::new();
    let job = world.dispatch(finish("a")).await;
    world.dispatch(finish("b")).await;
    world.queue.cancel(job.job_ref(), "no").await.unwrap();
    world.queue.drain(&world.jobs).await;
    world.queue.assert_dispatched_times::<Act>(2);
}

#[tokio::test]
async fn runs_repeat_themselves_to_the_letter() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let world = World::new();
        for n in 0..20 {
            world.dispatch(act(&n.to_string(), Do::FailTimes(n % 3))).await;
        }
        let drained = world.queue.drain(&world.jobs).await;
        let (page, _) = world.queue.list(&windlass::Filter::default(), None, 100).await.unwrap();
        runs.push((drained, world.journal.lines(), format!("{page:?}")));
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
#[should_panic(expected = "drain stopped after 10000 runs without becoming empty")]
async fn a_drain_that_does_not_end_says_so() {
    let world = World::new();
    world.dispatch(act("again and again", Do::Snooze(seconds(1)))).await;
    world.queue.drain(&world.jobs).await;
}

#[tokio::test]
#[should_panic(expected = "expected a clean drain, but 1 jobs are dead, 0 cancelled, 0 lost, 0 left")]
async fn a_drain_that_is_not_clean_says_why() {
    let world = World::new();
    world.dispatch(act("bad", Do::Bury("no".to_owned()))).await;
    world.queue.drain(&world.jobs).await.assert_clean();
}

#[tokio::test]
#[should_panic(expected = "only a fake queue can be drained")]
async fn only_a_fake_is_drained() {
    let _ = Queue::new(MemoryBackend::new()).drain(&World::new().jobs).await;
}
