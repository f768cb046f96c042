//! Real signals of the operating system.
#![cfg(unix)]

use std::future::Future as _;

use windlass::prelude::*;

use super::support::*;

#[tokio::test]
async fn a_worker_stops_gracefully_at_sigterm() {
    let world = World::new();
    let job = world.dispatch(act("running", Do::SleepDeaf(milliseconds(300)))).await;
    let mut signal = Box::pin(shutdown_signal());
    // The first poll installs the handlers; before it the signal would end this process.
    let installed =
        std::future::poll_fn(|cx| std::task::Poll::Ready(signal.as_mut().poll(cx).is_pending())).await;
    assert!(installed);
    let worker = tokio::spawn(world.worker().run_until(signal));
    while world.journal.lines().is_empty() {
        tokio::task::yield_now().await;
    }
    let me = std::process::id().to_string();
    let sent = std::process::Command::new("kill").args(["-TERM", &me]).status().unwrap();
    assert!(sent.success());
    let report = worker.await.unwrap().unwrap();
    assert_eq!(report.completed, 1, "what ran was allowed to finish");
    assert_eq!(world.state(&job).await, windlass::StateKind::Completed);
}
