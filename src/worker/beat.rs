//! The beat: extends every lease in hand three times a lease, on a task of its own, and fences this side when it cannot.
//!
//! A worker that cannot extend stops claiming at once, tells its handlers to stop a tenth of a lease before the engine
//! would hand the jobs on, and drops them at the end: by its own monotonic clock, counted from before each request.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::limits::BATCH_MAX;
use windlass_core::{Held, Kept, Result};

use super::drive::Shared;
use super::simulated::Mutant;
use crate::any::Engine;

pub(crate) async fn run<B: Engine>(shared: Arc<Shared<B>>) {
    tokio::join!(extend(&shared), fence(&shared));
}

/// Keeps an eye on leases in danger: they are, after failed beats. Beside the beats, which an engine may not answer.
async fn fence<B: Engine>(shared: &Shared<B>) {
    let margin = shared.settings.fence_margin();
    loop {
        let now = Instant::now();
        let simulated = &shared.settings.simulated;
        let blind = simulated.is(Mutant::NeverFences)
            || (simulated.is(Mutant::BeatBlocksFence) && simulated.is_beating());
        let danger = if blind { None } else { shared.hand().fence(now, margin) };
        // A claim that was long under way brings leases that are old already, so look once a margin at least.
        let look = now + margin;
        tokio::time::sleep_until(danger.map_or(look, |danger| danger.min(look))).await;
    }
}

async fn extend<B: Engine>(shared: &Shared<B>) {
    let every = shared.settings.beat_every();
    let mut next = Instant::now() + every;
    loop {
        let _ = tokio::time::timeout_at(next, shared.beat_now.notified()).await;
        shared.settings.simulated.beats(true);
        let beaten = beat(shared).await;
        shared.settings.simulated.beats(false);
        match beaten {
            Ok(()) => {
                shared.set_trusted(true);
                next = Instant::now() + every;
            }
            Err(error) => {
                tracing::warn!(%error, "could not extend the leases: no more claims until it works");
                shared.set_trusted(false);
                shared.hand().report.storage_errors += 1;
                next = Instant::now() + (every / 8).max(Duration::from_millis(50));
            }
        }
    }
}

/// One beat, in calls of at most a thousand.
async fn beat<B: Engine>(shared: &Shared<B>) -> Result<()> {
    let mut held = shared.hand().held();
    if shared.settings.simulated.is(Mutant::BeatForgetsVerdicts) {
        held = shared.hand().held_without_verdicts();
    }
    if shared.settings.simulated.is(Mutant::NamesAllStarted) {
        held.iter_mut().for_each(|held| held.started = true);
    }
    for held in held.chunks(BATCH_MAX) {
        let asked = Instant::now();
        let queue = &shared.queue;
        let lease = shared.settings.lease;
        // An engine that does not answer within a beat has not answered: fencing must not wait for it.
        let extend = queue.backend().extend(shared.session, held, lease, queue.at());
        let kept = tokio::time::timeout(shared.settings.beat_every(), extend).await.map_err(|_| {
            windlass_core::Error::new(windlass_core::ErrorKind::Timeout, "no answer to an extend")
                .effect_unknown()
        })??;
        let mut answers: Vec<(Held, Kept)> = held.iter().cloned().zip(kept).collect();
        if shared.settings.simulated.is(Mutant::CancelUnheard) {
            answers.retain(|(_, kept)| *kept != Kept::CancelRequested);
        }
        let mut hand = shared.hand();
        hand.heard(&answers, asked + lease, shared.settings.cancel_grace);
        if hand.has_verdicts() {
            shared.bell.notify_one();
        }
    }
    Ok(())
}
