//! What happens in a history, act by act: dispatches, operators, and what goes wrong.

use std::sync::Arc;
use std::time::Duration;

use windlass::prelude::*;
use windlass_core::{
    Body, Held, JobId, JobRef, Kind, Lease, Manage, NewJob, Nonce, Note, QueueName, Ruling, SessionId,
    Verdict,
};

use crate::history::{History, Plot};
use crate::network::Client;

impl History {
    /// One step of the plot.
    pub(crate) async fn act(&mut self) {
        let trouble = self.plot == Plot::Mixed;
        match self.rng.below(100) {
            0..45 => self.dispatch(),
            45..50 if self.plot != Plot::Lone => self.cancel(),
            50..53 => {
                self.errand(|queue, job| Box::pin(async move { queue.revive(&job).await.is_ok() }), true);
            }
            53..56 if self.plot != Plot::Lone => {
                self.errand(
                    |queue, job| {
                        Box::pin(
                            async move { queue.backend().run_now(&job, windlass::At::Server).await.is_ok() },
                        )
                    },
                    false,
                );
            }
            56..60 => self.pause_or_resume().await,
            60..65 if trouble => {
                let at = self.rng.below(self.seats.len());
                let (seat, time) = (Arc::clone(&self.seats[at]), self.rng.millis(200, 14_000));
                let stage = self.stage.clone();
                stage.lock().cut_off(seat.client(), time);
            }
            65..69 if trouble => self.freeze(),
            69..72 if trouble => {
                let at = self.rng.below(self.seats.len());
                self.seats[at].kill();
                self.stage.lock().fault();
            }
            72..74 if trouble || self.plot == Plot::Fair => {
                let at = self.rng.below(self.seats.len());
                self.seats[at].stop();
            }
            74..84 => self.probe(),
            84..87 => self.await_some(),
            _ => {}
        }
        let pause = match self.rng.below(10) {
            0..5 => self.rng.millis(0, 50),
            5..9 => self.rng.millis(50, 500),
            _ => self.rng.millis(500, 4_000),
        };
        tokio::time::sleep(pause).await;
    }
    pub(crate) fn cancel(&mut self) {
        self.errand(
            |queue, job| Box::pin(async move { queue.cancel(&job, "changed my mind").await.is_ok() }),
            false,
        );
    }

    /// Lets the operator do something about some job.
    pub(crate) fn errand(
        &mut self,
        what: impl FnOnce(Queue<Client>, JobRef) -> futures::future::BoxFuture<'static, bool>,
        dead: bool,
    ) {
        let jobs = if dead { self.stage.lock().dead() } else { self.stage.lock().refs() };
        let late = &jobs[jobs.len().saturating_sub(20)..];
        if let Some(job) = self.rng.pick(late).cloned() {
            let errand = what(self.operator.clone(), job);
            self.errands.spawn(async move {
                errand.await;
            });
        }
    }

    /// Lets a dispatcher wait for the end of some job.
    fn await_some(&mut self) {
        let time = self.rng.millis(0, 3_000);
        self.errand(
            move |queue, job| {
                Box::pin(
                    async move { queue.backend().outcomes(&[job], time, windlass::At::Server).await.is_ok() },
                )
            },
            false,
        );
    }

    pub(crate) async fn pause_or_resume(&mut self) {
        let queue = QueueName::from_static(self.queue_name());
        let engine = self.operator.backend();
        let _ = if self.rng.percent(35) {
            engine.pause(&queue, windlass::At::Server).await
        } else {
            engine.resume(&queue, windlass::At::Server).await
        };
    }

    pub(crate) fn freeze(&mut self) {
        let at = self.rng.below(self.seats.len());
        let (seat, time, stage) =
            (Arc::clone(&self.seats[at]), self.rng.millis(200, 14_000), self.stage.clone());
        if seat.freezer.is_frozen() {
            return;
        }
        let client = seat.client();
        stage.lock().fault();
        stage.lock().freezes(client, true);
        seat.freezer.freeze();
        self.errands.spawn(async move {
            tokio::time::sleep(time).await;
            // Killed and replaced meanwhile: the next one was never frozen.
            if seat.client() == client && seat.freezer.is_frozen() {
                stage.lock().freezes(client, false);
                seat.freezer.thaw();
            }
        });
    }

    /// Says something of a lease that is not its own: an old one, or one with the wrong epoch or nonce, as a store that lost
    /// writes could have given out. All of it must be refused.
    pub(crate) fn probe(&mut self) {
        let (past, standing) = self.stage.lock().leases();
        let rng = &mut self.rng;
        let lease = match rng.below(3) {
            0 => rng.pick(&past).cloned(),
            1 => rng
                .pick(&standing)
                .cloned()
                .map(|lease| Lease { epoch: lease.epoch.wrapping_sub(1), ..lease }),
            _ => rng.pick(&standing).cloned().map(|lease| Lease { nonce: Nonce::from_u128(7), ..lease }),
        };
        let Some(lease) = lease.filter(|lease| !standing.contains(lease)) else { return };
        let queue = self.operator.clone();
        let what = rng.below(4);
        let then = JobId::derived(lease.job.id, 1 << 40, u32::try_from(rng.below(1 << 20)).unwrap_or(0));
        self.errands.spawn(async move {
            let (engine, at) = (queue.backend(), windlass::At::Server);
            // Its lease may have become the present one by the time this arrives: only if it was not forged, and then the
            // job was claimed again, with another nonce.
            match what {
                0 => {
                    let mut note = Note::new(lease);
                    note.push_line("stale");
                    let _ = engine.annotate(&[note], at).await;
                }
                1 => {
                    let held = Held { lease, started: true };
                    let session = SessionId::from_u128(u128::MAX);
                    let _ = engine.extend(session, &[held], Duration::from_secs(60), at).await;
                }
                _ => {
                    let payload = *b"{\"deed\":\"Quick\"}";
                    let then = Body::new(then, lease.job.queue.clone(), Kind::from_static("act"), payload);
                    let ruling = if what == 2 { Ruling::Complete { output: None } } else { Ruling::Release };
                    let verdict = Verdict { then: vec![NewJob::new(then)], ..Verdict::new(lease, ruling) };
                    let _ = engine.settle(&[verdict], at).await;
                }
            }
        });
    }
}
