//! Windlass: the engine's own verbs, as a worker calls them, with history kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use windlass::core::{
    At, Claim, Inspect as _, Keep, Kind, Nonce, QueueName, Retention, Ruling, SessionId, StateKind, Verdict,
};
use windlass::prelude::*;
use windlass::{Migrate as _, PostgresOptions};

use crate::course::BATCH;
use crate::stream::System;

#[derive(Clone, Serialize, Deserialize, Job)]
#[job(name = "greet")]
struct Greet {
    text: String,
}

#[derive(Clone)]
pub(crate) struct Windlass {
    queue: Queue<PostgresBackend>,
    session: SessionId,
    verdicts: Vec<Verdict>,
}

impl System for Windlass {
    const NAME: &'static str = "Windlass";

    async fn open(url: &str) -> Self {
        let keep = Keep::new(1 << 40, Duration::from_secs(86_400));
        let retention = Retention { completed: keep, cancelled: keep, dead: keep };
        let options = PostgresOptions::new().retention(retention);
        let backend = PostgresBackend::connect_with(url, options).await.expect("it answers");
        backend.migrate().await.expect("its tables");
        let queue = Queue::new(backend);
        // As a worker does, every few seconds.
        let sweeper = queue.clone();
        tokio::spawn(async move {
            let sweep = windlass::core::Sweep::default();
            loop {
                if let Err(error) = sweeper.backend().sweep(&sweep, At::Server).await {
                    eprintln!("a sweep failed: {error}");
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        Self { queue, session: SessionId::random(), verdicts: Vec::new() }
    }

    async fn push(&self, jobs: usize) {
        let job = Greet { text: "x".repeat(89) };
        self.queue.dispatch_all(std::iter::repeat_n(job, jobs)).await.expect("push");
    }

    /// The claim's share cannot be told apart: this is the time of both.
    async fn claim(&mut self) -> (usize, Duration) {
        let claim = Claim {
            session: self.session,
            nonce: Nonce::random(),
            queues: vec![QueueName::from_static("default")],
            kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
            limit: BATCH,
            ahead: 0,
            suspects: true,
            lease: Duration::from_secs(30),
        };
        let verdicts = std::mem::take(&mut self.verdicts);
        let begun = Instant::now();
        let call = self.queue.backend().settle_and_claim(&verdicts, &claim, At::Server);
        let (settled, claimed) = call.await.expect("settle and claim");
        let took = begun.elapsed();
        assert!(settled.iter().all(|settled| matches!(settled, windlass::core::Settled::Applied(_))));
        let complete = || Ruling::Complete { output: None };
        self.verdicts = claimed.jobs.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
        (self.verdicts.len(), took)
    }

    async fn completed(&self) -> usize {
        if !self.verdicts.is_empty() {
            self.queue.backend().settle(&self.verdicts, At::Server).await.expect("settle");
        }
        let queues = self.queue.backend().queues(At::Server).await.expect("queues");
        let completed: u64 = queues.iter().map(|queue| queue.counts.get(StateKind::Completed)).sum();
        usize::try_from(completed).expect("a count")
    }
}
