//! Upkeep: sweeping for all, and listening for wake-ups.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::{Sweep, Wake};

use super::drive::{ListenFor, Shared};
use crate::any::Engine;

/// How much longer than it was asked to an engine may take to answer a wait.
const ANSWER_MOST: Duration = Duration::from_secs(2);

/// How long after a wait that failed the next one begins at the latest.
const AGAIN_MOST: Duration = Duration::from_secs(2);

/// How long an engine is not asked again after an answer that it may repeat for no reason: listening must not spin.
const SAME_AGAIN: Duration = Duration::from_millis(10);

/// Sweeps every few seconds, until there is nothing more to do each time. Workers start at random moments, so that many of
/// them do not sweep at once.
pub(crate) async fn sweep<B: Engine>(shared: Arc<Shared<B>>) {
    let every = shared.settings.sweep_every;
    tokio::time::sleep(shared.queue.entropy().up_to(every)).await;
    loop {
        let queue = &shared.queue;
        match queue.backend().sweep(&Sweep::default(), queue.at()).await {
            Ok(swept) => {
                if swept.buried > 0 {
                    tracing::warn!(
                        jobs = swept.buried,
                        "jobs lost their lease too often and are dead as poison"
                    );
                }
                if swept.reclaimed + swept.promoted > 0 {
                    // Suspects wake nobody: a worker that has one in hand would be woken for nothing.
                    shared.look_again();
                }
                if swept.more {
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not sweep");
                shared.hand().report.storage_errors += 1;
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// Listens for wake-ups: for work only while the drive is hungry, for control always.
pub(crate) async fn listen<B: Engine>(shared: Arc<Shared<B>>) {
    let mut looked = Instant::now();
    loop {
        let appetite = shared.appetite.notified();
        let ListenFor { queues, due, max } = shared.listen_for();
        // An engine that does not answer in time has nothing to say: polling must not depend on it.
        let wait = shared.queue.backend().wait(shared.session, &queues, due, max);
        let wait = tokio::time::timeout(max.saturating_add(ANSWER_MOST), wait);
        let wake = tokio::select! {
            biased;
            wake = wait => wake.unwrap_or(Ok(Wake::Nothing)),
            // What to listen for has changed.
            () = appetite => continue,
        };
        match wake {
            Ok(Wake::Control) => {
                shared.beat_now.notify_one();
                if !queues.is_empty() && looked.elapsed() >= shared.settings.poll {
                    // Nor must polling depend on what else it has to say.
                    looked = Instant::now();
                    shared.look_again();
                }
                // The beat takes the engine what it wants to hear; until then it may say the same again.
                tokio::time::sleep(SAME_AGAIN).await;
            }
            Ok(Wake::Work | Wake::Nothing) if queues.is_empty() => {
                // Nothing was asked for: an engine that answers all the same must not make this spin.
                tokio::time::sleep(SAME_AGAIN).await;
            }
            Ok(Wake::Work | Wake::Nothing) => {
                looked = Instant::now();
                shared.look_again();
                // The drive claims now and then says what to listen for; asking the engine in between would be in vain.
                let _ = tokio::time::timeout(Duration::from_millis(20), shared.appetite.notified()).await;
            }
            Err(error) => {
                tracing::warn!(%error, "could not wait for work; polling");
                shared.hand().report.storage_errors += 1;
                tokio::time::sleep(shared.settings.poll.min(AGAIN_MOST)).await;
                shared.look_again();
            }
        }
    }
}
